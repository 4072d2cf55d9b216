"""The application."""

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core import checks


class SessionSidecarConfig(AppConfig):
    """Sessions of Django that session-sidecar judges."""

    name = "django_session_sidecar"
    label = "session_sidecar"
    verbose_name = "session-sidecar"

    def ready(self) -> None:
        """Listens to logins, and registers the checks."""
        from . import checks as own
        from .tracking import logged_in, logged_out

        user_logged_in.connect(logged_in, dispatch_uid="session_sidecar")
        user_logged_out.connect(logged_out, dispatch_uid="session_sidecar")
        checks.register(own.check_settings, own.TAG)
        checks.register(own.check_policy, own.TAG)
        checks.register(own.check_reachable, own.TAG, deploy=True)
