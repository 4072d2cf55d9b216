"""What a watch is told: the state first if it was asked for, then what the log has."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .. import _wire as wire
from .._errors import Failure
from .._proto import session_service_pb2 as pb
from .._types import EventKind
from . import _answers as answers
from . import _requests as read
from ._model import Record

if TYPE_CHECKING:
    from ._server import Server

MOST_WATCHED = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to a session, as watchers are told."""

    ref: str
    tenant: str
    subject: str
    kind: str
    message: pb.WatchExpiryResponse
    successor: str = ""


def follow(log: Iterable[Entry], refs: set[str]) -> None:
    """Adds those that went on in the place of these."""
    for entry in log:
        if entry.successor and entry.ref in refs:
            refs.add(entry.successor)


def _kinds(numbers: Iterable[int]) -> set[str]:
    for place, number in enumerate(numbers):
        if not read.known(f"kinds[{place}]", pb.EventKind, number):
            raise read.invalid(f"kinds[{place}]", "is unspecified; leave `kinds` empty to get all")
    return {str(wire.word(EventKind, pb.EventKind, "EVENT_KIND", number)) for number in numbers}


class Feed:
    """One watch: the state first if it was asked for, then what happens."""

    def __init__(self, server: Server, request: pb.WatchExpiryRequest) -> None:
        self._server = server
        # The ids by which sessions were named.
        self._named: dict[str, str] = {}
        self._scope = self._read_scope(request.scope)
        self._kinds = _kinds(request.kinds) or {"WARNING", "CLEARED", "ENDED"}
        read.span(request, "heartbeat_interval", timedelta(seconds=1), timedelta(minutes=5))
        # The sessions that were named, and those that went on in their place.
        self._refs = set(self._named)
        follow(server.log, self._refs)
        self._place = len(server.log)
        self._ready: deque[pb.WatchExpiryResponse] = deque()
        if request.resume_token:
            if request.include_initial_state:
                raise read.invalid("include_initial_state", "must be false with a resume_token: resume, or begin anew")
            self._place = self._opened(request.resume_token)
            return
        if request.include_initial_state:
            self._ready.extend(answers.snapshot(record, server.now) for record in self._in_scope())
        end = pb.SnapshotEnd(snapshot_count=len(self._ready))
        self._ready.append(pb.WatchExpiryResponse(emit_time=server.now, snapshot_end=end))

    def _read_scope(self, scope: pb.WatchScope) -> dict[str, Any]:
        kind = scope.WhichOneof("scope")
        if kind is None:
            raise read.invalid("scope", "is required: sessions, a subject, whole_tenant or everything")
        if kind == "everything":
            return {}
        tenant = self._server.own_tenant("scope.tenant", scope.tenant)
        if kind == "sessions":
            read.within("scope.sessions.names", len(scope.sessions.names), MOST_WATCHED)
            for place, name in enumerate(scope.sessions.names):
                ref = self._server.named(tenant, f"scope.sessions.names[{place}].", name)
                self._named[ref] = self._named.get(ref) or name.session_id
            return {"tenant": tenant, "refs": sorted(self._named)}
        if kind == "subject" and not scope.subject:
            raise read.invalid("scope.subject", "is empty; 1 to 256 bytes are needed")
        return {"tenant": tenant} | ({"subject": read.text("scope.subject", scope.subject, 256)} if kind == "subject" else {})

    def _in_scope(self) -> Iterator[Record]:
        """The sessions that the initial state is about: the live ones and, if they are named, the ended ones too."""
        for ref in sorted(self._refs) if "refs" in self._scope else self._server.refs():
            record = self._server.find(ref)
            if record and self._covers(record.ref, record.tenant, record.subject) and ("refs" in self._scope or not record.tombstone):
                yield self._server.examined(record)

    def _covers(self, ref: str, tenant: str, subject: str) -> bool:
        if tenant not in ([self._scope["tenant"]] if "tenant" in self._scope else self._server.tenants):
            return False
        return ref in self._refs if "refs" in self._scope else self._scope.get("subject", subject) == subject

    def told(self) -> pb.WatchExpiryResponse | None:
        """The next message, if there is one."""
        with self._server.lock:
            log = self._server.log
            while not self._ready and self._place < len(log):
                entry = log[self._place]
                self._place += 1
                if self._wants(entry):
                    message = pb.WatchExpiryResponse()
                    message.CopyFrom(entry.message)
                    self._ready.append(message)
            if not self._ready:
                return None
            message = self._ready.popleft()
            if about := getattr(message, message.WhichOneof("message") or "", None):
                if hasattr(about, "session"):
                    about.session.session_id = self._named.get(about.session.session_ref, "")
            message.resume_token = self._token()
            return message

    def _wants(self, entry: Entry) -> bool:
        if entry.kind == "draining":
            return True
        if not self._covers(entry.ref, entry.tenant, entry.subject):
            return False
        if entry.successor:
            self._refs.add(entry.successor)
        # Whoever watches more than names and a subject sees a successor by its own events.
        succeeds = entry.kind == "SUCCEEDED" and ("refs" in self._scope or "subject" in self._scope)
        return succeeds or entry.kind in self._kinds

    def _token(self) -> str:
        token = [self._server.epoch, self._place, self._binding()]
        return base64.urlsafe_b64encode(json.dumps(token).encode()).decode()

    def _binding(self) -> str:
        return hashlib.sha256(json.dumps(self._scope, sort_keys=True).encode()).hexdigest()

    def _opened(self, token: str) -> int:
        try:
            epoch, place, binding = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise read.invalid("resume_token", "is not a token of this sidecar for this scope and caller") from None
        if binding != self._binding():
            raise read.invalid("resume_token", "is not a token of this sidecar for this scope and caller")
        if epoch != self._server.epoch:
            problem = "the event log no longer reaches back to the resume_token; open again with include_initial_state"
            raise read.Failed(Failure("OUT_OF_RANGE", problem, "RESUME_TOKEN_EXPIRED"))
        return int(place)
