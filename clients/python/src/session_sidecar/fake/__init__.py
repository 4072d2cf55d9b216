"""A sidecar in this process, for the tests of an application: no program, no network, and a clock that goes when you say so.

    sidecar = FakeSidecar(idle_timeout="15m")
    session_id = sidecar.create().session_id
    sidecar.advance(timedelta(minutes=16))
    assert not sidecar.touch(session_id).allowed
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime, timedelta
from typing import Literal, TypeVar, Unpack

from .. import _calls as calls
from .._admin import SidecarAdmin
from .._calls import Call
from .._channel import Endpoint
from .._client import HEARTBEAT, AsyncSidecar, Sidecar
from .._errors import SidecarError
from .._holding import AsyncHolding, Holding
from .._proto import session_service_pb2 as pb
from .._types import EventKind, Fail, Held, HoldKind, Ref
from .._watch import AsyncWatch, Broke, Course, Stream, Watch
from ..events import Event
from ._feed import Feed
from ._policy import PolicyKeys, RuleKeys, read
from ._requests import Failed
from ._server import Server

__all__ = ["FakeAsyncSidecar", "FakeSidecar", "FakeSidecarAdmin", "FakeWatch", "PolicyKeys", "RuleKeys"]

Result = TypeVar("Result")


def _carried_out(server: Server, call: Call[Result]) -> Result:
    try:
        message = server.ask(call.verb, call.request)
    except Failed as failed:
        return call.failed(failed.failure)
    return call.answered(message)


# ---- What goes on by itself: in the fake's time ----


class _FakeHolding(Holding):
    """Is renewed by the fake's clock."""

    _sidecar: FakeSidecar

    def _begin(self, pause: float) -> None:
        self._alarm = self._sidecar._server.alarm(pause, self._renew)

    def _halt(self) -> None:
        self._sidecar._server.cancel(self._alarm)


class _FakeAsyncHolding(AsyncHolding):
    """Is renewed by the fake's clock."""

    _sidecar: FakeAsyncSidecar

    def _begin(self, pause: float) -> None:
        self._alarm = self._sidecar._server.alarm(pause, self._renew)

    def _renew(self) -> float | None:
        try:
            return self._granted_for(self._sidecar._hold_now(self._session_id, self.hold_id, self._ttl, self._kind, self._purpose))
        except SidecarError as error:
            return self._failed(error)

    async def _halt(self) -> None:
        self._sidecar._server.cancel(self._alarm)


class _Stream:
    """A stream of the fake: it opens when it is first read, as one over the wire does."""

    def __init__(self, server: Server, course: Course) -> None:
        self._server = server
        self._course = course
        self._feed: Feed | None = None
        self._ahead: pb.WatchExpiryResponse | None = None
        self._closed = False

    def has_more(self) -> bool:
        """Whether `next` need not wait. Raises Broke."""
        try:
            self._feed = self._feed or self._server.watch(self._course.request())
        except Failed as failed:
            raise Broke(failed.failure) from None
        self._ahead = self._ahead or self._feed.told()
        return self._ahead is not None

    def next(self) -> pb.WatchExpiryResponse | None:
        """The next message; None at the end. Raises Broke."""
        with self._server.lock:
            while not self._closed and not self.has_more():
                self._server.changed.wait()
            message, self._ahead = self._ahead, None
            return None if self._closed else message

    def cancel(self) -> None:
        """Ends it."""
        self._closed = True
        self._server.tell()

    close = cancel


class FakeWatch(Watch):
    """A Watch of a FakeSidecar. It waits as one over the wire does; `told` does not."""

    def __init__(self, server: Server, request: pb.WatchExpiryRequest) -> None:
        super().__init__(request, lambda course: _Stream(server, course))

    def told(self) -> list[Event]:
        """All that it has to tell by now."""
        while not self._closing.is_set():
            if not isinstance(self._stream, _Stream):
                self._stream = self._opened(self._course)
            elif self._has_more(self._stream):
                self._read(self._stream)
            else:
                break
        told = list(self._told)
        self._told.clear()
        return told

    def _has_more(self, stream: _Stream) -> bool:
        try:
            return stream.has_more()
        except Broke:
            return True  # Reading tells.

    def _read(self, stream: Stream) -> None:
        super()._read(stream)
        self._pause = 0


class _FakeAsyncWatch(AsyncWatch):
    """An AsyncWatch of a FakeAsyncSidecar."""

    def __init__(self, endpoint: Endpoint, server: Server, request: pb.WatchExpiryRequest) -> None:
        super().__init__(endpoint, request)
        self._server = server
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Ends the watch. On the event loop's thread only."""
        super().close()
        self._changed.set()

    async def _stream(self) -> AsyncGenerator[Event, None]:
        self._failure = None
        loop = asyncio.get_running_loop()

        def changed() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._changed.set)

        try:
            feed = self._server.watch(self._course.request())
        except Failed as failed:
            self._failure = failed.failure
            return
        self._server.listen(changed)
        try:
            while not self._closing.is_set():
                self._changed.clear()
                while message := feed.told():
                    for event in self._course.heard(message):
                        yield event
                await self._changed.wait()
        finally:
            self._server.forget(changed)


# ---- The clients ----


class FakeSidecar(Sidecar):
    """A Sidecar that answers by itself, as `session-sidecar serve` would: same verbs, answers, exceptions and events. Its policy
    is the one that a new user meets with the keys that you give, or those of `policy_file`. It serves `tenants`: its own, unless
    you name others. Threads may share it."""

    _holding = _FakeHolding

    def __init__(
        self,
        *,
        policy_file: str | os.PathLike[str] | None = None,
        tenant: str = "",
        tenants: Iterable[str] | None = None,
        fail: Fail | Literal["closed", "open"] = Fail.CLOSED,
        **policy: Unpack[PolicyKeys],
    ) -> None:
        super().__init__("fake", tenant=tenant, fail=fail, token_file="")
        self._server = Server(read(policy_file, policy), (tenant,) if tenants is None else tenants)

    def advance(self, duration: timedelta) -> datetime:
        """Moves the clock forward, from one thing that is due to the next, and answers its new time. All that became due has
        happened then, and each `holding` has renewed its hold."""
        return self._server.advance(duration)

    def drain(self) -> None:
        """Watches are told Draining, as if the sidecar were about to stop. It goes on."""
        self._server.drain()

    def asynchronous(self) -> FakeAsyncSidecar:
        """An AsyncSidecar over the same sessions and clock."""
        return FakeAsyncSidecar(self)

    def admin(self) -> FakeSidecarAdmin:
        """A SidecarAdmin over the same sessions."""
        return FakeSidecarAdmin(self)

    def watch(
        self,
        sessions: Iterable[str | Ref] = (),
        *,
        subject: str | None = None,
        whole_tenant: bool = False,
        everything: bool = False,
        kinds: Iterable[EventKind] = (),
        initial_state: bool = True,
        heartbeat_interval: timedelta = HEARTBEAT,
        resume_token: str = "",
    ) -> FakeWatch:
        """As of a Sidecar. Besides, `watch.told()` answers what there is to tell by now, without waiting for more."""
        return FakeWatch(
            self._server,
            self._watch_request(sessions, subject, whole_tenant, everything, kinds, initial_state, heartbeat_interval, resume_token),
        )

    def run(self, call: Call[Result]) -> Result:
        """Carries out one call."""
        return _carried_out(self._server, call)


class FakeAsyncSidecar(AsyncSidecar):
    """An AsyncSidecar over the sessions and the clock of a FakeSidecar, with its settings."""

    _holding = _FakeAsyncHolding

    def __init__(self, sidecar: FakeSidecar) -> None:
        super().__init__("fake", token_file="")
        self._settings = sidecar._settings
        self._server = sidecar._server

    def advance(self, duration: timedelta) -> datetime:
        """Moves the clock forward: see FakeSidecar."""
        return self._server.advance(duration)

    def drain(self) -> None:
        """Watches are told Draining, as if the sidecar were about to stop. It goes on."""
        self._server.drain()

    async def run(self, call: Call[Result]) -> Result:
        """Carries out one call."""
        return _carried_out(self._server, call)

    def _hold_now(self, session_id: str, hold_id: str, ttl: timedelta, kind: HoldKind, purpose: str) -> Held:
        """`hold`, for the clock, which awaits nothing."""
        return _carried_out(self._server, calls.hold(self._settings, session_id, hold_id, ttl=ttl, kind=kind, purpose=purpose))

    def _open_watch(self, request: pb.WatchExpiryRequest) -> AsyncWatch:
        return _FakeAsyncWatch(self._endpoint, self._server, request)


class FakeSidecarAdmin(SidecarAdmin):
    """A SidecarAdmin over the sessions of a FakeSidecar, with its tenant: `list_sessions` and `end_sessions`. The fake keeps no
    histories and counts: the other verbs raise NotPermittedError."""

    def __init__(self, sidecar: FakeSidecar) -> None:
        super().__init__("fake", token_file="")
        self._settings = sidecar._settings
        self._server = sidecar._server

    def run(self, call: Call[Result]) -> Result:
        """Carries out one call."""
        return _carried_out(self._server, call)
