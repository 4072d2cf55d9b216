"""The verbs of the wire, answered in this process: messages in, messages out, over the records of `_model` and a clock of its own."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from .. import _wire as wire
from .._errors import Failure
from .._proto import session_admin_service_pb2 as admin_pb
from .._proto import session_service_pb2 as pb
from .._types import Actor, EndReason, EventKind, HoldKind, Limit
from ._model import REASONS, Cleared, Ended, Hold, News, Record, Refused, Request, Succeeded, Tombstone, Warned, reused
from ._policy import NEVER, Limits

T = TypeVar("T")

LONGEST = timedelta(days=3653)
MOST_TOUCHES, MOST_CHECKS, MOST_WATCHED, MOST_SPARED, MOST_REFS = 1000, 100, 1000, 100, 1000
READING_METHODS = ("", "GET", "HEAD", "OPTIONS")
_EXHAUSTED = ("HOLD_CAP", "HOLD_BUDGET", "SUBJECT_CAP")
_CODES = {name: number for number, name in wire.CODES.items()}
_Leads = Callable[[Tombstone], bool]
FAR = datetime.max.replace(tzinfo=UTC)


class Failed(Exception):
    """What the wire would have failed with."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def invalid(field: str, problem: str) -> Failed:
    """A field that is out of bounds."""
    return Failed(Failure("INVALID_ARGUMENT", f"{field}: {problem}", fields=(field,)))


# ---- What comes from outside ----


def _visible(field: str, text: str, shortest: int, longest: int) -> str:
    if not shortest <= len(text.encode()) <= longest:
        raise invalid(field, f"is {len(text.encode())} bytes long; {shortest} to {longest} are allowed")
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise invalid(field, "has a byte that is not visible ASCII (0x21 to 0x7e)")
    return text


def _session_id(field: str, text: str) -> str:
    if not text:
        raise invalid(field, "is required: the session's id, 16 to 256 bytes of visible ASCII")
    return _visible(field, text, 1, 256)


def _is_ref(text: str) -> bool:
    # The last character has four bits of the sixteen bytes, and two that must be 0.
    return bool(re.fullmatch(r"[A-Za-z0-9_-]{21}[AQgw]", text))


def _session_ref(field: str, text: str) -> str:
    if not _is_ref(text):
        raise invalid(field, "is not a session_ref: it must be 22 characters of base64url")
    return text


def _text(field: str, text: str, longest: int) -> str:
    if len(text.encode()) > longest:
        raise invalid(field, f"is {len(text.encode())} bytes long; at most {longest} are allowed")
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise invalid(field, "has a control character; remove it")
    return text


def _labels(field: str, message: Any) -> dict[str, str]:
    labels = dict(sorted(message.items()))
    if len(labels) > 8:
        raise invalid(field, f"has {len(labels)} labels; at most 8 are allowed")
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z0-9_./-]{1,63}", key):
            raise invalid(field, "has a key that is not 1 to 63 bytes of a-z, 0-9, `_`, `-`, `.`, `/`")
        _text(f"{field}.{key}", value, 128)
    return labels


def _span(
    message: Message, field: str, shortest: timedelta = timedelta(), longest: timedelta = LONGEST, *, over: bool = False
) -> timedelta | None:
    """A duration within bounds, `over` the shortest one or equal to it; None if it is unset. What is shorter than a microsecond is
    taken for one."""
    if not message.HasField(field):
        return None
    given: Duration = getattr(message, field)
    if not 0 <= given.nanos < 10**9 and given.seconds >= 0 and given.nanos >= 0:
        raise invalid(field, "has nanos outside 0 to 999,999,999")
    nanos = given.seconds * 10**9 + given.nanos
    least, most = (each // timedelta(microseconds=1) * 1000 for each in (shortest, longest))
    if given.nanos < 0 or not least <= nanos <= most or (over and nanos == least):
        raise invalid(field, f"must be a duration from {'over ' * over}{shortest} to {longest}")
    return given.ToTimedelta() or timedelta.resolution * over


def _known(field: str, enum: EnumTypeWrapper, number: int) -> int:
    if number not in enum.values():
        raise invalid(field, f"has no value with the number {number}")
    return number


def _request(key: str, content: bytes) -> Request | None:
    """Only hashes are kept: what a Rotate says has an id in it."""
    _visible("request_id", key, 0, 128)
    return Request(hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(content).hexdigest()) if key else None


def _content(verb: str, message: Message, *but: str) -> bytes:
    """All that a request says but these fields."""
    rest = copy.deepcopy(message)
    for field in but:
        rest.ClearField(field)
    return verb.encode() + rest.SerializeToString(deterministic=True)


def _hints(message: pb.TouchHints) -> pb.TouchHints:
    _known("hints.page_visibility", pb.PageVisibility, message.page_visibility)
    longest = {"path": 2048, "host": 255, "method": 32}
    for field in ("path", "host", "method", "sec_fetch_user", "sec_fetch_mode", "sec_fetch_dest", "sec_purpose"):
        value = getattr(message, field)
        if len(value.encode()) > longest.get(field, 64):
            raise invalid(f"hints.{field}", f"is {len(value.encode())} bytes long; at most {longest.get(field, 64)} are allowed")
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise invalid(f"hints.{field}", "has a byte that is not visible ASCII or a space (0x20 to 0x7e)")
    return message


def _hold_id(text: str) -> str:
    if not text:
        raise invalid("hold_id", "is required: the owner's own id of the hold, 1 to 64 bytes of visible ASCII")
    return _visible("hold_id", text, 1, 64)


def _within(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise invalid(field, f"has {count} items; 1 to {most} are allowed")


def _end_words(request: Any, usual: EndReason) -> tuple[EndReason, Actor]:
    reason = wire.word(EndReason, pb.EndReason, "END_REASON", _known("reason", pb.EndReason, request.reason)) or usual
    if reason not in (EndReason.LOGOUT, EndReason.REVOKED):
        raise invalid("reason", "must be END_REASON_LOGOUT or END_REASON_REVOKED: nobody can command the others")
    actor = wire.word(Actor, pb.Actor, "ACTOR", _known("actor", pb.Actor, request.actor))
    return reason, actor or (Actor.USER if reason is EndReason.LOGOUT and usual is EndReason.LOGOUT else Actor.ADMIN)


# ---- Words of the wire ----


def _limit(word: Limit | None) -> Any:
    return wire.number(pb.Limit, "LIMIT", word)


def _end(end: Tombstone) -> pb.SessionEnd:
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


def _led(end: Tombstone, at: datetime) -> bool:
    """Whether a former id led to its successor at a time. Never over a login, which leaves no alias: whoever knew the id before it
    is not the one who logged in."""
    until = end.alias_until
    return until is not None and until > end.at and at < until


def _event_session(record: Record, version: int) -> pb.EventSession:
    return pb.EventSession(
        session_ref=record.ref, tenant=record.tenant, subject=record.subject, labels=record.labels, version=version
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to a session, as watchers are told."""

    ref: str
    tenant: str
    subject: str
    kind: str
    message: pb.WatchExpiryResponse
    successor: str = ""


@dataclass(slots=True, eq=False)
class Alarm:
    """What is to be done at a time of the fake's clock, and after how many seconds again."""

    at: datetime
    ring: Callable[[], float | None]


class Server:
    """The sessions of a fake, the policies, the clock, and the log of what happened. Every call has the lock."""

    def __init__(self, policies: dict[str, Limits], tenants: Iterable[str]) -> None:
        self._policies = policies
        self._tenants = tuple(tenants)
        self._key = secrets.token_bytes(32)
        self._records: dict[str, Record] = {}
        self._alarms: list[Alarm] = []
        self.now = datetime.now(UTC)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._listeners: set[Callable[[], object]] = set()
        self.log: list[Entry] = []
        self.epoch = secrets.token_hex(8)

    def ask(self, verb: str, request: Message) -> Any:
        """Answers a call. Raises Failed."""
        with self.lock:
            self._catch_up()
            return getattr(self, f"_{verb}")(request)

    # ---- Time ----

    def advance(self, by: timedelta) -> datetime:
        """Moves the clock from one thing that is due to the next, so that each happens at its own time."""
        if by < timedelta():
            raise ValueError("the clock only goes forward: advance by a duration over 0")
        with self.lock:
            until = self.now + by
            while (due := self._due()) <= until:
                self.now = max(self.now, due)
                self._catch_up()
                for alarm in [each for each in self._alarms if each.at <= self.now]:
                    after = alarm.ring()
                    if after is None:
                        self.cancel(alarm)
                    else:
                        alarm.at = self.now + timedelta(seconds=after)
            self.now = until
            return self.now

    def _due(self) -> datetime:
        sessions = [record.next_action(self.now) for record in self._live()]
        return min([FAR, *sessions, *(alarm.at for alarm in self._alarms)])

    def _catch_up(self) -> None:
        """Whatever is due by now happens, in order."""
        for record in sorted(self._live(), key=lambda record: record.next_action(self.now)):
            if record.next_action(self.now) <= self.now:
                record.judge(self.now)
                self._publish(record)

    def alarm(self, after: float, ring: Callable[[], float | None]) -> Alarm:
        """Rings after so many seconds of this clock, and again after as many as it answers."""
        with self.lock:
            alarm = Alarm(self.now + timedelta(seconds=after), ring)
            self._alarms.append(alarm)
            return alarm

    def cancel(self, alarm: Alarm) -> None:
        """It does not ring any more."""
        with self.lock:
            if alarm in self._alarms:
                self._alarms.remove(alarm)

    # ---- Names ----

    def _hash(self, *words: str) -> bytes:
        return hashlib.blake2b(json.dumps(words).encode(), key=self._key).digest()

    def _named(self, size: int, *words: str) -> str:
        return base64.urlsafe_b64encode(self._hash(*words)[:size]).decode().rstrip("=")

    def _ref(self, tenant: str, session_id: str) -> str:
        return self._named(16, "ref", tenant, session_id)

    def _live(self) -> list[Record]:
        return [record for record in self._records.values() if record.tombstone is None]

    def find(self, ref: str) -> Record | None:
        """A session that is live or remembered."""
        record = self._records.get(ref)
        end = record and record.tombstone
        if end and (end.silent or end.forget_at <= self.now):
            return self._records.pop(ref) and None
        return record

    def _examined(self, record: Record) -> Record:
        """Whoever looks at a session whose deadline has passed takes note of that: it may live on, only observed."""
        if record.tombstone is None and record.deadlines(self.now).nearest[0] <= self.now:
            record.judge(self.now)
            self._publish(record)
        return record

    def _find_own(self, tenant: str, ref: str) -> Record | None:
        record = self.find(ref)
        return self._examined(record) if record and record.tenant == tenant else None

    def _successor(self, record: Record, leads: _Leads) -> Record | None:
        """The session that goes on in the place of an ended one, perhaps ended itself; None if that leads nowhere."""
        end = record.tombstone
        if end is None or not leads(end):
            return None
        while (successor := self.find(end.successor)) and successor.tombstone and leads(successor.tombstone):
            end = successor.tombstone
        return successor

    def _is_alias(self, end: Tombstone) -> bool:
        return end.alias_until is not None and self.now < end.alias_until

    def _lead(self, tenant: str, session_id: str, leads: _Leads | None = None) -> tuple[Record, bool]:
        """The live session that an id leads to, and whether by way of a former one."""
        ref = self._ref(tenant, session_id)
        record = self.find(ref)
        if record is None:
            self._refuse_ref("session_id", tenant, session_id)
            self._long_enough("session_id", session_id, min(limits.min_id_length for limits in self._policies.values()))
            raise Failed(Failure("NOT_FOUND", "the session is not known", "SESSION_UNKNOWN", {"session_ref": ref}))
        if record.tombstone is None:
            return record, False
        successor = self._successor(record, leads or self._is_alias)
        if successor is None or successor.tombstone:
            raise self._ended(successor or record)
        return successor, True

    def _holder(self, tenant: str, session_id: str, hold_id: str) -> tuple[Record, bool]:
        """The same; for a hold that lives, also by a former id whose grace is over, if that led here when the hold began."""
        try:
            return self._lead(tenant, session_id)
        except Failed as over:
            if over.failure.reason != "SESSION_ENDED":
                raise
            try:
                record, _ = self._lead(tenant, session_id, lambda end: bool(end.successor))
                began = next(hold.started for hold in record.live_holds(self.now) if hold.id == hold_id)
                return self._lead(tenant, session_id, lambda end: _led(end, began))
            except (Failed, StopIteration):
                raise over from None

    def _refuse_ref(self, field: str, tenant: str, session_id: str) -> None:
        if _is_ref(session_id) and self._find_own(tenant, session_id):
            raise invalid(field, "is a session_ref; a session's id is needed here (a ref is no credential)")

    def _long_enough(self, field: str, session_id: str, least: int) -> None:
        if len(session_id) < least:
            raise invalid(field, f"is too short: at least {least} bytes are needed")

    def _own_tenant(self, field: str, tenant: str) -> str:
        _visible(field, tenant, 0, 128)
        if tenant not in self._tenants:
            problem = f"{field}: callers of this listener may not name this tenant; its `tenants` decide that"
            raise Failed(Failure("PERMISSION_DENIED", problem, "CALLER_NOT_ALLOWED"))
        return tenant

    def _name(self, tenant: str, field: str, message: Any) -> str:
        """The ref of a session that is named by its id or ref."""
        match message.WhichOneof("name"):
            case "session_id":
                session_id = _session_id(f"{field}session_id", message.session_id)
                self._refuse_ref(f"{field}session_id", tenant, session_id)
                return self._ref(tenant, session_id)
            case "session_ref":
                return _session_ref(f"{field}session_ref", message.session_ref)
        raise invalid(f"{field}session_id", "is required, or session_ref in its place")

    # ---- Refusals ----

    def _ended(self, record: Record) -> Failed:
        end = record.tombstone
        assert end is not None, "it has ended"
        told = {
            "session_ref": record.ref,
            "reason": end.reason,
            "actor": end.actor,
            "end_time": end.at.isoformat(timespec="milliseconds"),
            "actor_id": end.actor_id,
            "note": end.note,
            "successor_ref": end.successor,
        }
        told = {key: str(value) for key, value in told.items() if value}
        return Failed(Failure("FAILED_PRECONDITION", "the session has ended", "SESSION_ENDED", told))

    def _refused(self, reason: str, message: str, record: Record | None = None) -> Failed:
        code = "RESOURCE_EXHAUSTED" if reason in _EXHAUSTED else "FAILED_PRECONDITION"
        code = "ALREADY_EXISTS" if reason == "SESSION_EXISTS" else code
        return Failed(Failure(code, message, reason, {"session_ref": record.ref} if record else {}))

    def _act(self, record: Record, command: Callable[[Record], T], *, told: bool = True) -> T:
        """Lets a record decide, and tells what happened."""
        try:
            return command(record)
        except Refused as refusal:
            if refusal.reason == "SESSION_ENDED":
                raise self._ended(record) from None
            raise self._refused(refusal.reason, str(refusal), None if refusal.reason == "ALREADY_PAST_LIMIT" else record) from None
        finally:
            if told:
                self._publish(record)

    # ---- Answers ----

    def _status(self, record: Record, alias: bool = False) -> pb.SessionStatus:
        now = self.now
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
            limit=_limit(limit),
            next_warning_time=record.next_warning(now),
            can_extend=record.can_extend(now),
            version=record.version,
            scope=pb.KNOWLEDGE_SCOPE_MEMORY,
            alias=alias,
            read_only=record.limits.passive,
            observed_only=not record.limits.enforced,
        )

    def _unknown(self, ref: str) -> pb.SessionStatus:
        return pb.SessionStatus(
            session_ref=ref, state=pb.SESSION_STATE_UNKNOWN, server_time=self.now, scope=pb.KNOWLEDGE_SCOPE_MEMORY
        )

    def _session(self, record: Record, alias: bool = False) -> pb.Session:
        limits, end = record.limits, record.tombstone
        deadlines = record.deadlines(self.now)
        idle = end.idle_deadline if end else deadlines.idle
        ends = limits.idle_timeout < NEVER
        would = record.unenforced if not end else None
        return pb.Session(
            status=self._status(record, alias),
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
            holds=[] if end else [self._hold_message(hold) for hold in record.live_holds(self.now)],
            end=_end(end) if end else None,
            unenforced_end=_would_have_ended(*would) if would else None,
            predecessor_ref=record.predecessor,
        )

    def _hold_message(self, hold: Hold) -> pb.SessionHold:
        return pb.SessionHold(
            hold_id=hold.id,
            kind=wire.number(pb.HoldKind, "HOLD_KIND", hold.kind),
            purpose=hold.purpose,
            start_time=hold.started,
            expire_time=hold.until,
            expires_in=hold.until - self.now,
        )

    # ---- The log ----

    def _publish(self, record: Record) -> None:
        """Writes into the log what happened to a record."""
        news, record.news = record.news, []
        for version, what in news:
            successor = what.tombstone.successor if isinstance(what, Ended) else ""
            if not (isinstance(what, Ended) and what.tombstone.silent):
                kind, message = self._message(record, version, what)
                self.log.append(Entry(record.ref, record.tenant, record.subject, kind, message, successor))
        if news:
            self.tell()

    def tell(self) -> None:
        """Wakes those who wait for something to happen."""
        with self.lock:
            self.changed.notify_all()
            for listener in self._listeners:
                listener()

    def listen(self, listener: Callable[[], object]) -> None:
        """It is called whenever something happens."""
        with self.lock:
            self._listeners.add(listener)

    def forget(self, listener: Callable[[], object]) -> None:
        """It is not called any more."""
        with self.lock:
            self._listeners.discard(listener)

    def drain(self) -> None:
        """Tells watchers that the sidecar is about to stop."""
        with self.lock:
            message = pb.WatchExpiryResponse(emit_time=self.now, draining=pb.Draining())
            self.log.append(Entry("", "", "", "draining", message))
            self.tell()

    def _message(self, record: Record, version: int, what: News) -> tuple[str, pb.WatchExpiryResponse]:
        session, now = _event_session(record, version), self.now
        match what:
            case Warned(limit, point, expire, can_extend):
                warning = pb.Warning(
                    session=session,
                    limit=_limit(limit),
                    point=point,
                    expire_time=expire,
                    expires_in=expire - now,
                    can_extend=can_extend,
                )
                return "WARNING", pb.WatchExpiryResponse(emit_time=now, warning=warning)
            case Cleared(limit, cause, expire):
                cleared = pb.Cleared(
                    session=session,
                    limit=_limit(limit),
                    cause=wire.number(pb.ClearedCause, "CLEARED_CAUSE", cause),
                    expire_time=expire,
                    expires_in=max(expire - now, timedelta()),
                )
                return "CLEARED", pb.WatchExpiryResponse(emit_time=now, cleared=cleared)
            case Succeeded(successor):
                snapshot = pb.Snapshot(session=session, status=self._status(successor), predecessor_ref=successor.predecessor)
                return "SUCCEEDED", pb.WatchExpiryResponse(emit_time=now, snapshot=snapshot)
            case Ended(end):
                ended = pb.Ended(
                    session=session, end=_end(end), create_time=record.created, last_activity_time=record.last_activity
                )
                return "ENDED", pb.WatchExpiryResponse(emit_time=now, ended=ended)

    # ---- Verbs ----

    def _Create(self, request: pb.CreateRequest) -> pb.CreateResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        own = _session_id("session_id", request.session_id) if request.session_id else ""
        subject = _text("subject", request.subject, 256)
        policy_name = _text("policy", request.policy, 128) or "default"
        labels = _labels("labels", request.labels)
        idle = _span(request, "idle_timeout", over=True)
        absolute = _span(request, "absolute_timeout", over=True)
        authenticated_ago = _span(request, "authenticated_ago") or timedelta()
        level = _visible("authentication_level", request.authentication_level, 0, 64)
        idle_for = _span(request, "idle_for") or timedelta()
        wanted = _request(request.request_id, _content("Create", request, "request_id"))
        session_id = own or (self._named(32, "id", tenant, wanted.key) if wanted else secrets.token_urlsafe(32))
        ref = self._ref(tenant, session_id)
        known = self.find(ref)
        if wanted and known and known.tombstone is None:
            return self._created_before(session_id, known, wanted)
        limits = self._policies.get(policy_name)
        if limits is None:
            raise self._refused("POLICY_UNKNOWN", f"there is no policy of this name; there are: {', '.join(sorted(self._policies))}")
        if own:
            self._refuse_ref("session_id", tenant, own)
            self._long_enough("session_id", own, limits.min_id_length)
        for field, stricter, limit in (
            ("idle_timeout", idle, limits.idle_timeout),
            ("absolute_timeout", absolute, limits.absolute_timeout),
        ):
            if stricter and stricter > limit:
                raise invalid(field, f"may only be stricter than the policy: at most {limit}")
        limits = limits.stricter(idle, absolute)
        if limits.enforced and idle_for >= limits.idle_timeout:
            raise self._refused("ALREADY_PAST_LIMIT", f"idle_for reaches the idle timeout of {limits.idle_timeout}")
        if limits.enforced and authenticated_ago >= limits.absolute_timeout:
            raise self._refused("ALREADY_PAST_LIMIT", f"authenticated_ago reaches the absolute timeout of {limits.absolute_timeout}")
        losers = [] if known else self._losers(limits, tenant, subject)
        if known and known.tombstone:
            raise self._ended(known)
        if known:
            self._examined(known)
            raise self._refused("SESSION_EXISTS", "a live session has this id already; create sessions with fresh ids", known)
        now = self.now
        record = Record(ref, tenant, subject, labels, limits, now, now - authenticated_ago, now - idle_for, level)
        record.remember(wanted, now, "created")
        self._begin(record)
        return pb.CreateResponse(session_id=session_id, session=self._session(record), superseded_refs=self._supersede(losers))

    def _begin(self, record: Record) -> None:
        record.begin(self.now)
        self._records[record.ref] = record
        self._publish(record)

    def _created_before(self, session_id: str, record: Record, wanted: Request) -> pb.CreateResponse:
        match self._examined(record).recall(wanted, self.now):
            case "created":
                return pb.CreateResponse(session_id=session_id, session=self._session(record))
            case None:
                raise self._refused("SESSION_EXISTS", "a live session has this id already; create sessions with fresh ids", record)
        raise self._refused("REQUEST_ID_REUSED", str(reused()), record)

    def _losers(self, limits: Limits, tenant: str, subject: str) -> list[Record]:
        """Who must go so that the subject may begin one more."""
        most = limits.max_sessions_per_subject
        if most is None or not limits.enforced or not subject:
            return []
        own = [self._examined(record) for record in self._live() if (record.tenant, record.subject) == (tenant, subject)]
        peers = [record for record in own if record.limits.policy == limits.policy]
        too_many = len(peers) + 1 - most
        if too_many > 0 and not limits.ends_oldest:
            raise self._refused("SUBJECT_CAP", f"the subject has as many live sessions as max_sessions_per_subject allows, {most}")
        return sorted(peers, key=lambda record: record.created)[: max(too_many, 0)]

    def _supersede(self, losers: list[Record]) -> list[str]:
        for loser in losers:
            self._end_one(loser, EndReason.SUPERSEDED, Actor.POLICY)
        return [loser.ref for loser in losers]

    def _end_one(
        self, record: Record, reason: EndReason, actor: Actor, actor_id: str = "", note: str = "", request: Request | None = None
    ) -> Tombstone:
        forget_at = self.now + record.limits.tombstone_ttl
        end = Tombstone(reason, actor, self.now, forget_at, actor_id, note, request=request)
        self._act(record, lambda record: record.end(end, self.now))
        return end

    def _Touch(self, request: pb.TouchRequest) -> pb.TouchResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        session_id = _session_id("session_id", request.session_id)
        activity = _known("activity", pb.Activity, request.activity)
        idle_for = _span(request, "idle_for") or timedelta()
        hints = _hints(request.hints) if request.HasField("hints") else None
        record, alias = self._lead(tenant, session_id)
        limits = record.limits
        if limits.passive and limits.enforced and hints and hints.method not in READING_METHODS:
            raise self._refused("READ_ONLY_SESSION", "the session is for reading only (policy: passive)", record)
        verdict = limits.judge(activity, hints, record.reports_input)
        report = verdict.counts and hints is not None and hints.input_report
        result = self._act(record, lambda record: record.touch(verdict, report, idle_for, self.now))
        return pb.TouchResponse(
            status=self._status(record, alias),
            counted=result == "COUNTED",
            result=wire.number(pb.TouchResult, "TOUCH_RESULT", result),
            rule=verdict.rule,
        )

    def _BatchTouch(self, request: pb.BatchTouchRequest) -> pb.BatchTouchResponse:
        _within("touches", len(request.touches), MOST_TOUCHES)
        response = pb.BatchTouchResponse()
        for touch in request.touches:
            try:
                response.outcomes.add(touch=self._Touch(touch))
            except Failed as failed:
                response.outcomes.add(error=self._item_error(failed.failure))
        return response

    def _item_error(self, failure: Failure) -> pb.ItemError:
        ref = failure.metadata.get("session_ref", "")
        record = self.find(ref) if failure.reason == "SESSION_ENDED" else None
        return pb.ItemError(
            code=_CODES[failure.code],
            message=failure.message,
            reason=failure.reason,
            session_ref=ref,
            end=_end(record.tombstone) if record and record.tombstone else None,
        )

    def _Check(self, request: pb.CheckRequest) -> pb.CheckResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        if request.WhichOneof("name"):
            if request.sessions:
                raise invalid("sessions", "must be empty if session_id or session_ref is set; ask for one or for many")
            return pb.CheckResponse(session=self._checked(tenant, "", request))
        _within("sessions", len(request.sessions), MOST_CHECKS)
        response = pb.CheckResponse()
        for place, name in enumerate(request.sessions):
            try:
                response.outcomes.add(status=self._checked(tenant, f"sessions[{place}].", name).status)
            except Failed as failed:
                response.outcomes.add(error=self._item_error(failed.failure))
        return response

    def _checked(self, tenant: str, field: str, name: Any) -> pb.Session:
        """All that is known of the session that a name stands for: of its successor, while an id is an alias."""
        ref = self._name(tenant, field, name)
        record = self._find_own(tenant, ref)
        if record is None:
            return pb.Session(status=self._unknown(ref), tenant=tenant)
        successor = self._successor(record, self._is_alias) if name.WhichOneof("name") == "session_id" else None
        return self._session(successor or record, alias=successor is not None)

    def _Extend(self, request: pb.ExtendRequest) -> pb.ExtendResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        session_id = _session_id("session_id", request.session_id)
        wanted = _span(request, "wanted_duration", over=True)
        known_as = _request(request.request_id, _content("Extend", request, "request_id", "session_id"))
        record, alias = self._lead(tenant, session_id)
        reply = self._act(record, lambda record: record.extend(wanted, known_as, self.now))
        return pb.ExtendResponse(
            status=self._status(record, alias),
            granted_duration=reply.granted,
            clamped_by=_limit(Limit.ABSOLUTE if reply.clamped else None),
        )

    def _Hold(self, request: pb.HoldRequest) -> pb.HoldResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        session_id = _session_id("session_id", request.session_id)
        hold_id = _hold_id(request.hold_id)
        kind = wire.word(HoldKind, pb.HoldKind, "HOLD_KIND", _known("kind", pb.HoldKind, request.kind))
        if kind is None:
            raise invalid("kind", "is required: HOLD_KIND_WORK or HOLD_KIND_PRESENCE")
        ttl = _span(request, "ttl", over=True)
        if ttl is None:
            raise invalid("ttl", "is required: how long the hold should live, over 0 s")
        purpose = _text("purpose", request.purpose, 128)
        record, alias = self._holder(tenant, session_id, hold_id)
        reply = self._act(record, lambda record: record.hold(hold_id, kind, ttl, purpose, self.now))
        return pb.HoldResponse(
            status=self._status(record, alias),
            granted_ttl=reply.granted,
            clamped_by=wire.number(pb.HoldClamp, "HOLD_CLAMP", reply.clamped),
            created=reply.created,
        )

    def _Release(self, request: pb.ReleaseRequest) -> pb.ReleaseResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        session_id = _session_id("session_id", request.session_id)
        hold_id = _hold_id(request.hold_id)
        record, alias = self._holder(tenant, session_id, hold_id)
        released = self._act(record, lambda record: record.release(hold_id, self.now))
        return pb.ReleaseResponse(status=self._status(record, alias), released=released)

    def _Rotate(self, request: pb.RotateRequest) -> pb.RotateResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        subject = _text("subject", request.subject, 256) if request.HasField("subject") else None
        if subject == "":
            raise invalid("subject", "is empty; leave it out to keep the subject, or give 1 to 256 bytes")
        level = _visible("authentication_level", request.authentication_level, 0, 64)
        if level and not request.HasField("authenticated_ago"):
            raise invalid("authentication_level", "needs authenticated_ago beside it: it is the level of a new authentication")
        old_id, own = _session_id("session_id", request.session_id), request.new_session_id
        if own == old_id:
            raise invalid("new_session_id", "is the id that the session has already; a new one is needed")
        if own:
            _session_id("new_session_id", own)
        authenticated_ago = _span(request, "authenticated_ago")
        wanted = _request(request.request_id, _content("Rotate", request, "request_id"))
        if own:
            self._refuse_ref("new_session_id", tenant, own)
        old_ref = self._ref(tenant, old_id)
        made = self._named(32, "rotation", tenant, old_ref, wanted.key) if wanted else secrets.token_urlsafe(32)
        new_id = own or made
        ref = self._ref(tenant, new_id)
        if wanted and (before := self._rotated_before(old_ref, new_id, wanted)):
            return before
        record, alias = self._lead(tenant, old_id)
        policy = self._policies.get(record.limits.policy)
        self._long_enough("new_session_id", new_id, policy.min_id_length if policy else 1)
        taken = self.find(ref)
        new_subject = subject is not None and subject != record.subject
        losers = self._losers(policy, tenant, subject or "") if policy and new_subject and not taken else []
        # If the new name is taken nothing happens; but what else speaks against it is told first.
        asked = copy.deepcopy(record) if taken else record
        successor = self._act(
            asked, lambda asked: asked.rotate(ref, subject, authenticated_ago, level, policy, wanted, self.now), told=not taken
        )
        if successor is None:
            if wanted and (before := self._rotated_before(old_ref, new_id, wanted)):
                return before
            raise self._refused("REQUEST_ID_REUSED", str(reused()), self.find(old_ref))
        if taken and taken.tombstone:
            raise self._refused("NEW_SESSION_ENDED", "a session of the new id has ended before; rotate to a fresh id")
        if taken:
            raise self._refused("SESSION_EXISTS", "a live session has the new id already; rotate to a fresh id", taken)
        self._records[ref] = successor
        self._publish(successor)
        superseded = self._supersede(losers)
        assert record.tombstone is not None, "it was rotated"
        return pb.RotateResponse(
            session_id=new_id,
            session=self._session(successor, alias),
            previous_end=_end(record.tombstone),
            superseded_refs=superseded,
        )

    def _rotated_before(self, ref: str, new_id: str, wanted: Request) -> pb.RotateResponse | None:
        """What a retry is answered: the session that the same request made of this name before, or of the one that it stood for."""
        record = old = self.find(ref)
        while record and (end := record.tombstone) and end.successor:
            known = end.request if end.request and end.request.key == wanted.key else None
            successor = self.find(end.successor)
            if known == wanted and end.successor == self._ref(record.tenant, new_id):
                if successor is None:
                    raise Failed(Failure("NOT_FOUND", "the session is not known", "SESSION_UNKNOWN", {"session_ref": end.successor}))
                if successor.tombstone:
                    raise self._ended(successor)
                return pb.RotateResponse(session_id=new_id, session=self._session(successor), previous_end=_end(end))
            if known and record is old:
                raise self._refused("REQUEST_ID_REUSED", str(reused()), record)
            record = successor
        return None

    def _End(self, request: pb.EndRequest) -> pb.EndResponse:
        tenant = self._own_tenant("tenant", request.tenant)
        session_id = _session_id("session_id", request.session_id)
        reason, actor = _end_words(request, EndReason.LOGOUT)
        actor_id, note = _text("actor_id", request.actor_id, 128), _text("note", request.note, 256)
        wanted = _request(request.request_id, _content("End", request, "request_id", "session_id"))
        try:
            record, alias = self._lead(tenant, session_id)
        except Failed as failed:
            over = self.find(failed.failure.metadata.get("session_ref", "")) if failed.failure.reason == "SESSION_ENDED" else None
            if over is None or over.tombstone is None:
                raise
            first = over.tombstone
            # A retry is told what the first call was told.
            known = first.request if wanted and first.request and first.request.key == wanted.key else None
            if known and known != wanted:
                raise self._refused("REQUEST_ID_REUSED", str(reused()), over) from None
            alias = over.ref != self._ref(tenant, session_id)
            return pb.EndResponse(status=self._status(over, alias), end=_end(first), ended_now=known is not None)
        end = self._end_one(record, reason, actor, actor_id, note, wanted)
        return pb.EndResponse(status=self._status(record, alias), end=_end(end), ended_now=True)

    # ---- Verbs for administrators ----

    def _ListSessions(self, request: admin_pb.ListSessionsRequest) -> admin_pb.ListSessionsResponse:
        _text("actor_id", request.actor_id, 128)
        found = self._filtered(request.filter, (pb.SESSION_STATE_ACTIVE, pb.SESSION_STATE_EXPIRING))
        size = request.page_size if request.HasField("page_size") else 100
        if not 1 <= size <= 1000:
            raise invalid("page_size", f"is {size}; 1 to 1000 are allowed")
        after = request.page_token.removeprefix("after-")
        if request.page_token and not (_is_ref(after) and request.page_token.startswith("after-")):
            raise invalid("page_token", "is not a token of this list; begin without one")
        listed = sorted((record for record in found if record.ref > after), key=lambda record: record.ref)
        page = listed[:size]
        token = f"after-{page[-1].ref}" if len(listed) > size else ""
        return admin_pb.ListSessionsResponse(sessions=[self._session(record) for record in page], next_page_token=token)

    def _EndSessions(self, request: admin_pb.EndSessionsRequest) -> admin_pb.EndSessionsResponse:
        actor_id = _text("actor_id", request.actor_id, 128)
        wanted = request.filter
        found = self._filtered(wanted, (pb.SESSION_STATE_ACTIVE, pb.SESSION_STATE_EXPIRING))
        if pb.SESSION_STATE_ENDED in wanted.states:
            raise invalid("filter.states", "may only name live ones, ACTIVE and EXPIRING: what has ended stays ended")
        if request.whole_tenant == bool(wanted.subject or wanted.labels or wanted.policy):
            raise invalid("whole_tenant", "must be true to end all sessions of a tenant, and only then")
        spared = getattr(request, "except")
        if len(spared) > MOST_SPARED:
            raise invalid("except", f"has {len(spared)} items; at most {MOST_SPARED} are allowed")
        refs = {self._name(wanted.tenant, f"except[{place}].", name) for place, name in enumerate(spared)}
        self.follow(refs)
        reason, actor = _end_words(request, EndReason.REVOKED)
        note = _text("note", request.note, 256)
        meant = sorted((record for record in found if record.ref not in refs), key=lambda record: record.ref)
        for record in meant if not request.dry_run else ():
            self._end_one(record, reason, actor, actor_id, note)
        return admin_pb.EndSessionsResponse(
            matched_count=len(meant),
            ended_count=0 if request.dry_run else len(meant),
            session_refs=[record.ref for record in meant[:MOST_REFS]],
        )

    def _filtered(self, wanted: admin_pb.SessionFilter, usual: Iterable[int]) -> list[Record]:
        tenant = self._own_tenant("filter.tenant", wanted.tenant)
        _text("filter.subject", wanted.subject, 256)
        for place, state in enumerate(wanted.states):
            _known(f"filter.states[{place}]", pb.SessionState, state)
            if state in (pb.SESSION_STATE_UNSPECIFIED, pb.SESSION_STATE_UNKNOWN):
                raise invalid(f"filter.states[{place}]", "must be ACTIVE, EXPIRING or ENDED; leave `states` empty for live sessions")
        labels = _labels("filter.labels", wanted.labels)
        _text("filter.policy", wanted.policy, 128)
        known = (self.find(ref) for ref in list(self._records))
        meant = (
            self._examined(record)
            for record in known
            if record
            and record.tenant == tenant
            and wanted.subject in ("", record.subject)
            and wanted.policy in ("", record.limits.policy)
            and labels.items() <= record.labels.items()
        )
        return [record for record in meant if self._status(record).state in (wanted.states or usual)]

    def _told_only_by_the_program(self, request: Message) -> Any:
        problem = "the fake keeps no histories, counts or lint findings: ask `session-sidecar serve --dev`"
        raise Failed(Failure("UNIMPLEMENTED", problem))

    _ExplainSession = _ListPolicies = _GetStats = _told_only_by_the_program

    # ---- Watches ----

    def follow(self, refs: set[str]) -> None:
        """Adds those that went on in the place of these."""
        for entry in self.log:
            if entry.successor and entry.ref in refs:
                refs.add(entry.successor)

    def watch(self, request: pb.WatchExpiryRequest) -> Feed:
        """Opens a stream. Raises Failed."""
        with self.lock:
            self._catch_up()
            scope, named = self._scope(request.scope)
            for place, kind in enumerate(request.kinds):
                if not _known(f"kinds[{place}]", pb.EventKind, kind):
                    raise invalid(f"kinds[{place}]", "is unspecified; leave `kinds` empty to get all")
            _span(request, "heartbeat_interval", timedelta(seconds=1), timedelta(minutes=5))
            kinds = {wire.word(EventKind, pb.EventKind, "EVENT_KIND", kind) for kind in request.kinds}
            return Feed(self, scope, named, {str(kind) for kind in kinds if kind} or {"WARNING", "CLEARED", "ENDED"}, request)

    def _scope(self, scope: pb.WatchScope) -> tuple[dict[str, Any], dict[str, str]]:
        """What a scope says, and the ids by which it names sessions."""
        match scope.WhichOneof("scope"):
            case "everything":
                return {"everything": True}, {}
            case None:
                raise invalid("scope", "is required: sessions, a subject, whole_tenant or everything")
            case kind:
                tenant = self._own_tenant("scope.tenant", scope.tenant)
        if kind == "sessions":
            _within("scope.sessions.names", len(scope.sessions.names), MOST_WATCHED)
            named: dict[str, str] = {}
            for place, name in enumerate(scope.sessions.names):
                ref = self._name(tenant, f"scope.sessions.names[{place}].", name)
                named[ref] = named.get(ref) or name.session_id
            return {"tenant": tenant, "refs": sorted(named)}, named
        if kind == "subject" and not scope.subject:
            raise invalid("scope.subject", "is empty; 1 to 256 bytes are needed")
        subject = {"subject": _text("scope.subject", scope.subject, 256)} if kind == "subject" else {}
        return {"tenant": tenant, **subject}, {}

    def in_scope(self, scope: dict[str, Any], refs: set[str]) -> Iterator[Record]:
        """The sessions that the initial state is about: the live ones and, if they are named, the ended ones too."""
        for ref in sorted(refs) if "refs" in scope else list(self._records):
            record = self.find(ref)
            if record and self.covers(scope, refs, record.ref, record.tenant, record.subject) and ("refs" in scope or not record.tombstone):
                yield self._examined(record)

    def covers(self, scope: dict[str, Any], refs: set[str], ref: str, tenant: str, subject: str) -> bool:
        """Whether a scope is about a session."""
        if tenant not in ([scope["tenant"]] if "tenant" in scope else self._tenants):
            return False
        return ref in refs if "refs" in scope else scope.get("subject", subject) == subject

    def snapshot(self, record: Record) -> pb.WatchExpiryResponse:
        """A session as it is now."""
        snapshot = pb.Snapshot(
            session=_event_session(record, record.version),
            status=self._status(record),
            end=_end(record.tombstone) if record.tombstone else None,
            predecessor_ref=record.predecessor,
        )
        return pb.WatchExpiryResponse(emit_time=self.now, snapshot=snapshot)


class Feed:
    """One watch: the state first if it was asked for, then what happens."""

    def __init__(
        self, server: Server, scope: dict[str, Any], named: dict[str, str], kinds: set[str], request: pb.WatchExpiryRequest
    ) -> None:
        self._server = server
        self._scope = scope
        self._named = named
        self._kinds = kinds
        self._refs = set(named)
        self._ready: deque[pb.WatchExpiryResponse] = deque()
        self._place = len(server.log)
        server.follow(self._refs)
        if request.resume_token:
            if request.include_initial_state:
                raise invalid("include_initial_state", "must be false with a resume_token: resume, or begin anew")
            self._place = self._opened(request.resume_token)
            return
        if request.include_initial_state:
            self._ready.extend(server.snapshot(record) for record in server.in_scope(scope, self._refs))
        end = pb.SnapshotEnd(snapshot_count=len(self._ready))
        self._ready.append(pb.WatchExpiryResponse(emit_time=server.now, snapshot_end=end))

    def told(self) -> pb.WatchExpiryResponse | None:
        """The next message, if there is one."""
        with self._server.lock:
            log = self._server.log
            while not self._ready and self._place < len(log):
                entry = log[self._place]
                self._place += 1
                if self._wants(entry):
                    message = pb.WatchExpiryResponse()
                    message.CopyFrom(entry.message)
                    self._ready.append(message)
            if not self._ready:
                return None
            message = self._ready.popleft()
            if about := getattr(message, message.WhichOneof("message") or "", None):
                if hasattr(about, "session"):
                    about.session.session_id = self._named.get(about.session.session_ref, "")
            message.resume_token = self._token()
            return message

    def _wants(self, entry: Entry) -> bool:
        if entry.kind == "draining":
            return True
        if not self._server.covers(self._scope, self._refs, entry.ref, entry.tenant, entry.subject):
            return False
        if entry.successor:
            self._refs.add(entry.successor)
        # Whoever watches more than names and a subject sees a successor by its own events.
        succeeds = entry.kind == "SUCCEEDED" and ("refs" in self._scope or "subject" in self._scope)
        return succeeds or entry.kind in self._kinds

    def _token(self) -> str:
        token = [self._server.epoch, self._place, self._binding()]
        return base64.urlsafe_b64encode(json.dumps(token).encode()).decode()

    def _binding(self) -> str:
        return hashlib.sha256(json.dumps(self._scope, sort_keys=True).encode()).hexdigest()

    def _opened(self, token: str) -> int:
        try:
            epoch, place, binding = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise invalid("resume_token", "is not a token of this sidecar for this scope and caller") from None
        if binding != self._binding():
            raise invalid("resume_token", "is not a token of this sidecar for this scope and caller")
        if epoch != self._server.epoch:
            problem = "the event log no longer reaches back to the resume_token; open again with include_initial_state"
            raise Failed(Failure("OUT_OF_RANGE", problem, "RESUME_TOKEN_EXPIRED"))
        return int(place)
