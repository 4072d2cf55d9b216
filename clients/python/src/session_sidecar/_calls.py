"""Each verb once: how its request is made, and what its answer or its failure means. `Sidecar` and `AsyncSidecar` only carry out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NoReturn, TypeVar

from google.protobuf.message import Message

from . import _wire as wire
from ._errors import (
    Failure,
    InvalidRequestError,
    SessionEndedError,
    SessionUnknownError,
    SidecarError,
    SidecarUnreachableError,
)
from ._proto import session_service_pb2 as pb
from ._types import (
    Activity,
    Actor,
    Answer,
    Created,
    EndAnswer,
    Ended,
    EndReason,
    Extended,
    Fail,
    Held,
    Hints,
    HoldClamp,
    HoldKind,
    Ref,
    Released,
    Rotated,
    Touch,
    TouchAnswer,
    Unknown,
    Unreachable,
)

Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for all calls of a client."""

    tenant: str
    fail: Fail
    deadline: timedelta

    @property
    def allowed(self) -> bool:
        """What Unreachable answers are to say."""
        return self.fail is Fail.OPEN


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One call: what to send, and what comes of it. `again`: whether it may be made twice without anybody noticing."""

    verb: str
    request: Message
    answered: Callable[[Any], Result]
    failed: Callable[[Failure], Result]
    again: bool = True


def raised(failure: Failure) -> NoReturn:
    """Commands fail with an exception."""
    match wire.failed_answer(failure, False):
        case Ended() as answer:
            raise SessionEndedError(answer)
        case Unknown() as answer:
            raise SessionUnknownError(answer)
        case Unreachable() as answer:
            raise SidecarUnreachableError(answer)
        case error:
            raise error


def _answer(settings: Settings) -> Callable[[Failure], Ended | Unknown | Unreachable]:
    def failed(failure: Failure) -> Ended | Unknown | Unreachable:
        answer = wire.failed_answer(failure, settings.allowed)
        if isinstance(answer, SidecarError):
            raise answer
        return answer

    return failed


def _all(settings: Settings, count: int) -> Callable[[Failure], list[Any]]:
    def failed(failure: Failure) -> list[Any]:
        return [_answer(settings)(failure)] * count

    return failed


def _request_id(given: str | None) -> str:
    return secrets.token_urlsafe(18) if given is None else wire.text("request_id", given)


def _own_id(given: str | None, name: str) -> str:
    """An id of the application's own, or none. An empty one is a mistake, and does not mean "make one"."""
    if given is not None and not wire.session_id(given, name):
        raise InvalidRequestError(f"{name} is empty: leave it out, and the sidecar makes one", (name,))
    return given or ""


def create(
    settings: Settings,
    *,
    subject: str = "",
    session_id: str | None = None,
    policy: str = "",
    labels: Mapping[str, str] | None = None,
    idle_timeout: timedelta | None = None,
    absolute_timeout: timedelta | None = None,
    authenticated_ago: timedelta | None = None,
    idle_for: timedelta | None = None,
    authentication_level: str = "",
    request_id: str | None = None,
) -> Call[Created]:
    """Starts a session at login, or adopts one that runs already (`authenticated_ago`, `idle_for`). Without `session_id` the
    sidecar makes one, of 256 bits. Raises RefusedError with SESSION_EXISTS, ALREADY_PAST_LIMIT, SUBJECT_CAP, …; SessionEndedError
    if this id ended before."""
    request = pb.CreateRequest(
        tenant=settings.tenant,
        session_id=_own_id(session_id, "session_id"),
        subject=wire.text("subject", subject),
        policy=wire.text("policy", policy),
        labels={wire.text("labels", key): wire.text("labels", value) for key, value in (labels or {}).items()},
        idle_timeout=wire.span("idle_timeout", idle_timeout),
        absolute_timeout=wire.span("absolute_timeout", absolute_timeout),
        authenticated_ago=wire.span("authenticated_ago", authenticated_ago),
        idle_for=wire.span("idle_for", idle_for),
        authentication_level=wire.text("authentication_level", authentication_level),
        request_id=_request_id(request_id),
    )

    def answered(message: pb.CreateResponse) -> Created:
        return Created(message.session_id, wire.session(message.session), wire.refs(message.superseded_refs))

    return Call("Create", request, answered, raised)


def touch(
    settings: Settings,
    session_id: str,
    *,
    activity: Activity | None = None,
    idle_for: timedelta | None = None,
    hints: Hints | None = None,
) -> Call[TouchAnswer]:
    """Reports that the person did something, and answers whether the session lives: `answer.allowed`. Without `activity` the
    policy's rules decide by the hints whether it counts."""
    request = wire.touch_request(settings.tenant, Touch(session_id, activity, idle_for, hints))
    return Call("Touch", request, wire.touched, _answer(settings))


def touch_many(settings: Settings, touches: Iterable[Touch]) -> Call[list[TouchAnswer | SidecarError]]:
    """Up to 1,000 touches, an outcome each, in their order. What `touch` would have raised for one of them stands in its place."""
    request = pb.BatchTouchRequest(touches=[wire.touch_request(settings.tenant, each) for each in touches])

    def answered(message: pb.BatchTouchResponse) -> list[TouchAnswer | SidecarError]:
        return [wire.touch_outcome(each, settings.allowed) for each in message.outcomes]

    return Call("BatchTouch", request, answered, _all(settings, len(request.touches)))


def check(settings: Settings, session: str | Ref) -> Call[Answer]:
    """What a session is, by its id or Ref; all of it in `answer.session`. Never extends, creates or delays."""
    name = wire.session_name(session)
    request = pb.CheckRequest(tenant=settings.tenant)
    if isinstance(session, Ref):
        request.session_ref = name.session_ref
    else:
        request.session_id = name.session_id

    def answered(message: pb.CheckResponse) -> Answer:
        whole = wire.session(message.session)
        return wire.state_answer(whole.status, whole)

    return Call("Check", request, answered, _answer(settings))


def check_many(settings: Settings, sessions: Iterable[str | Ref]) -> Call[list[Answer | SidecarError]]:
    """What up to 100 sessions are, in their order, without the reasons of those that ended. What `check` would have raised for one
    of them stands in its place."""
    request = pb.CheckRequest(tenant=settings.tenant, sessions=[wire.session_name(each) for each in sessions])
    if not request.sessions:
        raise InvalidRequestError("sessions is empty: name 1 to 100", ("sessions",))

    def answered(message: pb.CheckResponse) -> list[Answer | SidecarError]:
        return [wire.check_outcome(each, settings.allowed) for each in message.outcomes]

    return Call("Check", request, answered, _all(settings, len(request.sessions)))


def extend(
    settings: Settings, session_id: str, *, wanted_duration: timedelta | None = None, request_id: str | None = None
) -> Call[Extended]:
    """The person pressed "stay". Raises SessionEndedError, SessionUnknownError; RefusedError with EXTENSION_LIMIT."""
    request = pb.ExtendRequest(
        tenant=settings.tenant,
        session_id=wire.session_id(session_id),
        wanted_duration=wire.span("wanted_duration", wanted_duration),
        request_id=_request_id(request_id),
    )

    def answered(message: pb.ExtendResponse) -> Extended:
        return Extended(wire.status(message.status), message.granted_duration.ToTimedelta(), wire.limit(message.clamped_by))

    return Call("Extend", request, answered, raised)


def hold(
    settings: Settings,
    session_id: str,
    hold_id: str,
    *,
    ttl: timedelta,
    kind: HoldKind = HoldKind.WORK,
    purpose: str = "",
) -> Call[Held]:
    """One pulse of a hold: begins or renews it. `holding` does it for you. Raises SessionEndedError, SessionUnknownError;
    RefusedError with HOLD_BUDGET, HOLD_CAP, PRESENCE_OFF, HOLD_KIND."""
    request = pb.HoldRequest(
        tenant=settings.tenant,
        session_id=wire.session_id(session_id),
        hold_id=wire.text("hold_id", hold_id),
        kind=wire.number(pb.HoldKind, "HOLD_KIND", kind),
        ttl=wire.span("ttl", ttl),
        purpose=wire.text("purpose", purpose),
    )

    def answered(message: pb.HoldResponse) -> Held:
        clamp = wire.word(HoldClamp, pb.HoldClamp, "HOLD_CLAMP", message.clamped_by)
        return Held(wire.status(message.status), message.granted_ttl.ToTimedelta(), clamp, message.created)

    return Call("Hold", request, answered, raised)


def release(settings: Settings, session_id: str, hold_id: str) -> Call[Released]:
    """Ends a hold. One that is not there is no error. Raises SessionEndedError, SessionUnknownError."""
    request = pb.ReleaseRequest(
        tenant=settings.tenant, session_id=wire.session_id(session_id), hold_id=wire.text("hold_id", hold_id)
    )

    def answered(message: pb.ReleaseResponse) -> Released:
        return Released(wire.status(message.status), message.released)

    return Call("Release", request, answered, raised, again=False)


def rotate(
    settings: Settings,
    session_id: str,
    *,
    new_session_id: str | None = None,
    subject: str | None = None,
    authenticated_ago: timedelta | None = None,
    authentication_level: str = "",
    request_id: str | None = None,
) -> Call[Rotated]:
    """Gives a session a new id; at a login say `authenticated_ago=timedelta()` and the subject, and both deadlines begin anew.
    Raises SessionEndedError, SessionUnknownError; RefusedError with SESSION_EXISTS, NEW_SESSION_ENDED, SUBJECT_CAP, …"""
    request = pb.RotateRequest(
        tenant=settings.tenant,
        session_id=wire.session_id(session_id),
        new_session_id=_own_id(new_session_id, "new_session_id"),
        subject=None if subject is None else wire.text("subject", subject),
        authenticated_ago=wire.span("authenticated_ago", authenticated_ago),
        authentication_level=wire.text("authentication_level", authentication_level),
        request_id=_request_id(request_id),
    )

    def answered(message: pb.RotateResponse) -> Rotated:
        previous = wire.end(message.previous_end)
        return Rotated(message.session_id, wire.session(message.session), previous, wire.refs(message.superseded_refs))

    return Call("Rotate", request, answered, raised)


def end(
    settings: Settings,
    session_id: str,
    *,
    reason: EndReason | None = None,
    actor: Actor | None = None,
    actor_id: str = "",
    note: str = "",
    request_id: str | None = None,
) -> Call[EndAnswer]:
    """Ends a session now: LOGOUT, unless `reason` is REVOKED. On one that ended before it answers the first end. Raises
    SessionUnknownError."""
    request = pb.EndRequest(
        tenant=settings.tenant,
        session_id=wire.session_id(session_id),
        reason=wire.number(pb.EndReason, "END_REASON", reason),
        actor=wire.number(pb.Actor, "ACTOR", actor),
        actor_id=wire.text("actor_id", actor_id),
        note=wire.text("note", note),
        request_id=_request_id(request_id),
    )

    def answered(message: pb.EndResponse) -> EndAnswer:
        return EndAnswer(wire.status(message.status), wire.end(message.end), message.ended_now)

    return Call("End", request, answered, raised)
