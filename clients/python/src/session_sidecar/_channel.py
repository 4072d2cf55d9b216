"""Connections: to where, with which options, and whose. A channel belongs to one process, and an asyncio one to one event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.message import Message

from ._credentials import HTTPS, CredentialFiles, Credentials
from ._proto import session_admin_service_pb2 as admin_pb
from ._proto import session_service_pb2 as pb

DEFAULT_TARGET = "127.0.0.1:50151"
_SERVICE = "/sessionsidecar.v1.SessionService/"
_ADMIN_SERVICE = "/sessionsidecar.v1.SessionAdminService/"
VERBS: dict[str, tuple[str, type[Message]]] = {
    "Create": (_SERVICE, pb.CreateResponse),
    "Touch": (_SERVICE, pb.TouchResponse),
    "BatchTouch": (_SERVICE, pb.BatchTouchResponse),
    "Check": (_SERVICE, pb.CheckResponse),
    "Extend": (_SERVICE, pb.ExtendResponse),
    "Hold": (_SERVICE, pb.HoldResponse),
    "Release": (_SERVICE, pb.ReleaseResponse),
    "Rotate": (_SERVICE, pb.RotateResponse),
    "End": (_SERVICE, pb.EndResponse),
    "ListSessions": (_ADMIN_SERVICE, admin_pb.ListSessionsResponse),
    "EndSessions": (_ADMIN_SERVICE, admin_pb.EndSessionsResponse),
    "ExplainSession": (_ADMIN_SERVICE, admin_pb.ExplainSessionResponse),
    "ListPolicies": (_ADMIN_SERVICE, admin_pb.ListPoliciesResponse),
    "GetStats": (_ADMIN_SERVICE, admin_pb.GetStatsResponse),
}
_OPTIONS: list[tuple[str, Any]] = [
    # Else channels of one process share connections: a forked child would go on with its parent's, and a watch whose connection
    # is silent would get the same one again.
    ("grpc.use_local_subchannel_pool", 1),
    # The sidecar is beside us: http_proxy is not meant, and it is back soon after a restart.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# For a `unix:` target gRPC makes an :authority out of the path, which is not a valid one. With TLS it is the name that is verified.
_CLEAR_OPTIONS = [*_OPTIONS, ("grpc.default_authority", "localhost")]


def _target(given: str | None) -> str:
    target = given or os.environ.get("SESSION_SIDECAR_TARGET") or DEFAULT_TARGET
    for scheme in ("http://", "tcp://"):
        target = target.removeprefix(scheme)
    return target.rstrip("/") if not target.startswith("unix:") else target


class Endpoint:
    """Where a client connects to, and as whom."""

    def __init__(self, target: str | None, **files: Unpack[CredentialFiles]) -> None:
        self.target = _target(target)
        """What is given, or SESSION_SIDECAR_TARGET, or the default: in gRPC's words, or https://HOST:PORT."""
        self._credentials = Credentials(self.target, **files)
        self.metadata = self._credentials.metadata

    def open(self) -> grpc.Channel:
        """A channel for synchronous calls."""
        if credentials := self._credentials.for_channel():
            return grpc.secure_channel(self.target.removeprefix(HTTPS), credentials, options=_OPTIONS)
        return grpc.insecure_channel(self.target, options=_CLEAR_OPTIONS)

    def open_aio(self) -> grpc.aio.Channel:
        """A channel for the running event loop."""
        if credentials := self._credentials.for_channel():
            return grpc.aio.secure_channel(self.target.removeprefix(HTTPS), credentials, options=_OPTIONS)
        return grpc.aio.insecure_channel(self.target, options=_CLEAR_OPTIONS)

    def watch(self, channel: Any, request: pb.WatchExpiryRequest) -> Any:
        """Opens a stream over either kind of channel."""
        stub = channel.unary_stream(_SERVICE + "WatchExpiry", request_serializer=_serialized, response_deserializer=pb.WatchExpiryResponse.FromString)
        return stub(request, metadata=self.metadata())


def _serialized(request: Message) -> bytes:
    return request.SerializeToString()


def _stubs(channel: Any) -> dict[str, Any]:
    return {
        verb: channel.unary_unary(service + verb, request_serializer=_serialized, response_deserializer=answer.FromString)
        for verb, (service, answer) in VERBS.items()
    }


AnyChannel = TypeVar("AnyChannel")
_Kept: TypeAlias = tuple[AnyChannel, dict[str, Any]]

# Channels of a parent process. They must be neither used nor closed here, and closing is what forgetting them would do.
_abandoned: list[object] = []
_connections: weakref.WeakSet[Connection | AioConnection] = weakref.WeakSet()


class _Lazy(Generic[AnyChannel]):
    """A channel that is opened at its first use."""

    def __init__(self, opened: Callable[[], AnyChannel]) -> None:
        self._opened = opened
        self._kept: _Kept[AnyChannel] | None = None

    def stub(self, verb: str) -> Any:
        """The call of a verb."""
        if self._kept is None:
            channel = self._opened()
            self._kept = (channel, _stubs(channel))
        return self._kept[1][verb]

    def take(self) -> AnyChannel | None:
        """The channel if there is one, for closing; the next use opens another."""
        kept, self._kept = self._kept, None
        return kept[0] if kept else None


class Connection:
    """The channel of a synchronous client: one for each process, opened at its first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._after_fork()
        _connections.add(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._lazy: _Lazy[grpc.Channel] = _Lazy(self.endpoint.open)

    def abandon(self) -> None:
        """Begins anew in a child process."""
        _abandoned.append(self._lazy)
        self._after_fork()

    def stub(self, verb: str) -> Any:
        """The call of a verb."""
        with self._lock:
            return self._lazy.stub(verb)

    def close(self) -> None:
        """Closes the channel. A later call opens another."""
        with self._lock:
            channel = self._lazy.take()
        if channel:
            channel.close()


class AioConnection:
    """The channels of an asyncio client: one for each event loop, opened at its first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._after_fork()
        _connections.add(self)

    def _after_fork(self) -> None:
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Lazy[grpc.aio.Channel]] = weakref.WeakKeyDictionary()

    def abandon(self) -> None:
        """Begins anew in a child process."""
        _abandoned.append(list(self._loops.values()))
        self._after_fork()

    def stub(self, verb: str) -> Any:
        """The call of a verb on the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            self._loops[loop] = _Lazy(self.endpoint.open_aio)
        return self._loops[loop].stub(verb)

    async def close(self) -> None:
        """Closes the channel of the running loop. A later call opens another."""
        lazy = self._loops.pop(asyncio.get_running_loop(), None)
        if lazy and (channel := lazy.take()):
            await channel.close()


def _abandon_all() -> None:
    for connection in list(_connections):
        connection.abandon()


os.register_at_fork(after_in_child=_abandon_all)
