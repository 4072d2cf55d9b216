"""The whole site's settings. The environment says what differs from one place to another:

SITE_MODE            package: django_session_sidecar judges sessions. plain: a gateway does, and the site knows nothing of it
SITE_DATABASE        an SQLite file; else example.sqlite3 here
SITE_SECRET_KEY      Django's SECRET_KEY
SITE_POLL_SECONDS    how often the dashboard asks for news
SITE_DEADLINE_SECONDS    how long the sidecar may take to answer the package
SESSION_SIDECAR_TARGET, SESSION_SIDECAR_ADMIN_TARGET    where the sidecar is, and its listener for support staff
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parents[1]
SITE_MODE = os.environ.get("SITE_MODE", "package")
if SITE_MODE not in ("package", "plain"):
    raise SystemExit("SITE_MODE must be package or plain")
WITH_PACKAGE = SITE_MODE == "package"
POLL_SECONDS = float(os.environ.get("SITE_POLL_SECONDS", "2"))

SECRET_KEY = os.environ.get("SITE_SECRET_KEY", "an example's key is no secret")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "notebook.urls"
ASGI_APPLICATION = "notebook.asgi.application"

INSTALLED_APPS = [
    "notebook",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "notebook.security.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
if WITH_PACKAGE:
    INSTALLED_APPS.append("django_session_sidecar")
    MIDDLEWARE.append("django_session_sidecar.middleware.SessionSidecarMiddleware")
    SESSION_SIDECAR = {
        "ADMIN_TARGET": os.environ.get("SESSION_SIDECAR_ADMIN_TARGET"),
        "DEADLINE": float(os.environ.get("SITE_DEADLINE_SECONDS", "0.25")),
    }

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # What a page says of its session differs, and nothing else does.
        "DIRS": [BASE_DIR / "notebook/templates" / SITE_MODE],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE", BASE_DIR / "example.sqlite3"),
        "OPTIONS": {"timeout": 30},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login/"
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
STATIC_URL = "/static/"
