"""A watch that never gives up: it reconnects for ever, with full jitter, and resumes after the last message that it received."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Protocol

import grpc
import grpc.aio

from . import _wire as wire
from ._channel import Endpoint
from ._errors import Failure, InvalidRequestError, NotPermittedError, SidecarError, decode, to_error
from ._proto import session_service_pb2 as pb
from .events import BeginAnew, Event, Snapshot, SnapshotEnd

logger = logging.getLogger("session_sidecar")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
# A stream is dead if nothing came for so many heartbeats.
SILENT_HEARTBEATS = 3


class Course:
    """What a watch asks for next, and what it makes of what comes. It has no clock and does no I/O."""

    def __init__(self, request: pb.WatchExpiryRequest, rng: random.Random | None = None) -> None:
        self._request = request
        self._rng = rng or random.Random()
        self._failures = 0
        # Whether the state that the watch began with was told to its end; a token from within it begins it again.
        self._complete = bool(request.resume_token)
        self._told_some = False
        # What a resumed stream began with, while it may still turn out to be the initial state again.
        self._held: list[Event] | None = None
        self.connected = False
        self.silence = SILENT_HEARTBEATS * request.heartbeat_interval.ToTimedelta().total_seconds()

    @property
    def resume_token(self) -> str:
        """Where to go on, after a restart of this program too."""
        return self._request.resume_token

    def request(self) -> pb.WatchExpiryRequest:
        """What to ask for now."""
        self._held = [] if self._request.resume_token else None
        return self._request

    def heard(self, message: pb.WatchExpiryResponse) -> list[Event]:
        """What a message tells, if it tells anything."""
        event = wire.event(message)
        self.connected = True
        told = self._sorted(event)
        self._complete |= isinstance(event, SnapshotEnd)
        self._told_some |= isinstance(event, Snapshot)
        if self._complete and not self._held:
            self._request.resume_token = message.resume_token
            self._request.include_initial_state = False
        return told

    def _sorted(self, event: Event | None) -> list[Event]:
        """The sidecar tells the initial state again to whoever resumes soon after it, with what had happened meanwhile still to come.
        Snapshots at the start of a resumed stream are that, unless they tell where a session went on."""
        if self._held is None:
            return [event] if event else []
        if isinstance(event, Snapshot) and event.predecessor_ref:
            self._held.append(event)
            return []
        held, self._held = self._held, None
        again: list[Event] = []
        if isinstance(event, Snapshot | SnapshotEnd):
            again.append(self._begin_anew("INITIAL_STATE_AGAIN"))
        return [*again, *held, *([event] if event else [])]

    def _begin_anew(self, reason: str) -> BeginAnew:
        self._request.resume_token = ""
        self._request.include_initial_state = True
        self._complete = self._told_some = False
        return BeginAnew(reason)

    def broke(self, failure: Failure | None, stood: float) -> tuple[BeginAnew | None, float]:
        """After the stream ended, having stood for so many seconds: what to tell, and how long to wait before the next one.
        Raises what no reconnecting can mend."""
        anew = self._anew(failure)
        # A stream that stood was cut off when its token was taken out of use: the next one shows the one of now.
        outdated = self.connected and failure and failure.code == "UNAUTHENTICATED"
        if anew is None and failure and not outdated and isinstance(error := to_error(failure), InvalidRequestError | NotPermittedError):
            raise error
        if self.connected:
            logger.warning("a watch was cut off (%s) and reconnects", failure.reason or failure.code if failure else "the stream ended")
        self.connected = False
        self._failures = 0 if stood >= LONGEST_PAUSE else self._failures
        pause = self._rng.uniform(0, min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE))
        self._failures = min(self._failures + 1, 16)
        asked = failure.retry_after if failure and failure.retry_after else timedelta()
        return anew, pause + asked.total_seconds()

    def _anew(self, failure: Failure | None) -> BeginAnew | None:
        if failure and failure.code == "OUT_OF_RANGE":
            return self._begin_anew(failure.reason)
        if failure and failure.code == "INVALID_ARGUMENT" and failure.fields == ("resume_token",):
            return self._begin_anew("RESUME_TOKEN_INVALID")
        if not self._complete and self._told_some:
            return self._begin_anew("INITIAL_STATE_INCOMPLETE")
        return None


SILENT = Failure("UNAVAILABLE", "no heartbeat came in time", "SILENT")


class _Watchdog:
    """Calls `bark` when it has been armed for too long. One thread for a whole stream."""

    def __init__(self, patience: float, call: grpc.Call) -> None:
        self._patience = patience
        self._call = call
        self._deadline: float | None = None
        self._stop = threading.Event()
        self.barked = False
        threading.Thread(target=self._run, name="session-sidecar-watchdog", daemon=True).start()

    def arm(self) -> None:
        self._deadline = time.monotonic() + self._patience

    def disarm(self) -> None:
        self._deadline = None

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        left = self._patience
        while not self._stop.wait(left):
            deadline = self._deadline
            left = self._patience if deadline is None else deadline - time.monotonic()
            if left <= 0:
                self.barked = True
                self._call.cancel()
                return


class Broke(Exception):
    """A stream that broke."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class Stream(Protocol):
    """One stream of a `Watch`."""

    def next(self) -> pb.WatchExpiryResponse | None:
        """The next message; None at the end. Raises Broke."""

    def cancel(self) -> None:
        """Ends it without waiting."""

    def close(self) -> None:
        """Ends it."""


class WireStream:
    """A stream on a connection of its own."""

    def __init__(self, endpoint: Endpoint, course: Course) -> None:
        self._channel = endpoint.open()
        self._call = endpoint.watch(self._channel, course.request())
        self._dog = _Watchdog(course.silence, self._call)

    def next(self) -> pb.WatchExpiryResponse | None:
        """The next message; None at the end. Raises Broke."""
        self._dog.arm()
        try:
            message: pb.WatchExpiryResponse | None = next(self._call, None)
        except grpc.RpcError as error:
            raise Broke(SILENT if self._dog.barked else decode(error)) from None
        self._dog.disarm()
        return message

    def cancel(self) -> None:
        """Ends it without waiting."""
        self._dog.stop()
        self._call.cancel()

    def close(self) -> None:
        """Ends it, and waits until gRPC's threads have heard of it."""
        self.cancel()
        self._channel.close()


class Watch(Iterator[Event]):
    """The events of a `Sidecar.watch`, for ever: iterate in a thread of its own. `close()`, from any thread, ends the iteration."""

    def __init__(self, request: pb.WatchExpiryRequest, opened: Callable[[Course], Stream]) -> None:
        self._opened = opened
        self._course = Course(request)
        self._closing = threading.Event()
        self._told: deque[Event] = deque()
        self._stream: Stream | None = None
        self._began = self._pause = 0.0
        _open_watches.add(self)

    def __del__(self) -> None:
        # Whoever drops it need not have closed it. This may run in any thread, one of gRPC's own too: it must not wait.
        if stream := self._stream:
            stream.cancel()

    @property
    def resume_token(self) -> str:
        """Give it to `watch` to go on here after a restart of this program. Empty until the initial state is complete."""
        return self._course.resume_token

    @property
    def connected(self) -> bool:
        """Whether a stream stands now."""
        return self._course.connected

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Event:
        while not self._closing.is_set():
            if self._told:
                return self._told.popleft()
            if self._stream:
                self._read(self._stream)
            elif not self._closing.wait(self._pause):
                self._began = time.monotonic()
                self._stream = self._opened(self._course)
        self.close()  # `close` in another thread may not have seen this stream.
        raise StopIteration

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch."""
        self._closing.set()
        if stream := self._stream:
            stream.close()

    def _read(self, stream: Stream) -> None:
        failure = None
        try:
            message = stream.next()
        except Broke as broke:
            message, failure = None, broke.failure
        if message is not None:
            self._told.extend(self._course.heard(message))
            return
        stream.close()
        self._stream = None
        if self._closing.is_set():
            return
        try:
            anew, self._pause = self._course.broke(failure, time.monotonic() - self._began)
        except SidecarError:
            self._closing.set()
            raise
        if anew:
            self._told.append(anew)


_open_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """While gRPC's threads still run. Later they stand still, and closing would wait for them."""
    for watch in list(_open_watches):
        watch.close()


class AsyncWatch(AsyncIterator[Event]):
    """The events of an `AsyncSidecar.watch`, for ever. `close()` ends the iteration."""

    def __init__(self, endpoint: Endpoint, request: pb.WatchExpiryRequest) -> None:
        self._endpoint = endpoint
        self._course = Course(request)
        self._closing = asyncio.Event()
        self._call: grpc.aio.Call | None = None
        self._failure: Failure | None = None
        self._events = self._run()

    @property
    def resume_token(self) -> str:
        """Give it to `watch` to go on here after a restart of this program. Empty until the initial state is complete."""
        return self._course.resume_token

    @property
    def connected(self) -> bool:
        """Whether a stream stands now."""
        return self._course.connected

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        with contextlib.suppress(RuntimeError):  # Another task is reading: it ends by itself.
            await self._events.aclose()

    def close(self) -> None:
        """Ends the watch. On the event loop's thread only."""
        self._closing.set()
        if self._call:
            self._call.cancel()

    async def _run(self) -> AsyncGenerator[Event, None]:
        while not self._closing.is_set():
            began = time.monotonic()
            async with contextlib.aclosing(self._stream()) as stream:
                async for event in stream:
                    yield event
            if self._closing.is_set():
                return
            anew, pause = self._course.broke(self._failure, time.monotonic() - began)
            if anew:
                yield anew
            try:
                async with asyncio.timeout(pause):
                    await self._closing.wait()
            except TimeoutError:
                pass

    async def _stream(self) -> AsyncGenerator[Event, None]:
        """One stream; leaves in `_failure` how it ended."""
        self._failure = None
        channel = self._endpoint.open_aio()
        call = self._call = self._endpoint.watch(channel, self._course.request())
        try:
            while (message := await self._read(call)) is not None:
                for event in self._course.heard(message):
                    yield event
        finally:
            call.cancel()
            await channel.close()

    async def _read(self, call: grpc.aio.UnaryStreamCall[pb.WatchExpiryRequest, pb.WatchExpiryResponse]) -> pb.WatchExpiryResponse | None:
        try:
            async with asyncio.timeout(self._course.silence):
                message = await call.read()
        except TimeoutError:
            self._failure = SILENT
        except grpc.aio.AioRpcError as error:
            self._failure = decode(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closing.is_set() or (task and task.cancelling()):
                raise
        else:
            return message if isinstance(message, pb.WatchExpiryResponse) else None
        return None
