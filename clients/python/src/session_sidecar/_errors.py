"""What can go wrong, and how an error of the wire becomes one of these. None of them ever holds a session id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ._proto import errors_pb2
from ._types import Ended, Ref, Unknown, Unreachable


class SidecarError(Exception):
    """Every error of this package."""


class SessionEndedError(SidecarError):
    """A command on a session that has ended. `answer` tells why, who and when."""

    def __init__(self, answer: Ended) -> None:
        super().__init__(f"session {answer.session_ref} has ended: {answer.reason or 'for a reason not told'}")
        self.answer = answer


class SessionUnknownError(SidecarError):
    """A command on a session that is not known."""

    def __init__(self, answer: Unknown) -> None:
        super().__init__(f"session {answer.session_ref} is not known")
        self.answer = answer


class SidecarUnreachableError(SidecarError):
    """A command while the sidecar cannot be reached in time, or cannot know. It may have been carried out: repeating it is safe,
    with the same `request_id` where it takes one."""

    def __init__(self, answer: Unreachable) -> None:
        super().__init__(f"session-sidecar does not answer: {answer.code}: {answer.message}")
        self.answer = answer


class RefusedError(SidecarError):
    """A command that the policy or the state refuses; `reason` is one word, such as SESSION_EXISTS, EXTENSION_LIMIT, HOLD_BUDGET,
    SUBJECT_CAP, REQUEST_ID_REUSED, READ_ONLY_SESSION."""

    def __init__(self, code: str, message: str, reason: str, metadata: Mapping[str, str]) -> None:
        super().__init__(f"{reason or code}: {message}")
        self.code = code
        self.reason = reason
        self.session_ref = Ref(metadata["session_ref"]) if metadata.get("session_ref") else None
        self.metadata = dict(metadata)


class InvalidRequestError(SidecarError, ValueError):
    """A request that can never succeed: a mistake in the program, or an id that somebody sent and that cannot be one. `fields` are
    named as in the .proto."""

    def __init__(self, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class NotPermittedError(SidecarError):
    """This listener does not serve this verb or tenant to this caller, or is none of session-sidecar: a mistake in the
    configuration."""

    def __init__(self, code: str, message: str, reason: str = "") -> None:
        super().__init__(f"{reason or code}: {message}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the wire, decoded: of a call, or of one item of a batch."""

    code: str
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    retry_after: timedelta | None = None

    @property
    def lost_connection(self) -> bool:
        """Whether it was the connection that failed, not the sidecar that said so."""
        return self.code == "UNAVAILABLE" and not self.reason


# A sidecar that knows the caller and the request answers with one of these; all others mean that it cannot be known.
_FINAL = {"FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS", "OUT_OF_RANGE"}


def decode(error: grpc.RpcError) -> Failure:
    """What an error of grpcio tells."""
    status = errors_pb2.Status()
    trailer: Any = error.trailing_metadata() or ()
    for key, value in trailer:
        if key == "grpc-status-details-bin":
            try:
                status = errors_pb2.Status.FromString(value)
            except DecodeError:
                pass
    info, bad, retry = errors_pb2.ErrorInfo(), errors_pb2.BadRequest(), errors_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, bad, retry):
            if detail.type_url.rpartition(".")[2] == message.DESCRIPTOR.name:
                message.ParseFromString(detail.value)
    return Failure(
        code=error.code().name,
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=tuple(violation.field for violation in bad.field_violations),
        retry_after=retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None,
    )


def unreachable(failure: Failure, allowed: bool) -> Unreachable | None:
    """The answer that nobody knows; None if the failure says something."""
    refused = failure.code == "RESOURCE_EXHAUSTED" and failure.reason
    if failure.code in _FINAL or refused or isinstance(to_error(failure), InvalidRequestError | NotPermittedError):
        return None
    return Unreachable(allowed, failure.code, failure.message, failure.retry_after)


def to_error(failure: Failure) -> SidecarError:
    """The exception for a failure that is about the caller or is a refusal."""
    match failure.code:
        case "INVALID_ARGUMENT":
            return InvalidRequestError(failure.message, failure.fields)
        case "PERMISSION_DENIED" | "UNAUTHENTICATED" | "UNIMPLEMENTED":
            return NotPermittedError(failure.code, failure.message, failure.reason)
    return RefusedError(failure.code, failure.message, failure.reason, failure.metadata)
