"""Long work of a view, which must not be interrupted by inactivity."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType

from django.http import HttpRequest

from session_sidecar import AsyncHolding, Holding

from . import tracking
from .backend import backend

TTL = timedelta(minutes=1)


class hold:  # noqa: N801 (it is used like a function)
    """`with hold(request, purpose="monthly report"):` keeps the session of a request alive through the block; `async with` too. What
    stands behind `as` is None if there is nothing to hold: nobody is logged in, or BACKEND is off. Else its `ended` tells whether the
    session ended meanwhile. Entering raises what `Sidecar.holding` does: RefusedError if the policy grants no more."""

    def __init__(self, request: HttpRequest, *, purpose: str = "", ttl: timedelta = TTL) -> None:
        self._at = backend()
        self._tracked = tracking.tracked(request)
        self._purpose = purpose
        self._ttl = ttl
        self._stack = ExitStack()
        self._asynchronous: AsyncHolding | None = None

    def __enter__(self) -> Holding | None:
        if not (self._at and self._tracked):
            return None
        return self._stack.enter_context(self._at.sidecar.holding(self._tracked.key, purpose=self._purpose, ttl=self._ttl))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    async def __aenter__(self) -> AsyncHolding | None:
        if not (self._at and self._tracked):
            return None
        self._asynchronous = self._at.asynchronous.holding(self._tracked.key, purpose=self._purpose, ttl=self._ttl)
        return await self._asynchronous.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._asynchronous:
            await self._asynchronous.__aexit__(kind, error, trace)
