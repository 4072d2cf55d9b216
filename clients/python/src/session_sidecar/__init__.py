"""The client of session-sidecar.

    from session_sidecar import Sidecar

    sidecar = Sidecar()
    created = sidecar.create(subject="ada")
    answer = sidecar.touch(created.session_id)
    if not answer.allowed: ...

`touch` and `check` answer Live, Ended, Unknown or Unreachable; the other verbs answer, or raise a SidecarError.
"""

from . import admin, events
from ._admin import AsyncSidecarAdmin, SidecarAdmin
from ._client import AsyncSidecar, Sidecar
from ._credentials import CredentialFiles
from ._errors import (
    InvalidRequestError,
    NotPermittedError,
    RefusedError,
    SessionEndedError,
    SessionUnknownError,
    SidecarError,
    SidecarUnreachableError,
)
from ._holding import AsyncHolding, Holding
from ._types import (
    Activity,
    Actor,
    Answer,
    ClearedCause,
    Created,
    End,
    EndAnswer,
    Ended,
    EndReason,
    EventKind,
    Extended,
    Fail,
    Held,
    Hints,
    HoldClamp,
    HoldKind,
    KnowledgeScope,
    Limit,
    Live,
    PageVisibility,
    Ref,
    Released,
    Rotated,
    Session,
    SessionHold,
    SessionState,
    Status,
    Touch,
    TouchAnswer,
    Touched,
    TouchResult,
    Unknown,
    Unreachable,
)
from ._watch import AsyncWatch, Watch

__all__ = [
    "Activity",
    "Actor",
    "Answer",
    "AsyncHolding",
    "AsyncSidecar",
    "AsyncSidecarAdmin",
    "AsyncWatch",
    "ClearedCause",
    "Created",
    "CredentialFiles",
    "End",
    "EndAnswer",
    "EndReason",
    "Ended",
    "EventKind",
    "Extended",
    "Fail",
    "Held",
    "Hints",
    "HoldClamp",
    "HoldKind",
    "Holding",
    "InvalidRequestError",
    "KnowledgeScope",
    "Limit",
    "Live",
    "NotPermittedError",
    "PageVisibility",
    "Ref",
    "RefusedError",
    "Released",
    "Rotated",
    "Session",
    "SessionEndedError",
    "SessionHold",
    "SessionState",
    "SessionUnknownError",
    "Sidecar",
    "SidecarAdmin",
    "SidecarError",
    "SidecarUnreachableError",
    "Status",
    "Touch",
    "TouchAnswer",
    "TouchResult",
    "Touched",
    "Unknown",
    "Unreachable",
    "Watch",
    "admin",
    "events",
]
