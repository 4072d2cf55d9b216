"""The sidecar that is asked, from synchronous and from asynchronous code; and courses of steps that both can go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from django.core.signals import setting_changed

from session_sidecar import AsyncSidecar, Fail, Sidecar, SidecarAdmin

from .conf import settings

if TYPE_CHECKING:
    from session_sidecar.fake import FakeSidecar

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


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """One sidecar. It connects at its first call, each process and event loop for itself."""

    sidecar: Sidecar
    asynchronous: AsyncSidecar
    admin: SidecarAdmin | None = None

    def ask(self, verb: str, *args: object, **kwargs: object) -> Step[Any]:
        """A call."""
        return Step(lambda: getattr(self.sidecar, verb)(*args, **kwargs), lambda: getattr(self.asynchronous, verb)(*args, **kwargs))


def fake() -> FakeSidecar:
    """A sidecar in this process, with the limits that the settings name."""
    from session_sidecar.fake import FakeSidecar, PolicyKeys

    told = settings()
    limits: PolicyKeys = {}
    if told.expire_after is not None and told.policy_file is None:
        limits["idle_timeout"] = timedelta(seconds=told.expire_after)
        if told.warn_after is not None:
            limits["warn_before"] = [timedelta(seconds=told.expire_after - told.warn_after)]
    return FakeSidecar(policy_file=told.policy_file, tenant=told.tenant, fail=Fail(told.fail), **limits)


def of_fake(sidecar: FakeSidecar) -> Backend:
    """It in the place of a real one."""
    return Backend(sidecar, sidecar.asynchronous(), sidecar.admin())


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
        return of_fake(fake())
    sidecar = Sidecar(told.target, tenant=told.tenant, fail=Fail(told.fail), deadline=told.timeout, **told.files)
    asynchronous = AsyncSidecar(told.target, tenant=told.tenant, fail=Fail(told.fail), deadline=told.timeout, **told.files)
    admin = SidecarAdmin(told.admin_target, tenant=told.tenant, **told.admin_files) if told.admin_target else None
    return Backend(sidecar, asynchronous, admin)


def _changed(*, setting: str, **_: object) -> None:
    if setting == "SESSION_SIDECAR":
        _configured.cache_clear()


setting_changed.connect(_changed)
