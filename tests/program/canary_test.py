"""G15: a raw session id appears nowhere but in the answer to the caller that just sent it."""

import contextlib
import http.client
import threading
from collections.abc import Iterator

import grpc
import pytest

from support.api import Client, dev, envoy, error_details, v1
from support.process import free_port

CANARY = "CANARY"


def canary(name: str) -> str:
    """An id that is recognised wherever it turns up."""
    return f"{CANARY}-{name}-{CANARY}-0123456789"


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_ids_leak_nowhere(serve, directory, log_format):
    policy = directory / "policy.toml"
    policy.write_text('[policy.default]\nidle_timeout = "10s"\nabsolute_timeout = "30s"\nmax_extensions = 1\n[door]\ncookies = ["sid"]\n')
    door = free_port()
    sidecar = serve(
        "--dev",
        "--log-format",
        log_format,
        "--policy-file",
        str(policy),
        "--max-sessions",
        "20",
        "--door-listen",
        f"127.0.0.1:{door}",
        env={"SESSION_SIDECAR_LOG": "trace"},
    )
    heard: list[str] = []
    secrets = {CANARY}

    def attempt(verb: str, request: object) -> object:
        """Calls, and keeps all that an error says."""
        try:
            return getattr(client.sessions, verb)(request, timeout=10)
        except grpc.RpcError as error:
            heard.append(f"{error.details()} {error_details(error)} {error.trailing_metadata()}")

    with Client(sidecar.tcp) as client, Client(sidecar.uds) as observer:
        scopes = [
            v1.WatchScope(whole_tenant=True),
            v1.WatchScope(everything=True),
            v1.WatchScope(subject="alice"),
        ]
        threads = [
            threading.Thread(target=listen, args=(observer.watch(scope=scope, include_initial_state=True), heard))
            for scope in scopes
        ]
        for thread in threads:
            thread.start()

        ids = [canary(str(number)) for number in range(5)]
        for session_id in ids:
            client.create(session_id, subject="alice", labels={"app": "shop"})
        made = [
            client.create(subject="alice", request_id=canary("request")).session_id,
            client.create(subject="alice").session_id,
        ]
        secrets.update(made)
        for session_id in ids + made:
            client.sessions.Touch(v1.TouchRequest(session_id=session_id, activity=v1.ACTIVITY_USER))
        client.advance(7)
        for session_id in ids[:2] + made:
            client.sessions.Extend(v1.ExtendRequest(session_id=session_id))
            attempt("Extend", v1.ExtendRequest(session_id=session_id))
        work = {"hold_id": "upload", "kind": v1.HOLD_KIND_WORK, "ttl": {"seconds": 1}}
        client.sessions.Hold(v1.HoldRequest(session_id=ids[3], **work))
        client.sessions.Release(v1.ReleaseRequest(session_id=ids[3], hold_id="upload"))
        rotated = [v1.RotateRequest(session_id=ids[3], new_session_id=canary("rotated"), request_id=canary("rotation"))]
        rotated += [v1.RotateRequest(session_id=ids[4]), v1.RotateRequest(session_id=made[1], authenticated_ago={})]
        for request in rotated:
            secrets.add(client.sessions.Rotate(request).session_id)
            attempt("Touch", v1.TouchRequest(session_id=request.session_id))
        client.end(ids[0], note="a note", actor_id="desk", request_id=canary("end"))

        # All that can go wrong, with an id in it.
        bad = canary("bad")
        everywhere = [bad, ids[0], ids[1], made[0]]
        for session_id in [
            *everywhere,
            f"{CANARY} with a blank",
            f"{CANARY}-ümlaut-0123456789",
            CANARY + "x" * 300,
            CANARY,
        ]:
            heard.extend(at_the_door(client, door, session_id))
            attempt("Create", v1.CreateRequest(session_id=session_id, policy=bad))
            attempt("Create", v1.CreateRequest(session_id=session_id, request_id=bad))
            attempt("Touch", v1.TouchRequest(session_id=session_id))
            attempt("Touch", v1.TouchRequest(session_id=session_id, tenant=bad, activity=77))
            attempt("Check", v1.CheckRequest(session_id=session_id, sessions=[v1.SessionName(session_id=session_id)]))
            attempt("Check", v1.CheckRequest(session_ref=session_id))
            attempt("Extend", v1.ExtendRequest(session_id=session_id, request_id=f"{CANARY} blank"))
            attempt("Hold", v1.HoldRequest(session_id=session_id, hold_id=f"{CANARY} blank"))
            attempt("Hold", v1.HoldRequest(session_id=session_id, **work))
            attempt("Release", v1.ReleaseRequest(session_id=session_id))
            attempt("Rotate", v1.RotateRequest(session_id=session_id, new_session_id=ids[2]))
            attempt("Rotate", v1.RotateRequest(session_id=ids[2], new_session_id=session_id, request_id=f"{CANARY} x"))
            attempt("End", v1.EndRequest(session_id=session_id, reason=v1.END_REASON_IDLE_TIMEOUT))
            touches = [v1.TouchRequest(session_id=session_id, tenant=tenant) for tenant in ("", bad)]
            answer = attempt("BatchTouch", v1.BatchTouchRequest(touches=touches))
            heard.append(str(answer))
            names = v1.SessionNames(names=[v1.SessionName(session_ref=session_id)])
            for watch in (
                v1.WatchExpiryRequest(scope=v1.WatchScope(sessions=names)),
                v1.WatchExpiryRequest(scope=v1.WatchScope(subject="alice"), resume_token=session_id),
            ):
                attempt_stream(client, watch, heard)
        attempt("BatchTouch", v1.BatchTouchRequest(touches=[v1.TouchRequest(session_id=bad)] * 40_000))
        with contextlib.suppress(grpc.RpcError):
            client.clock.Advance(dev.AdvanceRequest())
        for number in range(30):  # into the cap
            attempt("Create", v1.CreateRequest(session_id=canary(f"cap{number}")))
        client.advance(40)
        for session_id in ids + made:
            checked = client.sessions.Check(v1.CheckRequest(session_id=session_id))
            assert checked.session.status.state == v1.SESSION_STATE_ENDED
            heard.append(str(checked))

        heard.append(sidecar.http("/metrics")[1])
        assert sidecar.stop() == 0
        for thread in threads:
            thread.join(30)

    assert any("ended {" in message for message in heard), "the watchers heard of it all"
    assert "TRACE" in sidecar.output(), "the log must be as loud as it gets"
    for place, text in [("the log", sidecar.output()), *(("what was heard", message) for message in heard)]:
        for secret in secrets:
            at = text.find(secret)
            assert at < 0, f"{place} has an id in it: …{text[max(0, at - 200) : at + 60]}…"


def at_the_door(client: Client, port: int, session_id: str) -> Iterator[str]:
    """What the door, and what Envoy, is told of a request that names a session."""
    cookie = f"sid={session_id}".encode()
    for path in ("/session", "/authz", "/authz?deny=redirect", "/session/nonesuch"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Cookie": cookie, "X-Original-URI": "/cart", "Sec-Fetch-Mode": "navigate"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        told = [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() != "x-session-cookies"]
        yield f"{told} {answer.read().decode()}"
        connection.close()
    for path in ("/cart", "/login"):
        raw = [envoy.HeaderValue(key="cookie", raw_value=cookie)]
        asked = envoy.AttributeContext.HttpRequest(method="GET", path=path, header_map=envoy.HeaderMap(headers=raw))
        attributes = envoy.AttributeContext(request=envoy.AttributeContext.Request(http=asked))
        yield str(client.envoy.Check(envoy.CheckRequest(attributes=attributes), timeout=10))


def attempt_stream(client: Client, request: v1.WatchExpiryRequest, heard: list[str]) -> None:
    """Opens a watch that must fail, and keeps what the error says."""
    with pytest.raises(grpc.RpcError) as failed:
        next(client.sessions.WatchExpiry(request, timeout=10))
    heard.append(f"{failed.value.details()} {error_details(failed.value)}")


def listen(stream: object, heard: list[str]) -> None:
    """Keeps all messages of a stream, until it ends."""
    heard.extend(str(message) for message in stream)
