"""The pages."""

import asyncio
import itertools

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from .sidecar import hold, passive

LONGEST_REPORT = 60
_number = itertools.count(1)


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """What is so of the session, and what happens to it."""
    return render(request, "home.html")


@login_required
def report(request: HttpRequest) -> HttpResponse:
    """A page from which long work is begun."""
    return render(request, "report.html")


@require_POST
@login_required
async def build_report(request: HttpRequest) -> JsonResponse:
    """The long work: no requests come while it lasts, and nobody is logged out."""
    try:
        seconds = min(float(request.POST.get("seconds", "8")), LONGEST_REPORT)
    except ValueError:
        seconds = 8.0
    async with hold(request, purpose="yearly report"):
        await asyncio.sleep(max(0.0, seconds))
    return JsonResponse({"report": "ready", "number": next(_number)})


@login_required
def dashboard(request: HttpRequest) -> HttpResponse:
    """A page that asks for news all the time, which is no activity."""
    return render(request, "dashboard.html", {"poll_seconds": settings.POLL_SECONDS})


@passive
@require_GET
@login_required
def news(request: HttpRequest) -> JsonResponse:
    """The news."""
    return JsonResponse({"number": next(_number)})


def leave(request: HttpRequest) -> HttpResponse:
    """Asks before it logs out: a link alone must not."""
    if request.method == "POST":
        logout(request)
        return redirect(settings.LOGOUT_REDIRECT_URL)
    return render(request, "logout.html")
