"""The clients of SessionAdminService: how each request is made, and what its answer means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Unpack

from google.protobuf.timestamp_pb2 import Timestamp

from . import _wire as wire
from . import admin
from ._calls import Call, Settings, raised
from ._client import AsyncClient, SyncClient, async_verb, verb
from ._credentials import CredentialFiles
from ._errors import InvalidRequestError
from ._proto import session_admin_service_pb2 as pb
from ._proto import session_service_pb2 as v1
from ._types import Actor, ClearedCause, EndReason, Fail, HoldKind, Ref, Session, SessionState

# A page of sessions or an end of thousands is not asked for while somebody waits for a page of theirs.
DEADLINE = timedelta(seconds=10)
PAGE_SIZE = 100


def _filter(
    settings: Settings,
    subject: str,
    states: Iterable[SessionState],
    labels: Mapping[str, str] | None,
    policy: str,
) -> pb.SessionFilter:
    return pb.SessionFilter(
        tenant=settings.tenant,
        subject=wire.text("subject", subject),
        states=[wire.number(v1.SessionState, "SESSION_STATE", state) for state in states],
        labels={wire.text("labels", key): wire.text("labels", value) for key, value in (labels or {}).items()},
        policy=wire.text("policy", policy),
    )


class _Pages:
    """Asks for sessions page by page."""

    def __init__(self, filter: pb.SessionFilter, page_size: int, actor_id: str) -> None:
        self._request = pb.ListSessionsRequest(filter=filter, page_size=page_size, actor_id=wire.text("actor_id", actor_id))
        self.more = True

    def next(self) -> Call[list[Session]]:
        """The call for the next page."""
        return Call("ListSessions", self._request, self._answered, raised)

    def _answered(self, message: pb.ListSessionsResponse) -> list[Session]:
        self._request.page_token = message.next_page_token
        self.more = bool(message.next_page_token)
        return [wire.session(each) for each in message.sessions]


def _end_sessions(
    settings: Settings,
    *,
    subject: str = "",
    states: Iterable[SessionState] = (),
    labels: Mapping[str, str] | None = None,
    policy: str = "",
    whole_tenant: bool = False,
    excepted: Iterable[str | Ref] = (),
    dry_run: bool = False,
    reason: EndReason | None = None,
    actor: Actor | None = None,
    actor_id: str = "",
    note: str = "",
) -> Call[admin.SessionsEnded]:
    """Ends all live sessions that match and began before the call: REVOKED, unless `reason` is LOGOUT. `excepted` are spared, by
    id or Ref. All sessions of the tenant are meant only if `whole_tenant` says so."""
    request = pb.EndSessionsRequest(
        filter=_filter(settings, subject, states, labels, policy),
        dry_run=dry_run,
        reason=wire.number(v1.EndReason, "END_REASON", reason),
        actor=wire.number(v1.Actor, "ACTOR", actor),
        actor_id=wire.text("actor_id", actor_id),
        note=wire.text("note", note),
        whole_tenant=whole_tenant,
    )
    getattr(request, "except").extend(wire.session_name(each) for each in excepted)

    def answered(message: pb.EndSessionsResponse) -> admin.SessionsEnded:
        return admin.SessionsEnded(message.matched_count, message.ended_count, wire.refs(message.session_refs))

    # A second call would find none, and count them so.
    return Call("EndSessions", request, answered, raised, again=dry_run)


def _explained(message: pb.ExplainSessionResponse) -> admin.Explained:
    return admin.Explained(tuple(_explanation(each) for each in message.explanations), message.truncated)


def _explain(settings: Settings, session: str | Ref, *, actor_id: str = "") -> Call[admin.Explained]:
    """All that is kept of a session's life: "why was I logged out?". By its id: of those too that went on in its place."""
    request = pb.ExplainSessionRequest(tenant=settings.tenant, actor_id=wire.text("actor_id", actor_id))
    name = wire.session_name(session)
    if isinstance(session, Ref):
        request.session_ref = name.session_ref
    else:
        request.session_id = name.session_id
    return Call("ExplainSession", request, _explained, raised)


def _stamp(name: str, value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise InvalidRequestError(f"{name} has no time zone: say which, such as datetime.UTC", (name,))
    stamp = Timestamp()
    stamp.FromDatetime(value.astimezone(UTC))
    return stamp


def _explain_subject(
    settings: Settings,
    subject: str,
    *,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    actor_id: str = "",
) -> Call[admin.Explained]:
    """The lives of a person's sessions that were live at some time of a period: up to 100, the latest first."""
    period = pb.SubjectPeriod(
        subject=wire.text("subject", subject),
        start_time=_stamp("start_time", start_time),
        end_time=_stamp("end_time", end_time),
    )
    request = pb.ExplainSessionRequest(
        tenant=settings.tenant, subject_period=period, actor_id=wire.text("actor_id", actor_id)
    )
    return Call("ExplainSession", request, _explained, raised)


def _list_policies(settings: Settings, *, actor_id: str = "") -> Call[admin.Policies]:
    """The policies as they are in force, and how they depart from the standards."""
    request = pb.ListPoliciesRequest(actor_id=wire.text("actor_id", actor_id))

    def answered(message: pb.ListPoliciesResponse) -> admin.Policies:
        return admin.Policies(tuple(_policy(each) for each in message.policies), message.policy_file_problem)

    return Call("ListPolicies", request, answered, raised)


def _stats(settings: Settings, *, actor_id: str = "") -> Call[admin.Stats]:
    """Counts the tenant's sessions."""
    request = pb.GetStatsRequest(tenant=settings.tenant, actor_id=wire.text("actor_id", actor_id))

    def answered(message: pb.GetStatsResponse) -> admin.Stats:
        states = {wire.word(SessionState, v1.SessionState, "SESSION_STATE", each.state): each.session_count for each in message.states}
        reasons = {wire.word(EndReason, v1.EndReason, "END_REASON", each.reason): each.session_count for each in message.reasons}
        return admin.Stats(
            {state: count for state, count in states.items() if state},
            {reason: count for reason, count in reasons.items() if reason},
            message.ghost_session_count,
            message.working_session_count,
            message.unenforced_end_count,
        )

    return Call("GetStats", request, answered, raised)


# ---- Answers ----


def _explanation(message: pb.SessionExplanation) -> admin.SessionExplanation:
    history = (_entry(each) for each in message.history)
    tallies = (
        admin.RuleTally(each.rule, each.counted, each.touch_count, wire.moment(each, "first_time"), wire.moment(each, "last_time"))
        for each in message.tallies
    )
    return admin.SessionExplanation(
        wire.session(message.session),
        message.summary,
        tuple(entry for entry in history if entry),
        message.history_dropped_count,
        tuple(tallies),
    )


def _entry(message: pb.HistoryEntry) -> admin.HistoryEntry | None:
    """One thing that happened; None if it is too new for this client."""
    at = wire.certain(message.time)
    match message.WhichOneof("entry"):
        case "warning":
            near = message.warning
            return admin.Warned(
                at, wire.limit(near.limit), near.point.ToTimedelta(), wire.moment(near, "expire_time"), near.watcher_count
            )
        case "cleared":
            gone = message.cleared
            cause = wire.word(ClearedCause, v1.ClearedCause, "CLEARED_CAUSE", gone.cause)
            return admin.Cleared(at, wire.limit(gone.limit), cause, wire.moment(gone, "expire_time"), gone.watcher_count)
        case "extended":
            more = message.extended
            return admin.Extended(at, more.granted_duration.ToTimedelta(), wire.limit(more.clamped_by))
        case "hold_started":
            hold = message.hold_started
            return admin.HoldStarted(at, hold.hold_id, _hold_kind(hold.kind), hold.purpose, hold.granted_ttl.ToTimedelta())
        case "hold_ended":
            over = message.hold_ended
            return admin.HoldEnded(at, over.hold_id, _hold_kind(over.kind), over.released, over.renewal_count)
        case "rotated":
            turn = message.rotated
            return admin.Rotated(at, Ref(turn.other_ref), turn.is_successor, turn.reauthenticated)
        case "policy_changed":
            return admin.PolicyChanged(at, message.policy_changed.policy_revision)
        case "unenforced_end":
            reason = wire.word(EndReason, v1.EndReason, "END_REASON", message.unenforced_end.reason)
            return admin.UnenforcedEnd(at, reason)
        case "ended":
            return admin.Ended(at, wire.end(message.ended.end), message.ended.watcher_count)
    return None


def _hold_kind(value: int) -> HoldKind | None:
    return wire.word(HoldKind, v1.HoldKind, "HOLD_KIND", value)


def _policy(message: pb.PolicyInfo) -> admin.PolicyInfo:
    return admin.PolicyInfo(
        name=message.name,
        revision=message.revision,
        active=message.active,
        enforced=message.enforced,
        idle_timeout=wire.length(message, "idle_timeout"),
        absolute_timeout=wire.length(message, "absolute_timeout"),
        toml=message.toml,
        worst_case=tuple(
            admin.WorstCaseTerm(each.name, each.duration.ToTimedelta(), each.explanation) for each in message.worst_case
        ),
        worst_case_duration=wire.length(message, "worst_case_duration"),
        findings=tuple(admin.LintFinding(each.source, each.key, each.problem) for each in message.findings),
        elsewhere=tuple(
            admin.PolicyElsewhere(each.missing, each.revision, each.sidecar_count) for each in message.elsewhere
        ),
    )


# ---- The clients ----


class SidecarAdmin(SyncClient):
    """SessionAdminService of the sidecar at `target`, for operators and support staff, one tenant at a time: a listener must have
    the verb group `admin`. Each call takes `actor_id`: who asks, for the audit log. All errors are exceptions. `files` are those of CredentialFiles."""

    def __init__(
        self, target: str | None = None, *, tenant: str = "", deadline: timedelta = DEADLINE, **files: Unpack[CredentialFiles]
    ) -> None:
        super().__init__(target, tenant=tenant, fail=Fail.CLOSED, deadline=deadline, **files)

    end_sessions = verb(_end_sessions)
    explain = verb(_explain)
    explain_subject = verb(_explain_subject)
    list_policies = verb(_list_policies)
    stats = verb(_stats)

    def list_sessions(
        self,
        *,
        subject: str = "",
        states: Iterable[SessionState] = (),
        labels: Mapping[str, str] | None = None,
        policy: str = "",
        page_size: int = PAGE_SIZE,
        actor_id: str = "",
    ) -> Iterator[Session]:
        """All sessions that match all that is given: live ones, unless `states` says otherwise. Each page is asked for when the
        one before it has been read; what begins or ends meanwhile may be missing or there."""
        pages = _Pages(_filter(self._settings, subject, states, labels, policy), page_size, actor_id)
        while pages.more:
            yield from self.run(pages.next())


class AsyncSidecarAdmin(AsyncClient):
    """SessionAdminService of the sidecar at `target`, for operators and support staff, one tenant at a time: a listener must have
    the verb group `admin`. Each call takes `actor_id`: who asks, for the audit log. All errors are exceptions. `files` are those of CredentialFiles."""

    def __init__(
        self, target: str | None = None, *, tenant: str = "", deadline: timedelta = DEADLINE, **files: Unpack[CredentialFiles]
    ) -> None:
        super().__init__(target, tenant=tenant, fail=Fail.CLOSED, deadline=deadline, **files)

    end_sessions = async_verb(_end_sessions)
    explain = async_verb(_explain)
    explain_subject = async_verb(_explain_subject)
    list_policies = async_verb(_list_policies)
    stats = async_verb(_stats)

    async def list_sessions(
        self,
        *,
        subject: str = "",
        states: Iterable[SessionState] = (),
        labels: Mapping[str, str] | None = None,
        policy: str = "",
        page_size: int = PAGE_SIZE,
        actor_id: str = "",
    ) -> AsyncIterator[Session]:
        """All sessions that match all that is given: live ones, unless `states` says otherwise. Each page is asked for when the
        one before it has been read; what begins or ends meanwhile may be missing or there."""
        pages = _Pages(_filter(self._settings, subject, states, labels, policy), page_size, actor_id)
        while pages.more:
            for session in await self.run(pages.next()):
                yield session
