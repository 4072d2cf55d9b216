"""The API as Python sees it: messages, stubs and decoded errors.

Nothing is generated ahead: grpcio-tools compiles the .proto files when this module is imported.
"""

import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

# The tests start processes while channels are open. Nothing is shared with them, so gRPC need not prepare for a fork.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import envoy as _program
import grpc

from . import REPOSITORY
from .process import eventually

sys.path[:0] = [str(REPOSITORY / "proto"), str(REPOSITORY / "tests/support/proto")]
# The package that brings Envoy's program has the name that Envoy's messages have.
_program.__path__.append(str(REPOSITORY / "proto/envoy"))
v1, _services = grpc.protos_and_services("sessionsidecar/v1/session_service.proto")
admin_v1, _admin_services = grpc.protos_and_services("sessionsidecar/v1/session_admin_service.proto")
dev, _dev_services = grpc.protos_and_services("sessionsidecar/dev/v1/test_clock_service.proto")
envoy, _envoy_services = grpc.protos_and_services("envoy/service/auth/v3/external_auth.proto")
errors = grpc.protos("google/rpc/errors.proto")

Code = grpc.StatusCode
T = TypeVar("T")

CHANNEL_OPTIONS = {
    # Every client has connections of its own, so that closing one cuts only its own streams.
    "grpc.use_local_subchannel_pool": 1,
    # And sets out again at once after a refused connection.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.enable_http_proxy": 0,
}


class Client:
    """A connection to a sidecar. Each verb is a method of `sessions` or `admin`; the test clock is `advance`."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None, **options: int) -> None:
        every = list((CHANNEL_OPTIONS | options).items())
        self.channel = grpc.secure_channel(target, credentials, every) if credentials else grpc.insecure_channel(target, every)
        self.sessions = _services.SessionServiceStub(self.channel)
        self.admin = _admin_services.SessionAdminServiceStub(self.channel)
        self.envoy = _envoy_services.AuthorizationStub(self.channel)
        self.clock = _dev_services.TestClockServiceStub(self.channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def advance(self, seconds: float) -> None:
        """Moves the test clock of `serve --dev`; returns when all that became due is in the event log."""
        request = dev.AdvanceRequest()
        request.duration.FromNanoseconds(int(seconds * 1e9))
        self.clock.Advance(request, timeout=60)

    def create(self, session_id: str = "", **fields: object) -> v1.CreateResponse:
        """Creates a session."""
        return self.sessions.Create(v1.CreateRequest(session_id=session_id, **fields), timeout=10)

    def end(self, session_id: str, **fields: object) -> v1.EndResponse:
        """Ends a session."""
        return self.sessions.End(v1.EndRequest(session_id=session_id, **fields), timeout=10)

    def watch(self, **fields: object) -> Iterator[v1.WatchExpiryResponse]:
        """Opens a watch of a tenant, or of the `scope` given. It stands when its first message has come."""
        fields.setdefault("scope", v1.WatchScope(whole_tenant=True))
        return self.sessions.WatchExpiry(v1.WatchExpiryRequest(**fields))


def until_available(call: Callable[[], T]) -> T:
    """What it answers. On a busy machine a store may not answer in the 250 ms that it has; then the sidecar says that it cannot know, and is
    asked again."""

    def attempt() -> T | None:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() != Code.UNAVAILABLE or reason(error) != "STORE_UNAVAILABLE":
                raise
            return None

    return eventually(attempt, "it is available")


def error_details(error: grpc.RpcError) -> list:
    """The typed details of an error: ErrorInfo, BadRequest, RetryInfo."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = errors.Status.FromString(value)
            assert status.code == error.code().value[0], "the two statuses of one error differ"
            return [unpacked(detail) for detail in status.details]
    return []


def unpacked(detail: object) -> object:
    """The message inside an Any."""
    message = getattr(errors, detail.TypeName().removeprefix("google.rpc."))()
    assert detail.Unpack(message)
    return message


def reason(error: grpc.RpcError) -> str:
    """The reason in an error's ErrorInfo, if it has one."""
    return next((detail.reason for detail in error_details(error) if isinstance(detail, errors.ErrorInfo)), "")


def violations(error: grpc.RpcError) -> set[str]:
    """The fields that an error's BadRequest names."""
    bad = [detail for detail in error_details(error) if isinstance(detail, errors.BadRequest)]
    return {violation.field for detail in bad for violation in detail.field_violations}
