"""Each way that docs/install.md names to get it and run it, by its own commands. Where it says docker, podman does it: nothing that these
commands use is told apart."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import containers
import snippets
from containers import SOCKET, Container, podman
from support import REPOSITORY, TOOLS
from support.process import clean_environment, eventually

DOCKER = f"""#!/bin/sh
# What docs/install.md calls docker.
case $1 in
    build) shift; [ "$1 $3" = "--tag ." ] && exec {REPOSITORY}/tests/image/build.sh "$2" ;;
    compose) shift; exec {TOOLS}/image/venv/bin/podman-compose "$@" ;;
    *) exec podman "$@" ;;
esac
echo "docker $*: not known here" >&2
exit 64
"""
ASK = """
from session_sidecar import Sidecar
sidecar = Sidecar()
assert sidecar.touch(sidecar.create(subject="ada").session_id).allowed
"""


def shell(commands: str, *path: Path, cwd: Path = REPOSITORY, **variables: str) -> str:
    """Runs a snippet as a person would who reads on only if nothing failed."""
    environment = clean_environment(PATH=os.pathsep.join([*map(str, path), str(containers.BIN), os.environ["PATH"]]), **variables)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{commands}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with a docker in it."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    return program.parent


def test_every_way_is_tried():
    assert snippets.headings() == {"The image", "Docker Compose", "A wheel", "systemd"}


def test_the_image(docker, image, tmp_path):
    build, run, use = snippets.of("The image")
    # From the layers of the image under test, unless the sources are others.
    shell(build, docker)
    for kind in (["rm", "--force"], ["volume", "rm", "--force"]):
        podman(*kind, "session-sidecar", check=False)
    try:
        shell(run, docker)
        Container("session-sidecar").await_log('"serving"')
        told = shell(use, docker, cwd=tmp_path)
        assert told.startswith("serving") and "counted" in told, told
        assert Container("session-sidecar").state["ExitCode"] == 0
        shell("docker cp session-sidecar:/usr/share/session-sidecar/descriptors.binpb .", docker, cwd=tmp_path)
        assert b"sessionsidecar.v1" in (tmp_path / "descriptors.binpb").read_bytes()
    finally:
        podman("rm", "--force", "session-sidecar", check=False)
        podman("volume", "rm", "--force", "session-sidecar", check=False)


@pytest.fixture
def composed(docker, image, app) -> Iterator[None]:
    """The compose file's services."""
    [up] = snippets.of("Docker Compose")
    assert "APP_IMAGE=your-application" in up
    names = {"SESSION_SIDECAR_IMAGE": image, "COMPOSE_PROJECT_NAME": "shop"}
    try:
        shell(up.replace("your-application", app), docker, **names)
        yield
    finally:
        shell("docker compose --file packaging/compose.yaml down --volumes", docker, APP_IMAGE=app, **names)


def test_docker_compose(composed):
    sidecar, app = Container("shop_session-sidecar_1"), Container("shop_app_1")
    eventually(lambda: podman("healthcheck", "run", sidecar.name, check=False).returncode == 0, "it is healthy")
    app.exec("python3", "-c", ASK)
    # And the way back, after both were made anew.
    first = sidecar.pid
    sidecar.kill(9)
    eventually(lambda: sidecar.state["Running"] and sidecar.pid != first, "it is started again")
    eventually(lambda: app.exec("python3", "-c", ASK, check=False).returncode == 0, "the application reaches it again")


def test_the_compose_file_is_one():
    check = [TOOLS / "image/venv/bin/check-jsonschema", "--builtin-schema", "vendor.compose-spec", "packaging/compose.yaml"]
    subprocess.run(check, cwd=REPOSITORY, check=True)


@pytest.fixture(scope="module")
def wheel(binary, tmp_path_factory) -> Path:
    """The wheel around the program under test, by the tools and the script of the release."""
    build, _ = snippets.of("A wheel")
    install, command = build.splitlines()
    assert install == "pip install --require-hashes --requirement packaging/wheel/requirements.txt", "as tests/image/setup.sh does"
    assert command == "packaging/wheel/build.sh target/release/session-sidecar dist"
    folder = tmp_path_factory.mktemp("wheel")
    program = folder / "session-sidecar"
    subprocess.run(["strip", "-o", program, binary], check=True)
    shell(f"packaging/wheel/build.sh {program} {folder}/dist", TOOLS / "image/wheel/bin")
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel


def test_a_wheel(wheel, tmp_path):
    """Without a network, and without the client, whose name is another and whose module too."""
    _, install = snippets.of("A wheel")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    told = shell(install, tmp_path / "venv/bin", cwd=wheel.parent.parent, PIP_NO_INDEX="1")
    assert "session-sidecar 0." in told
    python = tmp_path / "venv/bin/python"
    shell(f"{python} -m session_sidecar_server check-config")
    program = shell(f"{python} -c 'import session_sidecar_server as s; print(s.program())'").strip()
    assert Path(program).samefile(tmp_path / "venv/bin/session-sidecar")
    files = json.loads(shell(f"{python} -m pip inspect"))["installed"]
    assert {one["metadata"]["name"] for one in files} <= {"session-sidecar-server", "pip", "setuptools"}


def test_the_wheels_name_says_which_c_library_it_needs(wheel, binary):
    needed = subprocess.run(["readelf", "--version-info", "--wide", binary], capture_output=True, text=True, check=True).stdout
    minor = max(int(word.removeprefix("GLIBC_2.").partition(".")[0]) for word in needed.split() if word.startswith("GLIBC_2."))
    machine = os.uname().machine
    assert f"manylinux_2_{minor}_{machine}" in wheel.name.removesuffix(".whl").split("-")[-1].split("."), wheel.name
    shown = shell(f"auditwheel show {wheel}", TOOLS / "image/wheel/bin")
    assert f'"manylinux_2_{minor}_{machine}"' in shown.replace("\n", " ")


def test_a_static_program_is_not_put_into_a_wheel(image, tmp_path):
    """It would resolve names otherwise than the machine it is installed on."""
    with containers.mounted(image) as files:
        program = shutil.copy(files / "usr/local/bin/session-sidecar", tmp_path)
    done = subprocess.run([REPOSITORY / "packaging/wheel/build.sh", program, tmp_path / "dist"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "LINKAGE=dynamic" in done.stderr, done.stderr


def test_the_wheel_has_its_licence_and_no_more_than_it_says(wheel):
    names = {name.partition("/")[2] for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    program = {"scripts/session-sidecar"}
    assert names == program | {"LICENSE", "__init__.py", "__main__.py", "py.typed", "METADATA", "RECORD", "WHEEL"}


@pytest.fixture
def machine(binary, tmp_path) -> Iterator[Container]:
    """A Debian that systemd runs, with the repository's files and the program."""
    program = tmp_path / "session-sidecar"
    subprocess.run(["strip", "-o", program, binary], check=True)
    mounts = ["--volume", f"{REPOSITORY}/packaging:/packaging:ro", "--volume", f"{program}:/usr/local/bin/session-sidecar:ro"]
    options = ["--systemd=always", "--privileged", "--network", "none", *mounts]
    with containers.running("docker.io/library/debian:bookworm", "/sbin/init", options=options) as machine:
        eventually(lambda: machine.exec("systemctl", "is-system-running", check=False).stdout.strip() == "running", "systemd is up")
        yield machine


def unit(machine: Container, *names: str) -> list[str]:
    return [machine.exec("systemctl", "show", "--value", "--property", name, "session-sidecar").stdout.strip() for name in names]


def test_systemd(machine):
    install, settings = snippets.of("systemd")
    # A unit of this type is up when the program runs, before it listens.
    *commands, wait, check = install.splitlines()
    assert wait.startswith("sleep 1 ")
    machine.exec("sh", "-euc", "\n".join(commands))
    eventually(lambda: machine.exec("sh", "-c", check, check=False).stdout == "serving\n", "it serves")
    machine.exec("systemd-analyze", "verify", "session-sidecar.service")

    [pid] = unit(machine, "MainPID")
    status = machine.exec("cat", f"/proc/{pid}/status").stdout
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    # The group may, and nobody else.
    call = f"SESSION_SIDECAR_TARGET=unix:{SOCKET} session-sidecar healthcheck"
    for groups, allowed in (("--clear-groups", False), ("--groups=session-sidecar", True)):
        done = machine.exec("setpriv", "--reuid=nobody", "--regid=nogroup", groups, "sh", "-c", call, check=False)
        assert (done.returncode == 0) == allowed, done.stderr

    # As systemd.exec(5) has it; systemd 252 gives a folder that it makes to the user.
    machine.exec("chown", "root:root", "/etc/session-sidecar")
    machine.exec("sh", "-euc", settings)
    eventually(lambda: machine.exec("sh", "-c", call, check=False).returncode == 0, "it serves again")
    machine.exec("sh", "-euc", f"SESSION_SIDECAR_TARGET=unix:{SOCKET} session-sidecar create --subject ada")
    log = "/var/log/session-sidecar/audit.jsonl"
    eventually(lambda: '"ada"' not in machine.exec("cat", log).stdout and machine.exec("wc", "-l", log).stdout.split()[0] >= "1", "it is noted")
    machine.exec("mv", log, f"{log}.1")
    machine.exec("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "session-sidecar")
    eventually(lambda: machine.exec("test", "-e", log, check=False).returncode == 0, "the audit log is reopened")

    [pid] = unit(machine, "MainPID")
    machine.exec("sh", "-c", f"kill -KILL {pid}")
    eventually(lambda: unit(machine, "NRestarts") == ["1"] and machine.exec("sh", "-c", call, check=False).returncode == 0, "it is started again")
    machine.exec("systemctl", "stop", "session-sidecar")
    assert unit(machine, "Result", "ExecMainStatus") == ["success", "0"], "it drains, with exit code 0"


def test_systemd_does_not_start_again_what_is_configured_wrongly(machine):
    install, _ = snippets.of("systemd")
    machine.exec("sh", "-euc", "mkdir -p /etc/session-sidecar; echo SESSION_SIDECAR_MAX_SESSIONS=none >/etc/session-sidecar/environment")
    machine.exec("sh", "-c", install, check=False)
    eventually(lambda: unit(machine, "ActiveState") == ["failed"], "it is given up")
    assert unit(machine, "ExecMainStatus", "NRestarts") == ["64", "0"]
    assert "--max-sessions" in machine.exec("journalctl", "--no-pager", "--unit", "session-sidecar").stdout


def test_the_units_user_can_read_what_is_configured():
    """By systemd.exec(5) the folder is root's, whoever the user is; what is secret in it has a mode of its own."""
    unit = (REPOSITORY / "packaging/systemd/session-sidecar.service").read_text().splitlines()
    assert {"User=session-sidecar", "ConfigurationDirectory=session-sidecar", "ConfigurationDirectoryMode=0755"} <= set(unit)


def test_the_unit_is_closed_as_tight_as_can_be():
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", REPOSITORY / "packaging/systemd/session-sidecar.service"],
        capture_output=True, text=True, check=False,
    )
    assert rated.returncode == 0, rated.stdout
