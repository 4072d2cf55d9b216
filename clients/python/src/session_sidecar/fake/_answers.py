"""What is answered and told of a record, in the messages of the wire."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from .. import _wire as wire
from .._proto import session_service_pb2 as pb
from .._types import Limit
from ._model import REASONS, Cleared, Ended, Hold, News, Record, Succeeded, Tombstone, Warned
from ._policy import NEVER


def limit_number(word: Limit | None) -> Any:
    """A limit."""
    return wire.number(pb.Limit, "LIMIT", word)


def end_message(end: Tombstone) -> pb.SessionEnd:
    """An end."""
    return pb.SessionEnd(
        reason=wire.number(pb.EndReason, "END_REASON", end.reason),
        actor=wire.number(pb.Actor, "ACTOR", end.actor),
        actor_id=end.actor_id,
        end_time=end.at,
        note=end.note,
        successor_ref=end.successor,
    )


def _would_have_ended(limit: Limit, at: datetime) -> pb.SessionEnd:
    return pb.SessionEnd(reason=wire.number(pb.EndReason, "END_REASON", REASONS[limit]), actor=pb.ACTOR_POLICY, end_time=at)


def _event_session(record: Record, version: int) -> pb.EventSession:
    return pb.EventSession(
        session_ref=record.ref, tenant=record.tenant, subject=record.subject, labels=record.labels, version=version
    )


def status(record: Record, now: datetime, alias: bool = False) -> pb.SessionStatus:
    """The compact answer."""
    if end := record.tombstone:
        return pb.SessionStatus(
            session_ref=record.ref,
            state=pb.SESSION_STATE_ENDED,
            expire_time=end.at,
            server_time=now,
            version=record.version,
            scope=pb.KNOWLEDGE_SCOPE_MEMORY,
            alias=alias,
        )
    expire, limit = record.deadlines(now).nearest
    return pb.SessionStatus(
        session_ref=record.ref,
        state=pb.SESSION_STATE_EXPIRING if record.fired else pb.SESSION_STATE_ACTIVE,
        expire_time=expire,
        expires_in=max(expire - now, timedelta()),
        server_time=now,
        limit=limit_number(limit),
        next_warning_time=record.next_warning(now),
        can_extend=record.can_extend(now),
        version=record.version,
        scope=pb.KNOWLEDGE_SCOPE_MEMORY,
        alias=alias,
        read_only=record.limits.passive,
        observed_only=not record.limits.enforced,
    )


def unknown(ref: str, now: datetime) -> pb.SessionStatus:
    """The compact answer of a session that is not known."""
    return pb.SessionStatus(
        session_ref=ref, state=pb.SESSION_STATE_UNKNOWN, server_time=now, scope=pb.KNOWLEDGE_SCOPE_MEMORY
    )


def session(record: Record, now: datetime, alias: bool = False) -> pb.Session:
    """All of a session."""
    limits, end = record.limits, record.tombstone
    deadlines = record.deadlines(now)
    idle = end.idle_deadline if end else deadlines.idle
    ends = limits.idle_timeout < NEVER
    would = record.unenforced if not end else None
    return pb.Session(
        status=status(record, now, alias),
        tenant=record.tenant,
        subject=record.subject,
        policy=limits.policy,
        policy_revision=limits.revision,
        idle_timeout=limits.idle_timeout if ends else None,
        absolute_timeout=limits.absolute_timeout,
        create_time=record.created,
        authentication_time=record.authenticated,
        authentication_level=record.authentication_level,
        last_activity_time=record.last_activity,
        idle_expire_time=idle if ends else None,
        absolute_expire_time=deadlines.absolute,
        presence_expire_time=None if end else deadlines.presence,
        extensions=record.extensions,
        labels=record.labels,
        holds=[] if end else [_hold(hold, now) for hold in record.live_holds(now)],
        end=end_message(end) if end else None,
        unenforced_end=_would_have_ended(*would) if would else None,
        predecessor_ref=record.predecessor,
    )


def _hold(hold: Hold, now: datetime) -> pb.SessionHold:
    return pb.SessionHold(
        hold_id=hold.id,
        kind=wire.number(pb.HoldKind, "HOLD_KIND", hold.kind),
        purpose=hold.purpose,
        start_time=hold.started,
        expire_time=hold.until,
        expires_in=hold.until - now,
    )


def told(record: Record, version: int, what: News, now: datetime) -> tuple[str, pb.WatchExpiryResponse]:
    """What watchers are told of something that happened, and its kind."""
    about = _event_session(record, version)
    match what:
        case Warned(limit, point, expire, can_extend):
            warning = pb.Warning(
                session=about,
                limit=limit_number(limit),
                point=point,
                expire_time=expire,
                expires_in=expire - now,
                can_extend=can_extend,
            )
            return "WARNING", pb.WatchExpiryResponse(emit_time=now, warning=warning)
        case Cleared(limit, cause, expire):
            cleared = pb.Cleared(
                session=about,
                limit=limit_number(limit),
                cause=wire.number(pb.ClearedCause, "CLEARED_CAUSE", cause),
                expire_time=expire,
                expires_in=max(expire - now, timedelta()),
            )
            return "CLEARED", pb.WatchExpiryResponse(emit_time=now, cleared=cleared)
        case Succeeded(successor):
            snapshot = pb.Snapshot(session=about, status=status(successor, now), predecessor_ref=successor.predecessor)
            return "SUCCEEDED", pb.WatchExpiryResponse(emit_time=now, snapshot=snapshot)
        case Ended(end):
            ended = pb.Ended(
                session=about, end=end_message(end), create_time=record.created, last_activity_time=record.last_activity
            )
            return "ENDED", pb.WatchExpiryResponse(emit_time=now, ended=ended)


def snapshot(record: Record, now: datetime) -> pb.WatchExpiryResponse:
    """A session as it is now."""
    snapshot = pb.Snapshot(
        session=_event_session(record, record.version),
        status=status(record, now),
        end=end_message(record.tombstone) if record.tombstone else None,
        predecessor_ref=record.predecessor,
    )
    return pb.WatchExpiryResponse(emit_time=now, snapshot=snapshot)
