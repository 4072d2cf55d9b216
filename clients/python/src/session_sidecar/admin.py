"""What `SidecarAdmin` answers: how sessions were ended, what is kept of their lives, the policies in force, and counts. Every name
is that of `session_admin_service.proto`, where its units and limits stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from ._types import ClearedCause, End, EndReason, HoldKind, Limit, Ref, Session, SessionState


@dataclass(frozen=True, slots=True)
class SessionsEnded:
    """How many live sessions matched, and how many of them the call ended; the refs of the first 1,000 that matched."""

    matched_count: int
    ended_count: int
    session_refs: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Warned:
    """Watchers were warned: so many. 0: nobody could have shown it."""

    time: datetime
    limit: Limit | None
    point: timedelta
    expire_time: datetime | None
    watcher_count: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """A warning was withdrawn."""

    time: datetime
    limit: Limit | None
    cause: ClearedCause | None
    expire_time: datetime | None
    watcher_count: int


@dataclass(frozen=True, slots=True)
class Extended:
    """The person pressed "stay"."""

    time: datetime
    granted_duration: timedelta
    clamped_by: Limit | None


@dataclass(frozen=True, slots=True)
class HoldStarted:
    """A hold began."""

    time: datetime
    hold_id: str
    kind: HoldKind | None
    purpose: str
    granted_ttl: timedelta


@dataclass(frozen=True, slots=True)
class HoldEnded:
    """A hold ended: its owner released it, or it lapsed."""

    time: datetime
    hold_id: str
    kind: HoldKind | None
    released: bool
    renewal_count: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """The session goes on as the other one, or came from it."""

    time: datetime
    other_ref: Ref
    is_successor: bool
    reauthenticated: bool


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """A newer revision of the policy reached the session."""

    time: datetime
    policy_revision: int


@dataclass(frozen=True, slots=True)
class UnenforcedEnd:
    """Time would have ended it, if its policy were enforced."""

    time: datetime
    reason: EndReason | None


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended."""

    time: datetime
    end: End
    watcher_count: int


HistoryEntry: TypeAlias = (
    Warned | Cleared | Extended | HoldStarted | HoldEnded | Rotated | PolicyChanged | UnenforcedEnd | Ended
)
"""One thing that happened to a session. Each has `time`."""


@dataclass(frozen=True, slots=True)
class RuleTally:
    """What became of touches by one rule."""

    rule: str
    counted: bool
    touch_count: int
    first_time: datetime | None
    last_time: datetime | None


@dataclass(frozen=True, slots=True)
class SessionExplanation:
    """What is kept of one session's life. `summary` is the answer in a sentence; the history begins with the oldest."""

    session: Session
    summary: str
    history: tuple[HistoryEntry, ...]
    history_dropped_count: int
    tallies: tuple[RuleTally, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """One explanation for each session, the latest first; none if nothing is known. `truncated`: there were more."""

    explanations: tuple[SessionExplanation, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class WorstCaseTerm:
    """One term of the longest time from a person's last input to the first refused request."""

    name: str
    duration: timedelta
    explanation: str


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One way in which a policy departs from a standard."""

    source: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class PolicyElsewhere:
    """What other sidecars of a shared store have of a policy, where it is not the same."""

    missing: bool
    revision: int
    sidecar_count: int


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """A policy as it is in force."""

    name: str
    revision: int
    active: bool
    enforced: bool
    idle_timeout: timedelta | None
    absolute_timeout: timedelta | None
    toml: str
    worst_case: tuple[WorstCaseTerm, ...]
    worst_case_duration: timedelta | None
    findings: tuple[LintFinding, ...]
    elsewhere: tuple[PolicyElsewhere, ...]


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies, by name; and why the policy file as it is now is not in force, if it is not."""

    policies: tuple[PolicyInfo, ...]
    policy_file_problem: str


@dataclass(frozen=True, slots=True)
class Stats:
    """How many sessions there are by state, and remembered ends by reason. What is not told is 0."""

    states: Mapping[SessionState, int]
    reasons: Mapping[EndReason, int]
    ghost_session_count: int
    working_session_count: int
    unenforced_end_count: int
