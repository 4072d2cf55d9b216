"""What comes from outside, bounded. A refusal names the field and the limit, never the value: it may be a session id."""

from __future__ import annotations

import copy
import hashlib
import re
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from .. import _wire as wire
from .._errors import Failure
from .._proto import session_service_pb2 as pb
from .._types import Actor, EndReason
from ._model import Request

LONGEST = timedelta(days=3653)


class Failed(Exception):
    """What the wire would have failed with."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def invalid(field: str, problem: str) -> Failed:
    """A field that is out of bounds."""
    return Failed(Failure("INVALID_ARGUMENT", f"{field}: {problem}", fields=(field,)))


def visible(field: str, text: str, shortest: int, longest: int) -> str:
    """Text of visible ASCII."""
    if not shortest <= len(text.encode()) <= longest:
        raise invalid(field, f"is {len(text.encode())} bytes long; {shortest} to {longest} are allowed")
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise invalid(field, "has a byte that is not visible ASCII (0x21 to 0x7e)")
    return text


def session_id(field: str, text: str) -> str:
    """An id. How short it may be is the policy's affair."""
    if not text:
        raise invalid(field, "is required: the session's id, 16 to 256 bytes of visible ASCII")
    return visible(field, text, 1, 256)


def is_ref(text: str) -> bool:
    """Whether it could be a ref."""
    # The last character has four bits of the sixteen bytes, and two that must be 0.
    return bool(re.fullmatch(r"[A-Za-z0-9_-]{21}[AQgw]", text))


def session_ref(field: str, text: str) -> str:
    """A ref."""
    if not is_ref(text):
        raise invalid(field, "is not a session_ref: it must be 22 characters of base64url")
    return text


def text(field: str, text: str, longest: int) -> str:
    """Text for people: bounded, without control characters."""
    if len(text.encode()) > longest:
        raise invalid(field, f"is {len(text.encode())} bytes long; at most {longest} are allowed")
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise invalid(field, "has a control character; remove it")
    return text


def labels(field: str, message: Any) -> dict[str, str]:
    """Up to eight labels."""
    labels = dict(sorted(message.items()))
    if len(labels) > 8:
        raise invalid(field, f"has {len(labels)} labels; at most 8 are allowed")
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z0-9_./-]{1,63}", key):
            raise invalid(field, "has a key that is not 1 to 63 bytes of a-z, 0-9, `_`, `-`, `.`, `/`")
        text(f"{field}.{key}", value, 128)
    return labels


def span(
    message: Message, field: str, shortest: timedelta = timedelta(), longest: timedelta = LONGEST, *, over: bool = False
) -> timedelta | None:
    """A duration within bounds, `over` the shortest one or equal to it; None if it is unset. What is shorter than a microsecond is
    taken for one."""
    if not message.HasField(field):
        return None
    given: Duration = getattr(message, field)
    nanos = given.seconds * 10**9 + given.nanos
    least, most = (each // timedelta(microseconds=1) * 1000 for each in (shortest, longest))
    if not 0 <= given.nanos < 10**9 or not least + over <= nanos <= most:
        raise invalid(field, f"must be a duration from {'over ' * over}{shortest} to {longest}")
    return given.ToTimedelta() or timedelta.resolution * over


def known(field: str, enum: EnumTypeWrapper, number: int) -> int:
    """A number of an enum."""
    if number not in enum.values():
        raise invalid(field, f"has no value with the number {number}")
    return number


def request_id(key: str, content: bytes) -> Request | None:
    """A request id, if there is one. Only hashes are kept: what a Rotate says has an id in it."""
    visible("request_id", key, 0, 128)
    return Request(hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(content).hexdigest()) if key else None


def content(verb: str, message: Message, *but: str) -> bytes:
    """All that a request says but these fields."""
    rest = copy.deepcopy(message)
    for field in but:
        rest.ClearField(field)
    return verb.encode() + rest.SerializeToString(deterministic=True)


def hints(message: pb.TouchHints) -> pb.TouchHints:
    """What is known of the request behind a touch."""
    known("hints.page_visibility", pb.PageVisibility, message.page_visibility)
    longest = {"path": 2048, "host": 255, "method": 32}
    for field in ("path", "host", "method", "sec_fetch_user", "sec_fetch_mode", "sec_fetch_dest", "sec_purpose"):
        value = getattr(message, field)
        if len(value.encode()) > longest.get(field, 64):
            raise invalid(f"hints.{field}", f"is {len(value.encode())} bytes long; at most {longest.get(field, 64)} are allowed")
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise invalid(f"hints.{field}", "has a byte that is not visible ASCII or a space (0x20 to 0x7e)")
    return message


def hold_id(text: str) -> str:
    """The id of a hold."""
    if not text:
        raise invalid("hold_id", "is required: the owner's own id of the hold, 1 to 64 bytes of visible ASCII")
    return visible("hold_id", text, 1, 64)


def within(field: str, count: int, most: int) -> None:
    """Some items, and not too many."""
    if not 1 <= count <= most:
        raise invalid(field, f"has {count} items; 1 to {most} are allowed")


def end_words(request: Any, usual: EndReason) -> tuple[EndReason, Actor]:
    """The reason of an end, `usual` if it is not said, and the actor."""
    reason = wire.word(EndReason, pb.EndReason, "END_REASON", known("reason", pb.EndReason, request.reason)) or usual
    if reason not in (EndReason.LOGOUT, EndReason.REVOKED):
        raise invalid("reason", "must be END_REASON_LOGOUT or END_REASON_REVOKED: nobody can command the others")
    actor = wire.word(Actor, pb.Actor, "ACTOR", known("actor", pb.Actor, request.actor))
    return reason, actor or (Actor.USER if reason is EndReason.LOGOUT and usual is EndReason.LOGOUT else Actor.ADMIN)
