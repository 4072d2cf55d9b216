"""Real servers and connections: gunicorn with forked workers, and uvicorn with streams and WebSockets of Channels."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from conftest import NAVIGATION, PATIENT, Site
from program.door_test import event
from support.process import PATIENCE, clean_environment, eventually, free_port
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from session_sidecar import EndReason, Sidecar, testing

HERE = Path(__file__).resolve().parent
SOURCES = [HERE, HERE.parent / "src", HERE.parents[1] / "python/src"]
SET_UP = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_user("ada", password="a password")
"""


class Server:
    """A site's server, as a browser meets it."""

    SET_UP = ["-c", SET_UP]
    READY = "/about/"
    POLICY = ""

    def settings(self, directory: Path, sidecar: str) -> dict[str, str]:
        """What the site is told by the environment."""
        return {
            "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "TEST_SITE_DATABASE": str(directory / "site.sqlite3"),
            "TEST_SITE_SIDECAR": sidecar,
            "TEST_SITE_POLICY": self.POLICY,
        }

    def __init__(self, command: list[str], directory: Path, sidecar: str) -> None:
        self.port = free_port()
        self.log = directory / "server.log"
        self.env = clean_environment(**self.settings(directory, sidecar))
        subprocess.run([sys.executable, *self.SET_UP], env=self.env, check=True, timeout=PATIENCE)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(part.replace("PORT", str(self.port)) for part in command)],
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        eventually(self._ready_or_dead, "the site is ready")

    def _ready_or_dead(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get(self.READY)[0] == 200
        except OSError:
            return False

    def open(self, path: str, cookie: str = "", method: str = "GET", body: str = "", **headers: str) -> http.client.HTTPResponse:
        """The beginning of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        told = {name.replace("_", "-"): value for name, value in headers.items()} | ({"Cookie": cookie} if cookie else {})
        connection.request(method, path, body or None, told)
        response = connection.getresponse()
        response.connection = connection  # type: ignore[attr-defined]  # or it is closed under the response
        return response

    def get(self, path: str, cookie: str = "", **headers: str) -> tuple[int, str]:
        """A whole answer."""
        response = self.open(path, cookie, **headers)
        return response.status, response.read().decode()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        log = self.log.read_text()
        assert "Traceback" not in log, log

    def log_in(self, name: str = "ada", password: str = "a password") -> str:
        """A person logs in. Answers the session's id."""
        page = self.open("/login/")
        token = page.headers["Set-Cookie"].partition(";")[0]
        (field,) = re.findall(r'csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
        form = urlencode({"username": name, "password": password, "csrfmiddlewaretoken": field})
        done = self.open("/login/", token, "POST", form, Content_Type="application/x-www-form-urlencoded", **_navigation())
        assert done.status == 302, done.read()
        (session_id,) = re.findall(r"sessionid=(\w+)", str(done.headers.get_all("Set-Cookie")))
        return session_id

    def stop(self) -> int:
        """Asks it to stop."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def _navigation() -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in NAVIGATION.items()}


@pytest.fixture
def served(process, directory, request) -> Iterator[Any]:
    """A server of the site by the command that the test is marked with, and its sidecar."""
    with Server(request.param, directory, process.tcp) as server, Sidecar(process.tcp, deadline=PATIENT) as client:
        yield SimpleNamespace(server=server, site=Site(client, process))


gunicorn = pytest.mark.parametrize(
    "served", [["gunicorn", "--workers=4", "--preload", "--bind=127.0.0.1:PORT", "--access-logfile=-", "site_wsgi:application"]], indirect=True, ids=["gunicorn"]
)
uvicorn = pytest.mark.parametrize("served", [["uvicorn", "--port=PORT", "site_asgi:application"]], indirect=True, ids=["uvicorn"])


@gunicorn
def test_four_forked_workers_serve_and_stop(served):
    server, site = served.server, served.site
    session_id = server.log_in()
    cookie = f"sessionid={session_id}"
    answers: list[int] = []

    def visit() -> None:
        for _ in range(25):
            answers.append(server.get("/private/", cookie, **_navigation())[0])

    visitors = [Thread(target=visit) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(PATIENCE)
    assert answers == [200] * 200
    # It is a stream that takes up no worker.
    assert server.get("/-/session/events", cookie)[1].startswith("retry: 30000")
    site.advance(minutes=15)
    assert server.open("/private/", cookie, **_navigation()).headers["Location"] == "/login/?next=/private/"
    assert server.stop() == 0
    assert session_id not in server.log.read_text()


@uvicorn
def test_a_socket_of_channels_is_closed_when_the_site_is_told_of_the_end(served):
    server, site = served.server, served.site
    session_id = server.log_in()
    with connect(f"ws://127.0.0.1:{server.port}/echo/", additional_headers={"Cookie": f"sessionid={session_id}"}) as socket:
        assert socket.recv(PATIENCE) == "hello ada"
        socket.send("are you there?")
        assert socket.recv(PATIENCE) == "are you there?"
        eventually(lambda: site.process.metric("watchers") == 1, "the site is told of ends")

        def asked() -> float:
            return sum(count for labels, count in site.process.metrics("rpcs_total").items() if 'method="Check"' in labels)

        eventually(lambda: asked() == 4, "it has asked when the socket opened, before and after it began to watch, and when the watch stood")
        site.sidecar.end(session_id, reason=EndReason.REVOKED)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert asked() == 4, "and needed not ask again"
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "REVOKED")
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{server.port}/echo/", additional_headers={"Cookie": f"sessionid={session_id}"})
    eventually(lambda: site.process.metric("watchers") == 0, "nobody is left to be told")
    with connect(f"ws://127.0.0.1:{server.port}/echo/") as stranger:
        assert stranger.recv(PATIENCE) == "hello AnonymousUser", "of strangers the sidecar knows nothing"


@uvicorn
def test_a_socket_follows_its_session_to_a_new_id(served):
    server, site = served.server, served.site
    session_id = server.log_in()
    with connect(f"ws://127.0.0.1:{server.port}/echo/", additional_headers={"Cookie": f"sessionid={session_id}"}) as socket:
        assert socket.recv(PATIENCE) == "hello ada"
        eventually(lambda: site.process.metric("watchers") == 1, "the site is told of ends")
        changed = server.open("/change-password/", f"sessionid={session_id}", **_navigation())
        (second,) = re.findall(r"sessionid=(\w+)", changed.headers["Set-Cookie"])
        assert second != session_id
        socket.send("still there?")
        assert socket.recv(PATIENCE) == "still there?"
        site.advance(minutes=15)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "IDLE_TIMEOUT")


@uvicorn
def test_a_socket_survives_a_sidecar_that_was_away_and_hears_of_an_end_meanwhile(served, begin):
    """A sidecar without a store forgets everything: the socket is closed so that it is opened, and adopted, again."""
    server, site = served.server, served.site
    session_id = server.log_in()
    cookie = {"Cookie": f"sessionid={session_id}"}
    with connect(f"ws://127.0.0.1:{server.port}/echo/", additional_headers=cookie) as socket:
        assert socket.recv(PATIENCE) == "hello ada"
        eventually(lambda: site.process.metric("watchers") == 1, "the site is told of ends")
        again = _restarted(site.process)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "UNKNOWN")
        with connect(f"ws://127.0.0.1:{server.port}/echo/", additional_headers=cookie) as anew:
            assert anew.recv(PATIENCE) == "hello ada"
        again.kill()
        again.wait()


def _restarted(process) -> subprocess.Popen[bytes]:
    """The same command again, with an empty memory."""
    command = process.process.args
    process.process.kill()
    process.process.wait()
    again = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment())
    eventually(lambda: process.http("/readyz")[0] == 200, "it is back")
    return again


def test_a_socket_is_closed_by_a_sidecar_that_tells_of_single_sessions_only(serve, directory):
    """Then it is asked again and again, for all sockets at once."""
    port = free_port()
    listen = [f"tcp://127.0.0.1:{port}?verbs=use,issue,end,watch-own"]
    process = serve("--dev", listen=listen)
    command = ["uvicorn", "--port=PORT", "site_asgi:application"]
    with Server(command, directory, f"127.0.0.1:{port}") as server, Sidecar(f"127.0.0.1:{port}", deadline=PATIENT) as client:
        session_id = server.log_in()
        with connect(f"ws://127.0.0.1:{server.port}/echo/", additional_headers={"Cookie": f"sessionid={session_id}"}) as socket:
            assert socket.recv(PATIENCE) == "hello ada"
            changed = server.open("/change-password/", f"sessionid={session_id}", **_navigation())
            (second,) = re.findall(r"sessionid=(\w+)", changed.headers["Set-Cookie"])
            client.end(second, reason=EndReason.REVOKED)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(PATIENCE)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "REVOKED")
        assert process.metric("watchers") == 0


@uvicorn
def test_a_page_is_warned_stays_and_hears_the_end(served):
    server, site = served.server, served.site
    session_id = server.log_in()
    cookie = f"sessionid={session_id}"
    stream = server.open("/-/session/events?page=abc", cookie, Sec_Fetch_Site="same-origin")
    assert stream.status == 200 and stream.headers["Content-Type"] == "text/event-stream" and stream.headers["X-Accel-Buffering"] == "no"
    name, state = event(stream)
    assert name == "state" and state["state"] == "ACTIVE" and state["idle_timeout"] == 900
    eventually(lambda: site.process.metric("watchers") == 1, "the site is told")
    site.advance(minutes=13)
    name, warning = event(stream)
    assert name == "warning" and warning["warn_before"] == 120 and warning["can_extend"] and warning["limit"] == "IDLE"
    own = {"Origin": f"http://127.0.0.1:{server.port}", "X_Session_Sidecar": "1"}
    extended = server.open("/-/session/extend", cookie, "POST", "{}", **own)
    assert extended.status == 200 and json.loads(extended.read())["state"] == "ACTIVE"
    assert event(stream)[0] == "cleared"
    site.sidecar.end(session_id, reason=EndReason.REVOKED)
    name, ended = event(stream)
    assert name == "ended" and ended["end"]["reason"] == "REVOKED" and ended["login_url"] == "/login/"
    assert stream.read() == b"", "it closes"
    assert server.open("/-/session/events", cookie).status == 401, "and the browser does not come back"


@uvicorn
def test_a_page_that_was_open_while_the_key_changed_comes_back_under_the_new_one(served):
    server = served.server
    session_id = server.log_in()
    stream = server.open("/-/session/events?page=abc", f"sessionid={session_id}")
    assert event(stream)[0] == "state"
    eventually(lambda: served.site.process.metric("watchers") == 1, "the site is told")
    changed = server.open("/change-password/", f"sessionid={session_id}", **_navigation())
    name, ended = event(stream)
    assert name == "ended" and ended["end"]["reason"] == "ROTATED"
    assert stream.read() == b""
    (second,) = re.findall(r"sessionid=(\w+)", changed.headers["Set-Cookie"])
    assert event(server.open("/-/session/events?page=abc", f"sessionid={second}"))[1]["session_ref"] != ended["session_ref"]


class Present(Server):
    """Whose sessions end with the browser."""

    POLICY = "present"


def test_an_open_stream_is_an_open_page(process, directory):
    with Present(["uvicorn", "--port=PORT", "site_asgi:application"], directory, process.tcp) as server, Sidecar(process.tcp, deadline=PATIENT) as client:
        session_id = server.log_in()
        cookie = f"sessionid={session_id}"
        stream = server.open("/-/session/events?page=abc", cookie, Sec_Fetch_Site="same-origin")
        assert event(stream)[1]["presence"] is True
        session = client.check(session_id).session
        assert [(each.hold_id, each.kind) for each in session.holds] == [("tab.abc", "PRESENCE")]
        eventually(lambda: process.metric("watchers") == 1, "the site is told")
        left = server.open("/-/session/leave?page=abc", cookie, "POST", Sec_Fetch_Site="same-origin")
        assert left.status == 200 and json.loads(left.read())["limit"] == "PRESENCE"
        testing.advance(client, timedelta(seconds=31))
        name, ended = event(stream)
        assert name == "ended" and ended["end"]["reason"] == "BROWSER_CLOSED"


@uvicorn
def test_sixteen_streams_of_a_session_are_enough(served):
    server = served.server
    cookie = f"sessionid={server.log_in()}"
    streams = [server.open(f"/-/session/events?page=p{number}", cookie) for number in range(16)]
    assert {event(stream)[0] for stream in streams} == {"state"}
    refused = server.open("/-/session/events", cookie)
    assert refused.status == 429 and json.loads(refused.read())["error"] == "STREAM_CAP"
    streams[0].connection.close()
    eventually(lambda: server.open("/-/session/events", cookie).status == 200, "there is room again")


@uvicorn
def test_a_stream_of_the_sites_own_is_closed_at_the_end(served):
    server, site = served.server, served.site
    session_id = server.log_in()
    stream = server.open("/ticks/", f"sessionid={session_id}")
    assert stream.readline() == b"data: open\n"
    eventually(lambda: site.process.metric("watchers") == 1, "the site is told of ends")
    site.sidecar.end(session_id)
    assert stream.read() == b"\n"


@uvicorn
def test_all_of_sockets_share_one_watch(served):
    server, site = served.server, served.site
    session_ids = [server.log_in() for _ in range(3)]
    url = f"ws://127.0.0.1:{server.port}/echo/"
    with ExitStack() as opened:
        sockets = [opened.enter_context(connect(url, additional_headers={"Cookie": f"sessionid={session_ids[number % 3]}"})) for number in range(30)]
        assert {socket.recv(PATIENCE) for socket in sockets} == {"hello ada"}
        eventually(lambda: site.process.metric("watchers") == 1, "the site is told of ends")
        site.sidecar.end(session_ids[0])
        for number, socket in enumerate(sockets):
            if number % 3 == 0:
                with pytest.raises(ConnectionClosed):
                    socket.recv(PATIENCE)
            else:
                socket.send("there?")
                assert socket.recv(PATIENCE) == "there?"
