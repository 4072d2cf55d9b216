"""The example site behind the NGINX of docs/nginx.md: without the package, and with both."""

import json
import re
import subprocess
from datetime import timedelta

import pytest
from conftest import PATIENT
from example_test import Example
from live_test import _navigation
from support import REPOSITORY
from support.process import eventually, free_port, tool

from session_sidecar import EndReason, Sidecar, testing

POLICY = """
[policy.default]
idle_timeout = "15m"
warn_before = ["2m"]
tombstone_ttl = "14d"

[door]
cookies = ["sessionid"]
login_url = "/login/"
unknown = "%s"
%s

[[door.routes]]
path = "/static/**"
public = true
"""
START = 'start = { app_session_age = "14d" }'


class Gateway(Example):
    """The site as browsers reach it, through NGINX."""

    def __init__(self, mode, directory, serve):
        door, api = free_port(), free_port()
        unknown = ("start", START) if mode == "plain" else ("allow-untracked", "")
        (directory / "policy.toml").write_text(POLICY % unknown)
        arguments = ["--dev", "--policy-file", str(directory / "policy.toml"), "--door-listen", f"127.0.0.1:{door}"]
        self.sidecar_process = serve(*arguments, listen=[f"tcp://127.0.0.1:{api}"])
        self.client = Sidecar(f"127.0.0.1:{api}", deadline=PATIENT)
        super().__init__(mode, directory, f"127.0.0.1:{api}")
        conf, *_ = re.findall(r"```nginx\n(.*?)```", (REPOSITORY / "docs/nginx.md").read_text(), re.DOTALL)
        web = free_port()
        for theirs, ours in (("listen 80", f"listen 127.0.0.1:{web}"), ("127.0.0.1:50153", f"127.0.0.1:{door}"), ("127.0.0.1:8000", f"127.0.0.1:{self.port}")):
            assert theirs in conf
            conf = conf.replace(theirs, ours)
        (directory / "site.conf").write_text(conf)
        main = (REPOSITORY / "tests/browser/nginx.conf").read_text().replace("WORK", str(directory))
        (directory / "nginx.conf").write_text(main)
        self.nginx = subprocess.Popen([tool("nginx"), "-p", directory, "-e", "stderr", "-c", directory / "nginx.conf"])
        self.port = web
        eventually(self._ready_or_dead, "the gateway is ready")

    def __exit__(self, *error):
        self.nginx.terminate()
        self.nginx.wait()
        self.client.close()
        super().__exit__(*error)

    def advance(self, **duration):
        testing.advance(self.client, timedelta(**duration))


@pytest.fixture(params=["plain", "package"])
def gateway(request, serve, directory):
    with Gateway(request.param, directory, serve) as site:
        yield site


def test_a_session_ends_and_the_same_person_logs_in_again_under_a_new_id(gateway):
    first = gateway.log_in("ada", "ada")
    cookie = f"sessionid={first}"
    assert gateway.get("/report/", cookie, **_navigation())[0] == 200
    state = json.loads(gateway.get("/-/session", cookie)[1])
    assert state["state"] == "ACTIVE" and state["login_url"] == "/login/" and state["idle_timeout"] == 900
    assert "export class SessionSidecar" in gateway.get("/-/session/sidecar.js")[1]
    gateway.advance(minutes=14)
    assert gateway.get("/report/", cookie, **_navigation())[0] == 200
    gateway.advance(minutes=15)
    assert gateway.open("/dashboard/news/", cookie, Sec_Fetch_Mode="cors").status == 401
    sent = gateway.open("/report/", cookie, **_navigation())
    assert sent.status == 302 and sent.headers["Location"].endswith("/login/?reason=IDLE_TIMEOUT&next=/report/")
    assert "sessionid=;" in sent.headers["Set-Cookie"]
    page = gateway.open("/login/?reason=IDLE_TIMEOUT&next=/report/", cookie, **_navigation())
    assert page.status == 200 and "nothing had happened" in page.read().decode(), "it is not taken for logged in: there is no loop"
    second = gateway.log_in("ada", "ada")
    assert second != first
    assert gateway.get("/report/", f"sessionid={second}", **_navigation())[0] == 200


def test_polls_keep_nobody_logged_in(gateway):
    cookie = f"sessionid={gateway.log_in('ada', 'ada')}"
    assert gateway.get("/dashboard/", cookie, **_navigation())[0] == 200
    own = {"Origin": f"http://127.0.0.1:{gateway.port}", "X_Session_Sidecar": "1"}
    assert gateway.open("/-/session/activity", cookie, "POST", "{}", **own).status == 200
    answers = []
    for _ in range(15):
        gateway.advance(minutes=1)
        answers.append(gateway.open("/dashboard/news/", cookie, Sec_Fetch_Mode="cors", Sec_Fetch_Dest="empty").status)
    assert answers == [200] * 14 + [401]


def test_a_logout_is_over_at_the_gateway_too(serve, directory):
    with Gateway("package", directory, serve) as gateway:
        session_id = gateway.log_in("ada", "ada")
        cookie = f"sessionid={session_id}"
        page = gateway.open("/logout/", cookie, **_navigation())
        token = page.headers["Set-Cookie"].partition(";")[0]
        (field,) = re.findall(r'csrfmiddlewaretoken" value="(\w+)"', page.read().decode().partition("Log out?")[2])
        done = gateway.open("/logout/", f"{cookie}; {token}", "POST", f"csrfmiddlewaretoken={field}", Content_Type="application/x-www-form-urlencoded")
        assert done.status == 302
        assert gateway.client.check(session_id).reason is EndReason.LOGOUT
        assert gateway.open("/report/", cookie, **_navigation()).headers["Location"].endswith("/login/?reason=LOGOUT&next=/report/")
