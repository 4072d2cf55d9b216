"""What `manage.py check` says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.urls import NoReverseMatch, reverse

from session_sidecar import InvalidRequestError, NotPermittedError, RefusedError, Session, Sidecar, SidecarError, SidecarUnreachableError

from . import conf

TAG = "session_sidecar"
MIDDLEWARE = "django_session_sidecar.middleware.SessionSidecarMiddleware"
_BEFORE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
# A check is not in a person's way: it may wait longer than a request.
_PATIENCE = timedelta(seconds=2)


def check_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """What can be seen without a sidecar."""
    found = list(conf.problems(getattr(django_settings, "SESSION_SIDECAR", {})))
    if found:
        return [Error(problem, id="session_sidecar.E001") for problem in found]
    return [] if conf.settings().backend == "off" else [*_project()]


def _project() -> Iterator[CheckMessage]:
    stack = list(django_settings.MIDDLEWARE)
    if MIDDLEWARE not in stack:
        yield Error(f"{MIDDLEWARE} is not in MIDDLEWARE: nothing ends.", hint="Put it last.", id="session_sidecar.E002")
    else:
        own = stack.index(MIDDLEWARE)
        for other in _BEFORE:
            if other in stack[own:]:
                hint = f"Put it after {other}."
                yield Error(f"{MIDDLEWARE} stands before what it needs.", hint=hint, id="session_sidecar.E003")
    if django_settings.SESSION_ENGINE == "django.contrib.sessions.backends.signed_cookies":
        yield Error(
            "Sessions in signed cookies have no id that the sidecar could know, and cannot be ended by anybody.",
            hint="Set SESSION_ENGINE to another one, such as django.contrib.sessions.backends.cached_db.",
            id="session_sidecar.E004",
        )
    try:
        reverse("session_sidecar:session")
    except NoReverseMatch:
        yield Warning(
            "The paths that pages ask are not in the site's URLs: nobody is warned, unless a gateway passes them to the sidecar's door.",
            hint='Add path("-/", include("django_session_sidecar.urls")), or silence this behind such a gateway.',
            id="session_sidecar.W001",
        )
    if left := sorted(name for name in dir(django_settings) if name.startswith("SESSION_SECURITY_")):
        yield Warning(
            f"{', '.join(left)}: settings of django-session-security are not read.",
            hint="Move them into SESSION_SIDECAR, without the beginning of their names.",
            id="session_sidecar.W002",
        )


def check_policy(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Whether the sidecar, if one is there, limits sessions as the settings say."""
    if any(conf.problems(getattr(django_settings, "SESSION_SIDECAR", {}))):
        return []
    told = conf.settings()
    if told.backend != "grpc" or (told.expire_after is None and told.warn_after is None):
        return []
    try:
        sidecar = _client(told)
    except InvalidRequestError:
        return []  # Nor has it the files. `--deploy` names them.
    try:
        return [*_compared(told, _limits(told, sidecar))]
    except SidecarUnreachableError:
        return []  # A build has no sidecar. `--deploy` says so.
    except (RefusedError, NotPermittedError) as error:
        return [Error(f"The sidecar lets no session begin: {error}", id="session_sidecar.E005")]


def check_reachable(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Of a site that is about to run: whether its sidecar is there."""
    if any(conf.problems(getattr(django_settings, "SESSION_SIDECAR", {}))):
        return []
    told = conf.settings()
    if told.backend == "fake":
        return [Warning("BACKEND is fake: no session ends by time.", id="session_sidecar.W003")]
    if told.backend == "off":
        return [Warning("BACKEND is off: no session is judged.", id="session_sidecar.W003")]
    try:
        client = _client(told)
    except InvalidRequestError as error:
        return [Error(f"The sidecar cannot be asked: {error}", id="session_sidecar.E008")]
    try:
        with client as sidecar:
            sidecar.end("0" * 32)
    except SidecarUnreachableError as error:
        hint = "Run this check where the site runs, or see to SESSION_SIDECAR['TARGET']."
        return [Warning(f"The policy could not be compared: {error}", hint=hint, id="session_sidecar.W004")]
    except SidecarError as error:
        if isinstance(error, NotPermittedError) and error.code == "UNAUTHENTICATED":
            return [Error(f"The sidecar does not know this site: {error}", id="session_sidecar.E009")]
        # It answers: it knows of no such session.
    return []


def _client(told: conf.Settings) -> Sidecar:
    return Sidecar(told.target, tenant=told.tenant, deadline=_PATIENCE, **told.files)


def _limits(told: conf.Settings, client: Sidecar) -> Session:
    """The limits in force, told by a session that begins and ends here: to ask for policies takes rights that a site need not have."""
    with client as sidecar:
        created = sidecar.create(policy=told.policy, labels={"purpose": "manage-py-check"})
        sidecar.end(created.session_id, note="manage.py check")
    return created.session


def _compared(told: conf.Settings, session: Session) -> Iterator[CheckMessage]:
    where = f"policy {session.policy!r} of the sidecar"
    idle = session.idle_timeout.total_seconds() if session.idle_timeout else None
    if told.expire_after is not None and idle != told.expire_after:
        yield Error(
            f"EXPIRE_AFTER is {told.expire_after:g} s, and idle_timeout of the {where} is {_seconds(idle)}.",
            hint="The policy is what counts: make them the same.",
            id="session_sidecar.E006",
        )
    elif told.expire_after is not None and told.warn_after is not None:
        lead = None
        if session.idle_expire_time and session.status.next_warning_time:
            lead = (session.idle_expire_time - session.status.next_warning_time).total_seconds()
        if lead != told.expire_after - told.warn_after:
            yield Error(
                f"WARN_AFTER is {told.warn_after:g} s, {told.expire_after - told.warn_after:g} s before the end; the {where} warns "
                f"{_seconds(lead)} before it.",
                hint="The policy is what counts: its largest warn_before must be EXPIRE_AFTER - WARN_AFTER.",
                id="session_sidecar.E007",
            )
    absolute = session.absolute_timeout.total_seconds() if session.absolute_timeout else None
    if absolute is not None and django_settings.SESSION_COOKIE_AGE < absolute:
        yield Warning(
            f"SESSION_COOKIE_AGE is {django_settings.SESSION_COOKIE_AGE} s, and absolute_timeout of the {where} is {_seconds(absolute)}: "
            "Django forgets sessions that live, and nobody is told why.",
            hint="Make SESSION_COOKIE_AGE longer. The cookie itself has no age.",
            id="session_sidecar.W005",
        )


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:g} s"
