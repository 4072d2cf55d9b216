"""Holds that renew themselves."""

import asyncio
import threading
from datetime import timedelta

import pytest
from helpers import NEVER_ISSUED, PATIENT, seconds
from support.process import eventually, free_port

from session_sidecar import (
    AsyncSidecar,
    Ended,
    EndReason,
    HoldKind,
    RefusedError,
    SessionEndedError,
    SessionUnknownError,
    Sidecar,
    SidecarUnreachableError,
    Unreachable,
)
from session_sidecar.testing import advance


def holds(sidecar, session_id):
    return {hold.hold_id: hold for hold in sidecar.check(session_id).session.holds}


def test_a_hold_lives_as_long_as_its_block(sidecar):
    session_id = sidecar.create().session_id
    with sidecar.holding(session_id, purpose="monthly report") as hold:
        assert holds(sidecar, session_id)[hold.hold_id].purpose == "monthly report"
        assert (hold.ended, hold.problem) == (None, None)
        hold.raise_if_ended()
    assert not holds(sidecar, session_id)


def test_a_hold_is_released_when_its_block_fails(sidecar):
    session_id = sidecar.create().session_id
    with pytest.raises(KeyError), sidecar.holding(session_id):
        raise KeyError
    assert not holds(sidecar, session_id)


def test_a_hold_is_renewed_well_before_it_lapses(sidecar):
    """It is the same hold after two renewals."""
    session_id = sidecar.create().session_id
    with sidecar.holding(session_id, ttl=seconds(6)) as hold:
        seen = [holds(sidecar, session_id)[hold.hold_id]]

        def is_renewed():
            now = holds(sidecar, session_id)[hold.hold_id]
            if now.expire_time > seen[-1].expire_time:
                seen.append(now)
            return len(seen) == 3

        eventually(is_renewed, "it is renewed")
        assert {each.start_time for each in seen} == {seen[0].start_time}, "it never lapsed"


def test_a_session_that_ends_meanwhile_is_told(sidecar):
    session_id = sidecar.create().session_id
    told = threading.Event()
    heard = []
    with sidecar.holding(session_id, ttl=seconds(0.3), on_end=lambda answer: (heard.append(answer), told.set())) as hold:
        sidecar.end(session_id, note="over")
        assert told.wait(PATIENT.total_seconds())
        assert heard == [hold.ended] and isinstance(hold.ended, Ended) and hold.ended.end.note == "over"
        with pytest.raises(SessionEndedError):
            hold.raise_if_ended()
    assert hold.ended.reason is EndReason.LOGOUT, "leaving the block raises nothing: the work is done"


def test_a_session_that_ended_just_before_the_block_is_left_is_told_too(sidecar):
    session_id = sidecar.create().session_id
    with sidecar.holding(session_id) as hold:
        sidecar.end(session_id)
    assert isinstance(hold.ended, Ended)


def test_entering_raises_what_a_hold_raises(sidecar):
    with pytest.raises(SessionUnknownError), sidecar.holding(NEVER_ISSUED):
        raise AssertionError
    session_id = sidecar.create().session_id
    with pytest.raises(RefusedError, match="PRESENCE_OFF"), sidecar.holding(session_id, kind=HoldKind.PRESENCE):
        raise AssertionError


def test_a_sidecar_that_is_away_stops_work_only_if_it_fails_closed():
    with Sidecar(f"127.0.0.1:{free_port()}") as sidecar:
        with pytest.raises(SidecarUnreachableError), sidecar.holding(NEVER_ISSUED):
            raise AssertionError
        with sidecar.with_options(fail="open").holding(NEVER_ISSUED) as hold:
            assert isinstance(hold.problem, SidecarUnreachableError) and hold.ended is None


def test_a_hold_goes_on_when_the_sidecar_is_back(serve):
    """In memory mode the sessions are lost with the process, and the block is told that."""
    listen = [f"tcp://127.0.0.1:{free_port()}"]
    first = serve("--dev", listen=listen)
    with Sidecar(listen[0].removeprefix("tcp://"), deadline=PATIENT) as sidecar:
        with sidecar.holding(sidecar.create().session_id, ttl=seconds(0.3)) as hold:
            first.process.kill()
            first.process.wait()
            eventually(lambda: hold.problem, "the outage is told")
            assert hold.ended is None
            serve("--dev", listen=listen)
            eventually(lambda: hold.ended, "the end is told")


def test_a_hold_survives_the_idle_timeout(process, sidecar):
    """A TTL of longer than the test; the clock is the sidecar's."""
    session_id = sidecar.create().session_id
    with sidecar.holding(session_id, ttl=timedelta(minutes=1)):
        advance(sidecar, seconds(25))
        assert sidecar.touch(session_id).allowed
    advance(sidecar, seconds(21))
    assert not sidecar.touch(session_id).allowed


def test_async_holds(process):
    async def live():
        async with AsyncSidecar(process.tcp, deadline=PATIENT) as sidecar:
            session_id = (await sidecar.create()).session_id
            async with sidecar.holding(session_id, ttl=timedelta(minutes=1)) as hold:
                (found,) = (await sidecar.check(session_id)).session.holds
                assert found.hold_id == hold.hold_id
                over = asyncio.Event()
            assert not (await sidecar.check(session_id)).session.holds
            async with sidecar.holding(session_id, ttl=seconds(0.3), on_end=lambda _: over.set()) as hold:
                await sidecar.end(session_id)
                async with asyncio.timeout(PATIENT.total_seconds()):
                    await over.wait()
            assert isinstance(hold.ended, Ended)
            with pytest.raises(SessionEndedError):
                async with sidecar.holding(session_id):
                    raise AssertionError
        async with AsyncSidecar(f"127.0.0.1:{free_port()}", fail="open") as away:
            assert isinstance(await away.touch(session_id), Unreachable)
            async with away.holding(session_id) as hold:
                assert isinstance(hold.problem, SidecarUnreachableError)

    asyncio.run(live())


def test_a_cancelled_block_releases(process):
    async def live():
        async with AsyncSidecar(process.tcp, deadline=PATIENT) as sidecar:
            session_id = (await sidecar.create()).session_id

            async def work():
                async with sidecar.holding(session_id):
                    entered.set()
                    await asyncio.Event().wait()

            entered = asyncio.Event()
            task = asyncio.create_task(work())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not (await sidecar.check(session_id)).session.holds

    asyncio.run(live())
