"""What the sidecar and the Django session have to do with each other. The sidecar's id of a session is Django's own key, that of the
cookie: a gateway that asks the sidecar speaks of the same session. Only sessions of somebody who is logged in are tracked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.exceptions import PermissionDenied
from django.dispatch import Signal
from django.http import HttpRequest

from session_sidecar import (
    Activity,
    Actor,
    Answer,
    End,
    Ended,
    EndReason,
    Hints,
    Live,
    Ref,
    RefusedError,
    SessionEndedError,
    SessionUnknownError,
    SidecarError,
    SidecarUnreachableError,
    Touched,
    Unknown,
    Unreachable,
)

from .backend import Backend, Course, Step, backend, run
from .conf import settings
from .signals import session_adopted, session_ended

logger = logging.getLogger("session_sidecar.django")

STAMPS = "_session_sidecar"
"""Where the Django session keeps when its person logged in and was last active, so that it can be adopted."""

Asked: TypeAlias = Callable[[str], Step[Any]]
"""What is asked about a session's id."""


class SidecarAwayError(Exception):
    """Nobody can know now whether the person may go on; the middleware answers 503."""

    def __init__(self, answer: Unreachable) -> None:
        super().__init__(f"session-sidecar does not answer: {answer.code}: {answer.message}")
        self.answer = answer


class LoginRefusedError(PermissionDenied):
    """The sidecar's policy does not let this session begin."""


def touched(at: Backend, request: HttpRequest, activity: Activity | None) -> Asked:
    """Asks as a request does that may be activity."""
    hints = Hints.of_request(request.method or "", request.get_full_path(), request.headers)
    return lambda key: at.ask("touch", key, activity=activity, hints=hints)


def checked(at: Backend) -> Asked:
    """Asks without any effect."""
    return lambda key: at.ask("check", key)


def judge(at: Backend, request: HttpRequest, asked: Asked) -> Course[Answer | None]:
    """What is so of the session of a request, by `asked`; None if there is nothing to track. One that is not known is adopted. One
    that is over is flushed: from here on the request is anonymous, and Django takes its cookie back."""
    cookie = request.COOKIES.get(django_settings.SESSION_COOKIE_NAME)
    if not cookie and not request.session.session_key:
        return None  # Nothing is loaded, so that caches need not vary on a cookie.
    user_id = yield _get(request.session, SESSION_KEY)
    key = request.session.session_key
    if user_id is None or key is None:
        return (yield from _former(at, request, cookie))
    answer: Answer = yield asked(key)
    if isinstance(answer, Unknown):
        answer = yield from _adopt(at, request, key, user_id, answer, asked)
    match answer:
        case Live():
            track(request, key, user_id)
            if isinstance(answer, Touched) and answer.counted:
                yield from seen(request.session)
        case Ended() | Unknown():
            yield from _flush(request)
            yield from tell_ended(request, answer, user_id)
    return answer


def _former(at: Backend, request: HttpRequest, cookie: str | None) -> Course[Answer | None]:
    """Of a cookie whose Django session is gone, such as for another request of the same browser at the same moment."""
    if not cookie or not request.session.is_empty():
        return None
    try:
        answer: Answer = yield at.ask("check", cookie)
    except SidecarError:  # It can be no id, for it is whatever somebody sent.
        return None
    # One that was rotated goes on under another name, which this browser is about to learn.
    return answer if isinstance(answer, Ended) and answer.reason is not EndReason.ROTATED else None


def _adopt(at: Backend, request: HttpRequest, key: str, user_id: str, unknown: Unknown, asked: Asked) -> Course[Answer]:
    """A Django session that the sidecar does not know begins there, as old and as idle as it is: no limit is passed."""
    told = settings()
    if told.on_unknown == "deny":
        return unknown
    user = yield Step(lambda: request.user, request.auser)
    if not user.is_authenticated:
        return unknown
    now = time.time()
    last_login = getattr(user, "last_login", None)
    # A site that has just been switched on has no stamps yet. What it knows best is the user's latest login.
    stamps = (yield _get(request.session, STAMPS)) or {}
    known = {"login": last_login.timestamp() if last_login else now, "seen": now} | stamps
    since_login = timedelta(seconds=max(0, now - known["login"]))
    idle = timedelta(seconds=max(0, now - known["seen"]))
    try:
        created = yield at.ask(
            "create",
            session_id=key,
            subject=user_id,
            policy=told.policy,
            authenticated_ago=since_login,
            idle_for=min(idle, since_login),
        )
    except SessionEndedError as ended:
        return ended.answer
    except SidecarUnreachableError as away:
        return _unreachable(away)
    except RefusedError as refused:
        match refused.reason:
            case "SESSION_EXISTS":  # Another request of the same session was faster.
                again: Answer = yield asked(key)
                return again
            case "ALREADY_PAST_LIMIT":
                # Its message names the field; it is the only place where it is said which limit that was.
                absolute = str(refused).partition(": ")[2].startswith("authenticated_ago")
                reason = EndReason.ABSOLUTE_TIMEOUT if absolute else EndReason.IDLE_TIMEOUT
                return Ended(unknown.session_ref, End(reason, Actor.POLICY))
            case "SUBJECT_CAP":
                return unknown
        if full := _full(refused):
            return full
        raise
    yield from _remember(request.session, known["login"], known["seen"])
    yield _told(session_adopted, session_ref=created.session.status.session_ref, user_id=user_id, request=request)
    answer: Answer = yield asked(key)
    return answer


def _full(refused: RefusedError) -> Unreachable | None:
    """A sidecar that has no room for more knows this session as little as one that is away."""
    if refused.reason in ("SESSION_CAP", "STORE_FULL"):
        return Unreachable(settings().fail == "open", refused.code, str(refused))
    return None


def _unreachable(error: SidecarUnreachableError) -> Unreachable:
    """The same answer, with this site's word on whether to go on."""
    answer = error.answer
    return Unreachable(settings().fail == "open", answer.code, answer.message, answer.retry_after)


# ---- What the Django session keeps ----


def _get(session: SessionBase, key: str) -> Step[Any]:
    return Step(lambda: session.get(key), lambda: session.aget(key))


def seen(session: SessionBase) -> Course[None]:
    """The person was active now. Not written each time: a save is a query, and may undo what a request beside this one saves."""
    stamps = yield _get(session, STAMPS)
    now = time.time()
    if stamps and now - stamps["seen"] >= settings().seen_every:
        yield from _remember(session, stamps["login"], now)


def _stamp(session: SessionBase, login: float, seen: float) -> bool:
    """Answers whether the cookie is to be set anew: with R1 it goes with the browser. How long the session lives is the sidecar's to
    say. What the site itself has said of the cookie stays."""
    session[STAMPS] = {"login": int(login), "seen": int(seen)}
    if "_session_expiry" in session:
        return False
    session.set_expiry(0)
    return True


def _remember(session: SessionBase, login: float, seen: float) -> Course[None]:
    """Saved at once, not with the response: nothing that another request saves meanwhile is undone, and a logout beside this request
    does not turn its answer into an error."""
    modified = session.modified
    sets_cookie = _stamp(session, login, seen)
    try:
        yield Step(session.save, session.asave)
    except UpdateError:
        session.modified = modified  # Logged out meanwhile.
    else:
        session.modified = modified or sets_cookie


def _flush(request: HttpRequest) -> Course[None]:
    yield Step(request.session.flush, request.session.aflush)
    forget_user(request)


def forget_user(request: HttpRequest) -> None:
    """From here on nobody is logged in."""
    nobody = AnonymousUser()

    async def auser() -> AnonymousUser:
        return nobody

    request.user = nobody
    request.auser = auser


def tell_ended(request: HttpRequest, answer: Ended | Unknown, user_id: str) -> Course[None]:
    """Tells the site's receivers."""
    reason = answer.reason if isinstance(answer, Ended) else None
    yield _told(session_ended, session_ref=answer.session_ref, reason=reason, user_id=user_id, request=request)


def _told(signal: Signal, **what: object) -> Step[Any]:
    """Receivers may ask the database: in an event loop they have a thread."""
    return Step(lambda: signal.send(None, **what), lambda: signal.asend(None, **what))


# ---- Login, a new key, logout ----


def logged_in(sender: object, request: HttpRequest, user: AbstractBaseUser, **_: object) -> None:
    """Django's `login` is nearly done: the session has a new key, unless the same person logged in before. Then it gets one here."""
    at = backend()
    if at is None:
        return
    session = request.session
    subject = session[SESSION_KEY]
    if session.session_key is not None and session.session_key == request.COOKIES.get(django_settings.SESSION_COOKIE_NAME):
        session.cycle_key()
    elif session.session_key is None:
        session.create()  # Django flushed another person's, and would save this one with the response.
    now = time.time()
    _stamp(session, now, now)
    away: Unreachable | None = None
    try:
        run(_begin(at, request, subject))
    except RefusedError as refused:
        away = _full(refused)
        if away is None:
            _not_in(request)
            logger.warning("a login was refused: %s", refused)
            raise LoginRefusedError(str(refused)) from None
    except SidecarUnreachableError as error:
        away = _unreachable(error)
    if away and not away.allowed:
        _not_in(request)
        raise SidecarAwayError(away)
    # With FAIL = "open" it is adopted with its next request.


def _not_in(request: HttpRequest) -> None:
    request.session.flush()
    forget_user(request)


@dataclass(frozen=True, slots=True)
class Tracked:
    """A session that the sidecar knows to live, as this request found or made it."""

    key: str = field(repr=False)
    user_id: str


def tracked(request: HttpRequest) -> Tracked | None:
    """The live session of this request."""
    return getattr(request, "_session_sidecar", None)


def track(request: HttpRequest, key: str | None, user_id: str) -> None:
    """The session of this request is known to the sidecar under this key; None: it is over."""
    request._session_sidecar = Tracked(key, user_id) if key else None  # type: ignore[attr-defined]


def _begin(at: Backend, request: HttpRequest, subject: str) -> Course[None]:
    key = request.session.session_key
    before = tracked(request)
    goes_on = before is not None and before.user_id == subject
    if before and goes_on:
        try:
            yield at.ask("rotate", before.key, new_session_id=key, subject=subject, authenticated_ago=timedelta())
        except (SessionEndedError, SessionUnknownError):
            goes_on = False  # It ended while the person typed the password.
    elif before:
        # Another person: nothing of the former session goes on, neither its holds nor its open sockets.
        yield from _over(at, before.key)
    if not goes_on:
        yield at.ask("create", session_id=key, subject=subject, policy=settings().policy)
    track(request, key, subject)


def _over(at: Backend, key: str, **how: object) -> Course[Ended | None]:
    try:
        answer = yield at.ask("end", key, **how)
    except (SessionUnknownError, SidecarUnreachableError) as problem:
        logger.warning("a session that is over here could not be ended: %s", problem)
        return None
    return Ended(Ref(answer.status.session_ref), answer.end)


def logged_out(sender: object, request: HttpRequest, user: AbstractBaseUser | None, **_: object) -> None:
    """Django's `logout` is about to flush the session."""
    at = backend()
    key = request.session.session_key
    if at is None or key is None or user is None:
        return
    user_id = str(request.session.get(SESSION_KEY, ""))
    track(request, None, user_id)
    answer = run(_over(at, key, actor=Actor.USER, actor_id=user_id))
    if answer:
        run(tell_ended(request, answer, user_id))


def settle(at: Backend, request: HttpRequest) -> Course[None]:
    """After the view: what it did to the session without a signal. A new key (a password was changed) goes on in the sidecar; a
    session that is gone (its password was changed elsewhere) ends."""
    before = tracked(request)
    session = request.session
    if before is None or session.session_key == before.key:
        return
    user_id = yield _get(session, SESSION_KEY)
    if user_id is None:
        yield from _over(at, before.key, reason=EndReason.REVOKED, actor=Actor.SYSTEM, note="Django flushed the session")
        return
    if session.session_key is None:
        yield Step(session.create, session.acreate)
    try:
        yield at.ask("rotate", before.key, new_session_id=session.session_key)
    except SessionEndedError as ended:
        # It ended while the view ran. Under its new key nobody would know of that.
        yield from _flush(request)
        yield from tell_ended(request, ended.answer, user_id)
        return
    except (RefusedError, SessionUnknownError, SidecarUnreachableError) as problem:
        logger.warning("a session's new key could not be told: %s", problem)  # It is adopted with its next request.
    track(request, session.session_key, user_id)
