"""The words of the API. Every name and field is that of the .proto, where its units and limits stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias


class Ref(str):
    """A session's ref: safe to log and show, never a credential. `check` and `watch` take it in place of an id."""

    __slots__ = ()


class SessionState(StrEnum):
    """What a session is."""

    ACTIVE = "ACTIVE"
    EXPIRING = "EXPIRING"
    """Live, and a warning of it stands."""
    ENDED = "ENDED"
    UNKNOWN = "UNKNOWN"
    """Never existed, or ended longer ago than is remembered."""
    OTHER = "OTHER"
    """A word of a newer sidecar that this client does not know. It is live for no one. So in each enum of an answer."""


class Limit(StrEnum):
    """The limit that sets when a session ends."""

    IDLE = "IDLE"
    ABSOLUTE = "ABSOLUTE"
    PRESENCE = "PRESENCE"
    OTHER = "OTHER"


class KnowledgeScope(StrEnum):
    """Where an answer comes from."""

    MEMORY = "MEMORY"
    STORE = "STORE"
    LOCAL = "LOCAL"
    """The shared store cannot be reached; this is what the sidecar knew before."""
    OTHER = "OTHER"


class TouchResult(StrEnum):
    """What became of a touch."""

    COUNTED = "COUNTED"
    IGNORED = "IGNORED"
    STALE = "STALE"
    PENDING = "PENDING"
    OTHER = "OTHER"


class HoldClamp(StrEnum):
    """What cut a hold's TTL short."""

    MAX_TTL = "MAX_TTL"
    BUDGET = "BUDGET"
    ABSOLUTE = "ABSOLUTE"
    OTHER = "OTHER"


class EndReason(StrEnum):
    """Why a session ended."""

    IDLE_TIMEOUT = "IDLE_TIMEOUT"
    ABSOLUTE_TIMEOUT = "ABSOLUTE_TIMEOUT"
    LOGOUT = "LOGOUT"
    REVOKED = "REVOKED"
    BROWSER_CLOSED = "BROWSER_CLOSED"
    SUPERSEDED = "SUPERSEDED"
    ROTATED = "ROTATED"
    """It goes on under another id: `successor_ref`."""
    OTHER = "OTHER"


class Actor(StrEnum):
    """Who ended a session."""

    USER = "USER"
    ADMIN = "ADMIN"
    POLICY = "POLICY"
    SYSTEM = "SYSTEM"
    OTHER = "OTHER"


class ClearedCause(StrEnum):
    """What withdrew a warning."""

    TOUCHED = "TOUCHED"
    EXTENDED = "EXTENDED"
    HELD = "HELD"
    ROTATED = "ROTATED"
    RELEASED = "RELEASED"
    POLICY_CHANGED = "POLICY_CHANGED"
    NOT_ENFORCED = "NOT_ENFORCED"
    OTHER = "OTHER"


class HoldKind(StrEnum):
    """What a hold is for."""

    WORK = "WORK"
    PRESENCE = "PRESENCE"
    OTHER = "OTHER"


class Activity(StrEnum):
    """The kind of activity that a touch declares. Without one the policy's rules decide."""

    USER = "USER"
    BACKGROUND = "BACKGROUND"


class PageVisibility(StrEnum):
    """Whether the page that caused a request can be seen."""

    VISIBLE = "VISIBLE"
    HIDDEN = "HIDDEN"


class EventKind(StrEnum):
    """A kind of event that a watch can ask for."""

    WARNING = "WARNING"
    CLEARED = "CLEARED"
    ENDED = "ENDED"


class Fail(StrEnum):
    """What `touch` and `check` allow while the sidecar cannot be reached or cannot know."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended. There is only ever one end. `reason` and `actor` are None where the sidecar did not tell."""

    reason: EndReason | None = None
    actor: Actor | None = None
    end_time: datetime | None = None
    actor_id: str = ""
    note: str = ""
    successor_ref: Ref | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The compact answer of the hot verbs. Decide with `expires_in`; the times are for people and logs."""

    session_ref: Ref
    state: SessionState
    server_time: datetime | None = None
    expire_time: datetime | None = None
    expires_in: timedelta | None = None
    limit: Limit | None = None
    next_warning_time: datetime | None = None
    can_extend: bool = False
    version: int = 0
    scope: KnowledgeScope | None = None
    may_have_ended: bool = False
    alias: bool = False
    read_only: bool = False
    observed_only: bool = False


@dataclass(frozen=True, slots=True)
class SessionHold:
    """A live hold."""

    hold_id: str
    kind: HoldKind | None
    purpose: str
    start_time: datetime | None
    expire_time: datetime | None
    expires_in: timedelta


@dataclass(frozen=True, slots=True)
class Session:
    """Everything that the sidecar knows of a session, but its id."""

    status: Status
    tenant: str = ""
    subject: str = ""
    policy: str = ""
    policy_revision: int = 0
    idle_timeout: timedelta | None = None
    absolute_timeout: timedelta | None = None
    create_time: datetime | None = None
    authentication_time: datetime | None = None
    authentication_level: str = ""
    last_activity_time: datetime | None = None
    last_activity_accuracy: timedelta = timedelta()
    idle_expire_time: datetime | None = None
    absolute_expire_time: datetime | None = None
    presence_expire_time: datetime | None = None
    extensions: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    holds: tuple[SessionHold, ...] = ()
    end: End | None = None
    unenforced_end: End | None = None
    predecessor_ref: Ref | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """The session lives. `session` is set by `check` of one session."""

    status: Status
    session: Session | None = None

    @property
    def allowed(self) -> bool:
        """Whether the request may go on: always."""
        return True

    @property
    def session_ref(self) -> Ref:
        """Its ref."""
        return self.status.session_ref

    @property
    def expires_in(self) -> timedelta:
        """How long it lives if nothing else happens."""
        return self.status.expires_in or timedelta()

    @property
    def expiring(self) -> bool:
        """Whether a warning of it stands."""
        return self.status.state is SessionState.EXPIRING


@dataclass(frozen=True, slots=True)
class Touched(Live):
    """The session lives, and what became of the touch."""

    counted: bool = False
    result: TouchResult | None = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session has ended; nothing revives it. `session` is set by `check` of one session."""

    session_ref: Ref
    end: End
    session: Session | None = None
    status: Status | None = None

    @property
    def allowed(self) -> bool:
        """Whether the request may go on: never, whatever the fail policy."""
        return False

    @property
    def reason(self) -> EndReason | None:
        """Why."""
        return self.end.reason

    @property
    def actor(self) -> Actor | None:
        """Who ended it."""
        return self.end.actor

    @property
    def end_time(self) -> datetime | None:
        """When: for a timeout the deadline itself."""
        return self.end.end_time

    @property
    def successor_ref(self) -> Ref | None:
        """The session that goes on, if it was rotated."""
        return self.end.successor_ref


@dataclass(frozen=True, slots=True)
class Unknown:
    """Ended longer ago than is remembered, or never existed, or lost with a sidecar that only had memory."""

    session_ref: Ref
    may_have_ended: bool = False
    status: Status | None = None

    @property
    def allowed(self) -> bool:
        """Whether the request may go on: never, whatever the fail policy."""
        return False


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nobody knows now: the sidecar cannot be reached in time, or itself cannot know. `allowed` is the fail policy's word."""

    allowed: bool
    code: str
    """The gRPC code, such as UNAVAILABLE or DEADLINE_EXCEEDED."""
    message: str
    retry_after: timedelta | None = None


Answer: TypeAlias = Live | Ended | Unknown | Unreachable
"""What `check` answers. Each has `allowed`."""
TouchAnswer: TypeAlias = Touched | Ended | Unknown | Unreachable
"""What `touch` answers. Each has `allowed`."""


@dataclass(frozen=True, slots=True)
class Created:
    """A session that began. The id is a secret: it is not shown, and cannot be asked for again."""

    session_id: str = field(repr=False)
    session: Session
    superseded_refs: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Extended:
    """What an Extend granted. 0 is possible and no error."""

    status: Status
    granted_duration: timedelta
    clamped_by: Limit | None


@dataclass(frozen=True, slots=True)
class Held:
    """What a Hold granted. Renew well before `granted_ttl` is over; `Sidecar.holding` does."""

    status: Status
    granted_ttl: timedelta
    clamped_by: HoldClamp | None
    created: bool


@dataclass(frozen=True, slots=True)
class Released:
    """Whether there was a live hold to release."""

    status: Status
    released: bool


@dataclass(frozen=True, slots=True)
class Rotated:
    """A session under its new id. The id is a secret: it is not shown, and cannot be asked for again."""

    session_id: str = field(repr=False)
    session: Session
    previous_end: End
    superseded_refs: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class EndAnswer:
    """The end: this call's, or the first one if there was one before."""

    status: Status
    end: End
    ended_now: bool


_VISIBLE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known of the request behind a touch: the policy's rules decide by it. All of it is optional, nothing is kept."""

    host: str = ""
    method: str = ""
    path: str = ""
    sec_fetch_user: str = ""
    sec_fetch_mode: str = ""
    sec_fetch_dest: str = ""
    sec_purpose: str = ""
    page_visibility: PageVisibility | None = None
    input_report: bool = False

    @classmethod
    def of_request(cls, method: str, path: str, headers: Mapping[str, str], *, input_report: bool = False) -> Hints:
        """Of an HTTP request, with the raw (percent-encoded) path. `headers` must find names in any case, as those of web
        frameworks do. What the sidecar would refuse is left out or cut, for it is whatever somebody sent."""
        return cls(
            host=_told(re.sub(r":\d*$", "", headers.get("host") or ""), 255),
            method=_told(method, 32),
            path=_told(path.partition("?")[0], 2048, cut=True),
            sec_fetch_user=_told(headers.get("sec-fetch-user"), 64),
            sec_fetch_mode=_told(headers.get("sec-fetch-mode"), 64),
            sec_fetch_dest=_told(headers.get("sec-fetch-dest"), 64),
            sec_purpose=_told(headers.get("sec-purpose"), 64),
            input_report=input_report,
        )


def _told(value: str | None, longest: int, *, cut: bool = False) -> str:
    """A value that the sidecar takes: visible ASCII, not too long. Else nothing."""
    value = (value or "")[: longest if cut else None]
    return value if len(value) <= longest and _VISIBLE.fullmatch(value) else ""


@dataclass(frozen=True, slots=True)
class Touch:
    """One touch of a `touch_many`."""

    session_id: str = field(repr=False)
    activity: Activity | None = None
    idle_for: timedelta | None = None
    hints: Hints | None = None
