"""A session-sidecar process under test."""

import os
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import TypeVar

from . import TOOLS

# How long to wait for what should happen at once. Only a failing test ever waits as long.
PATIENCE = 30.0

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Polls until the condition holds, and answers its value."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.01)
    return value


# Below the range from which the kernel gives ports to outgoing connections: none of those can take one before we do.
_PORTS = iter(random.sample(range(20_000, 30_000), 10_000))


def free_port() -> int:
    """A TCP port that nobody listens on, another one each time."""
    for port in _PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no port is free")


def clean_environment(**added: str) -> dict[str, str]:
    """This process' environment without the variables that would configure a sidecar or a client of it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SESSION_SIDECAR_", "RUST_LOG", "OTEL_"))}
    return kept | added


def tool(name: str) -> str:
    """The path of a tool that tests/setup.sh provides."""
    path = shutil.which(name, path=f"{TOOLS}/bin:{TOOLS}/venv/bin:{os.environ['PATH']}")
    assert path, f"{name} is missing: run tests/setup.sh"
    return path


def run(
    binary: Path, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    command = [str(binary), *arguments]
    environment = clean_environment(**(env or {}))
    return subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


class Sidecar:
    """`session-sidecar serve` on a free TCP port and a socket in `directory`, both with `query`; ready when the constructor
    returns."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *arguments: str,
        listen: list[str] | None = None,
        query: str = "",
        env: dict[str, str] | None = None,
    ) -> None:
        self.binary = binary
        self.port = free_port()
        self.admin_port = free_port()
        self.socket_path = directory / "sidecar.sock"
        self.output_path = directory / "output.log"
        listeners = listen or [f"tcp://127.0.0.1:{self.port}{query}", f"unix://{self.socket_path}{query}"]
        command = [str(binary), "serve", *arguments, "--admin-listen", f"127.0.0.1:{self.admin_port}"]
        for listener in listeners:
            command += ["--listen", listener]
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=clean_environment(**(env or {}))
            )
        eventually(self._ready_or_dead, "the sidecar is ready")

    def __enter__(self) -> "Sidecar":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def tcp(self) -> str:
        """What a gRPC client dials over TCP."""
        return f"127.0.0.1:{self.port}"

    @property
    def uds(self) -> str:
        """What a gRPC client dials over the socket."""
        return f"unix:{self.socket_path}"

    def output(self) -> str:
        """All that it has written so far."""
        return self.output_path.read_text()

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a GET to the admin port; status 0 if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()
        except OSError:
            return 0, ""

    def metrics(self, name: str) -> dict[str, float]:
        """A metric's values, by their labels as they are written."""
        lines = [line.rpartition(" ") for line in self.http("/metrics")[1].splitlines() if not line.startswith("#")]
        parts = [(*series.partition("{"), value) for series, _, value in lines]
        return {brace + labels: float(value) for known, brace, labels, value in parts if known == f"session_sidecar_{name}"}

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        values = self.metrics(name)
        assert values, f"there is no metric session_sidecar_{name}"
        return sum(values.values())

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It is there and does nothing: all its threads are stopped. A signal alone is not enough: a thread that runs on another
        processor stops a little later."""
        self.process.send_signal(SIGSTOP)
        try:
            eventually(self._stands_still, "it stands still")
            yield
        finally:
            self.process.send_signal(SIGCONT)

    def terminate(self) -> None:
        """Asks it to stop."""
        self.process.send_signal(SIGTERM)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code."""
        return self.process.wait(patience)

    def stop(self) -> int:
        """Asks it to stop, and answers its exit code."""
        self.terminate()
        return self.wait()

    def _stands_still(self) -> bool:
        try:
            stats = [(task / "stat").read_text() for task in Path(f"/proc/{self.process.pid}/task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            return False  # a thread ended meanwhile
        return all(") T " in stat for stat in stats)

    def _ready_or_dead(self) -> bool:
        assert self.process.poll() is None, f"exit {self.process.returncode} at start:\n{self.output()}"
        return self.http("/readyz")[0] == 200
