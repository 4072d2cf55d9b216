"""The HTTP door of a real process: requests and streams over real connections, and what configuration it refuses."""

import http.client
import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support.api import Client, until_available, v1
from support.process import Sidecar, eventually, free_port, run, tool

EX_USAGE = 64
POLICY = """
[policy.default]
idle_timeout = "60s"
absolute_timeout = "10m"
warn_before = ["20s"]

[door]
cookies = ["sid"]
login_url = "/login"
"""


class Door:
    """A sidecar with a test clock and a door, and a session of it."""

    def __init__(self, serve, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        policy = directory / "policy.toml"
        policy.write_text(POLICY)
        self.port = free_port()
        self.sidecar: Sidecar = serve("--dev", "--policy-file", str(policy), "--door-listen", f"127.0.0.1:{self.port}")
        self.id = self.run("create", "--subject", "ada").strip()
        (directory / "id").write_text(self.id)

    def run(self, *arguments: str) -> str:
        result = run(self.binary, *arguments, "--target", f"http://{self.sidecar.tcp}")
        assert result.returncode == 0, result.stderr
        return result.stdout

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body or None, {"Cookie": f"sid={self.id}"} | named)
        return connection.getresponse(), connection

    def told(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, dict]:
        response, connection = self.ask(method, path, body, **headers)
        text = response.read()
        connection.close()
        return response.status, json.loads(text)


@pytest.fixture
def door(serve, binary, directory) -> Door:
    return Door(serve, binary, directory)


def event(response: http.client.HTTPResponse) -> tuple[str, dict]:
    """The next event of a stream."""
    name, data = "", ""
    while True:
        line = response.readline().decode().rstrip("\n")
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data = line.removeprefix("data:").strip()
        elif not line and name:
            return name, json.loads(data)


def test_a_page_is_warned_stays_and_hears_the_end(door):
    response, connection = door.ask("GET", "/session/events", Sec_Fetch_Site="same-origin")
    assert response.status == 200 and response.getheader("Content-Type") == "text/event-stream"
    assert event(response)[0] == "state"
    door.run("advance", "45s")
    name, warning = event(response)
    assert name == "warning" and warning["warn_before"] == 20 and warning["can_extend"]
    status, session = door.told("POST", "/session/extend", X_Session_Sidecar="1")
    assert status == 200 and session["state"] == "ACTIVE" and 59 < session["expires_in"] <= 60
    assert event(response)[0] == "cleared"
    door.run("end", "--id-file", str(door.directory / "id"))
    name, ended = event(response)
    assert name == "ended" and ended["end"]["reason"] == "LOGOUT"
    assert response.read() == b"", "it closes"
    connection.close()
    assert door.id not in door.sidecar.output()


def test_a_stream_ends_with_the_process(door):
    response, connection = door.ask("GET", "/session/events")
    assert event(response)[0] == "state"
    door.sidecar.process.send_signal(signal.SIGTERM)
    assert event(response)[0] == "draining"
    assert response.read() == b""
    connection.close()
    assert eventually(lambda: door.sidecar.process.poll() is not None, "it ends") and door.sidecar.process.returncode == 0


def test_while_the_store_is_away_nobody_comes_back_by_a_name_in_other_letter_case(serve, binary, directory):
    """Some applications would read the cookie SID as sid, and the store alone knows that its session is over."""
    (door, store, key, policy) = (free_port(), free_port(), directory / "key", directory / "policy.toml")
    key.write_bytes(b"0123456789abcdef" * 2)
    key.chmod(0o600)
    policy.write_text(POLICY)
    redis = subprocess.Popen([tool("redis-server"), "--port", str(store), "--save", "", "--dir", str(directory)], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: run(Path(tool("redis-cli")), "-p", str(store), "ping").stdout == "PONG\n", "redis answers")
        shared = ["--store", f"redis://127.0.0.1:{store}", "--store-key-file", str(key), "--store-outage", "degraded"]
        sidecar = serve(*shared, "--policy-file", str(policy), "--door-listen", f"127.0.0.1:{door}")

        def asked(target: str, cookies: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", door, timeout=30)
            connection.request("GET", "/authz", headers={"X-Original-URI": target, "Cookie": cookies})
            status = connection.getresponse().status
            connection.close()
            return status

        with Client(sidecar.tcp) as client:
            live, ended = (until_available(lambda name=name: client.create(request_id=name)).session_id for name in ("the-request-of-one", "that-of-the-other"))
            until_available(lambda: client.end(ended, reason=v1.END_REASON_LOGOUT))
        both = f"sid={live}; SID={ended}"
        assert asked("/cart", f"sid={live}") == 200
        # 503: on a busy machine the store may take longer than it has.
        assert eventually(lambda: (status := asked("/cart", both)) != 503 and status, "the store answers") == 401
        redis.kill()
        eventually(lambda: sidecar.metrics("store_up")[""] == 0, "the store is away")
        assert (asked("/cart", f"sid={live}"), asked("/cart", both)) == (200, 503)
    finally:
        redis.kill()
        redis.wait()


def test_slow_and_broken_requests_keep_nobody_from_the_door(door):
    idle = [http.client.HTTPConnection("127.0.0.1", door.port) for _ in range(200)]
    for connection in idle:
        connection.connect()
        connection.sock.sendall(b"GET /session HTTP/1.1\r\nHost: ")
    status, session = door.told("GET", "/session")
    assert (status, session["state"]) == (200, "ACTIVE")
    for connection in idle:
        connection.close()
    for request in (b"\x16\x03\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\nCookie: sid=a\r\nb\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"):
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
        connection.connect()
        connection.sock.sendall(request)
        connection.sock.recv(1000)
        connection.close()
    assert door.told("GET", "/session")[0] == 200


def test_who_comes_while_it_stops_is_refused_at_once_and_what_is_under_way_is_answered(door):
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    connection.putrequest("POST", "/session/activity")
    for name, value in {"Cookie": f"sid={door.id}", "X-Session-Sidecar": "1", "Content-Length": "2"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"{")
    # Somebody has begun to read it.
    assert door.told("GET", "/session")[0] == 200
    door.sidecar.process.send_signal(signal.SIGTERM)

    def is_refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", door.port), timeout=30).close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(is_refused, "nobody comes in any more")
    assert door.sidecar.process.poll() is None
    connection.send(b"}")
    assert connection.getresponse().status == 200
    connection.close()
    assert eventually(lambda: door.sidecar.process.poll() is not None, "it ends") and door.sidecar.process.returncode == 0


def test_it_is_off_unless_it_is_asked_for(serve):
    assert "listening for the door" not in serve().output()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('[door]\ncookies = ["a b"]', "must be a cookie's name"),
        ("[door]\ncookies = []", "say how requests name their session"),
        ('[door]\ncookies = ["session", "SESSION"]', "for one name: keep one of them"),
        ('[door]\ncookies = ["my.sid", "other", "my_sid"]', "for one name: keep one of them"),
        ('[door]\ncookies = [{ name = "__Host-a", domain = "a" }]', "has no domain and the path /"),
        ('[door]\norigins = ["shop.example"]', "must be a scheme, a host"),
        ('[door]\nlogin_url = "//evil.example"', "login_url must be a path"),
        ('[door]\nlogin_url = "javascript:alert(1)"', "login_url must be a path"),
        ("[[door.routes]]\npublic = true", "neither host nor path"),
        ('[[door.routes]]\npath = "/a"', "a route is public"),
        ('[[door.routes]]\npath = "/{a"\npublic = true', "is not a glob"),
        ("[door]\ncookie = 1", "did you mean `cookies`?"),
    ],
)
def test_a_bad_table_is_refused_with_what_is_wrong(binary, directory, table, says):
    (directory / "policy.toml").write_text(f"[policy.default]\n{table}\n")
    flags = ("--policy-file", str(directory / "policy.toml"), "--door-listen", "127.0.0.1:0")
    refused = run(binary, "check-config", *flags)
    assert refused.returncode == EX_USAGE and says in refused.stderr, refused.stderr


@pytest.mark.parametrize(
    ("address", "says"), [("nowhere", "must be an address like 127.0.0.1:50153"), ("0.0.0.0:0", "--allow-plaintext")]
)
def test_a_bad_address_is_refused(binary, address, says):
    refused = run(binary, "check-config", "--door-listen", address)
    assert refused.returncode == EX_USAGE and says in refused.stderr, refused.stderr


def test_a_taken_port_is_named(binary, door):
    refused = run(binary, "serve", "--listen", f"tcp://127.0.0.1:{free_port()}", "--admin-listen", "off", "--door-listen", f"127.0.0.1:{door.port}")
    assert refused.returncode != 0 and "--door-listen" in refused.stderr and "already in use" in refused.stderr


def test_what_the_door_does_is_counted(door):
    door.ask("GET", "/session/sidecar.js")[1].close()
    assert door.told("GET", "/session")[0] == 200
    door.ask("GET", "/nowhere/at/all")[1].close()
    response, connection = door.ask("GET", "/session/events", Sec_Fetch_Site="same-origin")
    assert event(response)[0] == "state"
    page = door.sidecar.http("/metrics")[1]
    assert 'session_sidecar_door_answers_total{path="/session",code="200"} 1' in page
    assert 'path="/session/sidecar.js",code="200"' in page
    assert 'path="other",code="404"' in page and "nowhere" not in page
    assert door.sidecar.metric("door_streams") == 1
    response.close()
    connection.close()
    eventually(lambda: door.sidecar.metric("door_streams") == 0, "the stream is closed")


def test_a_changed_table_is_followed(door):
    (door.directory / "policy.toml").write_text(POLICY.replace('["sid"]', '["other"]'))
    eventually(lambda: door.told("GET", "/session")[1]["state"] == "NONE", "the cookie has another name")
    assert door.told("GET", "/session", Cookie=f"other={door.id}")[1]["state"] == "ACTIVE"
    (door.directory / "policy.toml").write_text(POLICY.replace('"/login"', '"login"'))
    eventually(lambda: "login_url must be a path" in door.sidecar.output(), "it is said what is wrong")
    assert door.told("GET", "/session")[1]["state"] == "NONE", "all stays as it was"
