"""A site, visited by Django's test client or by real connections, and a real sidecar with a clock that goes when a test says so."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from program.conftest import binary, directory, pytest_addoption, serve  # noqa: F401 (fixtures, and a hook of pytest)
from support.process import Sidecar as Process

from session_sidecar import Sidecar, testing
from session_sidecar.fake import FakeSidecar

POLICY = """
[policy.default]
idle_timeout = "15m"
absolute_timeout = "12h"
warn_before = ["2m", "60s"]
tombstone_ttl = "24h"

[policy.one]
idle_timeout = "15m"
max_sessions_per_subject = 1
at_subject_cap = "refuse"

[policy.newest]
idle_timeout = "15m"
max_sessions_per_subject = 1
at_subject_cap = "end-oldest"

[policy.display]
passive = true
absolute_timeout = "30d"

[policy.present]
idle_timeout = "15m"
presence = "on"
"""
PATIENT = timedelta(seconds=20)


class Site:
    """The site with its sidecar, as a test sees them."""

    def __init__(self, client: Sidecar, process: Process | None) -> None:
        self.sidecar = client
        self._process = process

    @property
    def process(self) -> Process:
        """The real sidecar."""
        assert self._process, "this one is a fake"
        return self._process

    def advance(self, **duration: float) -> None:
        """Lets time pass."""
        if isinstance(self.sidecar, FakeSidecar):
            self.sidecar.advance(timedelta(**duration))
        else:
            testing.advance(self.sidecar, timedelta(**duration))

    @property
    def live_sessions(self) -> float:
        """How many the sidecar has."""
        if isinstance(self.sidecar, FakeSidecar):
            return len(list(self.sidecar.admin().list_sessions()))
        return self.process.metric("live_sessions")


@pytest.fixture
def policy_file(directory: Path) -> Path:  # noqa: F811
    """The policies of these tests."""
    path = directory / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def begin(serve: Callable[..., Process], policy_file: Path) -> Callable[[], Process]:  # noqa: F811
    """Starts a sidecar with a test clock and an empty memory."""
    return lambda: serve("--dev", "--policy-file", str(policy_file))


@pytest.fixture
def process(begin: Callable[[], Process]) -> Process:
    """A sidecar."""
    return begin()


@pytest.fixture
def site(request, policy_file, settings, db) -> Iterator[Site]:
    """The site of this test, in this process, beside a real sidecar; in modules that say so beside the fake one, too."""
    if getattr(request, "param", "grpc") == "fake":
        settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"BACKEND": "fake", "POLICY_FILE": str(policy_file)}
        yield Site(request.getfixturevalue("session_sidecar"), None)
        return
    process = request.getfixturevalue("process")
    settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"TARGET": process.tcp}
    with Sidecar(process.tcp, deadline=PATIENT) as client:
        yield Site(client, process)


both = pytest.mark.parametrize("site", ["grpc", "fake"], indirect=True)


@pytest.fixture
def ada(db) -> User:
    """Somebody with an account."""
    return User.objects.create_user("ada", password="a password")


class Browser(Client):
    """Django's client, with the headers that browsers send by themselves."""

    def visit(self, path: str, **more):
        """A person clicks on a link."""
        return self.get(path, headers=NAVIGATION, **more)

    def fetch(self, path: str, **more):
        """A script asks."""
        return self.get(path, headers=SCRIPT, **more)

    def log_in(self, name: str = "ada", password: str = "a password"):
        """A person fills in the login form."""
        return self.post("/login/", {"username": name, "password": password}, headers=NAVIGATION)

    @property
    def session_id(self) -> str:
        """The cookie's value; empty if there is none."""
        cookie = self.cookies.get("sessionid")
        return cookie.value if cookie else ""

    def change(self, verb: str, body: dict | None = None, **headers: str):
        """What the module sends."""
        told = {"Origin": "http://testserver", "X-Session-Sidecar": "1"} | {key.replace("_", "-"): value for key, value in headers.items()}
        return self.post(f"/-/session/{verb}", body or {}, content_type="application/json", headers={key: value for key, value in told.items() if value})


NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin"}
SCRIPT = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def browser() -> Browser:
    """A browser without cookies."""
    return Browser()


@pytest.fixture
def logged_in(site: Site, ada: User, browser: Browser) -> Browser:
    """One in which somebody has logged in."""
    assert browser.log_in().status_code == 302
    return browser
