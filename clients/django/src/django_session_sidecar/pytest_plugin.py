"""The fixture `session_sidecar`: a fake sidecar in this process, whose clock goes when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from session_sidecar.fake import FakeSidecar


@pytest.fixture
def session_sidecar() -> Iterator[FakeSidecar]:
    """The site of this test asks it, whatever BACKEND says: `session_sidecar.advance(timedelta(minutes=20))`."""
    from .backend import fake, install, of_fake

    sidecar = fake()
    install(of_fake(sidecar))
    try:
        yield sidecar
    finally:
        install(None)
