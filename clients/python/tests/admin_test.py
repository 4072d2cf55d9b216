"""SidecarAdmin, synchronous and asyncio, against a real sidecar with a listener for administrators."""

from datetime import UTC, datetime, timedelta

import pytest
from helpers import NEVER_ISSUED, PATIENT, Blocking, seconds

from session_sidecar import (
    Activity,
    Actor,
    AsyncSidecarAdmin,
    Ended,
    EndReason,
    HoldKind,
    InvalidRequestError,
    Limit,
    NotPermittedError,
    Ref,
    SessionState,
    Sidecar,
    SidecarAdmin,
    admin,
)
from session_sidecar.testing import advance


@pytest.fixture
def sidecar(serve):
    process = serve("--dev", query="?verbs=use,issue,end,admin")
    with Sidecar(process.tcp, deadline=PATIENT) as client:
        yield client


@pytest.fixture(params=[SidecarAdmin, lambda target: Blocking(AsyncSidecarAdmin(target))], ids=["threads", "asyncio"])
def desk(request, sidecar):
    client = request.param(sidecar.target)
    yield client
    client.close()


def test_sessions_are_listed_over_all_pages(desk, sidecar):
    made = {sidecar.create(subject="vera", labels={"device": "laptop"}).session.status.session_ref for _ in range(5)}
    phone = sidecar.create(subject="vera", labels={"device": "phone"})
    sidecar.create(subject="somebody else")
    listed = list(desk.list_sessions(subject="vera", page_size=2, actor_id="desk-7"))
    assert {each.status.session_ref for each in listed} == made | {phone.session.status.session_ref}
    assert len(listed) == 6 and {each.subject for each in listed} == {"vera"}
    (only,) = desk.list_sessions(labels={"device": "phone"}, policy="default")
    assert only.status.session_ref == phone.session.status.session_ref
    assert list(desk.list_sessions(subject="nobody")) == []
    sidecar.end(phone.session_id)
    (over,) = desk.list_sessions(subject="vera", states=[SessionState.ENDED])
    assert over.end.reason is EndReason.LOGOUT


def test_sessions_of_a_person_are_ended_but_one(desk, sidecar):
    ids = [sidecar.create(subject="vera").session_id for _ in range(3)]
    dry = desk.end_sessions(subject="vera", dry_run=True)
    assert (dry.matched_count, dry.ended_count, len(dry.session_refs)) == (3, 0, 3)
    ended = desk.end_sessions(subject="vera", excepted=[ids[0]], actor_id="desk-7", note="phone was stolen")
    assert (ended.matched_count, ended.ended_count) == (2, 2)
    assert sidecar.touch(ids[0]).allowed
    match sidecar.touch(ids[1]):
        case Ended(reason=EndReason.REVOKED, actor=Actor.ADMIN, end=end, session_ref=ref):
            assert (end.actor_id, end.note) == ("desk-7", "phone was stolen") and ref in ended.session_refs
        case other:
            raise AssertionError(other)
    logout = desk.end_sessions(whole_tenant=True, reason=EndReason.LOGOUT, actor=Actor.SYSTEM)
    assert logout.ended_count == 1 and sidecar.touch(ids[0]).end.actor is Actor.SYSTEM


def test_a_life_is_explained(desk, sidecar):
    session_id = sidecar.create(subject="ada").session_id
    ref = sidecar.hold(session_id, "report", ttl=seconds(5), purpose="monthly report").status.session_ref
    sidecar.release(session_id, "report")
    sidecar.touch(session_id, activity=Activity.BACKGROUND)
    advance(sidecar, seconds(12))
    sidecar.extend(session_id)
    advance(sidecar, seconds(21))
    explained = desk.explain(ref, actor_id="desk-7")
    assert not explained.truncated
    (life,) = explained.explanations
    assert [each.history for each in desk.explain(session_id).explanations] == [life.history]
    assert life.session.end.reason is EndReason.IDLE_TIMEOUT and "ended" in life.summary.lower()
    assert [type(each) for each in life.history] == [
        admin.HoldStarted,
        admin.HoldEnded,
        admin.Warned,
        admin.Extended,
        admin.Cleared,
        admin.Warned,
        admin.Warned,
        admin.Ended,
    ]
    began, over, warned = life.history[:3]
    assert (began.hold_id, began.kind, began.purpose, over.released) == ("report", HoldKind.WORK, "monthly report", True)
    assert (warned.limit, warned.point, warned.watcher_count) == (Limit.IDLE, seconds(10), 0)
    assert life.history[-1].end.reason is EndReason.IDLE_TIMEOUT
    (tally,) = [each for each in life.tallies if each.rule == "declared-background"]
    assert (tally.counted, tally.touch_count) == (False, 1) and tally.first_time == tally.last_time
    since = datetime.now(UTC) - timedelta(days=1)
    (same,) = desk.explain_subject("ada", start_time=since).explanations
    assert (same.summary, same.history, same.tallies) == (life.summary, life.history, life.tallies)
    assert desk.explain(NEVER_ISSUED).explanations == ()


def test_a_rotated_session_is_explained_with_its_successor(desk, sidecar):
    session_id = sidecar.create(subject="rosa").session_id
    rotated = sidecar.rotate(session_id, authenticated_ago=timedelta())
    both = desk.explain(session_id).explanations
    turns = [entry for life in both for entry in life.history if isinstance(entry, admin.Rotated)]
    assert {(turn.is_successor, turn.reauthenticated) for turn in turns} == {(True, True), (False, True)}
    assert rotated.session.status.session_ref in {turn.other_ref for turn in turns}


def test_policies_and_counts_are_told(desk, sidecar):
    ended = sidecar.create().session_id
    sidecar.create()
    sidecar.hold(sidecar.create().session_id, "work", ttl=seconds(5))
    sidecar.end(ended)
    stats = desk.stats()
    assert stats.states[SessionState.ACTIVE] == 2 and stats.states[SessionState.ENDED] == 1
    assert {reason for reason, count in stats.reasons.items() if count} == {EndReason.LOGOUT} and stats.working_session_count == 1
    told = desk.list_policies()
    (policy,) = told.policies
    assert (policy.name, policy.active, policy.enforced, policy.idle_timeout) == ("default", True, True, seconds(20))
    assert policy.worst_case_duration == sum((term.duration for term in policy.worst_case), timedelta())
    assert "idle_timeout" in policy.toml and told.policy_file_problem == ""


def test_mistakes_are_exceptions(desk, sidecar, process):
    for call, fields in (
        (lambda: list(desk.list_sessions(page_size=0)), ("page_size",)),
        (lambda: list(desk.list_sessions(states=["NONE"])), ("session_state",)),
        (lambda: desk.end_sessions(), ("whole_tenant",)),
        (lambda: desk.end_sessions(subject="a", reason=EndReason.IDLE_TIMEOUT), ("reason",)),
        (lambda: desk.explain(Ref("none")), ("session_ref",)),
        (lambda: desk.explain_subject("ada", start_time=datetime(2026, 1, 1)), ("start_time",)),
    ):
        with pytest.raises(InvalidRequestError) as invalid:
            call()
        assert invalid.value.fields == fields
    with pytest.raises(NotPermittedError), SidecarAdmin(process.tcp) as stranger:
        stranger.stats()
    assert "fail" not in repr(stranger)
