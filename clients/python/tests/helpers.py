"""What the client's tests share."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

# For calls that are not about deadlines: only a failing test waits as long.
PATIENT = timedelta(seconds=20)
NEVER_ISSUED = "an-id-that-was-never-issued"


def seconds(number: float) -> timedelta:
    """A duration."""
    return timedelta(seconds=number)


@contextmanager
def black_hole() -> Iterator[str]:
    """A target that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
