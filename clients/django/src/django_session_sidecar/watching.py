"""Being told of ends: one watch for each event loop of this process, shared by all its open sockets and streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from session_sidecar import (
    Answer,
    Ended,
    EndReason,
    Live,
    NotPermittedError,
    Ref,
    Unknown,
    Unreachable,
    events,
)

from .backend import Backend

logger = logging.getLogger("session_sidecar.django")

# How long to wait before a session is asked for again that nobody could tell about.
_AGAIN = 2.0
_AT_ONCE = 100

Told: TypeAlias = events.Warning | events.Cleared | Ended | Unknown


@dataclass(eq=False)
class Subscription:
    """What happens to one session, wherever it goes on: after an Ended by ROTATED under another id. Any other Ended, or an Unknown, is the
    last that is told."""

    session_id: str = field(repr=False)
    session_ref: Ref | None = None
    told: asyncio.Queue[Told] = field(default_factory=asyncio.Queue)
    moved: bool = False
    """Whether the session goes on under another id than that of this subscription."""

    async def over(self) -> Ended | Unknown:
        """Waits until the session is over."""
        while True:
            match await self.told.get():
                case Ended(end=end) if end.reason is EndReason.ROTATED and end.successor_ref:
                    pass
                case Ended() | Unknown() as last:
                    return last


def _name(subscription: Subscription) -> str:
    """Its id as long as that is its own: by it also a sidecar knows the session that has another key since its restart."""
    return subscription.session_ref if subscription.moved and subscription.session_ref else subscription.session_id


class Hub:
    """All subscriptions of an event loop. Its watch is open as long as there are any."""

    def __init__(self, at: Backend) -> None:
        self._at = at
        self._all: set[Subscription] = set()
        self._by_ref: dict[Ref, set[Subscription]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._unsure: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def subscribed(self, session_id: str) -> AsyncIterator[tuple[Subscription, Answer]]:
        """A subscription, and what is so of its session now. It tells whatever happens after that answer."""
        subscription = Subscription(session_id)
        self._all.add(subscription)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="session-sidecar-watch")
        try:
            answer = await self._ask(subscription)
            if isinstance(answer, Live):
                # What happened between that answer and now was told to nobody.
                answer = await self._ask(subscription)
            yield subscription, answer
        finally:
            self._forget(subscription)

    def _forget(self, subscription: Subscription) -> None:
        self._all.discard(subscription)
        self._place(subscription, None)
        if not self._all:
            for task in filter(None, (self._watching, self._unsure)):
                task.cancel()
            self._watching = self._unsure = None

    def _place(self, subscription: Subscription, ref: Ref | None) -> None:
        """From now on it is about this ref."""
        if subscription.session_ref is not None:
            placed = self._by_ref.get(subscription.session_ref, set())
            placed.discard(subscription)
            if not placed:
                self._by_ref.pop(subscription.session_ref, None)
        subscription.session_ref = ref
        if ref is not None:
            self._by_ref.setdefault(ref, set()).add(subscription)

    async def _ask(self, subscription: Subscription) -> Answer:
        answer: Answer = await self._at.ask("check", _name(subscription)).arun()
        if isinstance(answer, Unreachable):
            self._doubt()
        elif subscription in self._all:
            self._place(subscription, answer.session_ref)
        return answer

    def _doubt(self) -> None:
        if self._unsure is None or self._unsure.done():
            self._unsure = asyncio.create_task(self._look_again(), name="session-sidecar-again")

    async def _look_again(self) -> None:
        await asyncio.sleep(_AGAIN)
        self._unsure = None
        await self._look(self._all)

    async def _look(self, subscriptions: Iterable[Subscription]) -> None:
        """Tells those whose session is over by now."""
        waiting = list(subscriptions)
        for start in range(0, len(waiting), _AT_ONCE):
            part = waiting[start : start + _AT_ONCE]
            answers = await self._at.ask("check_many", map(_name, part)).arun()
            for subscription, answer in zip(part, answers):
                match answer:
                    case Live(session_ref=ref) if subscription in self._all:
                        self._place(subscription, ref)
                    case Unreachable():
                        self._doubt()
                    case Ended() | Unknown():
                        await self._tell_over(subscription)  # Why, is told only of one.

    async def _tell_over(self, subscription: Subscription) -> None:
        match await self._ask(subscription):
            case Ended() as over:
                self._tell_end(subscription, over)
                if subscription.moved:
                    self._doubt()  # What became of that one is not known yet.
            case Unknown() as over:
                subscription.told.put_nowait(over)

    def _tell_end(self, subscription: Subscription, over: Ended) -> None:
        if over.reason is EndReason.ROTATED and over.successor_ref:
            subscription.moved = True
            self._place(subscription, over.successor_ref)
        subscription.told.put_nowait(over)

    async def _watch(self) -> None:
        try:
            async with self._at.asynchronous.watch(whole_tenant=True, initial_state=False) as watch:
                async for event in watch:
                    await self._heard(event)
        except NotPermittedError as error:
            # A listener with `verbs=watch-own`. A watch of ids would have to begin anew with each socket.
            logger.info("the sidecar tells of no whole tenant here, and is asked every %g s: %s", _AGAIN, error)
            while True:
                await asyncio.sleep(_AGAIN)
                await self._look(self._all)

    async def _heard(self, event: events.Event) -> None:
        match event:
            case events.SnapshotEnd() | events.BeginAnew():
                # Of what happened before nobody told.
                await self._look(self._all)
            case events.Ended(session=session, end=end):
                for subscription in list(self._by_ref.get(session.session_ref, ())):
                    self._tell_end(subscription, Ended(session.session_ref, end))
            case events.Warning(session=session) | events.Cleared(session=session):
                for subscription in self._by_ref.get(session.session_ref, ()):
                    subscription.told.put_nowait(event)


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Backend, Hub]] = weakref.WeakKeyDictionary()


def hub(at: Backend) -> Hub:
    """That of the running event loop."""
    loop = asyncio.get_running_loop()
    known = _hubs.get(loop)
    if known is None or known[0] is not at:
        known = _hubs[loop] = (at, Hub(at))
    return known[1]
