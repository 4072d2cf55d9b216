"""Its pages."""

import asyncio
from datetime import timedelta

from django.contrib import admin
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View

from django_session_sidecar import hold, passive


def public(request):
    return HttpResponse(f"anybody, {request.user.is_authenticated}")


def about(request):
    return HttpResponse("the same for all")


@login_required
def private(request):
    answer = request.session_sidecar
    return HttpResponse(f"{request.user} {answer and answer.session_ref}")


@passive
@login_required
def poll(request):
    return JsonResponse({"news": 0})


@login_required
def fetched(request):
    return JsonResponse({"data": 1})


@method_decorator(passive, name="dispatch")
class Poll(View):
    def get(self, request):
        return HttpResponse("nothing new")


@login_required
def change_password(request):
    LONG_WORK(request)
    request.user.set_password("another one")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return HttpResponse("changed")


@login_required
def login_again(request):
    """A page that asks for the password once more, or lets somebody else go on."""
    user = User.objects.get(username=request.GET["as"]) if "as" in request.GET else request.user
    LONG_WORK(request)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponse("again")


@login_required
def long_work(request):
    with hold(request, purpose="a report", ttl=timedelta(minutes=5)) as held:
        LONG_WORK(request)
        return HttpResponse(str(held is not None and held.ended is None))


async def long_work_async(request):
    async with hold(request, purpose="a report", ttl=timedelta(minutes=5)) as held:
        return HttpResponse(str(held is not None and held.ended is None))


def LONG_WORK(request):
    """What the work is; a test puts its own in this place."""


async def whoami(request):
    user = await request.auser()
    return HttpResponse(f"{user} {user.is_authenticated}")


async def ticks(request):
    """A stream of the site's own, which never ends by itself."""

    async def run():
        yield b"data: open\n\n"
        await asyncio.Event().wait()

    return StreamingHttpResponse(run(), content_type="text/event-stream")


urlpatterns = [
    path("", public),
    path("about/", about),
    path("login/", LoginView.as_view(redirect_authenticated_user=True)),
    path("logout/", LogoutView.as_view(next_page="/")),
    path("private/", private),
    path("poll/", poll),
    path("poll/class/", Poll.as_view()),
    path("passive/by-path/", private),
    path("passive/by-name/", private, name="passive-by-name"),
    path("fetched/", fetched),
    path("change-password/", change_password),
    path("login-again/", login_again),
    path("long-work/", long_work),
    path("long-work/async/", long_work_async),
    path("whoami/", whoami),
    path("ticks/", ticks),
    path("admin/", admin.site.urls),
    path("-/", include("django_session_sidecar.urls")),
]
