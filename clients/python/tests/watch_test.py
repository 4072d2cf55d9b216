"""Watches over real processes that are stopped, killed and started again."""

import asyncio
import os
import subprocess
import threading
from contextlib import contextmanager

import pytest
from helpers import PATIENT, seconds
from support.process import PATIENCE, eventually, free_port, tool

from session_sidecar import AsyncSidecar, EndReason, EventKind, Limit, NotPermittedError, Ref, Sidecar, SidecarUnreachableError, events
from session_sidecar.testing import advance


def until(watch, kind):
    """The events up to the first of a kind."""
    heard = []
    for event in watch:
        heard.append(event)
        if isinstance(event, kind):
            return heard
    raise AssertionError("the watch ended")


@pytest.fixture(autouse=True)
def patience():
    """No test waits for ever."""
    killer = threading.Timer(3 * PATIENCE, os._exit, (70,))
    killer.start()
    yield
    killer.cancel()


def test_a_watch_tells_a_whole_life(sidecar):
    created = sidecar.create(subject="ada", labels={"app": "shop"})
    with sidecar.watch(subject="ada") as watch:
        snapshot, end = until(watch, events.SnapshotEnd)
        assert (snapshot.session.session_ref, end.snapshot_count) == (created.session.status.session_ref, 1)
        advance(sidecar, seconds(10))
        (warning,) = until(watch, events.Warning)
        assert (warning.limit, warning.point, warning.can_extend) == (Limit.IDLE, seconds(10), True)
        assert warning.session.labels == {"app": "shop"} and warning.session.session_id == ""
        sidecar.touch(created.session_id)
        (cleared,) = until(watch, events.Cleared)
        assert cleared.cause == "TOUCHED"
        rotated = sidecar.rotate(created.session_id)
        over, going_on = until(watch, events.Snapshot)
        assert over.end.reason is EndReason.ROTATED
        assert going_on.predecessor_ref == created.session.status.session_ref
        sidecar.end(rotated.session_id)
        (ended,) = until(watch, events.Ended)
        assert ended.end.reason is EndReason.LOGOUT
        assert watch.connected
    assert list(watch) == []


def test_a_watch_by_name_echoes_ids_and_tells_of_those_that_ended(sidecar):
    one, other = sidecar.create(), sidecar.create()
    sidecar.end(other.session_id)
    ref = Ref(other.session.status.session_ref)
    with sidecar.watch([one.session_id, ref], kinds=[EventKind.ENDED]) as watch:
        told = {event.session.session_ref: event for event in until(watch, events.SnapshotEnd)[:-1]}
        assert told[one.session.status.session_ref].session.session_id == one.session_id
        assert told[ref].session.session_id == "" and told[ref].end.reason is EndReason.LOGOUT
        assert one.session_id not in repr(told)


def test_close_from_another_thread_ends_the_iteration(sidecar):
    watch = sidecar.watch(everything=True)
    until(watch, events.SnapshotEnd)
    threading.Timer(0.05, watch.close).start()
    assert list(watch) == []


def test_close_ends_a_watch_that_cannot_connect():
    watch = Sidecar(f"127.0.0.1:{free_port()}").watch(everything=True)
    threading.Timer(0.3, watch.close).start()
    assert list(watch) == []


def test_mistakes_are_raised(process):
    with pytest.raises(NotPermittedError):
        next(Sidecar(process.tcp, tenant="somebody-elses").watch(whole_tenant=True))


def test_draining_is_passed_on_and_the_watch_goes_on_at_the_next_sidecar(serve):
    listen = [f"tcp://127.0.0.1:{free_port()}"]
    first = serve("--dev", listen=listen)
    with Sidecar(listen[0].removeprefix("tcp://"), deadline=PATIENT).watch(everything=True) as watch:
        until(watch, events.SnapshotEnd)
        first.terminate()
        until(watch, events.Draining)
        first.wait()
        serve("--dev", listen=listen)
        assert isinstance(next(watch), events.BeginAnew), "memory does not survive a restart, and that is told"
        until(watch, events.SnapshotEnd)


def test_kill_9_and_restart_in_memory_begins_anew(serve):
    listen = [f"tcp://127.0.0.1:{free_port()}"]
    first = serve("--dev", listen=listen)
    with Sidecar(listen[0].removeprefix("tcp://"), deadline=PATIENT) as sidecar, sidecar.watch(subject="ada") as watch:
        until(watch, events.SnapshotEnd)
        sidecar.create(subject="ada")
        first.process.kill()
        first.process.wait()
        serve("--dev", listen=listen)
        assert next(watch) == events.BeginAnew("RESUME_TOKEN_EXPIRED")
        begun = until(watch, events.SnapshotEnd)
        assert begun[-1].snapshot_count == len(begun) - 1 == 0
        created = eventually(lambda: _create(sidecar), "it answers")
        sidecar.end(created.session_id)
        assert until(watch, events.Ended)[-1].session.session_ref == created.session.status.session_ref


def _create(sidecar):
    try:
        return sidecar.create(subject="ada")
    except Exception:
        return None


def test_a_silent_sidecar_is_left_after_three_heartbeats(process, sidecar):
    """It stands still for longer than the watch is patient; what it says when it goes on is not lost."""
    with sidecar.watch(subject="ada", heartbeat_interval=seconds(1)) as watch:
        until(watch, events.SnapshotEnd)
        heard = []
        reader = threading.Thread(target=lambda: heard.extend(until(watch, events.Ended)))
        reader.start()
        with process.standing_still():
            eventually(lambda: not watch.connected, "the silence is noticed")
        created = sidecar.create(subject="ada")
        sidecar.end(created.session_id)
        reader.join(PATIENCE)
        assert [type(event) for event in heard] == [events.Ended]


def known(verb, *arguments, **named):
    """What a call answers. On a busy machine the store may not answer in the 250 ms that it has; then it is made again."""

    def attempt():
        try:
            return verb(*arguments, **named)
        except SidecarUnreachableError as error:
            if error.answer.code != "UNAVAILABLE":
                raise
            return None

    return eventually(attempt, "the store answers")


@contextmanager
def redis(directory):
    port = free_port()
    command = [tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with (directory / "redis.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: "Ready to accept" in (directory / "redis.log").read_text(), "Redis is ready")
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_kill_9_and_restart_over_a_store_resumes_without_a_gap(serve, directory):
    """What happened while the watch had no sidecar, at another one, comes once and in order."""
    key = directory / "key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(range(32)))
    with redis(directory) as store:
        shared = ["--store", store, "--store-key-file", str(key)]
        listen = [f"tcp://127.0.0.1:{free_port()}"]
        first, second = serve(*shared, listen=listen), serve(*shared)
        with (
            Sidecar(second.tcp, deadline=PATIENT) as elsewhere,
            Sidecar(listen[0].removeprefix("tcp://")).watch(subject="ada") as watch,
        ):
            sessions = [known(elsewhere.create, subject="ada", request_id=f"the-request-of-{number}") for number in range(6)]
            until(watch, events.SnapshotEnd)
            known(elsewhere.end, sessions[0].session_id)
            assert until(watch, events.Ended)[-1].session.session_ref == sessions[0].session.status.session_ref
            first.process.kill()
            first.process.wait()
            for session in sessions[1:5]:
                known(elsewhere.end, session.session_id)
            serve(*shared, listen=listen)
            known(elsewhere.end, sessions[5].session_id)
            heard = [next(watch) for _ in range(5)]
        assert all(isinstance(event, events.Ended) for event in heard), heard
        expected = [session.session.status.session_ref for session in sessions[1:]]
        assert sorted(event.session.session_ref for event in heard) == sorted(expected), "each once, none missing"


def test_a_token_goes_on_in_another_process_of_the_application(sidecar):
    with sidecar.watch(subject="ada") as watch:
        until(watch, events.SnapshotEnd)
        token = watch.resume_token
    created = sidecar.create(subject="ada")
    sidecar.end(created.session_id)
    with sidecar.watch(subject="ada", resume_token=token) as watch:
        assert isinstance(next(watch), events.Ended)


def test_an_async_watch(serve):
    listen = [f"tcp://127.0.0.1:{free_port()}"]

    async def live():
        first = serve("--dev", listen=listen)
        async with AsyncSidecar(listen[0].removeprefix("tcp://"), deadline=PATIENT) as sidecar:
            async with asyncio.timeout(2 * PATIENCE), sidecar.watch(subject="ada", heartbeat_interval=seconds(1)) as watch:
                assert isinstance(await anext(watch), events.SnapshotEnd)
                created = await sidecar.create(subject="ada")
                await sidecar.end(created.session_id)
                assert isinstance(await anext(watch), events.Ended)
                with first.standing_still():
                    reading = asyncio.ensure_future(anext(watch))
                    while watch.connected:
                        await asyncio.sleep(0.01)
                created = await sidecar.create(subject="ada")
                await sidecar.end(created.session_id)
                assert isinstance(await reading, events.Ended)
                first.process.kill()
                first.process.wait()
                await asyncio.to_thread(serve, "--dev", listen=listen)
                assert await anext(watch) == events.BeginAnew("RESUME_TOKEN_EXPIRED")
                assert isinstance(await anext(watch), events.SnapshotEnd)
                asyncio.get_running_loop().call_later(0.05, watch.close)
                assert [event async for event in watch] == []

    asyncio.run(live())


def test_a_cancelled_async_watch_is_cancelled(process):
    async def live():
        async with AsyncSidecar(process.tcp, deadline=PATIENT) as sidecar:
            began = asyncio.Event()

            async def read():
                async for _ in sidecar.watch(everything=True):
                    began.set()

            task = asyncio.create_task(read())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(live())
    eventually(lambda: process.metric("watchers") == 0, "the stream is closed")
