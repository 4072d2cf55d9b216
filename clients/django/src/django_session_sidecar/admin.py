"""The admin's page "sessions of this user": what is live, since when, until when, and a button that ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.options import ModelAdmin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from session_sidecar import Actor, Ref, Session, SidecarAdmin, SidecarError

from .backend import backend

if TYPE_CHECKING:
    _Admin = ModelAdmin[Any]
else:
    _Admin = object


class SessionsMixin(_Admin):
    """For the ModelAdmin of a user model of one's own: `class MyUserAdmin(SessionsMixin, UserAdmin)`. It needs ADMIN_TARGET."""

    change_form_template = "session_sidecar/admin/change_form.html"

    def get_urls(self) -> list[URLPattern]:
        """Its page, before the admin's own, which would take it for an object."""
        meta = self.model._meta
        page = path(
            "<path:object_id>/sessions/",
            self.admin_site.admin_view(self.sessions_view),
            name=f"{meta.app_label}_{meta.model_name}_sessions",
        )
        return [page, *super().get_urls()]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        """With the way to that page."""
        context["sessions_are_known"] = _sidecar() is not None
        return super().render_change_form(request, context, *args, **kwargs)

    def sessions_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Shows the sessions of a user; a POST ends one (`ref`), or all (`all`)."""
        user = self.get_object(request, object_id)
        sidecar = _sidecar()
        if user is None or sidecar is None:
            raise Http404
        if not self.has_view_or_change_permission(request, user):
            raise PermissionDenied
        may_end = self.has_change_permission(request, user)
        subject = user._meta.pk.value_to_string(user)
        asks = request.user.get_username()
        sessions: list[Session] = []
        try:
            sessions = list(sidecar.list_sessions(subject=subject, actor_id=asks))
            if request.method == "POST":
                if not may_end:
                    raise PermissionDenied
                self._end(request, sidecar, subject, sessions)
                return HttpResponseRedirect(request.path)
        except SidecarError as error:
            messages.error(request, _("The sidecar says: %s") % error)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Sessions of %s") % user,
            "opts": self.model._meta,
            "object": user,
            "sessions": sessions,
            "may_end": may_end,
        }
        return TemplateResponse(request, "session_sidecar/admin/sessions.html", context)

    def _end(self, request: HttpRequest, sidecar: SidecarAdmin, subject: str, sessions: list[Session]) -> None:
        """Ended are those that were shown: by subject, for the sidecar takes no list, and without the others."""
        chosen = request.POST.get("ref", "")
        spared: list[str | Ref] = [] if "all" in request.POST else [each.status.session_ref for each in sessions]
        if spared and chosen not in spared:
            messages.warning(request, _("That session has ended already."))
            return
        ended = sidecar.end_sessions(
            subject=subject,
            excepted=[each for each in spared if each != chosen],
            actor=Actor.ADMIN,
            actor_id=request.user.get_username(),
            note=_("Django admin"),
        )
        messages.success(request, _("%d sessions were ended.") % ended.ended_count)


def _sidecar() -> SidecarAdmin | None:
    at = backend()
    return at.admin if at else None


def _extend_users() -> None:
    """Django's own admin of users gets the page by itself. One that the site wrote is left as it is."""
    user = get_user_model()
    if type(admin.site._registry.get(user)) is UserAdmin:
        admin.site.unregister(user)
        admin.site.register(user, type("UserAdmin", (SessionsMixin, UserAdmin), {}))


_extend_users()
