"""What a watch makes of streams that break: which chain a message belongs to."""

import asyncio
import random

import grpc

from chaos.watching import Watch
from support.api import v1

BROKEN = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())


class Streams:
    """A sidecar whose streams are written down: each message as it is, then it breaks; the last one closes the watch."""

    def __init__(self, *streams: list[v1.WatchExpiryResponse]) -> None:
        self.streams = list(streams)
        self.watch: Watch | None = None

    def WatchExpiry(self, request: v1.WatchExpiryRequest) -> "Streams":  # noqa: N802 (the name in the protocol)
        self.left = self.streams.pop(0)
        return self

    async def read(self) -> v1.WatchExpiryResponse:
        if self.left:
            return self.left.pop(0)
        if not self.streams:
            self.watch.closing = True
        raise BROKEN

    def cancel(self) -> None:
        pass


def snapshot(ref: str) -> v1.WatchExpiryResponse:
    state = v1.SessionStatus(state=v1.SESSION_STATE_ACTIVE)
    return v1.WatchExpiryResponse(resume_token=ref.encode(), snapshot=v1.Snapshot(session=v1.EventSession(session_ref=ref), status=state))


COMPLETE = v1.WatchExpiryResponse(resume_token=b"complete", snapshot_end=v1.SnapshotEnd())


def chains(*streams: list[v1.WatchExpiryResponse]) -> list[tuple[int, str, str]]:
    """Chain, kind and ref of all that such a watch records."""
    told = []
    sidecar = Streams(*streams)
    watch = Watch("w", [sidecar], 0, random.Random(1), told.append, ids={"a": "id-a"})
    sidecar.watch = watch
    asyncio.run(watch.run())
    return [(message.chain, message.kind, message.ref) for message in told if message.kind in ("snapshot", "snapshot_end")]


def test_an_initial_state_that_is_begun_again_is_another_chain():
    first = [snapshot("a"), snapshot("b"), COMPLETE]
    assert chains(first, [snapshot("a"), snapshot("b"), COMPLETE])[3:] == [(1, "snapshot", "a"), (1, "snapshot", "b"), (1, "snapshot_end", "")]


def test_so_is_one_that_breaks_off_before_it_is_complete():
    first = [snapshot("a"), snapshot("b"), COMPLETE]
    told = chains(first, [snapshot("a")], [snapshot("a"), snapshot("b"), COMPLETE])
    assert told[:3] == [(0, "snapshot", "a"), (0, "snapshot", "b"), (0, "snapshot_end", "")]
    assert told[3:] == [(1, "snapshot", "a"), (2, "snapshot", "a"), (2, "snapshot", "b"), (2, "snapshot_end", "")]


def test_what_is_new_after_a_resume_belongs_to_the_chain_that_goes_on():
    told = chains([snapshot("a"), COMPLETE], [snapshot("c")], [snapshot("d")])
    assert told == [(0, "snapshot", "a"), (0, "snapshot_end", ""), (0, "snapshot", "c"), (0, "snapshot", "d")]
