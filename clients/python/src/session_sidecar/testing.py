"""For tests against a real sidecar in `serve --dev`, or a fake one: its clock goes when you say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from . import _wire as wire
from ._client import AsyncSidecar, Sidecar
from ._proto import test_clock_service_pb2 as pb
from .fake import FakeAsyncSidecar, FakeSidecar


def advance(sidecar: Sidecar | AsyncSidecar, duration: timedelta) -> datetime:
    """Moves the sidecar's clock forward and answers its new time. All that became due is then in the event log."""
    if isinstance(sidecar, FakeSidecar | FakeAsyncSidecar):
        return sidecar.advance(duration)
    request = pb.AdvanceRequest(duration=wire.span("duration", duration))
    endpoint = sidecar._endpoint
    with endpoint.open() as channel:
        stub = channel.unary_unary(
            "/sessionsidecar.dev.v1.TestClockService/Advance",
            request_serializer=pb.AdvanceRequest.SerializeToString,
            response_deserializer=pb.AdvanceResponse.FromString,
        )
        answer: pb.AdvanceResponse = stub(request, timeout=60, metadata=endpoint.metadata())
    return answer.server_time.ToDatetime(UTC)
