"""`{% load session_sidecar %}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from django_session_sidecar import notice
from django_session_sidecar.backend import backend

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as StrOrPromise

register = template.Library()


@register.simple_tag(takes_context=True)
def session_sidecar(context: template.Context, **attributes: str) -> SafeString:
    """The module for pages, once in each page (in the base template): it warns, lets people stay, and says why it is over.
    `{% session_sidecar logout_url="/logout/" explicit_stay="" text_heading=heading %}`: attributes of `<session-sidecar>` with `_` for
    `-`. `src` is where the module is, if not in this site's URLs."""
    if backend() is None and "src" not in attributes:
        return SafeString("")
    src = attributes.pop("src", None) or reverse("session_sidecar:module")
    told = format_html_join("", ' {}="{}"', ((name.replace("_", "-"), value) for name, value in attributes.items()))
    return format_html('<script type="module" src="{}"></script><session-sidecar{}></session-sidecar>', src, told)


@register.simple_tag(takes_context=True)
def session_end_reason(context: template.Context) -> StrOrPromise:
    """Why the session of this browser ended, as a sentence for the login page, where no message says it already: a gateway sent the
    person here, or the site has no messages. Else it is empty."""
    request: Any = context.get("request")
    if not isinstance(request, HttpRequest):
        return ""
    over = getattr(request, "session_end", None)
    if over is not None:
        announced = getattr(request, "_session_end_announced", False)
        return "" if announced else notice.sentence(over)
    if notice.is_announced(request):
        return ""
    # Whatever somebody writes there, only our own sentences are shown.
    return notice.SENTENCES.get(request.GET.get("reason", ""), "")
