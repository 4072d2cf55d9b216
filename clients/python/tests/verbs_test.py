"""Every verb, synchronous and asyncio, against a real sidecar and against the fake."""

import asyncio
import inspect
from datetime import UTC, datetime, timedelta

import pytest
from helpers import NEVER_ISSUED, PATIENT, seconds

from session_sidecar import (
    Activity,
    Actor,
    AsyncSidecar,
    Ended,
    EndReason,
    Hints,
    HoldClamp,
    HoldKind,
    InvalidRequestError,
    KnowledgeScope,
    Limit,
    Live,
    NotPermittedError,
    Ref,
    RefusedError,
    SessionEndedError,
    SessionState,
    SessionUnknownError,
    Sidecar,
    Touch,
    Touched,
    TouchResult,
    Unknown,
)
from session_sidecar import testing
from session_sidecar.fake import FakeSidecar


class Blocking:
    """An AsyncSidecar with the face of a Sidecar, so that each test below is about both."""

    def __init__(self, sidecar: AsyncSidecar) -> None:
        self._runner = asyncio.Runner()
        self._sidecar = sidecar

    def __getattr__(self, verb):
        def call(*arguments, **named):
            answer = getattr(self._sidecar, verb)(*arguments, **named)
            return self._runner.run(answer) if inspect.iscoroutine(answer) else answer

        return call

    def close(self) -> None:
        self._runner.run(self._sidecar.close())
        self._runner.close()


@pytest.fixture(params=["sync-tcp", "sync-uds", "async-tcp", "async-uds", "sync-fake", "async-fake"])
def either(request):
    kind, transport = request.param.split("-")
    if transport == "fake":
        # The policy of `serve --dev`.
        fake = FakeSidecar(idle_timeout="20s", absolute_timeout="10m", warn_before=["10s", "5s"], absolute_warn_before=["1m", "20s"])
        client = fake if kind == "sync" else Blocking(fake.asynchronous())
    else:
        target = getattr(request.getfixturevalue("process"), transport)
        client = Sidecar(target, deadline=PATIENT) if kind == "sync" else Blocking(AsyncSidecar(target, deadline=PATIENT))
    yield client
    client.close()


def advance(either, duration: timedelta) -> None:
    """Moves the clock of either."""
    testing.advance(either._sidecar if isinstance(either, Blocking) else either, duration)


def test_a_whole_life(either):
    created = either.create(subject="ada", labels={"app": "shop"}, idle_timeout=seconds(15), authentication_level="aal2")
    assert len(created.session_id) == 43
    session = created.session
    assert (session.subject, session.labels, session.authentication_level) == ("ada", {"app": "shop"}, "aal2")
    assert session.idle_timeout == seconds(15)
    assert session.status.scope is KnowledgeScope.MEMORY and session.status.limit is Limit.IDLE
    assert session.create_time.tzinfo is UTC and abs(session.create_time - datetime.now(UTC)) < timedelta(days=1)

    match either.touch(created.session_id, activity=Activity.USER):
        case Touched(counted=True, result=TouchResult.COUNTED, rule="declared-user") as touched:
            assert touched.allowed and not touched.expiring and timedelta() < touched.expires_in <= seconds(15)
        case other:
            raise AssertionError(other)
    assert either.touch(created.session_id, activity=Activity.BACKGROUND).result is TouchResult.IGNORED

    advance(either, seconds(9))
    checked = either.check(created.session_id)
    assert isinstance(checked, Live) and checked.expiring and checked.session.status.state is SessionState.EXPIRING
    extended = either.extend(created.session_id)
    assert extended.granted_duration > seconds(8) and extended.clamped_by is None

    rotated = either.rotate(created.session_id, authenticated_ago=timedelta())
    assert rotated.previous_end.reason is EndReason.ROTATED
    assert rotated.previous_end.successor_ref == rotated.session.status.session_ref
    match either.touch(created.session_id):
        case Ended(reason=EndReason.ROTATED, successor_ref=successor):
            assert successor == rotated.session.status.session_ref
        case other:
            raise AssertionError(other)

    ended = either.end(rotated.session_id, reason=EndReason.REVOKED, actor_id="desk-7", note="stolen")
    assert ended.ended_now and ended.end.actor is Actor.ADMIN
    assert not either.end(rotated.session_id).ended_now
    match either.touch(rotated.session_id):
        case Ended(reason=EndReason.REVOKED, actor=Actor.ADMIN, end=end) as answer:
            assert (end.actor_id, end.note, answer.allowed) == ("desk-7", "stolen", False)
            assert abs(end.end_time - ended.end.end_time) < seconds(0.01)
        case other:
            raise AssertionError(other)
    whole = either.check(Ref(rotated.session.status.session_ref))
    assert isinstance(whole, Ended) and whole.session.end.note == "stolen"


def test_holds(either):
    session_id = either.create().session_id
    held = either.hold(session_id, "report", ttl=timedelta(days=1), purpose="monthly report")
    assert held.created and held.clamped_by in HoldClamp and held.granted_ttl < timedelta(days=1)
    assert not either.hold(session_id, "report", ttl=seconds(5)).created
    (hold,) = either.check(session_id).session.holds
    assert (hold.hold_id, hold.kind, hold.purpose) == ("report", HoldKind.WORK, "monthly report")
    assert either.release(session_id, "report").released
    assert not either.release(session_id, "report").released


def test_many_at_once_have_an_outcome_each(either):
    live, over = either.create().session_id, either.create().session_id
    either.end(over)
    touched = either.touch_many([Touch(live), Touch(over), Touch("short"), Touch(NEVER_ISSUED), Touch(live, Activity.BACKGROUND)])
    assert [type(each) for each in touched] == [Touched, Ended, InvalidRequestError, Unknown, Touched]
    assert touched[1].reason is EndReason.LOGOUT and not touched[4].counted
    ref = either.check(live).session_ref
    checked = either.check_many([over, ref, NEVER_ISSUED, Ref("none")])
    assert [type(each) for each in checked] == [Ended, Live, Unknown, InvalidRequestError]


def test_a_session_that_runs_already_is_adopted(either):
    adopted = either.create(session_id="own-id-of-ada-0123456789", authenticated_ago=seconds(30), idle_for=seconds(5))
    assert adopted.session_id == "own-id-of-ada-0123456789"
    assert adopted.session.create_time - adopted.session.authentication_time == seconds(30)
    assert adopted.session.status.expires_in <= seconds(15)
    with pytest.raises(RefusedError) as refused:
        either.create(session_id="own-id-of-ada-0123456789")
    assert (refused.value.reason, refused.value.session_ref) == ("SESSION_EXISTS", adopted.session.status.session_ref)


def test_a_request_id_makes_a_retry_safe(either):
    first = either.create(subject="carol", request_id="login-of-carol")
    assert either.create(subject="carol", request_id="login-of-carol").session_id == first.session_id
    with pytest.raises(RefusedError, match="REQUEST_ID_REUSED"):
        either.create(subject="mallory", request_id="login-of-carol")
    assert either.create(subject="carol").session_id != first.session_id


def test_commands_raise_what_became_of_the_session(either):
    session_id = either.create().session_id
    either.end(session_id)
    for command in (either.extend, either.rotate, lambda over: either.hold(over, "work", ttl=seconds(5))):
        with pytest.raises(SessionEndedError) as ended:
            command(session_id)
        assert ended.value.answer.reason is EndReason.LOGOUT
        with pytest.raises(SessionUnknownError):
            command(NEVER_ISSUED)


def test_mistakes_are_exceptions_whatever_the_fail_policy(either):
    lenient = either.with_options(fail="open")
    lenient = lenient if isinstance(lenient, Sidecar) else either
    for call, fields in (
        (lambda: lenient.touch("short"), ("session_id",)),
        (lambda: lenient.touch(""), ("session_id",)),
        (lambda: lenient.touch("surrogate\udcff-in-the-cookie"), ("session_id",)),
        (lambda: lenient.create(session_id=""), ("session_id",)),
        (lambda: lenient.create(idle_timeout=timedelta(days=1)), ("idle_timeout",)),
        (lambda: lenient.check_many([]), ("sessions",)),
        (lambda: lenient.watch(), ("scope",)),
        (lambda: lenient.hold(NEVER_ISSUED, "work", ttl=seconds(5), kind="NONE"), ("hold_kind",)),
    ):
        with pytest.raises(InvalidRequestError) as invalid:
            call()
        assert invalid.value.fields == fields
    for call in (lambda: lenient.touch(3), lambda: lenient.touch(Ref("A" * 22)), lambda: lenient.create(idle_timeout=900)):
        with pytest.raises(TypeError):
            call()


def test_another_tenant_is_not_permitted(process):
    with Sidecar(process.tcp, tenant="somebody-elses", fail="open", deadline=PATIENT) as sidecar:
        with pytest.raises(NotPermittedError):
            sidecar.touch(NEVER_ISSUED)
        assert isinstance(sidecar.with_options(tenant="").touch(NEVER_ISSUED), Unknown)


def test_what_is_no_sidecar_is_not_permitted(process):
    """A wrong port is a mistake in the configuration: even a client that fails open does not go on with it."""
    with Sidecar(f"127.0.0.1:{process.admin_port}", fail="open", deadline=PATIENT) as sidecar, pytest.raises(NotPermittedError):
        sidecar.touch(NEVER_ISSUED)


def test_hints_of_a_request_are_what_the_sidecar_takes(sidecar):
    session_id = sidecar.create().session_id
    headers = {"host": "shop.example:8000", "sec-purpose": "prefetch", "sec-fetch-dest": "x" * 65, "sec-fetch-mode": "n\xe4vigate"}
    hints = Hints.of_request("GET", "/" + "a" * 5000 + "?q=secret", headers)
    assert (hints.host, hints.sec_fetch_dest, hints.sec_fetch_mode, len(hints.path)) == ("shop.example", "", "", 2048)
    assert sidecar.touch(session_id, hints=hints).rule == "prefetch"
    assert Hints.of_request("GET", "/a?q", {"host": "[::1]:80"}) == Hints(host="[::1]", method="GET", path="/a")
