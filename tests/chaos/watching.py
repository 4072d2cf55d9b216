"""A watch that never gives up: it resumes with its token on any sidecar, and begins anew only if the token is refused."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import fields

import grpc
import grpc.aio

from support.api import v1

from .history import Message
from .wire import end_reason, span, word

HEARTBEAT = 1.0
# Without a heartbeat for this long, the stream is taken for dead.
SILENCE = 3.5
# How a stream may break while something is broken.
BREAKS = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"}


def _as_dict(message: Message) -> dict:
    return {each.name: getattr(message, each.name) for each in fields(message)}


class Watch:
    """One watch, of everything or of some ids."""

    def __init__(self, name: str, sidecars: list, first: int, rng: random.Random, record: Callable, ids: dict[str, str] | None = None) -> None:
        self.name = name
        self.ids = ids  # by the id's name
        self.names = {session_id: name for name, session_id in (ids or {}).items()}
        self.ended: set[str] = set()  # refs
        self._sidecars = sidecars
        self._sidecar = first
        self._rng = rng
        self._record = record
        self._chain = 0
        self._token = ""
        self._complete = False
        self._away: asyncio.Task | None = None
        self._stream: asyncio.Task | None = None
        self._pause = 0.0
        # After a resume: snapshots that may be the initial state anew. A token from within it, or from before the events that
        # happened meanwhile were sent, begins it again; that is another chain.
        self._held: list[Message] | None = None
        self._told: set[str] = set()  # refs of which this chain has told
        self.closing = False

    async def run(self) -> None:
        """Watches until it is closed."""
        while not self.closing:
            self._stream = asyncio.create_task(self._read())
            try:
                await self._stream
            except asyncio.CancelledError:
                if not self.closing:
                    self._held = None
                    self._tell("away")
                    if not self._complete:
                        self._begin_anew()
                    await asyncio.sleep(self._pause)
            else:
                await asyncio.sleep(self._rng.uniform(0.05, 0.3))
            self._sidecar = self._rng.randrange(len(self._sidecars))

    def go_away(self, seconds: float) -> None:
        """Leaves, and comes back on some sidecar after a while."""
        self._pause = seconds
        if self._stream:
            self._stream.cancel()

    def close(self) -> None:
        """Ends it for good."""
        self.closing = True
        if self._stream:
            self._stream.cancel()

    def _tell(self, kind: str, **told) -> None:
        message = Message(self.name, self._chain, self._sidecar, time.monotonic(), kind, everything=self.ids is None, **told)
        if self._held is not None and kind == "snapshot":
            self._held.append(message)
            return
        if self._held is not None:
            held, self._held = self._held, None
            # It may break off before it is complete: then it is begun once more.
            if kind == "snapshot_end" or kind == "lost" and any(snapshot.ref in self._told for snapshot in held):
                self._begin_chain()
                message.chain = self._chain
                self._record(Message(**(_as_dict(message) | {"kind": "open", "at": self._opened, "names": list(self.ids or [])})))
            for snapshot in held:
                snapshot.chain = self._chain
                self._record(snapshot)
                self._told.add(snapshot.ref)
        self._record(message)
        if message.ref:
            self._told.add(message.ref)

    def _begin_chain(self) -> None:
        self._chain += 1
        self._told.clear()

    def _scope(self) -> v1.WatchScope:
        if self.ids is None:
            return v1.WatchScope(everything=True)
        return v1.WatchScope(sessions=v1.SessionNames(names=[v1.SessionName(session_id=session_id) for session_id in self.ids.values()]))

    async def _read(self) -> None:
        request = v1.WatchExpiryRequest(scope=self._scope(), heartbeat_interval=span(HEARTBEAT))
        if self._token:
            request.resume_token = self._token
            self._tell("resumed")
            self._held = []
        else:
            request.include_initial_state = True
            self._tell("open", names=list(self.ids or []))
        self._opened = time.monotonic()
        stream = self._sidecars[self._sidecar].WatchExpiry(request)
        try:
            while not self.closing:
                # Not `wait_for`: in Python 3.11 it swallows a cancellation that comes together with a message.
                async with asyncio.timeout(SILENCE):
                    message = await stream.read()
                if message is grpc.aio.EOF:
                    break
                self._heard(message)
            self._broke("OK" if self.closing else "ended")
        except TimeoutError:
            self._broke("SILENT")
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if code == "OUT_OF_RANGE":
                self._tell("expired")
                self._begin_anew()
            elif code in BREAKS:
                self._broke(code)
            else:
                self._tell("refused", code=f"{code} {error.details()}")
                self._begin_anew()
        finally:
            stream.cancel()

    def _broke(self, code: str) -> None:
        self._tell("lost", code=code)
        if not self._complete:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._begin_chain()
        self._token = ""
        self._complete = False

    def _heard(self, message: v1.WatchExpiryResponse) -> None:
        kind = message.WhichOneof("message")
        event = getattr(message, kind)
        if kind == "snapshot_end":
            self._complete = True
            self._tell(kind)
        elif kind == "draining":
            self._tell(kind)
        elif kind != "heartbeat":
            self._event(kind, event)
        if self._complete:
            self._token = message.resume_token

    def _event(self, kind: str, event) -> None:
        session = event.session
        name = self.names.get(session.session_id) or session.labels.get("n", "")
        told = {"ref": session.session_ref, "name": name, "version": session.version}
        match kind:
            case "snapshot":
                told |= {"state": word(v1.SessionState, event.status.state, "SESSION_STATE_"), "predecessor": event.predecessor_ref}
            case "warning":
                told |= {"limit": word(v1.Limit, event.limit, "LIMIT_"), "point": event.point.ToMilliseconds() / 1000}
            case "cleared":
                told |= {"limit": word(v1.Limit, event.limit, "LIMIT_"), "state": word(v1.ClearedCause, event.cause, "CLEARED_CAUSE_")}
        if kind == "ended" or kind == "snapshot" and event.HasField("end"):
            told |= {"end_reason": end_reason(event.end.reason), "successor": event.end.successor_ref}
            self.ended.add(session.session_ref)
        self._tell(kind, **told)
