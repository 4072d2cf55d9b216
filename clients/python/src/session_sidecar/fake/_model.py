"""The life of one session: a record, what is asked of it, and what happens to it. It has no clock and does no I/O: `now` is an
argument, and what watchers are told is left in `news`. The same rules as the sidecar's own state machine, in its words."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from .._types import Actor, ClearedCause, EndReason, HoldClamp, HoldKind, Limit
from ._policy import Limits, Verdict

ALIAS_GRACE = timedelta(seconds=5)
REQUEST_MEMORY = timedelta(minutes=10)
REQUESTS_REMEMBERED = 8
REASONS = {
    Limit.IDLE: EndReason.IDLE_TIMEOUT,
    Limit.ABSOLUTE: EndReason.ABSOLUTE_TIMEOUT,
    Limit.PRESENCE: EndReason.BROWSER_CLOSED,
}


class Refused(Exception):
    """A command that the record refuses, in one word of the API; SESSION_ENDED if it is over."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class Request(NamedTuple):
    """Hashes of a request id, and of all else that the request says."""

    key: str
    content: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """A request that was carried out, when, and what it was answered."""

    request: Request
    at: datetime
    outcome: ExtendReply | str


@dataclass(slots=True)
class Hold:
    """A hold."""

    id: str
    kind: HoldKind
    purpose: str
    started: datetime
    until: datetime


class Deadlines(NamedTuple):
    """When a session ends by each limit, if nothing else happens."""

    idle: datetime
    absolute: datetime
    presence: datetime | None

    @property
    def nearest(self) -> tuple[datetime, Limit]:
        """The one formula. On a tie the absolute one, and any other rather than presence."""
        at, limit = (self.idle, Limit.IDLE) if self.idle < self.absolute else (self.absolute, Limit.ABSOLUTE)
        return (self.presence, Limit.PRESENCE) if self.presence and self.presence < at else (at, limit)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """How a session ended. A silent end is told to nobody: a session that is only observed was forgotten."""

    reason: EndReason
    actor: Actor
    at: datetime
    forget_at: datetime
    actor_id: str = ""
    note: str = ""
    idle_deadline: datetime | None = None
    successor: str = ""
    alias_until: datetime | None = None
    request: Request | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Warned:
    """It will end soon."""

    limit: Limit
    point: timedelta
    expire: datetime
    can_extend: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """The warnings of a limit are withdrawn."""

    limit: Limit
    cause: ClearedCause
    expire: datetime


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It goes on in the place of another one: as it was then."""

    record: Record


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended."""

    tombstone: Tombstone


News: TypeAlias = Warned | Cleared | Succeeded | Ended


class ExtendReply(NamedTuple):
    """How far the expire time moved, and whether the absolute deadline cut it short."""

    granted: timedelta
    clamped: bool


class HoldReply(NamedTuple):
    """How long a hold lives, what cut it short, and whether it began now."""

    granted: timedelta
    clamped: HoldClamp | None
    created: bool


@dataclass(slots=True)
class Record:
    """A session."""

    ref: str
    tenant: str
    subject: str
    labels: Mapping[str, str]
    limits: Limits
    created: datetime
    authenticated: datetime
    last_activity: datetime
    authentication_level: str = ""
    predecessor: str = ""
    version: int = 1
    extensions: int = 0
    # How many warning points of a limit have fired, while its warning stands.
    fired: dict[Limit, int] = field(default_factory=dict)
    holds: list[Hold] = field(default_factory=list)
    extended_until: datetime | None = None
    work_ended: datetime | None = None
    # The first WORK hold since the last surely human activity: the budget counts from here.
    budget_from: datetime | None = None
    # When the last open page went, and whether it was left; else it was lost sight of.
    presence_ended: tuple[datetime, bool] | None = None
    reports_input: bool = False
    # The limit that would have ended it, and when, if its policy were enforced.
    unenforced: tuple[Limit, datetime] | None = None
    requests: list[Remembered] = field(default_factory=list)
    tombstone: Tombstone | None = None
    news: list[tuple[int, News]] = field(default_factory=list)

    # ---- Deadlines ----

    def deadlines(self, now: datetime) -> Deadlines:
        """The deadlines in force: there is no presence deadline while a hold lives."""
        plain = self.plain_deadlines()
        return plain._replace(presence=None) if self.live_holds(now) else plain

    def plain_deadlines(self) -> Deadlines:
        """Each as it will be if nothing else happens: live holds lapse at their time."""
        work = self._work_reaches()
        idle = max(self.last_activity, work or self.last_activity) + self.limits.idle_timeout
        return Deadlines(
            idle=max(idle, self.extended_until or idle),
            absolute=self.authenticated + self.limits.absolute_timeout,
            presence=self._presence_deadline(work),
        )

    def live_holds(self, now: datetime) -> list[Hold]:
        """The holds that live."""
        return [hold for hold in self.holds if hold.until > now]

    def _work_reaches(self) -> datetime | None:
        """The latest end of a WORK hold, past or to come."""
        live = [hold.until for hold in self.holds if hold.kind is HoldKind.WORK]
        return max([*live, *([self.work_ended] if self.work_ended else [])], default=None)

    def _presence_ends(self) -> tuple[datetime, bool] | None:
        """The latest end of a PRESENCE hold, past or to come, and whether it was left."""
        ends = [self.presence_ended] if self.presence_ended else []
        ends += [(hold.until, False) for hold in self.holds if hold.kind is HoldKind.PRESENCE]
        # Of two at once the later one in the list.
        return max(reversed(ends), key=lambda end: end[0], default=None)

    def _presence_deadline(self, work: datetime | None) -> datetime | None:
        """The later of the last PRESENCE end and the last activity, plus the grace; not before WORK is over."""
        last = self._presence_ends()
        if self.limits.presence is None or last is None:
            return None
        at, left = last
        deadline = max(at, self.last_activity) + (self.limits.leave_grace if left else self.limits.lost_grace)
        return max(deadline, work or deadline)

    def can_extend(self, now: datetime) -> bool:
        """Whether an Extend would be accepted and could still move the expire time."""
        most = self.limits.max_extensions
        extensions_left = most is None or self.extensions < most
        return self.deadlines(now).nearest[1] is not Limit.ABSOLUTE and (extensions_left or not self.limits.enforced)

    def next_warning(self, now: datetime) -> datetime | None:
        """When the next warning is due if nothing else happens."""
        if self.unenforced:
            return None
        deadlines = self.deadlines(now)
        expire, limit = deadlines.nearest
        due = []
        idle, absolute = self.fired.get(Limit.IDLE, 0), self.fired.get(Limit.ABSOLUTE, 0)
        if limit is Limit.IDLE and idle < len(self.limits.idle_points):
            due.append(deadlines.idle - self.limits.idle_points[idle])
        if absolute < len(self.limits.absolute_points):
            due.append(deadlines.absolute - self.limits.absolute_points[absolute])
        at = min(due, default=expire)
        return at if at < expire else None

    def next_action(self, now: datetime) -> datetime:
        """When time does something to it, if nothing else happens."""
        if self.unenforced:
            return self._forgotten_at()
        due = [self.deadlines(now).nearest[0]]
        if warning := self.next_warning(now):
            due.append(warning)
        # A hold that lapses brings a presence deadline.
        presence = self.plain_deadlines().presence
        if presence and presence > now:
            due.append(presence)
        return min(due)

    def _forgotten_at(self) -> datetime:
        """When a session that is only observed, and over, is forgotten: when nobody has used it for long."""
        used = [self.last_activity, self.created]
        used += [at for at in (self._work_reaches(), *(self._presence_ends() or ())[:1], *(self.unenforced or ())[1:]) if at]
        return max(used) + self.limits.tombstone_ttl

    # ---- Commands ----

    def begin(self, now: datetime) -> None:
        """It begins: warned at once if that is inside a window; if it is only observed, perhaps after its end."""
        expire, limit = self.deadlines(now).nearest
        if not self.limits.enforced and now >= expire:
            self._observe(limit, expire, now)
        self._warn(now)

    def let_time_pass(self, now: datetime) -> None:
        """Time comes first: a deadline that has passed has passed for every command. Refused if it is over."""
        expire, limit = self.deadlines(now).nearest
        if self.tombstone is None and now >= expire and self.limits.enforced:
            # A warning that was not pushed yet precedes the end.
            self._lapse(expire)
            self._warn(expire)
            self._end(self._timeout(limit, expire, now))
        if self.tombstone:
            raise Refused("SESSION_ENDED", "the session has ended")
        self._lapse(now)
        if now >= expire:
            self._observe(limit, expire, now)

    def judge(self, now: datetime) -> None:
        """Nothing but that time has passed."""
        try:
            self.let_time_pass(now)
        except Refused:
            return
        if self.unenforced and self._forgotten_at() <= now:
            limit, at = self.unenforced
            self._end(replace(self._timeout(limit, at, now), silent=True))
        else:
            self._warn(now)

    def touch(self, verdict: Verdict, input_report: bool, idle_for: timedelta, now: datetime) -> str:
        """Activity, if it counts. Answers what became of it, in the API's word."""
        self.let_time_pass(now)
        if not verdict.counts:
            return "IGNORED"
        activity = max(now - idle_for, self.created) if idle_for else now
        if activity < self.last_activity:
            return "STALE"
        before = self.plain_deadlines()
        self._active(activity, verdict.user)
        if self.extensions:
            self.extensions = 0
            self.version += 1
        if input_report and not self.reports_input:
            self.reports_input = True
            self.version += 1
        self._revive(now)
        self._moved(before, ClearedCause.TOUCHED, now)
        return "COUNTED"

    def extend(self, wanted: timedelta | None, request: Request | None, now: datetime) -> ExtendReply:
        """The person pressed "stay"."""
        self.let_time_pass(now)
        known = self.recall(request, now)
        if isinstance(known, ExtendReply):
            return known
        if known is not None:
            raise reused()
        limits = self.limits
        if limits.enforced and limits.max_extensions is not None and self.extensions >= limits.max_extensions:
            raise Refused("EXTENSION_LIMIT", f"it was extended {limits.max_extensions} times in a row, the policy's max_extensions")
        before = self.plain_deadlines()
        expire_before = self.deadlines(now).nearest[0]
        self._active(max(now, self.last_activity), True)
        until = now + (limits.idle_timeout if wanted is None else wanted)
        if limits.at_most:
            until = min(until, now + limits.idle_timeout)
        # The deadline that stands, by a hold perhaps, is kept too: an answer promised it.
        self.extended_until = min(max(before.idle, until), before.absolute)
        self.extensions += 1
        granted = max(self.deadlines(now).nearest[0] - expire_before, timedelta())
        reply = ExtendReply(granted, until > before.absolute)
        self.version += 1
        self.remember(request, now, reply)
        self._revive(now)
        self._moved(before, ClearedCause.EXTENDED, now)
        return reply

    def hold(self, hold_id: str, kind: HoldKind, ttl: timedelta, purpose: str, now: datetime) -> HoldReply:
        """Begins or renews a hold."""
        self.let_time_pass(now)
        limits = self.limits
        may = limits.work if kind is HoldKind.WORK else limits.presence
        if may is None:
            raise Refused("PRESENCE_OFF", "the session's policy does not use presence")
        known = next((hold for hold in self.holds if hold.id == hold_id), None)
        if known and known.kind is not kind:
            raise Refused("HOLD_KIND", "a live hold of this hold_id has the other kind")
        if not known and sum(hold.kind is kind for hold in self.holds) >= may.max_live:
            raise Refused("HOLD_CAP", f"it has as many live holds of this kind as the policy allows, {may.max_live}")
        before = self.plain_deadlines()
        until, clamped = now + ttl, None
        bounds = [(now + may.max_ttl, HoldClamp.MAX_TTL)]
        if kind is HoldKind.WORK and limits.enforced:
            bounds.append(((self.budget_from or now) + limits.budget, HoldClamp.BUDGET))
        # An absolute deadline that is only observed refuses nothing once it has passed.
        if limits.enforced or before.absolute > now:
            bounds.append((before.absolute, HoldClamp.ABSOLUTE))
        for bound, clamp in bounds:
            if until > bound:
                until, clamped = bound, clamp
        # A renewal never shortens what was granted.
        until = max(until, known.until) if known else until
        if until <= now:
            raise Refused("HOLD_BUDGET", f"work has held the session for {limits.budget}, the policy's budget")
        if kind is HoldKind.WORK:
            self.budget_from = self.budget_from or now
        if known:
            known.until = until
            known.purpose = purpose or known.purpose
        else:
            self.holds.append(Hold(hold_id, kind, purpose, now, until))
        self.version += 1
        self._moved(before, ClearedCause.HELD, now)
        return HoldReply(until - now, clamped, known is None)

    def release(self, hold_id: str, now: datetime) -> bool:
        """Ends a hold. Answers whether there was one."""
        self.let_time_pass(now)
        known = next((hold for hold in self.holds if hold.id == hold_id), None)
        if known is None:
            return False
        before = self.plain_deadlines()
        self.holds.remove(known)
        self._hold_ended(known, now, True)
        self._moved(before, ClearedCause.RELEASED, now)
        # Work may have been all that kept a session whose browser is long gone.
        expire, limit = self.deadlines(now).nearest
        if expire <= now and self.limits.enforced:
            self._end(self._timeout(limit, expire, now))
        elif expire <= now:
            self._observe(limit, expire, now)
        return True

    def end(self, end: Tombstone, now: datetime) -> None:
        """Ends it now."""
        self.let_time_pass(now)
        if self.recall(end.request, now) is not None:
            raise reused()
        self._end(end)

    def rotate(
        self,
        to: str,
        subject: str | None,
        authenticated_ago: timedelta | None,
        level: str,
        policy: Limits | None,
        request: Request | None,
        now: datetime,
    ) -> Record | None:
        """Goes on under another name. Answers the session that goes on; None if the same request rotated it into this one."""
        self.let_time_pass(now)
        known = self.recall(request, now)
        if known == "rotated":
            return None
        if known is not None:
            raise reused()
        successor = copy.deepcopy(self)
        successor.ref, successor.predecessor = to, self.ref
        successor.version, successor.extensions = 1, 0
        successor.fired, successor.news = {}, []
        successor.subject = self.subject if subject is None else subject
        if authenticated_ago is not None:
            own = self.limits.own_idle_timeout, self.limits.own_absolute_timeout
            limits = (policy or self.limits).stricter(*own)
            if authenticated_ago >= limits.absolute_timeout and limits.enforced:
                raise Refused("ALREADY_PAST_LIMIT", f"authenticated_ago reaches the absolute timeout of {limits.absolute_timeout}")
            # NIST SP 800-63B-4 section 5.2: reauthentication begins both deadlines anew.
            successor.limits, successor.authenticated = limits, now - authenticated_ago
            successor.last_activity = max(now, self.last_activity)
            successor.authentication_level = level
            successor.extended_until = successor.budget_from = successor.unenforced = None
        successor.remember(request, now, "rotated")
        successor.news.append((successor.version, Succeeded(copy.deepcopy(successor))))
        successor.begin(now)
        self._clear(Limit.IDLE, ClearedCause.ROTATED, now)
        self._clear(Limit.ABSOLUTE, ClearedCause.ROTATED, now)
        trusted = authenticated_ago is None and successor.subject == self.subject
        end = Tombstone(
            reason=EndReason.ROTATED,
            actor=Actor.SYSTEM,
            at=now,
            forget_at=now + self.limits.tombstone_ttl,
            successor=to,
            alias_until=now + ALIAS_GRACE if trusted else now,
            request=request,
        )
        # An alias needs its tombstone.
        self._end(replace(end, forget_at=max(end.forget_at, end.alias_until or now)))
        return successor

    # ---- Requests ----

    def remember(self, request: Request | None, now: datetime, outcome: ExtendReply | str) -> None:
        """Remembers a request and its outcome: the last eight, and Create's for ever."""
        if request is None:
            return
        if len(self.requests) >= REQUESTS_REMEMBERED:
            self.requests.remove(next((known for known in self.requests if known.outcome != "created"), self.requests[0]))
        self.requests.append(Remembered(request, now, outcome))

    def recall(self, request: Request | None, now: datetime) -> ExtendReply | str | None:
        """What a request was answered before; "other content" if it said something else."""
        if request is None:
            return None
        for known in self.requests:
            if known.request.key == request.key and (known.outcome == "created" or now - known.at <= REQUEST_MEMORY):
                return known.outcome if known.request.content == request.content else "other content"
        return None

    # ---- What every command does ----

    def _happened(self, news: News) -> None:
        self.version += 1
        self.news.append((self.version, news))

    def _timeout(self, limit: Limit, at: datetime, now: datetime) -> Tombstone:
        return Tombstone(REASONS[limit], Actor.POLICY, at, now + self.limits.tombstone_ttl)

    def _end(self, end: Tombstone) -> None:
        self.tombstone = replace(end, idle_deadline=self.plain_deadlines().idle)
        self._happened(Ended(self.tombstone))

    def _lapse(self, now: datetime) -> None:
        """Takes note of holds that have lapsed."""
        over = sorted((hold for hold in self.holds if hold.until <= now), key=lambda hold: hold.until)
        self.holds = self.live_holds(now)
        for hold in over:
            self._hold_ended(hold, hold.until, False)

    def _hold_ended(self, hold: Hold, at: datetime, released: bool) -> None:
        if hold.kind is HoldKind.WORK:
            self.work_ended = max(self.work_ended or at, at)
        elif self.presence_ended is None or self.presence_ended[0] <= at:
            self.presence_ended = (at, released)
        self.version += 1

    def _active(self, activity: datetime, user: bool) -> None:
        self.last_activity = activity
        if user and self.budget_from:
            self.budget_from = None
            self.version += 1

    def _revive(self, now: datetime) -> None:
        """Activity gives a session time again that only would have ended."""
        if self.unenforced and self.deadlines(now).nearest[0] > now:
            self.unenforced = None
            self.version += 1

    def _observe(self, limit: Limit, at: datetime, now: datetime) -> None:
        """Notes the end that time would have brought, if the policy were enforced: once, until somebody is active again."""
        if self.unenforced:
            return
        self.version += 1
        self._clear(Limit.IDLE, ClearedCause.NOT_ENFORCED, now)
        self._clear(Limit.ABSOLUTE, ClearedCause.NOT_ENFORCED, now)
        self.unenforced = (limit, at)

    def _moved(self, before: Deadlines, cause: ClearedCause, now: datetime) -> None:
        """Withdraws warnings whose deadline moved, and warns anew if it is still near. Nothing here moves the absolute one."""
        if self.plain_deadlines().idle != before.idle:
            self._clear(Limit.IDLE, cause, now)
        self._warn(now)

    def _clear(self, limit: Limit, cause: ClearedCause, now: datetime) -> None:
        if self.fired.pop(limit, None):
            self._happened(Cleared(limit, cause, self.deadlines(now).nearest[0]))

    def _warn(self, now: datetime) -> None:
        """Fires the warning points that have been passed: those of one limit collapse into one warning, the smallest lead. Idle
        points fire only while inactivity is the nearest limit."""
        if self.unenforced:
            return
        deadlines, can_extend = self.deadlines(now), self.can_extend(now)
        sides = [(Limit.ABSOLUTE, self.limits.absolute_points, deadlines.absolute, False)]
        if deadlines.nearest[1] is Limit.IDLE:
            sides.insert(0, (Limit.IDLE, self.limits.idle_points, deadlines.idle, can_extend))
        for limit, points, deadline, helps in sides:
            count = sum(deadline - lead <= now for lead in points)
            if count > self.fired.get(limit, 0):
                self.fired[limit] = count
                self._happened(Warned(limit, points[count - 1], deadline, helps))


def reused() -> Refused:
    """A request id that came before with other content."""
    return Refused("REQUEST_ID_REUSED", "this request_id came before with other content; use a fresh one for a new request")
