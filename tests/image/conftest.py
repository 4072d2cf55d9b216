"""Fixtures of the image's tests: the image that tests/image/build.sh has built, and an application beside it."""

import subprocess
from pathlib import Path

import pytest

import containers
from support import DEFAULT_BINARY, REPOSITORY, TOOLS

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", default="localhost/session-sidecar:test", help="the image to test")
    parser.addoption("--again", default="localhost/session-sidecar:again", help="the same, built a second time without a cache")
    parser.addoption("--arm64", default="localhost/session-sidecar:arm64", help="the same, built for arm64")
    parser.addoption("--binary", type=Path, default=DEFAULT_BINARY, help="the session-sidecar that goes into the wheel")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"image", "arm64", "app", "machine"} & set(item.fixturenames):
            item.add_marker("full")


def built(name: str, how: str = "") -> str:
    """The name of an image that is there."""
    assert containers.podman("image", "exists", name, check=False).returncode == 0, f"{name} is not built: {how}tests/image/build.sh {name}"
    return name


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> str:
    """The image's name."""
    return built(request.config.getoption("--image"))


@pytest.fixture(scope="session")
def arm64(request: pytest.FixtureRequest) -> str:
    """The name of the image for arm64."""
    return built(request.config.getoption("--arm64"), "TARGETARCH=arm64 ")


@pytest.fixture(scope="session")
def binary(request: pytest.FixtureRequest) -> Path:
    """The program under test, for what needs no container."""
    binary = request.config.getoption("--binary").resolve()
    assert binary.exists(), f"{binary} is missing: cargo build makes it"
    return binary


@pytest.fixture(scope="session")
def app() -> str:
    """The image of an application: Debian's Python, and the client. It waits until it is asked to stop."""
    name = "localhost/app:test"
    bud = [containers.BIN / "buildah", "bud", "--quiet", "--pull-never", "--format", "docker", "--isolation", "chroot"]
    contexts = ["--build-context", f"packages={TOOLS}/image/app", "--build-context", f"client={REPOSITORY}/clients/python/src"]
    subprocess.run([*bud, *contexts, "--tag", name, HERE / "app"], check=True, capture_output=True)
    return name
