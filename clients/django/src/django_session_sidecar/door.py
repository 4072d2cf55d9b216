"""What pages may ask at the site's own origin, where no gateway passes it on to the sidecar's HTTP door: the same paths, JSON, refusals
and rules (docs/http-door.md), for the same module."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, wraps
from importlib import resources
from typing import Any, TypeAlias

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified, JsonResponse, StreamingHttpResponse
from django.http.request import split_domain_port
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from session_sidecar import (
    Activity,
    Answer,
    Ended,
    Hints,
    HoldKind,
    Live,
    PageVisibility,
    Ref,
    RefusedError,
    Session,
    SessionEndedError,
    SessionUnknownError,
    SidecarError,
    SidecarUnreachableError,
    Status,
    Unknown,
    Unreachable,
    events,
)

from . import notice, tracking
from .backend import Backend, backend, run
from .conf import settings
from .middleware import own
from .sockets import CLOSES_ITSELF
from .watching import hub

LONGEST_BODY = 4096
LONGEST = timedelta(days=3653)
PRESENCE = timedelta(seconds=90)
PULSE = 30.0
HEARTBEAT = 15.0
MOST_STREAMS = 16

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")
_CODES = {
    "EXTENSION_LIMIT": 409,
    "HOLD_KIND": 409,
    "PRESENCE_OFF": 409,
    "HOLD_CAP": 429,
    "HOLD_BUDGET": 429,
    "READ_ONLY_SESSION": 403,
}
DoorView: TypeAlias = Callable[[HttpRequest, "Asked"], HttpResponseBase]


class Refused(Exception):
    """An answer that says no."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status_code)
        self.response = response


class Asked:
    """A request of a page, about the session that its own cookie names."""

    def __init__(self, at: Backend, request: HttpRequest) -> None:
        self.at = at
        self.request = request

    def answer(self) -> Answer | None:
        """What is so of it; None if it names none, or one of nobody."""
        answer = run(tracking.judge(self.at, self.request, tracking.checked(self.at)))
        if isinstance(answer, Ended | Unknown):
            # The page says it now, and the login page to whoever comes back to another one.
            notice.announce(self.request, answer)
        return answer

    def live(self) -> tuple[str, Live]:
        """The id of a live session of somebody, and what is so of it. Refuses all others."""
        match self.answer():
            case Live() as live:
                found = tracking.tracked(self.request)
                assert found, "a live session is tracked"
                return found.key, live
            case Ended() | Unknown() as over:
                raise Refused(notice.over(over))
            case Unreachable() as away:
                raise Refused(_away(away))
            case _:
                message = "the request names no session of anybody who is logged in"
                raise Refused(notice.refusal(401, "SESSION_MISSING", message))

    def body(self, *known: str) -> dict[str, Any]:
        """What the body says; an empty one says nothing."""
        if len(self.request.body) > LONGEST_BODY:
            raise Refused(notice.refusal(413, "INVALID", f"the body must be at most {LONGEST_BODY} bytes"))
        try:
            told = json.loads(self.request.body or b"{}")
        except ValueError:
            told = None
        if not isinstance(told, dict) or not set(told) <= set(known):
            expected = f"a JSON object with no keys but {', '.join(known)}"
            raise _invalid(f"the body is not what is expected here: {expected}")
        return told


def _invalid(message: str) -> Refused:
    return Refused(notice.refusal(400, "INVALID", message))


def _away(answer: Unreachable) -> HttpResponse:
    response = notice.refusal(503, "UNAVAILABLE", "it cannot be known now")
    response["Retry-After"] = str(math.ceil(answer.retry_after.total_seconds())) if answer.retry_after else "1"
    return response


def _refused(error: SidecarError) -> HttpResponse:
    match error:
        case SessionEndedError(answer=over) | SessionUnknownError(answer=over):
            return notice.over(over)
        case SidecarUnreachableError(answer=away):
            return _away(away)
        case RefusedError(reason=reason) if reason in _CODES:
            return notice.refusal(_CODES[reason], reason, str(error))
    raise error


# ---- Who asks ----


def _is_foreign(request: HttpRequest) -> bool | None:
    """Whether another site's page sent it; None if no browser says: Origin decides, else Sec-Fetch-Site."""
    origin = request.headers.get("Origin")
    if origin is not None:
        authority = origin.partition("://")[2]
        is_own = bool(authority) and authority.lower() == request.get_host().lower()
        return not (is_own or origin.lower() in map(str.lower, settings().origins))
    site = request.headers.get("Sec-Fetch-Site")
    return None if site is None else site != "same-origin"


def _from_own_page(request: HttpRequest) -> None:
    """Refuses what another site's page may have sent. It cannot send our header unless CORS is agreed to, which is never done."""
    if _is_foreign(request):
        message = "the request comes from a page of another site; add its origin to ORIGINS if it is yours"
        raise Refused(notice.refusal(403, "FOREIGN_ORIGIN", message))
    if "X-Session-Sidecar" not in request.headers:
        message = "the header X-Session-Sidecar is missing: send it, with any value, so that no page of another site can do this"
        raise Refused(notice.refusal(403, "HEADER_MISSING", message))


def _door(*, changes: bool) -> Callable[[DoorView], Callable[[HttpRequest], HttpResponseBase]]:
    """A view of the door. Those that change something are protected by rules of their own in place of Django's CSRF token."""

    def decorate(view: DoorView) -> Callable[[HttpRequest], HttpResponseBase]:
        @own
        @wraps(view)
        def answered(request: HttpRequest) -> HttpResponseBase:
            at = backend()
            try:
                if changes:
                    _from_own_page(request)
                if at is None:
                    return _told({"state": "NONE"}) if not changes else notice.refusal(401, "SESSION_MISSING", "BACKEND is off")
                return view(request, Asked(at, request))
            except Refused as refused:
                return refused.response
            except SidecarError as error:
                return _refused(error)

        return login_not_required(csrf_exempt(require_POST(answered)) if changes else require_GET(answered))

    return decorate


# ---- Answers ----


def _status(status: Status) -> dict[str, Any]:
    told: dict[str, Any] = {
        "session_ref": status.session_ref,
        "state": status.state.value,
        "expires_in": status.expires_in and status.expires_in.total_seconds(),
        "limit": status.limit and status.limit.value,
        "can_extend": status.can_extend,
        "version": status.version,
    }
    if status.next_warning_time and status.server_time:
        told["next_warning_in"] = max(0.0, (status.next_warning_time - status.server_time).total_seconds())
    return {key: value for key, value in told.items() if value is not None}


def _whole(answer: Answer | None) -> dict[str, Any]:
    match answer:
        case Live(status=status, session=session):
            idle = session.idle_timeout.total_seconds() if session and session.idle_timeout else None
            return _status(status) | ({"idle_timeout": idle} if idle else {}) | {"presence": _wants_presence(session)}
        case Ended(session_ref=ref) as over:
            return {"session_ref": ref, "state": "ENDED", "end": notice.end_as_json(over)}
        case Unknown(session_ref=ref):
            return {"session_ref": ref, "state": "UNKNOWN"}
    return {"state": "NONE"}


def _told(session: dict[str, Any]) -> JsonResponse:
    nothing = {"can_extend": False, "version": 0, "presence": False, "login_url": settings().login_url}
    response = JsonResponse({key: value for key, value in (nothing | session).items() if value is not None})
    response["Cache-Control"] = "no-store"
    return response


def _seconds(field: str, value: object, *, or_zero: bool = False) -> timedelta:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        at_most = value <= LONGEST.total_seconds()
        if at_most and (value > 0 or (or_zero and value == 0)):
            return timedelta(seconds=value)
    raise _invalid(f"{field} must be a number of seconds, from {'0' if or_zero else 'over 0'} to ten years")


# ---- The views ----


@_door(changes=False)
def session(request: HttpRequest, asked: Asked) -> HttpResponseBase:
    """The state. No activity, so that a page may ask as often as it likes."""
    answer = asked.answer()
    if isinstance(answer, Unreachable):
        return _away(answer)
    return _told(_whole(answer))


@_door(changes=True)
def extend(request: HttpRequest, asked: Asked) -> HttpResponseBase:
    """The person pressed "stay"."""
    wanted = asked.body("wanted").get("wanted")
    span = None if wanted is None else _seconds("wanted", wanted)
    key, _ = asked.live()
    extended = asked.at.sidecar.extend(key, wanted_duration=span)
    run(tracking.seen(request.session))
    return _told(_status(extended.status))


@_door(changes=True)
def activity(request: HttpRequest, asked: Asked) -> HttpResponseBase:
    """The person's input, reported by the page. From the first one on what only a script asks for is no activity."""
    told = asked.body("idle_for", "visibility")
    ago = _seconds("idle_for", told.get("idle_for", 0), or_zero=True)
    visible = told.get("visibility")
    if visible not in (None, "unsaid", "visible", "hidden"):
        raise _invalid("visibility must be visible or hidden")
    hints = Hints(
        host=split_domain_port(request.get_host())[0],
        page_visibility=PageVisibility(visible.upper()) if visible in ("visible", "hidden") else None,
        input_report=True,
    )
    key, _ = asked.live()
    match asked.at.sidecar.touch(key, activity=Activity.USER, idle_for=ago, hints=hints):
        case Live(status=status):
            run(tracking.seen(request.session))
            return _told(_status(status))
        case Unreachable() as away:
            return _away(away)
        case over:
            return notice.over(over)


@_door(changes=True)
def hold(request: HttpRequest, asked: Asked) -> HttpResponseBase:
    """Long work of the page begins, or goes on."""
    told = asked.body("id", "ttl", "purpose")
    purpose = told.get("purpose", "")
    if not isinstance(purpose, str) or len(purpose.encode(errors="replace")) > 128 or not all(map(str.isprintable, purpose)):
        raise _invalid("purpose must be at most 128 bytes without control characters")
    hold_id, ttl = _work_id(told), _seconds("ttl", told.get("ttl"))
    key, _ = asked.live()
    held = asked.at.sidecar.hold(key, hold_id, ttl=ttl, purpose=purpose)
    return _told(_status(held.status) | {"granted_ttl": held.granted_ttl.total_seconds()})


@_door(changes=True)
def release(request: HttpRequest, asked: Asked) -> HttpResponseBase:
    """It is done."""
    hold_id = _work_id(asked.body("id", "ttl", "purpose"))
    key, _ = asked.live()
    return _told(_status(asked.at.sidecar.release(key, hold_id).status))


def _work_id(told: dict[str, Any]) -> str:
    """A page lets go of no hold but a page's."""
    given = told.get("id")
    if isinstance(given, str) and _PLAIN.fullmatch(given):
        return f"page.{given}"
    raise _invalid("id must be 1 to 40 characters of A-Z, a-z, 0-9, _ and -: the page's own id of its work")


def _page(request: HttpRequest) -> str:
    page = request.GET.get("page", "one")
    if not _PLAIN.fullmatch(page):
        raise _invalid("page must be 1 to 40 characters of A-Z, a-z, 0-9, _ and -: the page's own id")
    return f"tab.{page}"


@login_not_required
@csrf_exempt
@require_POST
@own
def leave(request: HttpRequest) -> HttpResponseBase:
    """A page is left. A beacon cannot send our header: then the browser itself must say that the page is one of the site."""
    at = backend()
    foreign = _is_foreign(request)
    if foreign or (foreign is None and "X-Session-Sidecar" not in request.headers):
        message = "only a page of the site may say that it is left: no Origin or Sec-Fetch-Site says so"
        return notice.refusal(403, "FOREIGN_ORIGIN", message)
    if at is None:
        return _told({"state": "NONE"})
    try:
        page = _page(request)
        key, live = Asked(at, request).live()
        _pages.leave(live.session_ref, page)
        return _told(_status(at.sidecar.release(key, page).status))
    except Refused as refused:
        return refused.response
    except SidecarError as error:
        return _refused(error)


# ---- The stream of events ----


@dataclass(eq=False)
class OpenPage:
    """A page that hears what happens. Once it was left it is not present any more."""

    name: str
    left: bool = False


class _Pages:
    """The open pages of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Ref, list[OpenPage]] = {}

    def are_enough(self, ref: Ref) -> bool:
        """Whether the session may have no more."""
        with self._lock:
            return len(self._open.get(ref, ())) >= MOST_STREAMS

    def leave(self, ref: Ref, name: str) -> None:
        """The page holds PRESENCE no longer, also if its stream is still open."""
        with self._lock:
            for page in self._open.get(ref, ()):
                page.left |= page.name == name

    @contextlib.contextmanager
    def opened(self, ref: Ref, name: str) -> Iterator[OpenPage]:
        """A page, as long as its stream is open."""
        page = OpenPage(name)
        with self._lock:
            self._open.setdefault(ref, []).append(page)
        try:
            yield page
        finally:
            with self._lock:
                self._open[ref].remove(page)
                if not self._open[ref]:
                    del self._open[ref]


_pages = _Pages()
# Policies that were found to want PRESENCE, or not to, by name and revision: the sidecar says so only when it is held.
_presence: dict[tuple[str, int], bool] = {}


def _wants_presence(session: Session | None) -> bool:
    return bool(session and _presence.get((session.policy, session.policy_revision)))


def _hold_presence(at: Backend, key: str, session: Session | None, page: str) -> None:
    """An open page is present; also where the policy does not want to know, which is learnt by that."""
    about = (session.policy, session.policy_revision) if session else ("", 0)
    if _presence.get(about) is False:
        return
    try:
        at.sidecar.hold(key, page, ttl=PRESENCE, kind=HoldKind.PRESENCE, purpose="an open page")
        _presence[about] = True
    except RefusedError as refused:
        if refused.reason == "PRESENCE_OFF":
            _presence[about] = False
    except (SidecarUnreachableError, SessionEndedError, SessionUnknownError):
        pass  # The next pulse, in time; or the stream says so.


@_door(changes=False)
def stream(request: HttpRequest, asked: Asked) -> HttpResponseBase:
    """What happens, as server-sent events. Without ASGI a stream would take up a worker: then the state is told and the browser comes
    back by itself after a while, which is a poll that is no activity."""
    if _is_foreign(request):
        message = "only a page of the site may open this stream, for it says that a page is open"
        raise Refused(notice.refusal(403, "FOREIGN_ORIGIN", message))
    page = _page(request)
    key, live = asked.live()
    _hold_presence(asked.at, key, live.session, page)
    scope = getattr(request, "scope", None)
    response: HttpResponseBase
    if scope is None:
        retry = b"retry: %d\n\n" % int(PULSE * 1000)
        response = HttpResponse([retry, _event("state", _state(live))], content_type="text/event-stream")
    elif _pages.are_enough(live.session_ref):
        message = f"the session has {MOST_STREAMS} streams; let the pages of a browser share one"
        raise Refused(notice.refusal(429, "STREAM_CAP", message))
    else:
        scope[CLOSES_ITSELF] = True
        response = StreamingHttpResponse(_streamed(asked.at, key, live.session_ref, page), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


def _state(answer: Answer) -> dict[str, Any]:
    return {"can_extend": False, "version": 0, "presence": False, "login_url": settings().login_url} | _whole(answer)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def _streamed(at: Backend, key: str, ref: Ref, name: str) -> AsyncIterator[bytes]:
    with _pages.opened(ref, name) as page:
        async with hub(at).subscribed(key) as (subscription, answer):
            yield b"retry: 2000\n\n"
            over = answer if isinstance(answer, Ended | Unknown) else None
            session = answer.session if isinstance(answer, Live) else None
            if session:
                yield _event("state", _state(answer))
            pulse = time.monotonic() + PULSE
            while over is None:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        happened = await subscription.told.get()
                except TimeoutError:
                    yield b": alive\n\n"
                else:
                    if isinstance(happened, Ended | Unknown):
                        over = happened
                    else:
                        yield _happened(happened)
                if time.monotonic() >= pulse and not page.left:
                    pulse = time.monotonic() + PULSE
                    await asyncio.to_thread(_hold_presence, at, key, session, name)
            if isinstance(over, Ended):
                told = {"end": notice.end_as_json(over), "session_ref": over.session_ref, "login_url": settings().login_url}
                yield _event("ended", told)


def _happened(event: events.Warning | events.Cleared) -> bytes:
    told = {"limit": event.limit.value, "expires_in": event.expires_in.total_seconds(), "version": event.session.version}
    if isinstance(event, events.Cleared):
        return _event("cleared", told)
    return _event("warning", told | {"warn_before": event.point.total_seconds(), "can_extend": event.can_extend})


# ---- The module ----


@lru_cache(maxsize=1)
def _module() -> tuple[bytes, str]:
    code = resources.files(__package__).joinpath("sidecar.js").read_bytes()
    return code, f'"{hashlib.sha256(code).hexdigest()[:32]}"'


@login_not_required
@require_GET
@own
def module(request: HttpRequest) -> HttpResponseBase:
    """The module for pages."""
    code, tag = _module()
    known: Iterable[str] = request.headers.get("If-None-Match", "").split(",")
    response: HttpResponse
    if any(each.strip().removeprefix("W/") == tag for each in known):
        response = HttpResponseNotModified()
    else:
        response = HttpResponse(code, content_type="text/javascript; charset=utf-8")
        response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-cache"
    response["ETag"] = tag
    return response
