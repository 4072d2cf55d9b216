"""Containers of the tests: podman over a store of its own (tests/image/setup.sh)."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

from support import TOOLS
from support.process import PATIENCE, clean_environment, eventually

BIN = TOOLS / "image/bin"
SOCKET = "/run/session-sidecar/api.sock"
# What docs/install.md says to run it with.
HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


def podman(*arguments: str, check: bool = True, patience: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs podman to its end. Its standard error says without need that there is no systemd, so it is shown on failure only."""
    command = [str(BIN / "podman"), *arguments]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=patience, check=False)
    assert not check or done.returncode == 0, f"podman {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def inspect(name: str, kind: str = "container") -> dict:
    """What podman knows of a container, an image, a volume or a pod."""
    told = json.loads(podman(kind, "inspect", name).stdout)
    return told[0] if isinstance(told, list) else told


class Container:
    """A running container."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def state(self) -> dict:
        """Pid, Running, ExitCode and so on."""
        return inspect(self.name)["State"]

    @property
    def restarts(self) -> int:
        """How often podman has started it again."""
        return inspect(self.name)["RestartCount"]

    @property
    def pid(self) -> int:
        """Its first process, as the machine numbers it."""
        return self.state["Pid"]

    def exec(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command in it."""
        return podman("exec", self.name, *command, check=check)

    def kill(self, number: Signals) -> None:
        """Sends its first process a signal, as from outside: podman would not start again what it has killed itself."""
        os.kill(self.pid, number)

    def threads(self) -> list[str]:
        """The states of its first process' threads, a letter each (proc(5))."""
        told = [(task / "stat").read_text() for task in Path(f"/proc/{self.pid}/task").iterdir()]
        return [stat.rpartition(")")[2].split()[0] for stat in told]

    def logs(self) -> str:
        """All that it has written so far."""
        done = podman("logs", self.name)
        return done.stdout + done.stderr

    def await_log(self, text: str) -> None:
        """Waits until it writes the text."""
        eventually(lambda: text in self._logs_while_alive(), f"{self.name} writes {text!r}")

    def _logs_while_alive(self) -> str:
        logs = self.logs()
        state = self.state
        assert state["Running"] or state["Status"] in ("created", "initialized"), f"{self.name} has ended: {state}\n{logs}"
        return logs


@contextmanager
def running(image: str, *command: str, options: list[str] = HARDENED) -> Iterator[Container]:
    """A container of an image, until the block is left."""
    name = podman("run", "--detach", *options, image, *command).stdout.strip()
    try:
        yield Container(name)
    finally:
        podman("rm", "--force", "--volumes", "--time", "0", name, check=False)


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """An image's files."""
    path = podman("image", "mount", image).stdout.strip()
    try:
        yield Path(path)
    finally:
        podman("image", "unmount", image)


@contextmanager
def volume() -> Iterator[tuple[str, Path]]:
    """A named volume and where its files are, by a path that is short enough for a socket. It takes its owner from the image, as Docker's do."""
    name = podman("volume", "create").stdout.strip()
    with tempfile.TemporaryDirectory(prefix="sidecar-") as home:
        short = Path(home) / "volume"
        short.symlink_to(inspect(name, "volume")["Mountpoint"])
        try:
            yield name, short
        finally:
            podman("volume", "rm", "--force", name)


def wait_for_exit(container: Container) -> int:
    """Waits until it ends, and answers its exit code."""
    return int(podman("wait", container.name, patience=PATIENCE).stdout)
