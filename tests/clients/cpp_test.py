"""The C++ client, by a driver that does what these tests say."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import build
import pytest
from conftest import ALL_VERBS, PATIENT, POLICY
from support.process import Sidecar as Process
from support.process import clean_environment, eventually

from session_sidecar import Sidecar, SidecarAdmin
from session_sidecar.testing import advance


class Driver:
    """The driver's process."""

    def __init__(self, target: str, *arguments: str, log: Path) -> None:
        self._log = log
        with log.open("w") as complaints:
            self.process = subprocess.Popen(
                [build.cpp("driver", build.HERE / "cpp/driver.cc"), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                env=clean_environment(SESSION_SIDECAR_TARGET=target),
            )

    def __call__(self, command: str) -> str:
        """What it says to a command."""
        self.say(command)
        return self.hear()

    def say(self, command: str) -> None:
        """Tells it to do something."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """What it says."""
        return self.process.stdout.readline().rstrip("\n")

    def reads(self, *events: str) -> None:
        """The next events of its watch."""
        told = [self("next") for _ in events]
        assert told == list(events)

    def log(self) -> str:
        """What it wrote to standard error."""
        return self._log.read_text()


@pytest.fixture
def world(serve: Callable[..., Process], directory: Path) -> Iterator[Callable[..., tuple[Process, Driver]]]:
    """Starts a sidecar and a driver."""
    drivers = []

    def start(*, over: str = "tcp", arguments: tuple[str, ...] = ("20000",), policy: str = POLICY) -> tuple[Process, Driver]:
        (directory / "policy.toml").write_text(policy)
        process = serve("--dev", "--policy-file", str(directory / "policy.toml"), query=ALL_VERBS)
        drivers.append(Driver(getattr(process, over), *arguments, log=directory / "driver.log"))
        return process, drivers[-1]

    yield start
    for driver in drivers:
        driver.process.stdin.close()
        assert driver.process.wait(30) == 0, driver.log()


def passes(process: Process, minutes: float) -> None:
    """Time."""
    with Sidecar(process.tcp, deadline=PATIENT) as sidecar:
        advance(sidecar, timedelta(minutes=minutes))


@pytest.mark.parametrize("over", ["tcp", "uds"])
def test_the_verbs(world, over):
    process, client = world(over=over)
    assert client("create ada") == "created SESSION_STATE_ACTIVE"
    assert client("touch ada") == "live SESSION_STATE_ACTIVE 900 counted allowed"
    passes(process, 10)
    assert client("touch ada background") == "live SESSION_STATE_ACTIVE 300 allowed"
    assert client("check ada") == "live SESSION_STATE_ACTIVE 300 of ada allowed"
    assert client("extend ada") == "extended by 600"
    assert client("rotate ada") == "rotated"
    assert client("touch ada") == "live SESSION_STATE_ACTIVE 900 counted allowed"
    assert client("end ada") == "ended END_REASON_LOGOUT"
    assert client("touch ada") == "ended END_REASON_LOGOUT ACTOR_USER  refused"
    assert client("end ada") == "ended END_REASON_LOGOUT"


def test_ends_are_told_apart_from_what_never_was(world):
    process, client = world()
    client("create ada")
    passes(process, 15)
    for verb in ("touch", "check"):
        assert client(f"{verb} ada") == "ended END_REASON_IDLE_TIMEOUT ACTOR_POLICY  refused"
        assert client(f"{verb} never-issued-0123456789") == "unknown refused"
    assert client("extend ada") == "over: ended END_REASON_IDLE_TIMEOUT ACTOR_POLICY  refused"
    assert client("extend never-issued-0123456789") == "over: unknown refused"
    client("create bob")
    with SidecarAdmin(process.tcp, deadline=PATIENT) as desk:
        desk.end_sessions(subject="bob", actor_id="desk-7", note="stolen")
    assert client("touch bob") == "ended END_REASON_REVOKED ACTOR_ADMIN stolen refused"


def test_mistakes_and_refusals(world):
    process, client = world(policy=POLICY + "max_extensions = 1\n")
    assert client("touch x") == "invalid session_id"
    client("create ada own-id-of-ada-0123456789")
    assert client("create ada own-id-of-ada-0123456789") == "refused SESSION_EXISTS"
    client("extend ada")
    assert client("extend ada") == "refused EXTENSION_LIMIT"
    wrong = Driver(f"127.0.0.1:{process.admin_port}", "20000", log=process.output_path.with_name("wrong.log"))
    assert wrong("touch own-id-of-ada-0123456789") in ("unreachable refused", "not permitted")
    wrong.process.stdin.close()
    wrong.process.wait(30)


@pytest.mark.parametrize("fail", ["closed", "open"])
def test_while_nobody_knows(world, fail, binary, directory):
    process, client = world(arguments=("250", "open") if fail == "open" else ("250",))
    verdict = "allowed" if fail == "open" else "refused"
    until(client, "create ada", "created SESSION_STATE_ACTIVE")
    with process.standing_still():
        began = time.monotonic()
        assert client("touch ada") == f"unreachable {verdict}"
        assert 0.2 < time.monotonic() - began < 5
    until(client, "touch ada", "live SESSION_STATE_ACTIVE 900 counted allowed")
    process.stop()
    assert client("touch ada") == f"unreachable {verdict}"
    assert client("check ada") == f"unreachable {verdict}"
    assert client("extend ada") == "unreachable"
    (directory / "again").mkdir()
    with Process(binary, directory / "again", "--dev", listen=[f"tcp://127.0.0.1:{process.port}"]):
        until(client, "touch ada", "unknown refused")
    said = re.findall(r"session-sidecar at \S+ (does not answer|answers again)", client.log())
    assert said == ["does not answer", "answers again"] * 2


def test_a_watch_tells_and_goes_on_after_a_restart(world, binary, directory):
    process, client = world()
    client("create ada")
    client("watch ada")
    client.reads("snapshot ada", "snapshot end 1")
    passes(process, 13)
    client.reads("warning ada")
    client("extend ada")
    client.reads("cleared ada")
    client("rotate ada")
    client.reads("ended ada END_REASON_ROTATED", "snapshot ada goes on")
    process.stop()
    client.reads("draining")
    (directory / "again").mkdir()
    arguments = ["--dev", "--policy-file", str(directory / "policy.toml")]
    with Process(binary, directory / "again", *arguments, listen=[f"tcp://127.0.0.1:{process.port}"]) as again:
        again.port = process.port
        # Only memory: the token is of no use there.
        client.reads("begin anew RESUME_TOKEN_EXPIRED", "snapshot end 0")
        until(client, "create ada", "created SESSION_STATE_ACTIVE")
        passes(again, 15)
        client.reads("warning ada", "warning ada", "ended ada END_REASON_IDLE_TIMEOUT")
        assert client("close") == "closed"
        assert client("next") == "closed"


def test_a_watch_that_is_cut_off_resumes_without_a_gap(world):
    process, client = world()
    client("create ada")
    client("watch ada")
    client.reads("snapshot ada", "snapshot end 1")
    client.say("next")
    before = connections(process.port)
    # It stands still. After three heartbeats of a second the watch looks for it on a new connection, which the kernel takes for it.
    with process.standing_still():
        eventually(lambda: connections(process.port) - before, "it reconnects")
    with SidecarAdmin(process.tcp, deadline=PATIENT) as desk:
        desk.end_sessions(subject="ada")
    assert client.hear() == "ended ada END_REASON_REVOKED"
    token = client("token")
    client("create ada")
    client("end ada")
    assert client(f"watch ada {token}") == "watching"
    client.reads("ended ada END_REASON_LOGOUT")


def test_a_watch_that_has_outlived_its_token_goes_on_with_the_new_one(serve, directory):
    known, own, old = (directory / name for name in ("known", "own", "old"))
    for path in (known, own, old):
        path.write_text("dG9rZW4tb2YtdGhlLXNob3A=")
    process = serve("--dev", query=f"{ALL_VERBS}&token-file={known}")
    watches, other = (Driver(process.tcp, "20000", log=directory / name) for name in ("watches.log", "other.log"))
    for driver, path in ((watches, own), (other, old)):
        assert driver(f"client token_file={path}") == "client"
    watches("create ada own-id-of-ada-0123456789")
    watches("watch ada")
    watches.reads("snapshot ada", "snapshot end 1")
    for path in (own, known):
        path.write_text("dGhlLW5leHQtdG9rZW4tcGxlYXNl")
    until(other, "touch nobody", "not permitted")
    old.write_text(own.read_text())
    assert other("end own-id-of-ada-0123456789") == "ended END_REASON_LOGOUT"
    watches.reads("ended ada END_REASON_LOGOUT")
    for driver in (watches, other):
        driver.process.stdin.close()
        assert driver.process.wait(30) == 0, driver.log()


def test_a_watch_says_what_no_reconnecting_can_mend(world):
    _, client = world()
    client("watch " + "a" * 300)
    assert client("next") == "invalid scope.subject"
    assert client("next") == "closed"


def connections(port: int) -> set[str]:
    """The far ends of the connections to a port of this machine."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return {row[1] for row in rows if int(row[2].rpartition(":")[2], 16) == port}


def until(client: Driver, command: str, answer: str) -> None:
    """Says it again until this is the answer."""
    deadline = time.monotonic() + 30
    while (said := client(command)) != answer:
        assert time.monotonic() < deadline, said
