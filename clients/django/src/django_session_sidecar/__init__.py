"""session-sidecar for Django: sessions that end by inactivity, warn before they do, and say why they did. See docs/django.md.

    from django_session_sidecar import hold, passive, session_ended
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .holding import hold as hold
    from .middleware import passive as passive
    from .signals import session_adopted as session_adopted
    from .signals import session_ended as session_ended
    from .sockets import EndedCloser as EndedCloser

_PLACES = {
    "EndedCloser": "sockets",
    "hold": "holding",
    "passive": "middleware",
    "session_adopted": "signals",
    "session_ended": "signals",
}
__all__ = ["EndedCloser", "hold", "passive", "session_adopted", "session_ended"]


def __getattr__(name: str) -> object:
    """Django imports this module before its applications may be used: what needs them is imported when it is asked for."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
