"""For an ASGI server: `uvicorn notebook.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notebook.settings")
application = get_asgi_application()

from django.conf import settings  # noqa: E402 (after the set-up)
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402

application = ASGIStaticFilesHandler(application)
if settings.WITH_PACKAGE:
    from django_session_sidecar import EndedCloser

    application = EndedCloser(application)
