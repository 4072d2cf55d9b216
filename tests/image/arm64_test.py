"""The image for arm64: the same Dockerfile, by a cross compiler. Its program runs by emulation."""

import subprocess

import containers
from support import TOOLS
from support.api import Client, v1
from support.process import PATIENCE, clean_environment, eventually

EMULATOR = TOOLS / "image/packages/usr/bin/qemu-aarch64-static"
# Of the ELF header: 64 bits, least significant byte first; and the machine, EM_AARCH64.
LITTLE_64, AARCH64 = b"\x7fELF\x02\x01", (183).to_bytes(2, "little")


def test_it_has_what_the_other_has_and_its_program_is_for_arm64(image, arm64):
    with containers.mounted(image) as native, containers.mounted(arm64) as foreign:
        names = [sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in (native, foreign)]
        assert names[0] == names[1]
        header = (foreign / "usr/local/bin/session-sidecar").read_bytes()[:20]
        assert header[:6] == LITTLE_64 and header[18:] == AARCH64
        schema = "usr/share/session-sidecar/descriptors.binpb"
        assert (native / schema).read_bytes() == (foreign / schema).read_bytes()


def test_its_program_serves(arm64, tmp_path):
    socket = f"unix:{tmp_path}/api.sock"
    with containers.mounted(arm64) as root:
        program = [EMULATOR, root / "usr/local/bin/session-sidecar"]
        serve = [*program, "serve", "--listen", f"unix://{tmp_path}/api.sock", "--admin-listen", "127.0.0.1:0"]
        with subprocess.Popen(serve, env=clean_environment()) as sidecar:
            try:
                healthcheck = [*program, "healthcheck", "--target", socket]
                healthy = lambda: subprocess.run(healthcheck, env=clean_environment(), capture_output=True, check=False).returncode == 0
                eventually(healthy, "it serves")
                with Client(socket) as client:
                    created = client.create(subject="ada")
                    status = client.sessions.Check(v1.CheckRequest(session_id=created.session_id)).session.status
                    assert status.state == v1.SESSION_STATE_ACTIVE
            finally:
                sidecar.terminate()
            assert sidecar.wait(PATIENCE) == 0
