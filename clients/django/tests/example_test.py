"""The example site, in both of its modes: its pages, and that it is as strict as it says."""

import re

import pytest
from conftest import PATIENT
from live_test import HERE, Server, _navigation

from session_sidecar import Sidecar

EXAMPLE = HERE.parent / "example"
PAGES = ["/", "/report/", "/dashboard/", "/logout/", "/login/"]


class Example(Server):
    """Its server."""

    SET_UP = ["-m", "django", "prepare"]
    READY = "/login/"

    def settings(self, directory, sidecar):
        paths = [EXAMPLE] if self.mode == "plain" else [EXAMPLE, HERE.parent / "src", HERE.parents[1] / "python/src"]
        return {
            "PYTHONPATH": ":".join(map(str, paths)),
            "DJANGO_SETTINGS_MODULE": "notebook.settings",
            "SITE_DATABASE": str(directory / "site.sqlite3"),
            "SITE_MODE": self.mode,
            "SITE_DEADLINE_SECONDS": str(PATIENT.total_seconds()),
            "SESSION_SIDECAR_TARGET": sidecar,
        }

    def __init__(self, mode, directory, sidecar):
        self.mode = mode
        super().__init__(["uvicorn", "--port=PORT", "--timeout-graceful-shutdown=5", "notebook.asgi:application"], directory, sidecar)


@pytest.fixture(params=["package", "plain"])
def example(request, process, directory):
    """In `plain` it cannot even import the package."""
    with Example(request.param, directory, process.tcp) as server:
        yield server


def test_its_pages_are_strict_and_complete(example):
    cookie = f"sessionid={example.log_in('ada', 'ada')}"
    for path in PAGES:
        answer = example.open(path, "" if path == "/login/" else cookie, **_navigation())
        page = answer.read().decode()
        assert answer.status == 200, path
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert not re.search(r"<style|style=|<script(?![^>]* src=)|\son\w+=|https?://", page), path
        assert ("<session-sidecar" in page and "/-/session/sidecar.js" in page) == (path != "/login/"), path
        for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
            assert example.get(asset)[0] == 200, asset
    assert '<ol id="timeline"' in example.get("/", cookie)[1]
    assert example.stop() in (0, -15)


def test_the_package_ends_its_sessions_and_the_login_page_says_why(process, directory):
    with Example("package", directory, process.tcp) as example, Sidecar(process.tcp) as sidecar:
        session_id = example.log_in("ada", "ada")
        cookie = f"sessionid={session_id}"
        assert example.get("/dashboard/news/", cookie)[0] == 200
        sidecar.with_options(deadline=PATIENT).end(session_id, reason="REVOKED")
        assert example.open("/dashboard/news/", cookie, Sec_Fetch_Mode="cors").status == 401
        sent = example.open("/report/", cookie, **_navigation())
        messages = "; ".join(each.partition(";")[0] for each in sent.headers.get_all("Set-Cookie"))
        assert sent.headers["Location"] == "/login/?next=/report/"
        assert "by an administrator" in example.get("/login/", messages)[1]


def test_a_gateway_says_why_by_the_query(directory):
    with Example("plain", directory, "") as example:
        assert "nothing had happened" in example.get("/login/?reason=IDLE_TIMEOUT&next=/report/")[1]
        assert 'id="reason"' not in example.get("/login/")[1]
