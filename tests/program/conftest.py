"""Fixtures of the program tests: real processes of the real binary."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import DEFAULT_BINARY
from support.process import Sidecar


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--binary", type=Path, default=DEFAULT_BINARY, help="the session-sidecar to test")


@pytest.fixture
def binary(request: pytest.FixtureRequest) -> Path:
    """The program under test."""
    binary = request.config.getoption("--binary").resolve()
    assert binary.exists(), f"{binary} is missing: cargo build makes it"
    return binary


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory. Its path is short enough for a socket, which pytest's own tmp_path need not be."""
    with tempfile.TemporaryDirectory(prefix="sidecar-") as path:
        yield Path(path)


@pytest.fixture
def serve(binary: Path) -> Iterator[Callable[..., Sidecar]]:
    """Starts a sidecar with the arguments given; whatever the test does to it, it must not panic."""
    running = []

    def start(*arguments: str, **options: object) -> Sidecar:
        home = tempfile.TemporaryDirectory(prefix="sidecar-")
        sidecar = Sidecar(binary, Path(home.name), *arguments, **options)
        running.append((sidecar, home))
        return sidecar

    yield start
    for sidecar, home in running:
        with sidecar, home:
            assert "panicked" not in sidecar.output()
