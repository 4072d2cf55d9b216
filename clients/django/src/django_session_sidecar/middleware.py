"""Asks the sidecar about each request of somebody who is logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import Resolver404, resolve

from session_sidecar import Activity, Ended, Live, RefusedError, Unknown, Unreachable

from . import notice, tracking
from .backend import Backend, Course, arun, backend, run
from .conf import settings

View = TypeVar("View", bound=Callable[..., Any])


def passive(view: View) -> View:
    """A decorator of views whose requests are no activity: polls, notifications, whatever a page asks for by itself."""
    view._session_sidecar_passive = True  # type: ignore[attr-defined]
    return view


def own(view: View) -> View:
    """A decorator of this package's views, which ask the sidecar themselves."""
    view._session_sidecar_own = True  # type: ignore[attr-defined]
    return view


def _resolved(request: HttpRequest) -> tuple[Callable[..., Any] | None, str]:
    """The view of a request, and the name of its URL."""
    try:
        match = resolve(request.path_info, getattr(request, "urlconf", None))
    except Resolver404:
        return None, ""
    return match.func, match.view_name


class SessionSidecarMiddleware:
    """Stands after AuthenticationMiddleware and MessageMiddleware. From there on `request.session_sidecar` is what the sidecar says of
    a live session (None if there is none to track), and `request.session_end` how the session of this request has ended."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._async:
            return self._acall(request)
        at = backend()
        refused = run(self._before(at, request))
        if refused is None:
            response = cast(HttpResponseBase, self.get_response(request))
            return run(self._after(at, request, response))
        return refused

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        at = backend()
        refused = await arun(self._before(at, request))
        if refused is None:
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
            return await arun(self._after(at, request, response))
        return refused

    def _before(self, at: Backend | None, request: HttpRequest) -> Course[HttpResponse | None]:
        request.session_sidecar = None  # type: ignore[attr-defined]
        request.session_end = None  # type: ignore[attr-defined]
        if at is None:
            return None
        view, name = _resolved(request)
        if getattr(view, "_session_sidecar_own", False):
            return None
        told = settings()
        is_passive = (
            getattr(view, "_session_sidecar_passive", False) or request.path in told.passive_urls or name in told.passive_url_names
        )
        asked = tracking.touched(at, request, Activity.BACKGROUND if is_passive else None)
        try:
            answer = yield from tracking.judge(at, request, asked)
        except RefusedError as refused:
            # The policy is `passive`, for reading only.
            if refused.reason != "READ_ONLY_SESSION":
                raise
            raise PermissionDenied(str(refused)) from None
        match answer:
            case Live() as live:
                request.session_sidecar = live  # type: ignore[attr-defined]
            case Unreachable(allowed=False) as away:
                return notice.unavailable(request, away)
            case Ended() | Unknown() as over:
                request.session_end = over  # type: ignore[attr-defined]
                request._session_end_announced = notice.announce(request, over)  # type: ignore[attr-defined]
        return None

    def _after(self, at: Backend | None, request: HttpRequest, response: HttpResponseBase) -> Course[HttpResponseBase]:
        if at is None:
            return response
        yield from tracking.settle(at, request)
        over = getattr(request, "session_end", None)
        if over is None:
            return response
        return notice.explained(request, response, over, getattr(request, "_session_end_announced", False))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """A login while the sidecar is away."""
        if isinstance(exception, tracking.SidecarAwayError):
            return notice.unavailable(request, exception.answer)
        return None
