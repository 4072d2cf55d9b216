"""How people and scripts are told that a session is over, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext_lazy as _

from session_sidecar import Actor, Ended, EndReason, Unknown, Unreachable

from .conf import settings

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as StrOrPromise

# The rest of a sentence that begins with "It ended", as the sidecar's own door says it. For scripts.
WORDS = {
    EndReason.IDLE_TIMEOUT: "by inactivity",
    EndReason.ABSOLUTE_TIMEOUT: "because the longest time since login had passed",
    EndReason.BROWSER_CLOSED: "because its browser was closed or out of reach",
    EndReason.LOGOUT: "by logout",
    EndReason.REVOKED: "because it was revoked",
    EndReason.SUPERSEDED: "because a newer session of the same person took its place",
    EndReason.ROTATED: "under this name only: it was given a new id and goes on",
}
SENTENCES: dict[str, StrOrPromise] = {
    EndReason.IDLE_TIMEOUT: _("You were logged out because nothing had happened for a while."),
    EndReason.ABSOLUTE_TIMEOUT: _("You were logged out because the longest time since your login had passed."),
    EndReason.BROWSER_CLOSED: _("You were logged out because the browser was closed."),
    EndReason.LOGOUT: _("You have logged out."),
    EndReason.REVOKED: _("You were logged out by an administrator or a change of your account."),
    EndReason.SUPERSEDED: _("You were logged out because you logged in elsewhere."),
}
"""What a person is told."""
UNKNOWN_SENTENCE = _("Your session is over. Please log in again.")


def sentence(answer: Ended | Unknown) -> StrOrPromise:
    """What a person is told of an end."""
    return SENTENCES.get(answer.reason or "", UNKNOWN_SENTENCE) if isinstance(answer, Ended) else UNKNOWN_SENTENCE


def is_navigation(request: HttpRequest) -> bool:
    """Whether a person will look at the answer, and not a script."""
    mode = request.headers.get("Sec-Fetch-Mode")
    return mode == "navigate" if mode else "text/html" in request.headers.get("Accept", "")


def end_as_json(answer: Ended) -> dict[str, Any] | None:
    """An end as the door tells it: not by whom, and no note."""
    if answer.reason is None:
        return None
    at = answer.end_time
    told = {"end_time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z")} if at else {}
    return {"reason": answer.reason.value, "message": WORDS.get(answer.reason, "")} | told


def refusal(status: int, error: str, message: str, over: Ended | Unknown | None = None) -> JsonResponse:
    """A refusal in the door's form."""
    told: dict[str, Any] = {"error": error, "message": message, "login_url": settings().login_url}
    if over and over.session_ref:
        told["session_ref"] = over.session_ref
    if isinstance(over, Ended) and (end := end_as_json(over)):
        told["end"] = end
    response = JsonResponse(told, status=status)
    response["Cache-Control"] = "no-store"
    return response


def over(answer: Ended | Unknown) -> JsonResponse:
    """A script's request whose session is over."""
    if isinstance(answer, Unknown):
        return refusal(401, "SESSION_UNKNOWN", "the session is not known: it is over; send the person to the login page", answer)
    why = f" {WORDS[answer.reason]}" if answer.reason in WORDS else ""
    return refusal(401, "SESSION_ENDED", f"the session has ended{why}; send the person to the login page", answer)


def unavailable(request: HttpRequest, answer: Unreachable) -> HttpResponse:
    """Nobody can know now."""
    text = "For a moment it cannot be told who is logged in. Please try again."
    response: HttpResponse
    if is_navigation(request):
        response = HttpResponse(f"{text}\n", content_type="text/plain; charset=utf-8", status=503)
        response["Cache-Control"] = "no-store"
    else:
        response = refusal(503, "UNAVAILABLE", text)
    after = answer.retry_after.total_seconds() if answer.retry_after else 1
    response["Retry-After"] = str(max(1, math.ceil(after)))
    return response


def announce(request: HttpRequest, answer: Ended | Unknown) -> bool:
    """Has the next page that shows messages say it; for a script's request too, since nobody reads its answer. False: the site has
    no messages. Who has logged out by themselves is told nothing: a report of the page that they left may come after it."""
    if not hasattr(request, "_messages"):
        return False
    if isinstance(answer, Ended) and answer.reason is EndReason.LOGOUT and answer.actor is Actor.USER:
        return True
    messages.warning(request, sentence(answer), extra_tags="session-ended", fail_silently=True)
    return True


def is_announced(request: HttpRequest) -> bool:
    """Whether a message that waits to be shown says it already. To look is not to show."""
    waiting = messages.get_messages(request)
    used = getattr(waiting, "used", None)
    found = any("session-ended" in message.tags for message in waiting)
    if used is not None:
        waiting.used = used  # type: ignore[union-attr]
    return found


def _login_paths() -> set[str]:
    paths = {urlsplit(settings().login_url).path}
    try:
        paths.add(reverse("admin:login"))
    except NoReverseMatch:
        pass
    return paths


def explained(request: HttpRequest, response: HttpResponseBase, answer: Ended | Unknown, announced: bool) -> HttpResponseBase:
    """The response to a request whose session was over, as what it turned into for want of one."""
    location = urlsplit(response.get("Location", ""))
    to_login = response.status_code in (301, 302, 303, 307, 308) and location.path in _login_paths()
    if not is_navigation(request):
        if not (to_login or response.status_code in (401, 403)):
            return response
        refused = over(answer)
        refused.cookies = response.cookies
        return refused
    if to_login and not announced and isinstance(answer, Ended) and answer.reason:
        query = "&".join(filter(None, [urlencode({"reason": answer.reason.value}), location.query]))
        response["Location"] = urlunsplit(location._replace(query=query))
    return response
