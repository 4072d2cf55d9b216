"""The verbs of the wire, answered in this process: messages in, messages out, over the records of `_model` and a clock of its own."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message

from .. import _wire as wire
from .._errors import Failure
from .._proto import session_admin_service_pb2 as admin_pb
from .._proto import session_service_pb2 as pb
from .._types import Actor, EndReason, HoldKind, Limit
from . import _answers as answers
from . import _requests as read
from ._feed import Entry, Feed, follow
from ._model import Ended, Record, Refused, Request, Tombstone, reused
from ._policy import Limits

T = TypeVar("T")

MOST_TOUCHES, MOST_CHECKS, MOST_SPARED, MOST_REFS = 1000, 100, 100, 1000
READING_METHODS = ("", "GET", "HEAD", "OPTIONS")
_EXHAUSTED = ("HOLD_CAP", "HOLD_BUDGET", "SUBJECT_CAP")
_CODES = {name: number for number, name in wire.CODES.items()}
_Leads = Callable[[Tombstone], bool]
FAR = datetime.max.replace(tzinfo=UTC)


def _led(end: Tombstone, at: datetime) -> bool:
    """Whether a former id led to its successor at a time. Never over a login, which leaves no alias: whoever knew the id before it
    is not the one who logged in."""
    until = end.alias_until
    return until is not None and until > end.at and at < until


@dataclass(slots=True, eq=False)
class Alarm:
    """What is to be done at a time of the fake's clock, and after how many seconds again."""

    at: datetime
    ring: Callable[[], float | None]


class Server:
    """The sessions of a fake, the policies, the clock, and the log of what happened. Every call has the lock."""

    def __init__(self, policies: dict[str, Limits], tenants: Iterable[str]) -> None:
        self._policies = policies
        self.tenants = tuple(tenants)
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
            raise ValueError("the clock only goes forward: advance by 0 or more")
        with self.lock:
            until = self.now + by
            while (due := self._due()) <= until:
                self.now = max(self.now, due)
                self._catch_up()
                self._ring()
            self.now = until
            return self.now

    def _ring(self) -> None:
        due = next((alarm for alarm in self._alarms if alarm.at <= self.now), None)
        if due is None:
            return
        after = due.ring()
        if after is None:
            self.cancel(due)
        else:
            due.at = self.now + timedelta(seconds=after)

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

    def _made_of(self, size: int, *words: str) -> str:
        """So many bytes that nobody can guess, and that the same words always give."""
        digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=size, key=self._key).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _ref(self, tenant: str, session_id: str) -> str:
        return self._made_of(16, "ref", tenant, session_id)

    def _live(self) -> list[Record]:
        return [record for record in self._records.values() if record.tombstone is None]

    def refs(self) -> list[str]:
        """The refs of all sessions that were known."""
        return list(self._records)

    def find(self, ref: str) -> Record | None:
        """A session that is live or remembered."""
        record = self._records.get(ref)
        end = record and record.tombstone
        if end and (end.silent or end.forget_at <= self.now):
            del self._records[ref]
            return None
        return record

    def examined(self, record: Record) -> Record:
        """Whoever looks at a session whose deadline has passed takes note of that: it may live on, only observed."""
        if record.tombstone is None and record.deadlines(self.now).nearest[0] <= self.now:
            record.judge(self.now)
            self._publish(record)
        return record

    def _find_own(self, tenant: str, ref: str) -> Record | None:
        record = self.find(ref)
        return self.examined(record) if record and record.tenant == tenant else None

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
            raise read.Failed(Failure("NOT_FOUND", "the session is not known", "SESSION_UNKNOWN", {"session_ref": ref}))
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
        except read.Failed as over:
            if over.failure.reason != "SESSION_ENDED":
                raise
            try:
                record, _ = self._lead(tenant, session_id, lambda end: bool(end.successor))
                began = next(hold.started for hold in record.live_holds(self.now) if hold.id == hold_id)
                return self._lead(tenant, session_id, lambda end: _led(end, began))
            except (read.Failed, StopIteration):
                raise over from None

    def _refuse_ref(self, field: str, tenant: str, session_id: str) -> None:
        if read.is_ref(session_id) and self._find_own(tenant, session_id):
            raise read.invalid(field, "is a session_ref; a session's id is needed here (a ref is no credential)")

    def _long_enough(self, field: str, session_id: str, least: int) -> None:
        if len(session_id) < least:
            raise read.invalid(field, f"is too short: at least {least} bytes are needed")

    def own_tenant(self, field: str, tenant: str) -> str:
        """A tenant that is served."""
        read.visible(field, tenant, 0, 128)
        if tenant not in self.tenants:
            problem = f"{field}: this caller may not name this tenant: the `tenants` of its listener, or of its entry in [[callers]], decide that"
            raise read.Failed(Failure("PERMISSION_DENIED", problem, "CALLER_NOT_ALLOWED"))
        return tenant

    def named(self, tenant: str, field: str, message: Any) -> str:
        """The ref of a session that is named by its id or ref."""
        match message.WhichOneof("name"):
            case "session_id":
                session_id = read.session_id(f"{field}session_id", message.session_id)
                self._refuse_ref(f"{field}session_id", tenant, session_id)
                return self._ref(tenant, session_id)
            case "session_ref":
                return read.session_ref(f"{field}session_ref", message.session_ref)
        raise read.invalid(f"{field}session_id", "is required, or session_ref in its place")

    # ---- Refusals ----

    def _ended(self, record: Record) -> read.Failed:
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
        return read.Failed(Failure("FAILED_PRECONDITION", "the session has ended", "SESSION_ENDED", told))

    def _refused(self, reason: str, message: str, record: Record | None = None) -> read.Failed:
        code = "RESOURCE_EXHAUSTED" if reason in _EXHAUSTED else "FAILED_PRECONDITION"
        code = "ALREADY_EXISTS" if reason == "SESSION_EXISTS" else code
        return read.Failed(Failure(code, message, reason, {"session_ref": record.ref} if record else {}))

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

    # ---- The log ----

    def _publish(self, record: Record) -> None:
        """Writes into the log what happened to a record."""
        news, record.news = record.news, []
        for version, what in news:
            successor = what.tombstone.successor if isinstance(what, Ended) else ""
            if not (isinstance(what, Ended) and what.tombstone.silent):
                kind, message = answers.told(record, version, what, self.now)
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

    # ---- Verbs ----

    def _Create(self, request: pb.CreateRequest) -> pb.CreateResponse:
        tenant = self.own_tenant("tenant", request.tenant)
        own = read.session_id("session_id", request.session_id) if request.session_id else ""
        subject = read.text("subject", request.subject, 256)
        policy_name = read.text("policy", request.policy, 128) or "default"
        labels = read.labels("labels", request.labels)
        idle = read.span(request, "idle_timeout", over=True)
        absolute = read.span(request, "absolute_timeout", over=True)
        authenticated_ago = read.span(request, "authenticated_ago") or timedelta()
        level = read.visible("authentication_level", request.authentication_level, 0, 64)
        idle_for = read.span(request, "idle_for") or timedelta()
        wanted = read.request_id(request.request_id, read.content("Create", request, "request_id"))
        session_id = own or (self._made_of(32, "id", tenant, wanted.key) if wanted else secrets.token_urlsafe(32))
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
                raise read.invalid(field, f"may only be stricter than the policy: at most {limit}")
        limits = limits.stricter(idle, absolute)
        if limits.enforced and idle_for >= limits.idle_timeout:
            raise self._refused("ALREADY_PAST_LIMIT", f"idle_for reaches the idle timeout of {limits.idle_timeout}")
        if limits.enforced and authenticated_ago >= limits.absolute_timeout:
            raise self._refused("ALREADY_PAST_LIMIT", f"authenticated_ago reaches the absolute timeout of {limits.absolute_timeout}")
        losers = [] if known else self._losers(limits, tenant, subject)
        if known and known.tombstone:
            raise self._ended(known)
        if known:
            self.examined(known)
            raise self._refused("SESSION_EXISTS", "a live session has this id already; create sessions with fresh ids", known)
        now = self.now
        record = Record(ref, tenant, subject, labels, limits, now, now - authenticated_ago, now - idle_for, level)
        record.remember(wanted, now, "created")
        self._begin(record)
        return pb.CreateResponse(session_id=session_id, session=answers.session(record, self.now), superseded_refs=self._supersede(losers))

    def _begin(self, record: Record) -> None:
        record.begin(self.now)
        self._records[record.ref] = record
        self._publish(record)

    def _created_before(self, session_id: str, record: Record, wanted: Request) -> pb.CreateResponse:
        match self.examined(record).recall(wanted, self.now):
            case "created":
                return pb.CreateResponse(session_id=session_id, session=answers.session(record, self.now))
            case None:
                raise self._refused("SESSION_EXISTS", "a live session has this id already; create sessions with fresh ids", record)
        raise self._refused("REQUEST_ID_REUSED", str(reused()), record)

    def _losers(self, limits: Limits, tenant: str, subject: str) -> list[Record]:
        """Who must go so that the subject may begin one more."""
        most = limits.max_sessions_per_subject
        if most is None or not limits.enforced or not subject:
            return []
        own = [self.examined(record) for record in self._live() if (record.tenant, record.subject) == (tenant, subject)]
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
        tenant = self.own_tenant("tenant", request.tenant)
        session_id = read.session_id("session_id", request.session_id)
        activity = read.known("activity", pb.Activity, request.activity)
        idle_for = read.span(request, "idle_for") or timedelta()
        hints = read.hints(request.hints) if request.HasField("hints") else None
        record, alias = self._lead(tenant, session_id)
        limits = record.limits
        if limits.passive and limits.enforced and hints and hints.method not in READING_METHODS:
            raise self._refused("READ_ONLY_SESSION", "the session is for reading only (policy: passive)", record)
        verdict = limits.judge(activity, hints, record.reports_input)
        report = verdict.counts and hints is not None and hints.input_report
        result = self._act(record, lambda record: record.touch(verdict, report, idle_for, self.now))
        return pb.TouchResponse(
            status=answers.status(record, self.now, alias),
            counted=result == "COUNTED",
            result=wire.number(pb.TouchResult, "TOUCH_RESULT", result),
            rule=verdict.rule,
        )

    def _BatchTouch(self, request: pb.BatchTouchRequest) -> pb.BatchTouchResponse:
        read.within("touches", len(request.touches), MOST_TOUCHES)
        response = pb.BatchTouchResponse()
        for touch in request.touches:
            try:
                response.outcomes.add(touch=self._Touch(touch))
            except read.Failed as failed:
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
            end=answers.end_message(record.tombstone) if record and record.tombstone else None,
        )

    def _Check(self, request: pb.CheckRequest) -> pb.CheckResponse:
        tenant = self.own_tenant("tenant", request.tenant)
        if request.WhichOneof("name"):
            if request.sessions:
                raise read.invalid("sessions", "must be empty if session_id or session_ref is set; ask for one or for many")
            return pb.CheckResponse(session=self._checked(tenant, "", request))
        read.within("sessions", len(request.sessions), MOST_CHECKS)
        response = pb.CheckResponse()
        for place, name in enumerate(request.sessions):
            try:
                response.outcomes.add(status=self._checked(tenant, f"sessions[{place}].", name).status)
            except read.Failed as failed:
                response.outcomes.add(error=self._item_error(failed.failure))
        return response

    def _checked(self, tenant: str, field: str, name: Any) -> pb.Session:
        """All that is known of the session that a name stands for: of its successor, while an id is an alias."""
        ref = self.named(tenant, field, name)
        record = self._find_own(tenant, ref)
        if record is None:
            return pb.Session(status=answers.unknown(ref, self.now), tenant=tenant)
        successor = self._successor(record, self._is_alias) if name.WhichOneof("name") == "session_id" else None
        return answers.session(successor or record, self.now, alias=successor is not None)

    def _Extend(self, request: pb.ExtendRequest) -> pb.ExtendResponse:
        tenant = self.own_tenant("tenant", request.tenant)
        session_id = read.session_id("session_id", request.session_id)
        wanted = read.span(request, "wanted_duration", over=True)
        known_as = read.request_id(request.request_id, read.content("Extend", request, "request_id", "session_id"))
        record, alias = self._lead(tenant, session_id)
        reply = self._act(record, lambda record: record.extend(wanted, known_as, self.now))
        return pb.ExtendResponse(
            status=answers.status(record, self.now, alias),
            granted_duration=reply.granted,
            clamped_by=answers.limit_number(Limit.ABSOLUTE if reply.clamped else None),
        )

    def _Hold(self, request: pb.HoldRequest) -> pb.HoldResponse:
        tenant = self.own_tenant("tenant", request.tenant)
        session_id = read.session_id("session_id", request.session_id)
        hold_id = read.hold_id(request.hold_id)
        kind = wire.word(HoldKind, pb.HoldKind, "HOLD_KIND", read.known("kind", pb.HoldKind, request.kind))
        if kind is None:
            raise read.invalid("kind", "is required: HOLD_KIND_WORK or HOLD_KIND_PRESENCE")
        ttl = read.span(request, "ttl", over=True)
        if ttl is None:
            raise read.invalid("ttl", "is required: how long the hold should live, over 0 s")
        purpose = read.text("purpose", request.purpose, 128)
        record, alias = self._holder(tenant, session_id, hold_id)
        reply = self._act(record, lambda record: record.hold(hold_id, kind, ttl, purpose, self.now))
        return pb.HoldResponse(
            status=answers.status(record, self.now, alias),
            granted_ttl=reply.granted,
            clamped_by=wire.number(pb.HoldClamp, "HOLD_CLAMP", reply.clamped),
            created=reply.created,
        )

    def _Release(self, request: pb.ReleaseRequest) -> pb.ReleaseResponse:
        tenant = self.own_tenant("tenant", request.tenant)
        session_id = read.session_id("session_id", request.session_id)
        hold_id = read.hold_id(request.hold_id)
        record, alias = self._holder(tenant, session_id, hold_id)
        released = self._act(record, lambda record: record.release(hold_id, self.now))
        return pb.ReleaseResponse(status=answers.status(record, self.now, alias), released=released)

    def _Rotate(self, request: pb.RotateRequest) -> pb.RotateResponse:
        tenant = self.own_tenant("tenant", request.tenant)
        subject = read.text("subject", request.subject, 256) if request.HasField("subject") else None
        if subject == "":
            raise read.invalid("subject", "is empty; leave it out to keep the subject, or give 1 to 256 bytes")
        level = read.visible("authentication_level", request.authentication_level, 0, 64)
        if level and not request.HasField("authenticated_ago"):
            raise read.invalid("authentication_level", "needs authenticated_ago beside it: it is the level of a new authentication")
        old_id, own = read.session_id("session_id", request.session_id), request.new_session_id
        if own == old_id:
            raise read.invalid("new_session_id", "is the id that the session has already; a new one is needed")
        if own:
            read.session_id("new_session_id", own)
        authenticated_ago = read.span(request, "authenticated_ago")
        wanted = read.request_id(request.request_id, read.content("Rotate", request, "request_id"))
        if own:
            self._refuse_ref("new_session_id", tenant, own)
        old_ref = self._ref(tenant, old_id)
        made = self._made_of(32, "rotation", tenant, old_ref, wanted.key) if wanted else secrets.token_urlsafe(32)
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
            session=answers.session(successor, self.now, alias),
            previous_end=answers.end_message(record.tombstone),
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
                    raise read.Failed(Failure("NOT_FOUND", "the session is not known", "SESSION_UNKNOWN", {"session_ref": end.successor}))
                if successor.tombstone:
                    raise self._ended(successor)
                return pb.RotateResponse(session_id=new_id, session=answers.session(successor, self.now), previous_end=answers.end_message(end))
            if known and record is old:
                raise self._refused("REQUEST_ID_REUSED", str(reused()), record)
            record = successor
        return None

    def _End(self, request: pb.EndRequest) -> pb.EndResponse:
        tenant = self.own_tenant("tenant", request.tenant)
        session_id = read.session_id("session_id", request.session_id)
        reason, actor = read.end_words(request, EndReason.LOGOUT)
        actor_id, note = read.text("actor_id", request.actor_id, 128), read.text("note", request.note, 256)
        wanted = read.request_id(request.request_id, read.content("End", request, "request_id", "session_id"))
        try:
            record, alias = self._lead(tenant, session_id)
        except read.Failed as failed:
            over = self.find(failed.failure.metadata.get("session_ref", "")) if failed.failure.reason == "SESSION_ENDED" else None
            if over is None or over.tombstone is None:
                raise
            first = over.tombstone
            # A retry is told what the first call was told.
            known = first.request if wanted and first.request and first.request.key == wanted.key else None
            if known and known != wanted:
                raise self._refused("REQUEST_ID_REUSED", str(reused()), over) from None
            alias = over.ref != self._ref(tenant, session_id)
            return pb.EndResponse(status=answers.status(over, self.now, alias), end=answers.end_message(first), ended_now=known is not None)
        end = self._end_one(record, reason, actor, actor_id, note, wanted)
        return pb.EndResponse(status=answers.status(record, self.now, alias), end=answers.end_message(end), ended_now=True)

    # ---- Verbs for administrators ----

    def _ListSessions(self, request: admin_pb.ListSessionsRequest) -> admin_pb.ListSessionsResponse:
        read.text("actor_id", request.actor_id, 128)
        found = self._filtered(request.filter, (pb.SESSION_STATE_ACTIVE, pb.SESSION_STATE_EXPIRING))
        size = request.page_size if request.HasField("page_size") else 100
        if not 1 <= size <= 1000:
            raise read.invalid("page_size", f"is {size}; 1 to 1000 are allowed")
        after = request.page_token.removeprefix("after-")
        if request.page_token and not (read.is_ref(after) and request.page_token.startswith("after-")):
            raise read.invalid("page_token", "is not a token of this list; begin without one")
        listed = sorted((record for record in found if record.ref > after), key=lambda record: record.ref)
        page = listed[:size]
        token = f"after-{page[-1].ref}" if len(listed) > size else ""
        return admin_pb.ListSessionsResponse(sessions=[answers.session(record, self.now) for record in page], next_page_token=token)

    def _EndSessions(self, request: admin_pb.EndSessionsRequest) -> admin_pb.EndSessionsResponse:
        actor_id = read.text("actor_id", request.actor_id, 128)
        wanted = request.filter
        found = self._filtered(wanted, (pb.SESSION_STATE_ACTIVE, pb.SESSION_STATE_EXPIRING))
        if pb.SESSION_STATE_ENDED in wanted.states:
            raise read.invalid("filter.states", "may only name live ones, ACTIVE and EXPIRING: what has ended stays ended")
        if request.whole_tenant == bool(wanted.subject or wanted.labels or wanted.policy):
            raise read.invalid("whole_tenant", "must be true to end all sessions of a tenant, and only then")
        spared = getattr(request, "except")
        if len(spared) > MOST_SPARED:
            raise read.invalid("except", f"has {len(spared)} items; at most {MOST_SPARED} are allowed")
        refs = {self.named(wanted.tenant, f"except[{place}].", name) for place, name in enumerate(spared)}
        follow(self.log, refs)
        reason, actor = read.end_words(request, EndReason.REVOKED)
        note = read.text("note", request.note, 256)
        meant = sorted((record for record in found if record.ref not in refs), key=lambda record: record.ref)
        for record in meant if not request.dry_run else ():
            self._end_one(record, reason, actor, actor_id, note)
        return admin_pb.EndSessionsResponse(
            matched_count=len(meant),
            ended_count=0 if request.dry_run else len(meant),
            session_refs=[record.ref for record in meant[:MOST_REFS]],
        )

    def _filtered(self, wanted: admin_pb.SessionFilter, usual: Iterable[int]) -> list[Record]:
        tenant = self.own_tenant("filter.tenant", wanted.tenant)
        read.text("filter.subject", wanted.subject, 256)
        for place, state in enumerate(wanted.states):
            read.known(f"filter.states[{place}]", pb.SessionState, state)
            if state in (pb.SESSION_STATE_UNSPECIFIED, pb.SESSION_STATE_UNKNOWN):
                raise read.invalid(f"filter.states[{place}]", "must be ACTIVE, EXPIRING or ENDED; leave `states` empty for live sessions")
        labels = read.labels("filter.labels", wanted.labels)
        read.text("filter.policy", wanted.policy, 128)
        known = (self.find(ref) for ref in self.refs())
        meant = (
            self.examined(record)
            for record in known
            if record
            and record.tenant == tenant
            and wanted.subject in ("", record.subject)
            and wanted.policy in ("", record.limits.policy)
            and labels.items() <= record.labels.items()
        )
        return [record for record in meant if answers.status(record, self.now).state in (wanted.states or usual)]

    def _told_only_by_the_program(self, request: Message) -> Any:
        problem = "the fake keeps no histories, counts or lint findings: ask `session-sidecar serve --dev`"
        raise read.Failed(Failure("UNIMPLEMENTED", problem))

    _ExplainSession = _ListPolicies = _GetStats = _told_only_by_the_program

    # ---- Watches ----

    def watch(self, request: pb.WatchExpiryRequest) -> Feed:
        """Opens a stream. Raises Failed."""
        with self.lock:
            self._catch_up()
            return Feed(self, request)
