"""The sidecar that is asked, from synchronous and from asynchronous code; and courses of steps that both can go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar, cast

from django.core.signals import setting_changed

from session_sidecar import AsyncSidecar, Fail, Sidecar, events

from .conf import settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """Something that takes time, in both ways of doing it."""

    run: Callable[[], T]
    arun: Callable[[], Awaitable[T]]


Course: TypeAlias = Generator[Step[Any], Any, T]
"""What is to be done, step by step: said once, gone by `run` in a thread and by `arun` in an event loop."""


def run(course: Course[T]) -> T:
    """Goes a course, blocking."""
    try:
        step = next(course)
        while True:
            try:
                value = step.run()
            except Exception as error:
                step = course.throw(error)
            else:
                step = course.send(value)
    except StopIteration as end:
        return cast(T, end.value)


async def arun(course: Course[T]) -> T:
    """Goes a course in the running event loop."""
    try:
        step = next(course)
        while True:
            try:
                value = await step.arun()
            except Exception as error:
                step = course.throw(error)
            else:
                step = course.send(value)
    except StopIteration as end:
        return cast(T, end.value)


class Backend:
    """One sidecar. It connects at its first call, each process and event loop for itself."""

    def __init__(self, sidecar: Sidecar, asynchronous: AsyncSidecar | None) -> None:
        self.sidecar = sidecar
        self.asynchronous = asynchronous

    def ask(self, verb: str, *args: object, **kwargs: object) -> Step[Any]:
        """A call."""

        def now() -> Any:
            return getattr(self.sidecar, verb)(*args, **kwargs)

        async def later() -> Any:
            # The fake answers at once.
            return await getattr(self.asynchronous, verb)(*args, **kwargs) if self.asynchronous else now()

        return Step(now, later)

    async def watch(self, **scope: Any) -> AsyncGenerator[events.Event, None]:
        """The events of a watch, in the running event loop."""
        if self.asynchronous:
            async with self.asynchronous.watch(**scope) as told:
                async for event in told:
                    yield event
            return
        with self.sidecar.watch(**scope) as blocking:
            while (happened := await asyncio.to_thread(_next, blocking)) is not None:
                yield happened


def _next(watch: Iterator[events.Event]) -> events.Event | None:
    return next(watch, None)


# Set by the pytest fixture, for as long as a test runs.
_installed: Backend | None = None


def install(backend: Backend | None) -> None:
    """Has this one asked in place of the one that the settings name; None: no longer."""
    global _installed
    _installed = backend


def backend() -> Backend | None:
    """The sidecar to ask; None if nothing is judged."""
    return _installed or _configured()


@lru_cache(maxsize=1)
def _configured() -> Backend | None:
    told = settings()
    if told.backend == "off":
        return None
    if told.backend == "fake":
        from session_sidecar.fake import FakeSidecar

        return Backend(cast(Sidecar, FakeSidecar()), None)
    fail = Fail(told.fail)
    sidecar = Sidecar(told.target, tenant=told.tenant, fail=fail, deadline=told.timeout)
    asynchronous = AsyncSidecar(told.target, tenant=told.tenant, fail=fail, deadline=told.timeout)
    return Backend(sidecar, asynchronous)


def _changed(*, setting: str, **_: object) -> None:
    if setting == "SESSION_SIDECAR":
        _configured.cache_clear()


setting_changed.connect(_changed)
