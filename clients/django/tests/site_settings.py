"""The site that the tests visit. Parts of it are told by the environment, where it is served by processes of its own."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "site_urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django_session_sidecar",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_session_sidecar.middleware.SessionSidecarMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "loaders": [
                (
                    "django.template.loaders.locmem.Loader",
                    {
                        "registration/login.html": "{% load session_sidecar %}[{% session_end_reason %}]"
                        "{% for message in messages %}({{ message }}){% endfor %}<form method=post>{% csrf_token %}{{ form }}</form>",
                    },
                ),
                "django.template.loaders.app_directories.Loader",
            ],
        },
    }
]
del TEMPLATES[0]["APP_DIRS"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TEST_SITE_DATABASE", ":memory:"),
        "OPTIONS": {"timeout": 30},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SESSION_COOKIE_AGE = 14 * 24 * 3600
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/private/"
SESSION_SIDECAR = {
    "EXPIRE_AFTER": 900,
    "WARN_AFTER": 780,
    "DEADLINE": 20,
    "PASSIVE_URLS": ["/passive/by-path/"],
    "PASSIVE_URL_NAMES": ["passive-by-name"],
}
SESSION_SIDECAR |= {
    key: value
    for key, value in {"TARGET": os.environ.get("TEST_SITE_SIDECAR"), "POLICY": os.environ.get("TEST_SITE_POLICY")}.items()
    if value
}
