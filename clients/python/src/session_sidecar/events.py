"""What a watch tells. `docs/stream.md` of session-sidecar says what to do with each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from ._types import ClearedCause, End, Limit, Ref, Status


@dataclass(frozen=True, slots=True)
class EventSession:
    """The session that an event is about. `session_id` is set only if the watch named the session by it."""

    session_ref: Ref
    session_id: str = field(repr=False)
    tenant: str
    subject: str
    labels: Mapping[str, str]
    version: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session as it is: part of the initial state, or, with `predecessor_ref`, as it goes on after a Rotate."""

    emit_time: datetime
    session: EventSession
    status: Status
    end: End | None
    predecessor_ref: Ref | None


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The initial state is complete; what follows is live."""

    emit_time: datetime
    snapshot_count: int


@dataclass(frozen=True, slots=True)
class Warning:
    """A session will end soon. A Cleared of the same limit, or an Ended, follows."""

    emit_time: datetime
    session: EventSession
    limit: Limit
    point: timedelta
    expire_time: datetime
    expires_in: timedelta
    can_extend: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """The warnings of one limit are withdrawn."""

    emit_time: datetime
    session: EventSession
    limit: Limit
    cause: ClearedCause
    expire_time: datetime | None
    expires_in: timedelta


@dataclass(frozen=True, slots=True)
class Ended:
    """A session ended. There is exactly one for each session."""

    emit_time: datetime
    session: EventSession
    end: End
    create_time: datetime | None
    last_activity_time: datetime | None


@dataclass(frozen=True, slots=True)
class Draining:
    """This sidecar is about to stop. The watch reconnects and resumes by itself."""

    emit_time: datetime


@dataclass(frozen=True, slots=True)
class BeginAnew:
    """The log does not reach back to where the watch was. Forget what you know of its sessions: Snapshots of those that live
    follow, up to a SnapshotEnd. What is absent has ended or is out of scope."""

    reason: str


Event: TypeAlias = Snapshot | SnapshotEnd | Warning | Cleared | Ended | Draining | BeginAnew
