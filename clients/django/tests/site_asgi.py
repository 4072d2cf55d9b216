"""For uvicorn: pages, streams and a WebSocket."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from django_session_sidecar import EndedCloser


class Echo(AsyncWebsocketConsumer):
    """Says who is there, and repeats what it is told."""

    async def connect(self):
        await self.accept()
        await self.send(f"hello {self.scope['user']}")

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


sockets = AuthMiddlewareStack(URLRouter([path("echo/", Echo.as_asgi())]))
application = EndedCloser(ProtocolTypeRouter({"http": http, "websocket": sockets}))
