"""Between the messages of the wire and the words of this package."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from . import events
from ._errors import Failure, InvalidRequestError, SidecarError, to_error, unreachable
from ._proto import session_service_pb2 as pb
from ._types import (
    Actor,
    Answer,
    ClearedCause,
    End,
    Ended,
    EndReason,
    HoldKind,
    KnowledgeScope,
    Limit,
    Live,
    Ref,
    Session,
    SessionHold,
    SessionState,
    Status,
    Touch,
    Touched,
    TouchResult,
    Unknown,
    Unreachable,
)

Word = TypeVar("Word", bound=StrEnum)


# ---- Requests ----


def text(name: str, value: str) -> str:
    """A string that the wire can carry. Neither the value nor a cause that holds it is in the error: it may be an id."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidRequestError(f"{name} is not valid Unicode: it has surrogates", (name,))
    return value


def session_id(value: str, name: str = "session_id") -> str:
    """An id. A Ref is none: it would be refused, and should not travel as a secret."""
    if isinstance(value, Ref):
        raise TypeError(f"{name} must be the session's id: a Ref names it, and is no credential")
    return text(name, value)


def span(name: str, value: timedelta | None) -> Duration | None:
    """A duration."""
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} must be a timedelta, not {type(value).__name__}")
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def number(enum: EnumTypeWrapper, prefix: str, word: StrEnum | str | None) -> Any:
    """The number of an enum's word; 0 if there is none."""
    if word is None:
        return 0
    if f"{prefix}_{word}" not in enum.keys():
        raise InvalidRequestError(f"{word!s} is no {prefix}: {', '.join(enum.keys()[1:])}", (prefix.lower(),))
    return enum.Value(f"{prefix}_{word}")


def touch_request(tenant: str, touch: Touch) -> pb.TouchRequest:
    """A touch."""
    hints = None
    if given := touch.hints:
        hints = pb.TouchHints(
            host=text("host", given.host),
            method=text("method", given.method),
            path=text("path", given.path),
            sec_fetch_user=text("sec_fetch_user", given.sec_fetch_user),
            sec_fetch_mode=text("sec_fetch_mode", given.sec_fetch_mode),
            sec_fetch_dest=text("sec_fetch_dest", given.sec_fetch_dest),
            sec_purpose=text("sec_purpose", given.sec_purpose),
            page_visibility=number(pb.PageVisibility, "PAGE_VISIBILITY", given.page_visibility),
            input_report=given.input_report,
        )
    return pb.TouchRequest(
        tenant=tenant,
        session_id=session_id(touch.session_id),
        activity=number(pb.Activity, "ACTIVITY", touch.activity),
        idle_for=span("idle_for", touch.idle_for),
        hints=hints,
    )


def session_name(value: str) -> pb.SessionName:
    """An id or a ref."""
    if isinstance(value, Ref):
        return pb.SessionName(session_ref=text("session_ref", value))
    return pb.SessionName(session_id=session_id(value))


# ---- Answers ----


def moment(message: Message, name: str) -> datetime | None:
    """A timestamp, aware; None if it is not set."""
    stamp: Timestamp = getattr(message, name)
    return stamp.ToDatetime(UTC) if message.HasField(name) else None


def certain(stamp: Timestamp) -> datetime:
    """A timestamp that is always set."""
    return stamp.ToDatetime(UTC)


def length(message: Message, name: str) -> timedelta | None:
    """A duration; None if it is not set."""
    duration: Duration = getattr(message, name)
    return duration.ToTimedelta() if message.HasField(name) else None


def word(kind: type[Word], enum: EnumTypeWrapper, prefix: str, value: int) -> Word | None:
    """An enum's word: None for the unspecified one, OTHER for one that is too new."""
    if value == 0:
        return None
    name = enum.Name(value).removeprefix(f"{prefix}_") if value in enum.values() else "OTHER"
    return kind(name) if name in kind.__members__ else kind("OTHER")


def ref(value: str) -> Ref | None:
    """A ref, if there is one."""
    return Ref(value) if value else None


def refs(values: Iterable[str]) -> tuple[Ref, ...]:
    """Refs."""
    return tuple(Ref(value) for value in values)


def limit(value: int) -> Limit | None:
    """A limit."""
    return word(Limit, pb.Limit, "LIMIT", value)


def status(message: pb.SessionStatus) -> Status:
    """The compact answer."""
    return Status(
        session_ref=Ref(message.session_ref),
        state=word(SessionState, pb.SessionState, "SESSION_STATE", message.state) or SessionState.OTHER,
        server_time=moment(message, "server_time"),
        expire_time=moment(message, "expire_time"),
        expires_in=length(message, "expires_in"),
        limit=limit(message.limit),
        next_warning_time=moment(message, "next_warning_time"),
        can_extend=message.can_extend,
        version=message.version,
        scope=word(KnowledgeScope, pb.KnowledgeScope, "KNOWLEDGE_SCOPE", message.scope),
        may_have_ended=message.may_have_ended,
        alias=message.alias,
        read_only=message.read_only,
        observed_only=message.observed_only,
    )


def end(message: pb.SessionEnd) -> End:
    """An end."""
    return End(
        reason=word(EndReason, pb.EndReason, "END_REASON", message.reason),
        actor=word(Actor, pb.Actor, "ACTOR", message.actor),
        end_time=moment(message, "end_time"),
        actor_id=message.actor_id,
        note=message.note,
        successor_ref=ref(message.successor_ref),
    )


def hold(message: pb.SessionHold) -> SessionHold:
    """A live hold."""
    return SessionHold(
        hold_id=message.hold_id,
        kind=word(HoldKind, pb.HoldKind, "HOLD_KIND", message.kind),
        purpose=message.purpose,
        start_time=moment(message, "start_time"),
        expire_time=moment(message, "expire_time"),
        expires_in=message.expires_in.ToTimedelta(),
    )


def session(message: pb.Session) -> Session:
    """The whole session."""
    return Session(
        status=status(message.status),
        tenant=message.tenant,
        subject=message.subject,
        policy=message.policy,
        policy_revision=message.policy_revision,
        idle_timeout=length(message, "idle_timeout"),
        absolute_timeout=length(message, "absolute_timeout"),
        create_time=moment(message, "create_time"),
        authentication_time=moment(message, "authentication_time"),
        authentication_level=message.authentication_level,
        last_activity_time=moment(message, "last_activity_time"),
        last_activity_accuracy=message.last_activity_accuracy.ToTimedelta(),
        idle_expire_time=moment(message, "idle_expire_time"),
        absolute_expire_time=moment(message, "absolute_expire_time"),
        presence_expire_time=moment(message, "presence_expire_time"),
        extensions=message.extensions,
        labels=dict(message.labels),
        holds=tuple(hold(each) for each in message.holds),
        end=end(message.end) if message.HasField("end") else None,
        unenforced_end=end(message.unenforced_end) if message.HasField("unenforced_end") else None,
        predecessor_ref=ref(message.predecessor_ref),
    )


def state_answer(told: Status, whole: Session | None = None) -> Live | Ended | Unknown:
    """What a status means for a request."""
    match told.state:
        case SessionState.ACTIVE | SessionState.EXPIRING:
            return Live(told, whole)
        case SessionState.ENDED:
            known = whole.end if whole else None
            return Ended(told.session_ref, known or End(end_time=told.expire_time), whole, told)
        case _:
            return Unknown(told.session_ref, told.may_have_ended, told)


def touched(message: pb.TouchResponse) -> Touched:
    """The answer to a touch."""
    result = word(TouchResult, pb.TouchResult, "TOUCH_RESULT", message.result)
    return Touched(status(message.status), None, message.counted, result, message.rule)


def failed_answer(failure: Failure, allowed: bool) -> Ended | Unknown | Unreachable | SidecarError:
    """What a failure means for a request; an exception if it means nothing for it."""
    told = failure.metadata
    if failure.reason == "SESSION_ENDED":
        at = told.get("end_time")
        known = End(
            reason=_spoken(EndReason, told.get("reason")),
            actor=_spoken(Actor, told.get("actor")),
            end_time=datetime.fromisoformat(at) if at else None,
            actor_id=told.get("actor_id", ""),
            note=told.get("note", ""),
            successor_ref=ref(told.get("successor_ref", "")),
        )
        return Ended(Ref(told.get("session_ref", "")), known)
    if failure.reason == "SESSION_UNKNOWN":
        return Unknown(Ref(told.get("session_ref", "")), told.get("may_have_ended") == "true")
    return unreachable(failure, allowed) or to_error(failure)


def _spoken(kind: type[Word], name: str | None) -> Word | None:
    if not name:
        return None
    return kind(name) if name in kind.__members__ else kind("OTHER")


CODES = {3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 14: "UNAVAILABLE"}


def item_failed(message: pb.ItemError, allowed: bool) -> Ended | Unknown | Unreachable | SidecarError:
    """The error of one item of a batch."""
    if message.reason == "SESSION_ENDED":
        return Ended(Ref(message.session_ref), end(message.end))
    metadata = {"session_ref": message.session_ref} if message.session_ref else {}
    failure = Failure(CODES.get(message.code, str(message.code)), message.message, message.reason, metadata)
    return failed_answer(failure, allowed)


def touch_outcome(message: pb.TouchOutcome, allowed: bool) -> Touched | Ended | Unknown | Unreachable | SidecarError:
    """One touch of a batch."""
    return touched(message.touch) if message.HasField("touch") else item_failed(message.error, allowed)


def check_outcome(message: pb.CheckOutcome, allowed: bool) -> Answer | SidecarError:
    """One session of many."""
    return state_answer(status(message.status)) if message.HasField("status") else item_failed(message.error, allowed)


# ---- Events ----


def event_session(message: pb.EventSession) -> events.EventSession:
    """Which session."""
    labels = dict(message.labels)
    return events.EventSession(Ref(message.session_ref), message.session_id, message.tenant, message.subject, labels, message.version)


def event(message: pb.WatchExpiryResponse) -> events.Event | None:
    """What a message of the stream tells; None for a heartbeat, and for what is too new."""
    at = certain(message.emit_time)
    match message.WhichOneof("message"):
        case "snapshot":
            body = message.snapshot
            over = end(body.end) if body.HasField("end") else None
            return events.Snapshot(at, event_session(body.session), status(body.status), over, ref(body.predecessor_ref))
        case "snapshot_end":
            return events.SnapshotEnd(at, message.snapshot_end.snapshot_count)
        case "warning":
            near: pb.Warning = getattr(message, "warning")  # Type checkers take the stub's Warning for the builtin one.
            return events.Warning(
                at,
                event_session(near.session),
                limit(near.limit) or Limit.OTHER,
                near.point.ToTimedelta(),
                certain(near.expire_time),
                near.expires_in.ToTimedelta(),
                near.can_extend,
            )
        case "cleared":
            gone = message.cleared
            return events.Cleared(
                at,
                event_session(gone.session),
                limit(gone.limit) or Limit.OTHER,
                word(ClearedCause, pb.ClearedCause, "CLEARED_CAUSE", gone.cause) or ClearedCause.OTHER,
                moment(gone, "expire_time"),
                gone.expires_in.ToTimedelta(),
            )
        case "ended":
            last = message.ended
            return events.Ended(
                at, event_session(last.session), end(last.end), moment(last, "create_time"), moment(last, "last_activity_time")
            )
        case "draining":
            return events.Draining(at)
    return None
