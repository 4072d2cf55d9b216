"""What the client's tests share."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from support.process import Sidecar as Process
from support.process import eventually

# For calls that are not about deadlines: only a failing test waits as long.
PATIENT = timedelta(seconds=20)
NEVER_ISSUED = "an-id-that-was-never-issued"


def seconds(number: float) -> timedelta:
    """A duration."""
    return timedelta(seconds=number)


@contextmanager
def standing_still(process: Process) -> Iterator[None]:
    """All threads of a sidecar are stopped."""
    pid = process.process.pid
    process.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: all(") T " in stat for stat in _stats(pid)), "it stands still")
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


def _stats(pid: int) -> list[str]:
    return [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]


@contextmanager
def black_hole() -> Iterator[str]:
    """A target that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
