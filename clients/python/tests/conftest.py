"""Fixtures of the client's tests: real processes of the real binary, as the program's tests have them."""

from collections.abc import Callable, Iterator

import pytest
from helpers import PATIENT
from program.conftest import binary, directory, pytest_addoption, serve  # noqa: F401 (fixtures, and a hook of pytest)
from support.process import Sidecar as Process

from session_sidecar import Sidecar


@pytest.fixture
def process(serve: Callable[..., Process]) -> Process:
    """A sidecar with a test clock and its short demo policy: 20 s of inactivity, warned of 10 s and 5 s before."""
    return serve("--dev")


@pytest.fixture
def sidecar(process: Process) -> Iterator[Sidecar]:
    """A client of it. Its deadline is one for tests on a busy machine."""
    with Sidecar(process.tcp, deadline=PATIENT) as client:
        yield client
