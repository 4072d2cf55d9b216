"""Calls over gRPC, each recorded with what was asked and what came of it."""

import time
from collections.abc import Callable

import grpc
import grpc.aio

from support.api import CHANNEL_OPTIONS, _services, error_details, errors, v1

from .history import Call

PATIENCE = 2.0  # seconds for each call
OPTIONS = CHANNEL_OPTIONS | {"grpc.max_reconnect_backoff_ms": 400, "grpc.min_reconnect_backoff_ms": 100}


def stubs(targets: list[str]) -> list:
    """A stub for each sidecar, on a connection of its own."""
    return [_services.SessionServiceStub(grpc.aio.insecure_channel(target, list(OPTIONS.items()))) for target in targets]


def span(seconds: float) -> dict:
    """A duration, as a field of a request."""
    return {"seconds": int(seconds), "nanos": int(seconds % 1 * 1e9)}


def word(enum, value: int, prefix: str) -> str:
    """An enum value's name without its prefix; of one that these stubs don't know yet, its number."""
    try:
        name = enum.Name(value).removeprefix(prefix)
    except ValueError:
        return str(value)
    return "" if name == "UNSPECIFIED" else name


def scope(value: int) -> str:
    """Where an answer comes from."""
    return word(v1.KnowledgeScope, value, "KNOWLEDGE_SCOPE_")


def end_reason(value: int) -> str:
    """Why a session ended."""
    return word(v1.EndReason, value, "END_REASON_")


async def ask(sidecars: list, call: Call, request, record: Callable) -> object | None:
    """Makes the call that `call` describes, fills in what came of it and records it. None if it failed."""
    call.sent = time.monotonic()
    answer = None
    try:
        answer = await getattr(sidecars[call.sidecar], call.verb)(request, timeout=PATIENCE)
        call.got = time.monotonic()
        _succeeded(call, answer)
    except grpc.aio.AioRpcError as error:
        call.got = time.monotonic()
        _failed(call, error)
    record(call)
    return answer


def _succeeded(call: Call, answer) -> None:
    whole = call.verb in ("Create", "Check", "Rotate")
    status = answer.session.status if whole else answer.status
    call.scope = scope(status.scope)
    call.state = word(v1.SessionState, status.state, "SESSION_STATE_")
    call.alias = status.alias
    match call.verb:
        case "Rotate":
            # The call named the old ref, which is over; the answer is about the new one.
            call.successor = status.session_ref
            call.end_reason = "ROTATED"
            return
        case "Touch":
            call.counted = answer.counted
        case "Extend":
            call.clamped = answer.clamped_by == v1.LIMIT_ABSOLUTE
        case "Hold":
            call.seconds = answer.granted_ttl.ToNanoseconds() / 1e9
        case "End":
            call.end_reason = end_reason(answer.end.reason)
        case "Check" if answer.session.HasField("end"):
            call.end_reason = end_reason(answer.session.end.reason)
    call.ref = status.session_ref


def _failed(call: Call, error: grpc.aio.AioRpcError) -> None:
    call.code = error.code().name
    for detail in error_details(error):
        if isinstance(detail, errors.ErrorInfo):
            call.reason = detail.reason
            call.ref = detail.metadata.get("session_ref", "")
            if detail.reason == "SESSION_ENDED" and call.ref:
                call.end_reason = detail.metadata.get("reason", "")
