"""The two clients. They hold a connection and carry out the calls of `_calls`."""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack

import grpc

from . import _calls as calls
from . import _wire as wire
from ._calls import Call, Settings
from ._channel import AioConnection, Connection, Endpoint
from ._credentials import CredentialFiles
from ._errors import Failure, InvalidRequestError, decode
from ._holding import AsyncHolding, Holding
from ._proto import session_service_pb2 as pb
from ._types import Ended, EventKind, Fail, HoldKind, Ref, Unknown
from ._watch import AsyncWatch, Watch, WireStream

logger = logging.getLogger("session_sidecar")

P = ParamSpec("P")
Result = TypeVar("Result")

DEADLINE = timedelta(milliseconds=250)
HEARTBEAT = timedelta(seconds=15)
HOLD_TTL = timedelta(minutes=1)
OnEnd = Callable[[Ended | Unknown], object]


class _Attempts:
    """How often to try one call, and how long."""

    def __init__(self, call: Call[Any], deadline: timedelta, away: bool) -> None:
        self._until = time.monotonic() + deadline.total_seconds()
        # A connection that broke may be taken for whole for a moment more. Of a sidecar that is away nobody expects an answer.
        self._pauses = [0.005, 0.02] if call.again and not away else []

    def left(self) -> float:
        """Seconds for the next attempt."""
        return max(self._until - time.monotonic(), 0.001)

    def again(self, failure: Failure) -> float | None:
        """After how many seconds to try again, if the connection was lost under a call that may be made twice."""
        if not (failure.lost_connection and self._pauses and self.left() > self._pauses[0]):
            return None
        return self._pauses.pop(0)


class _Outage:
    """Says once that the sidecar is away, and once that it is back."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.away = False

    def heard(self, failure: Failure | None) -> None:
        """A call was answered, or failed. Refusals are answers."""
        away = failure is not None and failure.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        if away == self.away:
            return
        self.away = away
        if away and failure:
            logger.warning("session-sidecar at %s does not answer: %s: %s", self._target, failure.code, failure.message)
        else:
            logger.warning("session-sidecar at %s answers again", self._target)


class _Client:
    """What all clients have."""

    def __init__(
        self,
        target: str | None,
        *,
        tenant: str,
        fail: Fail | Literal["closed", "open"],
        deadline: timedelta,
        **files: Unpack[CredentialFiles],
    ) -> None:
        self._endpoint = Endpoint(target, **files)
        self._settings = Settings(wire.text("tenant", tenant), Fail(fail), deadline)
        self._outage = _Outage(self.target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, tenant={self._settings.tenant!r})"

    @property
    def target(self) -> str:
        """Where it connects to: in gRPC's words, or https://HOST:PORT."""
        return self._endpoint.target


class SyncClient(_Client):
    """A client for threads."""

    def __init__(
        self,
        target: str | None = None,
        *,
        tenant: str = "",
        fail: Fail | Literal["closed", "open"] = Fail.CLOSED,
        deadline: timedelta = DEADLINE,
        **files: Unpack[CredentialFiles],
    ) -> None:
        super().__init__(target, tenant=tenant, fail=fail, deadline=deadline, **files)
        self._connection = Connection(self._endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. A later call opens another."""
        self._connection.close()

    def run(self, call: Call[Result]) -> Result:
        """Carries out one call."""
        attempts = _Attempts(call, self._settings.deadline, self._outage.away)
        while True:
            try:
                message = self._connection.stub(call.verb)(call.request, timeout=attempts.left(), metadata=self._endpoint.metadata())
            except grpc.RpcError as error:
                failure = decode(error)
                if (pause := attempts.again(failure)) is not None:
                    time.sleep(pause)
                    continue
                self._outage.heard(failure)
                return call.failed(failure)
            self._outage.heard(None)
            return call.answered(message)


class AsyncClient(_Client):
    """A client for asyncio."""

    def __init__(
        self,
        target: str | None = None,
        *,
        tenant: str = "",
        fail: Fail | Literal["closed", "open"] = Fail.CLOSED,
        deadline: timedelta = DEADLINE,
        **files: Unpack[CredentialFiles],
    ) -> None:
        super().__init__(target, tenant=tenant, fail=fail, deadline=deadline, **files)
        self._connection = AioConnection(self._endpoint)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection of the running event loop. A later call opens another."""
        await self._connection.close()

    async def run(self, call: Call[Result]) -> Result:
        """Carries out one call."""
        attempts = _Attempts(call, self._settings.deadline, self._outage.away)
        while True:
            try:
                message = await self._connection.stub(call.verb)(call.request, timeout=attempts.left(), metadata=self._endpoint.metadata())
            except grpc.RpcError as error:
                failure = decode(error)
                if (pause := attempts.again(failure)) is not None:
                    await asyncio.sleep(pause)
                    continue
                self._outage.heard(failure)
                return call.failed(failure)
            self._outage.heard(None)
            return call.answered(message)


class _Sessions(_Client):
    """What the clients of SessionService have beside their verbs."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, tenant={self._settings.tenant!r}, fail={self._settings.fail.value!r})"

    @property
    def fails_open(self) -> bool:
        """Whether `touch` and `check` allow while nobody knows."""
        return self._settings.fail is Fail.OPEN

    def with_options(
        self,
        *,
        tenant: str | None = None,
        fail: Fail | Literal["closed", "open"] | None = None,
        deadline: timedelta | None = None,
    ) -> Self:
        """The same client, over the same connection, with other settings."""
        changed = copy.copy(self)
        changed._settings = replace(
            self._settings,
            tenant=self._settings.tenant if tenant is None else wire.text("tenant", tenant),
            fail=self._settings.fail if fail is None else Fail(fail),
            deadline=deadline or self._settings.deadline,
        )
        return changed

    def _watch_request(
        self,
        sessions: Iterable[str | Ref],
        subject: str | None,
        whole_tenant: bool,
        everything: bool,
        kinds: Iterable[EventKind],
        initial_state: bool,
        heartbeat_interval: timedelta,
        resume_token: str,
    ) -> pb.WatchExpiryRequest:
        names = [wire.session_name(each) for each in sessions]
        if sum((bool(names), subject is not None, whole_tenant, everything)) != 1:
            raise InvalidRequestError("scope: give exactly one of sessions, subject, whole_tenant, everything", ("scope",))
        scope = pb.WatchScope(tenant="" if everything else self._settings.tenant)
        if names:
            scope.sessions.names.extend(names)
        elif subject is not None:
            scope.subject = wire.text("subject", subject)
        elif whole_tenant:
            scope.whole_tenant = True
        else:
            scope.everything = True
        return pb.WatchExpiryRequest(
            scope=scope,
            kinds=[wire.number(pb.EventKind, "EVENT_KIND", kind) for kind in kinds],
            resume_token=wire.text("resume_token", resume_token),
            heartbeat_interval=wire.span("heartbeat_interval", heartbeat_interval),
            include_initial_state=initial_state and not resume_token,
        )


def verb(build: Callable[Concatenate[Settings, P], Call[Result]]) -> Callable[Concatenate[SyncClient, P], Result]:
    @wraps(build)
    def carried_out(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return self.run(build(self._settings, *args, **kwargs))

    return carried_out


def async_verb(
    build: Callable[Concatenate[Settings, P], Call[Result]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Result]]:
    """The method of an asyncio client that carries out such a call."""

    @wraps(build)
    async def carried_out(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return await self.run(build(self._settings, *args, **kwargs))

    return carried_out


class Sidecar(SyncClient, _Sessions):
    """A client of the sidecar at `target` (default: SESSION_SIDECAR_TARGET, else 127.0.0.1:50151), for threads and prefork servers:
    it connects at its first call, each process for itself. Make one, at import, share it, and make no call before a fork.
    `files` are those of CredentialFiles: with https://HOST:PORT certificates, and a token."""

    _holding: type[Holding] = Holding

    create = verb(calls.create)
    touch = verb(calls.touch)
    touch_many = verb(calls.touch_many)
    check = verb(calls.check)
    check_many = verb(calls.check_many)
    extend = verb(calls.extend)
    hold = verb(calls.hold)
    release = verb(calls.release)
    rotate = verb(calls.rotate)
    end = verb(calls.end)

    def holding(
        self,
        session_id: str,
        *,
        purpose: str = "",
        ttl: timedelta = HOLD_TTL,
        kind: HoldKind = HoldKind.WORK,
        hold_id: str | None = None,
        on_end: OnEnd | None = None,
    ) -> Holding:
        """`with sidecar.holding(session_id, purpose="report") as hold:` keeps the session alive through the block: a thread renews
        at a third of the granted TTL. If the session ends meanwhile, `hold.ended` tells, `hold.raise_if_ended()` raises, and
        `on_end` is called in that thread. Entering raises what `hold` raises; an unreachable sidecar does not matter with
        `fail="open"`."""
        return self._holding(self, session_id, hold_id or secrets.token_hex(8), ttl, kind, purpose, on_end)

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
    ) -> Watch:
        """Events of sessions (by id or Ref), of a subject, of the tenant, or of everything, for ever: it reconnects and resumes by
        itself, and tells BeginAnew where that cannot be without a gap. Raises NotPermittedError and InvalidRequestError only."""
        request = self._watch_request(
            sessions, subject, whole_tenant, everything, kinds, initial_state, heartbeat_interval, resume_token
        )
        endpoint = self._endpoint  # Not self: the watch may outlive it.
        return Watch(request, lambda course: WireStream(endpoint, course))


class AsyncSidecar(AsyncClient, _Sessions):
    """A client of the sidecar at `target` (default: SESSION_SIDECAR_TARGET, else 127.0.0.1:50151), for asyncio: it connects at its
    first call, each event loop for itself. Make one, at import, and share it; use it only after a fork, not before.
    `files` are those of CredentialFiles: with https://HOST:PORT certificates, and a token."""

    _holding: type[AsyncHolding] = AsyncHolding

    create = async_verb(calls.create)
    touch = async_verb(calls.touch)
    touch_many = async_verb(calls.touch_many)
    check = async_verb(calls.check)
    check_many = async_verb(calls.check_many)
    extend = async_verb(calls.extend)
    hold = async_verb(calls.hold)
    release = async_verb(calls.release)
    rotate = async_verb(calls.rotate)
    end = async_verb(calls.end)

    def holding(
        self,
        session_id: str,
        *,
        purpose: str = "",
        ttl: timedelta = HOLD_TTL,
        kind: HoldKind = HoldKind.WORK,
        hold_id: str | None = None,
        on_end: OnEnd | None = None,
    ) -> AsyncHolding:
        """`async with sidecar.holding(session_id, purpose="report") as hold:` keeps the session alive through the block: a task
        renews at a third of the granted TTL. If the session ends meanwhile, `hold.ended` tells, `hold.raise_if_ended()` raises,
        and `on_end` is called. Entering raises what `hold` raises; an unreachable sidecar does not matter with `fail="open"`."""
        return self._holding(self, session_id, hold_id or secrets.token_hex(8), ttl, kind, purpose, on_end)

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
    ) -> AsyncWatch:
        """Events of sessions (by id or Ref), of a subject, of the tenant, or of everything, for ever: it reconnects and resumes by
        itself, and tells BeginAnew where that cannot be without a gap. Raises NotPermittedError and InvalidRequestError only."""
        request = self._watch_request(
            sessions, subject, whole_tenant, everything, kinds, initial_state, heartbeat_interval, resume_token
        )
        return self._open_watch(request)

    def _open_watch(self, request: pb.WatchExpiryRequest) -> AsyncWatch:
        return AsyncWatch(self._endpoint, request)
