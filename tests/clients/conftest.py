"""Fixtures: a real sidecar with a test clock, and a site of another language in front of it, in its own server and behind its own filter."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import build
import pytest
from browser import Browser
from program.conftest import binary, directory, pytest_addoption, serve  # noqa: F401 (fixtures, and a hook of pytest)
from support.process import Sidecar as Process
from support.process import clean_environment, eventually

from session_sidecar import Sidecar, SidecarAdmin
from session_sidecar.testing import advance

PATIENT = timedelta(seconds=20)
ALL_VERBS = "?verbs=use,issue,end,watch-own,watch-all,admin"
POLICY = """
[policy.default]
idle_timeout = "15m"
absolute_timeout = "8h"
"""


class Site:
    """A site that listens on a free port of its own choice, until its standard input is closed."""

    def __init__(self, command: list[str], environment: dict[str, str], output: Path) -> None:
        self._output = output
        with output.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        self.port = int(eventually(self._listens, "the site listens"))

    def _listens(self) -> str:
        assert self.process.poll() is None, self.output()
        lines = [line for line in self.output().splitlines() if line.startswith("listening on ")]
        return lines[0].rpartition(" ")[2] if lines else ""

    def output(self) -> str:
        """All that it has written so far."""
        return self._output.read_text()

    def stop(self) -> None:
        """Has it end in order."""
        self.process.stdin.close()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


def java_site(target: str, fail: str, who: str) -> list[str]:
    """Tomcat with the servlet filter."""
    setup = build.kept_text("Sessions.java", build.snippet("java.md", "Sessions.java"))
    return [*build.java("Site", build.HERE / "java/Site.java", setup), target, fail, who]


def ruby_site(target: str, fail: str) -> list[str]:
    """WEBrick with the middleware, set up as docs/ruby.md says; only its client is a patient one."""
    setup = build.snippet("ruby.md", "config.ru").replace("use SessionSidecar::Middleware,", "use SessionSidecar::Middleware, client: CLIENT,")
    return [*build.ruby(build.HERE / "ruby/site.rb"), target, fail, str(build.kept_text("config.ru", setup))]


SITES: dict[str, Callable[[str, str], list[str]]] = {
    "java-container": lambda target, fail: java_site(target, fail, "container"),
    "java-docs": lambda target, fail: java_site(target, fail, "docs"),
    "java-attribute": lambda target, fail: java_site(target, fail, "attribute"),
    "ruby": ruby_site,
}


@dataclass
class World:
    """A sidecar, a site, and who uses them."""

    process: Process
    site: Site
    kind: str
    browsers: list[Browser]

    def browser(self) -> Browser:
        """Another person's browser."""
        browser = Browser(self.site.port)
        self.browsers.append(browser)
        return browser

    def sidecar(self) -> Sidecar:
        """The sidecar, for looking at it."""
        return Sidecar(self.process.tcp, deadline=PATIENT)

    def desk(self) -> SidecarAdmin:
        """The sidecar, for support staff."""
        return SidecarAdmin(self.process.tcp, deadline=PATIENT)

    def advance(self, minutes: float) -> None:
        """Time passes."""
        with self.sidecar() as sidecar:
            advance(sidecar, timedelta(minutes=minutes))

    def sessions(self, subject: str, live: bool = True) -> list:
        """The sessions of a person that the sidecar has."""
        with self.desk() as desk:
            states = ["ACTIVE", "EXPIRING"] if live else ["ENDED"]
            return [session for session in desk.list_sessions(subject=subject, states=states)]

    def ends(self, subject: str) -> list[tuple[str, str, str]]:
        """How those that have ended did: reason, actor, actor's id."""
        return [(each.end.reason.value, each.end.actor.value, each.end.actor_id) for each in self.sessions(subject, live=False)]


@pytest.fixture
def world(serve: Callable[..., Process], directory: Path) -> Iterator[Callable[..., World]]:
    """Starts a sidecar and a site."""
    made: list[World] = []

    def start(kind: str, *, policy: str = POLICY, fail: str = "closed", over: str = "tcp") -> World:
        (directory / "policy.toml").write_text(policy)
        process = serve("--dev", "--policy-file", str(directory / "policy.toml"), query=ALL_VERBS)
        target = getattr(process, over)
        site = Site(SITES[kind](target, fail), clean_environment(SESSION_SIDECAR_TARGET=target), directory / "site.log")
        made.append(World(process, site, kind, []))
        if kind == "java-docs":  # Its deadline is the real one, and what is loaded with the first calls takes its time here.
            eventually(lambda: Browser(site.port).post("/login", user="bob").status == 204, "the site is warm")
        return made[-1]

    yield start
    for each in made:
        with each.process:  # It may have taken the place of the one that `serve` ends.
            each.site.stop()
        told = each.site.output()
        print(told)  # Shown if the test failed.
        for browser in each.browsers:
            assert not [secret for secret in browser.secrets if secret in told], "the site's log names a session's id"
