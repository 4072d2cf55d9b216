"""Each listener says which tenants its callers may name and which verbs they may use (G17)."""

import grpc
import pytest

from support.api import Client, Code, admin_v1, error_details, reason, v1
from support.process import free_port

ID = "an-id-of-at-least-16-bytes"
OWN = v1.WatchScope(sessions=v1.SessionNames(names=[v1.SessionName(session_id=ID)]))
BY_REF = v1.WatchScope(sessions=v1.SessionNames(names=[v1.SessionName(session_ref="A" * 22)]))
CALLS = {
    "use": [
        ("Touch", v1.TouchRequest(session_id=ID)),
        ("BatchTouch", v1.BatchTouchRequest(touches=[v1.TouchRequest(session_id=ID)])),
        ("Check", v1.CheckRequest(session_id=ID)),
        ("Extend", v1.ExtendRequest(session_id=ID)),
        ("Hold", v1.HoldRequest(session_id=ID, hold_id="h", kind=v1.HOLD_KIND_WORK, ttl={"seconds": 1})),
        ("Release", v1.ReleaseRequest(session_id=ID, hold_id="h")),
    ],
    "issue": [("Create", v1.CreateRequest()), ("Rotate", v1.RotateRequest(session_id=ID))],
    "end": [("End", v1.EndRequest(session_id=ID))],
    "watch-own": [("WatchExpiry", v1.WatchExpiryRequest(scope=OWN))],
    "watch-all": [
        ("WatchExpiry", v1.WatchExpiryRequest(scope=scope))
        for scope in (
            BY_REF,
            v1.WatchScope(subject="s"),
            v1.WatchScope(whole_tenant=True),
            v1.WatchScope(everything=True),
        )
    ],
    "admin": [
        ("ListSessions", admin_v1.ListSessionsRequest()),
        ("EndSessions", admin_v1.EndSessionsRequest(whole_tenant=True, dry_run=True)),
        ("ExplainSession", admin_v1.ExplainSessionRequest(session_id=ID)),
        ("ListPolicies", admin_v1.ListPoliciesRequest()),
        ("GetStats", admin_v1.GetStatsRequest()),
    ],
}


def code_of(client: Client, verb: str, request: object) -> Code:
    """How a call ends; a watch that stands is OK."""
    try:
        service = client.admin if hasattr(client.admin, verb) else client.sessions
        answer = getattr(service, verb)(request, timeout=10)
        if verb == "WatchExpiry":
            next(answer)
            answer.cancel()
    except grpc.RpcError as error:
        if error.code() == Code.PERMISSION_DENIED:
            assert reason(error) == "CALLER_NOT_ALLOWED"
            assert ID not in error.details() + str(error_details(error))
        return error.code()
    return Code.OK


def test_a_listener_allows_its_verbs_and_no_others(serve):
    ports = {group: free_port() for group in CALLS}
    serve(listen=[f"tcp://127.0.0.1:{port}?verbs={group}" for group, port in ports.items()])
    for allowed, port in ports.items():
        with Client(f"127.0.0.1:{port}") as client:
            for group, calls in CALLS.items():
                for verb, request in calls:
                    denied = code_of(client, verb, request) == Code.PERMISSION_DENIED
                    # Whoever may watch everything may watch single sessions too.
                    expected = group not in ({allowed, "watch-own"} if allowed == "watch-all" else {allowed})
                    assert denied == expected, f"{verb} by a caller of verbs={allowed}"


@pytest.mark.parametrize(
    ("query", "own", "foreign"),
    [("", [""], ["shop", "blog"]), ("?tenants=,shop", ["", "shop"], ["blog"]), ("?tenants=shop", ["shop"], [""])],
)
def test_a_listener_serves_its_tenants_and_no_others(serve, query, own, foreign):
    port = free_port()
    serve(listen=[f"tcp://127.0.0.1:{port}{query}"])
    with Client(f"127.0.0.1:{port}") as client:
        for tenant in own + foreign:
            requests = [
                ("Create", v1.CreateRequest(tenant=tenant)),
                ("Check", v1.CheckRequest(tenant=tenant, session_id=ID)),
                ("WatchExpiry", v1.WatchExpiryRequest(scope=v1.WatchScope(tenant=tenant, whole_tenant=True))),
                ("WatchExpiry", v1.WatchExpiryRequest(scope=v1.WatchScope(tenant=tenant, subject="s"))),
            ]
            expected = Code.OK if tenant in own else Code.PERMISSION_DENIED
            for verb, request in requests:
                assert code_of(client, verb, request) == expected, f"{verb} of tenant {tenant!r}"
            batch = client.sessions.BatchTouch(
                v1.BatchTouchRequest(touches=[v1.TouchRequest(tenant=tenant, session_id=ID)])
            )
            assert (
                batch.outcomes[0].error.code == (Code.NOT_FOUND if tenant in own else Code.PERMISSION_DENIED).value[0]
            )


def test_the_same_id_in_two_tenants_is_two_sessions_and_everything_means_the_callers_own(serve):
    both, shop_only = free_port(), free_port()
    serve(listen=[f"tcp://127.0.0.1:{both}?tenants=shop,blog", f"tcp://127.0.0.1:{shop_only}?tenants=shop"])
    with Client(f"127.0.0.1:{both}") as client, Client(f"127.0.0.1:{shop_only}") as shop:
        everything = v1.WatchScope(everything=True)
        all_events, shop_events = client.watch(scope=everything), shop.watch(scope=everything)
        assert next(all_events).HasField("snapshot_end") and next(shop_events).HasField("snapshot_end")
        refs = {tenant: client.create(ID, tenant=tenant).session.status.session_ref for tenant in ("blog", "shop")}
        assert refs["blog"] != refs["shop"]
        for tenant in ("blog", "shop"):
            assert client.end(ID, tenant=tenant).ended_now
        assert [next(all_events).ended.session.tenant for _ in range(2)] == ["blog", "shop"]
        first = next(shop_events)
        assert (first.ended.session.tenant, first.ended.session.session_ref) == ("shop", refs["shop"])
        # A ref of another tenant names nothing here.
        by_ref = shop.sessions.Check(v1.CheckRequest(tenant="shop", session_ref=refs["blog"]))
        assert by_ref.session.status.state == v1.SESSION_STATE_UNKNOWN
        # A token of a caller with other tenants is refused.
        resumed = shop.sessions.WatchExpiry(
            v1.WatchExpiryRequest(scope=everything, resume_token=next_token(client, everything))
        )
        with pytest.raises(grpc.RpcError) as refused:
            next(resumed)
        assert refused.value.code() == Code.INVALID_ARGUMENT


def next_token(client: Client, scope: v1.WatchScope) -> str:
    stream = client.watch(scope=scope)
    token = next(stream).resume_token
    stream.cancel()
    return token
