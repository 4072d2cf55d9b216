"""Closes what is still open when a session is over: WebSockets of Channels, and streams of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from importlib import import_module
from typing import Any, TypeAlias

from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY, aget_user
from django.http import HttpRequest, parse_cookie

from session_sidecar import Ended, Unknown, Unreachable

from . import tracking
from .backend import Backend, arun, backend
from .watching import hub

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OVER = 4401
"""The code of a WebSocket that is closed because its session is over. The reason beside it is the end's word."""
AGAIN = 1012
"""The code of one whose session the sidecar has forgotten (RFC 6455's registry: service restart): opened again, it is adopted."""
LATER = 1013
"""The code of one that cannot be opened now: nobody knows."""

CLOSES_ITSELF = "session_sidecar.closes_itself"


class EndedCloser:
    """An ASGI application around another one:

        application = EndedCloser(ProtocolTypeRouter({"http": …, "websocket": …}))

    A WebSocket whose session ends is closed at once, with code 4401; a `text/event-stream` is closed. A socket of a session that is
    over does not open. Sockets of people who are not logged in are left alone."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        at = backend()
        session_id = _cookie(scope) if at and scope["type"] in ("websocket", "http") else None
        if at is None or session_id is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(at, session_id, scope, receive, send)
        else:
            await self._http(at, session_id, scope, receive, send)

    async def _socket(self, at: Backend, session_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        match await arun(tracking.judge(at, _request(session_id), tracking.checked(at))):
            case None:
                await self._application(scope, receive, send)
            case Ended() | Unknown() as over:
                await receive()
                await send({"type": "websocket.close", "code": OVER, "reason": _word(over)})
            case Unreachable(allowed=False):
                await receive()
                await send({"type": "websocket.close", "code": LATER, "reason": "UNAVAILABLE"})
            case _:
                connection = _Connection(at, session_id, receive, send)
                connection.watch()
                await connection.serve(self._application, scope, connection.send)

    async def _http(self, at: Backend, session_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _Connection(at, session_id, receive, send)

        async def sending(message: Message) -> None:
            await connection.send(message)
            if message["type"] == "http.response.start" and _is_event_stream(message) and CLOSES_ITSELF not in scope:
                connection.watch()

        await connection.serve(self._application, scope, sending)


class _Connection:
    """What may be closed by its application, by its client, or because its session is over."""

    def __init__(self, at: Backend, session_id: str, receive: Receive, send: Send) -> None:
        self._at = at
        self._session_id = session_id
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer: Ended | Unknown | None = None
        self._next: asyncio.Task[Message] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_socket = True

    def watch(self) -> None:
        """From now on it is closed when the session is over."""
        self._watching = asyncio.create_task(self._watch())

    async def serve(self, application: Application, scope: Scope, send: Send) -> None:
        """Runs the application until it is done. It hears of the end as of any other disconnect."""
        self._is_socket = scope["type"] == "websocket"
        try:
            await application(scope, self.receive, send)
        finally:
            for task in filter(None, (self._watching, self._next)):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _watch(self) -> None:
        async with hub(self._at).subscribed(self._session_id) as (subscription, answer):
            over = answer if isinstance(answer, Ended | Unknown) else await subscription.over()
        if not self._is_socket and isinstance(over, Unknown) and not await _is_logged_in(self._session_id):
            return  # A stream for everybody.
        async with self._sending:
            self._answer = over
            self._over.set_result(None)
            await self._send(self._closing(over))

    def _closing(self, over: Ended | Unknown) -> Message:
        if not self._is_socket:
            return {"type": "http.response.body", "body": b"", "more_body": False}
        return {"type": "websocket.close", "code": OVER if isinstance(over, Ended) else AGAIN, "reason": _word(over)}

    async def receive(self) -> Message:
        """The next message of the client; the end as its last."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        either: set[asyncio.Future[Any]] = {self._over, self._next}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._answer is not None:
            return {"type": "websocket.disconnect", "code": OVER} if self._is_socket else {"type": "http.disconnect"}
        message, self._next = self._next.result(), None
        return message

    async def send(self, message: Message) -> None:
        """To the client, as long as there is one: the application may not have heard of the end yet."""
        async with self._sending:
            if self._answer is None:
                await self._send(message)


def _word(answer: Ended | Unknown) -> str:
    return answer.reason.value if isinstance(answer, Ended) and answer.reason else "UNKNOWN"


def _is_event_stream(message: Message) -> bool:
    headers = ((bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ()))
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _cookie(scope: Scope) -> str | None:
    """The session's id in the cookies of a request."""
    pairs = [bytes(value).decode("latin-1") for name, value in scope.get("headers", ()) if bytes(name).lower() == b"cookie"]
    return parse_cookie("; ".join(pairs)).get(django_settings.SESSION_COOKIE_NAME) or None


def _request(session_id: str) -> HttpRequest:
    """The request that opens a WebSocket, as far as its session is concerned."""
    request = HttpRequest()
    request.COOKIES[django_settings.SESSION_COOKIE_NAME] = session_id
    request.session = import_module(django_settings.SESSION_ENGINE).SessionStore(session_id)
    request.auser = partial(aget_user, request)
    return request


async def _is_logged_in(session_id: str) -> bool:
    return await _request(session_id).session.aget(SESSION_KEY) is not None
