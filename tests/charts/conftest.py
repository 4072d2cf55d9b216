"""Options and fixtures of the charts' tests."""

import os
import sys
from pathlib import Path

import pytest

from charts import KUBERNETES, REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests"))

HELMS = ("helm4", "helm3")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="both versions of Helm, all versions of Kubernetes, custom resources, checkov")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: only with --full, since it needs what the smoke does not install")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    kept = [item for item in items if not item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    if "helm" in metafunc.fixturenames:
        metafunc.parametrize("helm", HELMS if full else HELMS[:1])
    if "kubernetes" in metafunc.fixturenames:
        metafunc.parametrize("kubernetes", KUBERNETES if full else KUBERNETES[-1:])


@pytest.fixture(scope="session")
def binary() -> Path:
    """The program under test."""
    binary = (REPOSITORY / os.environ.get("SIDECAR_UNDER_TEST", "target/debug/session-sidecar")).resolve()
    assert binary.exists(), f"{binary} is missing: cargo build makes it"
    return binary
