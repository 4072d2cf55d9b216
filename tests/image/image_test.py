"""The image: what is in it, and what it does when it runs as docs/install.md says."""

import json
import os
import stat
import subprocess
import tomllib
from pathlib import Path
from signal import Signals

import pytest

import containers
import names
from containers import HARDENED, SOCKET, running
from support import REPOSITORY, TOOLS
from support.api import Client, v1
from support.process import clean_environment, eventually, tool

LISTEN = f"SESSION_SIDECAR_LISTEN=tcp://127.0.0.1:50151 unix://{SOCKET}?mode=0666"
CARGO = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["package"]
LARGEST = 25_000_000


@pytest.fixture
def socket(image):
    """A hardened sidecar, and its socket as this machine sees it."""
    with containers.volume() as (name, files):
        with running(image, options=[*HARDENED, "--volume", f"{name}:/run/session-sidecar", "--env", LISTEN]) as sidecar:
            sidecar.await_log('"serving"')
            yield sidecar, files / "api.sock"


@pytest.fixture(scope="module")
def files(image):
    """The image's files."""
    with containers.mounted(image) as root:
        yield root


def test_it_says_what_it_is(image):
    config = containers.inspect(image, "image")
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items() if key.startswith("org.opencontainers.image.")}
    assert labels["title"] == CARGO["name"] and labels["licenses"] == CARGO["license"]
    assert labels["version"] == CARGO["version"], "the Dockerfile's VERSION follows Cargo.toml"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
    assert labels["revision"] == head, "the image is of another commit: build it again"
    assert config["User"] == "65532:65532"
    assert config["Config"]["Entrypoint"] == ["/usr/local/bin/session-sidecar"] and config["Config"]["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/session-sidecar", "healthcheck"]


def test_it_is_small(image):
    assert containers.inspect(image, "image")["Size"] <= LARGEST


def test_nothing_in_it_can_be_run_but_the_sidecar(files):
    runnable = set()
    for path in files.rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), f"{path} lends somebody's rights"
        if stat.S_ISREG(mode) and (mode & 0o111 or path.read_bytes()[:4] == b"\x7fELF"):
            runnable.add(str(path.relative_to(files)))
    assert runnable == {"usr/local/bin/session-sidecar"}


def test_the_sidecar_owns_nothing_but_the_directory_of_its_socket(files):
    places = [files, *(path for place in ("etc", "run", "usr", "var") for path in (files / place, *(files / place).rglob("*")))]
    owned = {str(path.relative_to(files)) for path in places if path.exists() and path.lstat().st_uid != 0}
    assert owned == {"run/session-sidecar"}


def test_it_runs_as_nobody_with_no_rights_on_a_read_only_root(socket):
    sidecar, path = socket
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{sidecar.pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65532"] * 4 and status["Gid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    root = next(line.split() for line in Path(f"/proc/{sidecar.pid}/mounts").read_text().splitlines() if line.split()[1] == "/")
    assert "ro" in root[3].split(",")
    with Client(f"unix:{path}") as client:
        created = client.create(subject="ada")
        assert client.sessions.Check(v1.CheckRequest(session_id=created.session_id)).session.status.state == v1.SESSION_STATE_ACTIVE
    assert "panicked" not in sidecar.logs()


def thp(container) -> str:
    [line] = [line for line in Path(f"/proc/{container.pid}/status").read_text().splitlines() if line.startswith("THP_enabled:")]
    return line.split()[1]


def test_huge_pages_wait_for_sessions_in_a_container_too(socket):
    """What docs/install.md promises of them needs two system calls that an engine could forbid."""
    sidecar, path = socket
    assert thp(sidecar) == "0"
    with Client(f"unix:{path}") as client:
        creating = [client.sessions.Create.future(v1.CreateRequest(), timeout=60) for _ in range(20_100)]
        assert all(one.result().session_id for one in creating)
    eventually(lambda: thp(sidecar) == "1", "it lets them come")


def test_no_shell_can_be_started_in_it(socket):
    sidecar, _ = socket
    for shell in ("/bin/sh", "sh", "bash", "/busybox/sh"):
        done = sidecar.exec(shell, "-c", "true", check=False)
        assert done.returncode == 127, f"there is a {shell}: {done.stderr}"


def test_its_health_check_tells_a_sidecar_that_serves_from_one_that_does_not(image, socket):
    sidecar, _ = socket
    assert containers.podman("healthcheck", "run", sidecar.name, check=False).returncode == 0
    assert sidecar.exec("session-sidecar", "healthcheck").stdout.strip() == "serving"
    with running(image, options=[*HARDENED, "--env", "SESSION_SIDECAR_LISTEN=tcp://127.0.0.1:50160"]) as elsewhere:
        elsewhere.await_log('"serving"')
        assert containers.podman("healthcheck", "run", elsewhere.name, check=False).returncode == 1


def test_sigterm_drains_it(socket):
    sidecar, path = socket
    with Client(f"unix:{path}") as client:
        watch = client.watch()
        assert next(watch).HasField("snapshot_end")
        sidecar.kill(Signals.SIGTERM)
        goodbye = next(watch)
        assert goodbye.HasField("draining") and goodbye.resume_token
        assert next(watch, None) is None, "the stream ends with OK"
    assert containers.wait_for_exit(sidecar) == 0


def test_a_wrong_setting_is_told_and_ends_it_with_64(image):
    done = containers.podman("run", "--rm", *HARDENED, "--env", "SESSION_SIDECAR_LISTEN=tcp://0.0.0.0:50151", image, check=False)
    assert done.returncode == 64 and "--allow-plaintext" in done.stderr


def test_names_are_resolved_without_a_c_library(image):
    """A C library that is linked in loads what resolves names when it needs it, or has it built in. This image has nothing to load."""
    asked = ["--volume", f"{names.program()}:/names.py:ro", "--cap-add", "NET_BIND_SERVICE"]
    with running("docker.io/library/debian:bookworm", "python3", "/names.py", "store.internal", options=asked) as server:
        server.await_log("answering")
        address = containers.inspect(server.name)["NetworkSettings"]["IPAddress"]
        network = [*HARDENED, "--dns", address, "--add-host", f"store.hosts:{address}"]
        key = REPOSITORY / "LICENSE"  # Any file of 32 bytes.
        for name in ("store.internal", "store.hosts", "store.unknown"):
            check = ["store", "check", "--store", f"redis://{name}:6379", "--store-key-file", "/key"]
            done = containers.podman("run", "--rm", *network, "--volume", f"{key}:/key:ro", image, *check, check=False)
            told = done.stdout + done.stderr
            assert done.returncode != 0, "nobody listens there"
            assert ("resolve" in told or "lookup" in told) == (name == "store.unknown"), told


def test_the_descriptor_set_calls_it(files, socket):
    _, path = socket
    schema = files / "usr/share/session-sidecar/descriptors.binpb"
    call = [tool("buf"), "curl", "--schema", f"{schema}#format=binpb", "--protocol", "grpc", "--unix-socket", path]
    call += ["--http2-prior-knowledge", "--data", '{"subject": "ada"}', "http://localhost/sessionsidecar.v1.SessionService/Create"]
    answer = json.loads(subprocess.run(call, env=clean_environment(), capture_output=True, text=True, check=True).stdout)
    assert answer["session"]["subject"] == "ada" and answer["sessionId"]


def test_a_second_build_is_the_same(image, request):
    """All of it but what buildah notes in the history: the names of images that it made on the way, and when, which differ with what it had cached."""
    again = request.config.getoption("--again")
    first, second = (containers.inspect(name, "image") for name in (image, again))
    for told in (first, second):
        assert told.pop("RepoTags") and told["RootFS"]["Layers"]
        told["History"] = [{key: value for key, value in step.items() if key not in ("comment", "created")} for step in told["History"]]
        for of_this_build in ("Id", "Digest", "RepoDigests", "Parent", "NamesHistory"):
            told.pop(of_this_build)
    assert first == second


def test_all_its_files_have_the_time_of_the_commit(files):
    when = int(subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout)
    ours = [path for path in (files / "usr/local").rglob("*") if path.is_file()]
    assert ours and all(int(path.stat().st_mtime) == when for path in ours)


def test_the_bill_of_materials_names_every_crate(image, tmp_path):
    """syft reads it out of the program itself: it holds for what runs, however it came there."""
    archive, bill = tmp_path / "image.tar", tmp_path / "bill.json"
    containers.podman("save", "--quiet", "--format", "docker-archive", "--output", str(archive), image)
    environment = clean_environment(HOME=str(tmp_path), SYFT_CHECK_FOR_APP_UPDATE="false")
    scan = [TOOLS / "image/venv/bin/syft", "scan", f"docker-archive:{archive}", "--output", f"cyclonedx-json={bill}", "--quiet"]
    subprocess.run(scan, env=environment, check=True)
    told = json.loads(bill.read_text())
    assert told["bomFormat"] == "CycloneDX"
    found = {(part["name"], part["version"]) for part in told["components"] if part.get("purl", "").startswith("pkg:cargo/")}
    # Macros run while it is built.
    tree = ["cargo", "tree", "--locked", "--offline", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]
    used = subprocess.run(tree, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    wanted = {(name, version.removeprefix("v")) for name, version, *_ in (line.split() for line in used.splitlines() if line)}
    assert (CARGO["name"], CARGO["version"]) in found
    assert wanted <= found, f"missing: {wanted - found}"
    assert "proptest" not in {name for name, _ in found}, "what only the tests need is not in it"


def test_the_layer_of_dependencies_is_kept_while_only_sources_change(image, tmp_path):
    """With a source that does not compile the build fails at once, and not before."""
    context = tmp_path / "context"
    subprocess.run(["git", "clone", "--quiet", "--shared", REPOSITORY, context], check=True)
    os.symlink(TOOLS, context / ".tools")
    (context / "src/lib.rs").write_text('compile_error!("the source was changed");\n')
    done = subprocess.run([context / "tests/image/build.sh", "localhost/changed"], capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode != 0 and "the source was changed" in told, told
    compiled = {line.split()[1] for line in told.splitlines() if line.strip().startswith("Compiling ")}
    assert compiled == {CARGO["name"]}, "no crate but our own"
