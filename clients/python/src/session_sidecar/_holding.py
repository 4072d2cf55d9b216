"""Holds that renew themselves while a block of code runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from ._errors import SessionEndedError, SessionUnknownError, SidecarError, SidecarUnreachableError
from ._types import Ended, Held, HoldKind, Unknown

if TYPE_CHECKING:
    from ._client import AsyncSidecar, Sidecar

logger = logging.getLogger("session_sidecar")

# How long to wait at most before a failed renewal is tried again.
RETRY = timedelta(seconds=2)


class _Pulse:
    """The state of a hold, and when to renew it."""

    def __init__(
        self,
        session_id: str,
        hold_id: str,
        ttl: timedelta,
        kind: HoldKind,
        purpose: str,
        on_end: Callable[[Ended | Unknown], object] | None,
    ) -> None:
        self._session_id = session_id
        self._ttl = ttl
        self._kind = kind
        self._purpose = purpose
        self._on_end = on_end
        self._granted = ttl
        self.hold_id = hold_id
        self.ended: Ended | Unknown | None = None
        self.problem: SidecarError | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.hold_id} ended={self.ended is not None} problem={self.problem}>"

    def raise_if_ended(self) -> None:
        """Raises SessionEndedError or SessionUnknownError if the session is over: for long work, between its steps."""
        match self.ended:
            case Ended() as answer:
                raise SessionEndedError(answer)
            case Unknown() as answer:
                raise SessionUnknownError(answer)

    def _granted_for(self, held: Held) -> float:
        """How long to wait before the next pulse: a third of what was granted."""
        self.problem = None
        self._granted = held.granted_ttl
        return max(held.granted_ttl.total_seconds() / 3, 0.05)

    def _failed(self, error: SidecarError) -> float | None:
        """How long to wait before it is tried again; None if the session is over."""
        if isinstance(error, SessionEndedError | SessionUnknownError):
            self.ended = error.answer
            if self._on_end:
                self._on_end(error.answer)
            return None
        if self.problem is None:
            logger.warning("a hold could not be renewed and is tried again: %s", error)
        self.problem = error
        pause = self._granted / 3
        if isinstance(error, SidecarUnreachableError):
            pause = min(pause, RETRY) * random.uniform(0.5, 1)
        return max(pause.total_seconds(), 0.05)


class Holding(_Pulse):
    """A hold for a `with` block. A thread renews it. `ended` is set when the session ended meanwhile, `problem` while the latest
    renewal failed otherwise."""

    def __init__(self, sidecar: Sidecar, session_id: str, hold_id: str, ttl: timedelta, kind: HoldKind, purpose: str, on_end: Callable[[Ended | Unknown], object] | None) -> None:
        super().__init__(session_id, hold_id, ttl, kind, purpose, on_end)
        self._sidecar = sidecar
        self._stop = threading.Event()

    def _pulse(self) -> float:
        held = self._sidecar.hold(self._session_id, self.hold_id, ttl=self._ttl, kind=self._kind, purpose=self._purpose)
        return self._granted_for(held)

    def __enter__(self) -> Holding:
        try:
            pause = self._pulse()
        except SidecarUnreachableError as error:
            if not self._sidecar.fails_open:
                raise
            pause = self._failed(error) or 0
        self._process = os.getpid()
        self._begin(pause)
        return self

    def _begin(self, pause: float) -> None:
        """Renews it from now on, for the first time after so many seconds."""
        self._thread = threading.Thread(target=self._run, args=(pause,), name="session-sidecar-hold", daemon=True)
        self._thread.start()

    def _halt(self) -> None:
        """No renewal comes after this."""
        self._stop.set()
        self._thread.join()

    def _run(self, pause: float | None) -> None:
        while pause is not None and not self._stop.wait(pause):
            pause = self._renew()

    def _renew(self) -> float | None:
        """Answers after how many seconds to renew it again; None if the session is over."""
        try:
            return self._pulse()
        except SidecarError as error:
            return self._failed(error)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if os.getpid() != self._process:
            return  # A forked child leaves the block too; the hold is its parent's.
        self._halt()
        if self.ended is None:
            try:
                self._sidecar.release(self._session_id, self.hold_id)
            except (SessionEndedError, SessionUnknownError) as over:
                self._failed(over)
            except SidecarError as problem:
                self.problem = problem  # It lapses by itself.


class AsyncHolding(_Pulse):
    """A hold for an `async with` block. A task renews it. `ended` is set when the session ended meanwhile, `problem` while the
    latest renewal failed otherwise."""

    def __init__(self, sidecar: AsyncSidecar, session_id: str, hold_id: str, ttl: timedelta, kind: HoldKind, purpose: str, on_end: Callable[[Ended | Unknown], object] | None) -> None:
        super().__init__(session_id, hold_id, ttl, kind, purpose, on_end)
        self._sidecar = sidecar

    async def _pulse(self) -> float:
        held = await self._sidecar.hold(self._session_id, self.hold_id, ttl=self._ttl, kind=self._kind, purpose=self._purpose)
        return self._granted_for(held)

    async def __aenter__(self) -> AsyncHolding:
        try:
            pause = await self._pulse()
        except SidecarUnreachableError as error:
            if not self._sidecar.fails_open:
                raise
            pause = self._failed(error) or 0
        self._begin(pause)
        return self

    def _begin(self, pause: float) -> None:
        """Renews it from now on, for the first time after so many seconds."""
        self._task = asyncio.create_task(self._run(pause), name="session-sidecar-hold")

    async def _halt(self) -> None:
        """No renewal comes after this."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self, pause: float | None) -> None:
        while pause is not None:
            await asyncio.sleep(pause)
            try:
                pause = await self._pulse()
            except SidecarError as error:
                pause = self._failed(error)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._halt()
        if self.ended is None:
            try:
                await self._sidecar.release(self._session_id, self.hold_id)
            except (SessionEndedError, SessionUnknownError) as over:
                self._failed(over)
            except SidecarError as problem:
                self.problem = problem  # It lapses by itself.
