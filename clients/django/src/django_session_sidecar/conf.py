"""What the site says in `SESSION_SIDECAR`. Names that django-session-security has too mean the same here."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.shortcuts import resolve_url

from session_sidecar import CredentialFiles

# Without EXPIRE_AFTER nobody here knows the idle timeout; a short one is 5 minutes.
_ASSUMED_TIMEOUT = 300
# The last-seen time in the Django session is behind by this part of the idle timeout at most.
_SEEN_EVERY = 20

_CHOICES = {
    "BACKEND": ("grpc", "fake", "off"),
    "FAIL": ("closed", "open"),
    "ON_UNKNOWN": ("adopt", "deny"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings; a key of `SESSION_SIDECAR` is the name of a field in capitals."""

    backend: str = "grpc"
    """`grpc`: a sidecar. `fake`: one in this process whose clock goes when a test says so. `off`: nothing is judged."""
    target: str | None = None
    """Where the sidecar is; else SESSION_SIDECAR_TARGET, else 127.0.0.1:50151."""
    tenant: str = ""
    policy: str = ""
    """The policy of sessions that begin here; else it is `default`."""
    deadline: float = 0.25
    """How many seconds a call may take."""
    fail: str = "closed"
    """What happens to people who are logged in while the sidecar cannot be reached: 503, or they go on."""
    on_unknown: str = "adopt"
    """What happens to a Django session that the sidecar does not know."""
    expire_after: float | None = None
    """Seconds of inactivity until the end. The sidecar's policy decides; this is compared with it."""
    warn_after: float | None = None
    """Seconds of inactivity until the first warning. Compared with the policy, too."""
    passive_urls: tuple[str, ...] = ()
    """Paths that are no activity."""
    passive_url_names: tuple[str, ...] = ()
    """The same by the names of URLs, with their namespace."""
    origins: tuple[str, ...] = ()
    """Origins whose pages may extend, hold and report, beside the site's own."""
    admin_target: str | None = None
    """A listener of the sidecar with the verbs `admin`, for the admin page of a user's sessions."""
    tls_ca_file: str | None = None
    """The authorities to trust at a TARGET with https://; else the variables of the Python client say this and the next three."""
    tls_cert_file: str | None = None
    """The client certificate to show there."""
    tls_key_file: str | None = None
    """Its key."""
    token_file: str | None = None
    """The bearer token of all calls."""
    policy_file: str | None = None
    """The sidecar's policy file, for `fake`; else its policy has EXPIRE_AFTER and WARN_AFTER."""

    @property
    def seen_every(self) -> float:
        """After how many seconds the last-seen time is written again."""
        return (self.expire_after or _ASSUMED_TIMEOUT) / _SEEN_EVERY

    @property
    def timeout(self) -> timedelta:
        """How long a call may take."""
        return timedelta(seconds=self.deadline)

    @property
    def files(self) -> CredentialFiles:
        """What is trusted and shown at TARGET."""
        return {
            "tls_ca_file": self.tls_ca_file,
            "tls_cert_file": self.tls_cert_file,
            "tls_key_file": self.tls_key_file,
            "token_file": self.token_file,
        }

    @property
    def admin_files(self) -> CredentialFiles:
        """The same at ADMIN_TARGET, which may be a socket while TARGET has TLS."""
        return self.files if (self.admin_target or "").startswith("https://") else {"token_file": self.token_file}

    @property
    def login_url(self) -> str:
        """Where people log in."""
        return resolve_url(django_settings.LOGIN_URL)


def problems(told: object) -> Iterator[str]:
    """What is wrong with the settings, each with what to do about it."""
    if not isinstance(told, Mapping):
        yield f"SESSION_SIDECAR must be a dict, not {type(told).__name__}"
        return
    known = {field.name.upper(): str(field.type) for field in fields(Settings)}
    for key, value in told.items():
        if key not in known:
            near = difflib.get_close_matches(str(key).upper(), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            yield f"SESSION_SIDECAR has the unknown key {key!r}: {hint}"
        elif key in _CHOICES and value not in _CHOICES[key]:
            yield f"{key} must be {' or '.join(map(repr, _CHOICES[key]))}"
        elif "float" in known[key] and not _positive(value) and not (value is None and "None" in known[key]):
            yield f"{key} must be a number of seconds over 0"
        elif "tuple" in known[key] and (isinstance(value, str) or not _texts(value)):
            yield f"{key} must be a list of strings"
        elif known[key].startswith("str") and not isinstance(value, str) and not (value is None and "None" in known[key]):
            yield f"{key} must be a string"
    expire, warn = told.get("EXPIRE_AFTER"), told.get("WARN_AFTER")
    if warn is not None and expire is None:
        yield "WARN_AFTER needs EXPIRE_AFTER: the sidecar knows how long before the end people are warned"
    if _positive(expire) and _positive(warn) and float(str(warn)) >= float(str(expire)):
        yield "WARN_AFTER must be less than EXPIRE_AFTER: people are warned before the end"


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings in force. Raises ImproperlyConfigured for what `manage.py check` would call an error."""
    told: Any = getattr(django_settings, "SESSION_SIDECAR", {})
    for problem in problems(told):
        raise ImproperlyConfigured(problem)
    values: dict[str, Any] = {key.lower(): tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    return Settings(**values)


def _changed(*, setting: str, **_: object) -> None:
    if setting == "SESSION_SIDECAR":
        settings.cache_clear()


setting_changed.connect(_changed)
