"""What pages may ask: `path("-/", include("django_session_sidecar.urls"))`."""

from django.urls import path

from . import door

app_name = "session_sidecar"
urlpatterns = [
    path("session", door.session, name="session"),
    path("session/extend", door.extend, name="extend"),
    path("session/activity", door.activity, name="activity"),
    path("session/leave", door.leave, name="leave"),
    path("session/hold", door.hold, name="hold"),
    path("session/release", door.release, name="release"),
    path("session/events", door.stream, name="events"),
    path("session/sidecar.js", door.module, name="module"),
]
