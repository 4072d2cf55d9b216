"""The fake: what the scenario and the comparison with the program do not show."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from helpers import seconds
from package_test import CONFIG, HERE, run

from session_sidecar import (
    Activity,
    Ended,
    EndReason,
    HoldKind,
    InvalidRequestError,
    Limit,
    Live,
    NotPermittedError,
    SessionEndedError,
    SessionState,
    Unknown,
    events,
)
from session_sidecar.fake import FakeSidecar
from session_sidecar.fake._policy import _glob, _span
from session_sidecar.testing import advance

MINUTE = timedelta(minutes=1)


def test_its_policy_is_the_one_that_a_new_user_meets():
    sidecar = FakeSidecar()
    session_id = sidecar.create(subject="ada").session_id
    advance(sidecar, 12.9 * MINUTE)
    assert not sidecar.check(session_id).expiring
    advance(sidecar, MINUTE / 10)
    assert sidecar.check(session_id).expiring and sidecar.check(session_id).expires_in == 2 * MINUTE
    advance(sidecar, 2 * MINUTE)
    assert sidecar.touch(session_id).reason is EndReason.IDLE_TIMEOUT
    advance(sidecar, timedelta(hours=24))
    assert isinstance(sidecar.touch(session_id), Unknown)


def test_all_happens_at_its_own_time_however_far_the_clock_goes():
    sidecar = FakeSidecar(idle_timeout=10 * MINUTE, warn_before=["2m", "1m"], absolute_timeout="30m")
    begin = sidecar.create(subject="ada").session.create_time
    watch = sidecar.watch(subject="ada", initial_state=False)
    watch.told()
    sidecar.advance(timedelta(days=2))
    told = [(type(each), each.emit_time - begin) for each in watch.told()]
    assert told == [(events.Warning, 8 * MINUTE), (events.Warning, 9 * MINUTE), (events.Ended, 10 * MINUTE)]
    with pytest.raises(ValueError, match="only goes forward"):
        sidecar.advance(-MINUTE)


def test_policies_of_a_file():
    sidecar = FakeSidecar(policy_file=Path(__file__).parents[3] / "tests/conformance/policy.toml")
    session = sidecar.create(policy="shift").session
    assert (session.policy, session.absolute_timeout) == ("shift", 30 * MINUTE)
    wall = sidecar.create(policy="wall").session
    assert wall.status.read_only and wall.idle_timeout is None


def test_keys_of_a_policy_that_are_no_keys_are_refused(tmp_path):
    for keys, problem in (
        ({"idle_timout": "15m"}, "no key idle_timout"),
        ({"idle_timeout": "15 minuets"}, "idle_timeout must be"),
        ({"idle_timeout": "1d"}, "at most absolute_timeout"),
        ({"idle_timeout": "15m", "passive": True}, "passive"),
        ({"preset": "nist"}, "no preset nist"),
        ({"work_hold": {"budgt": "1m"}}, "work_hold must be"),
        ({"rules": [{"name": "a", "verdict": "count", "pth": "/"}]}, "a rule has"),
    ):
        with pytest.raises(ValueError, match=problem):
            FakeSidecar(**keys)
    with pytest.raises(TypeError, match="policy_file and idle_timeout"):
        FakeSidecar(policy_file=tmp_path / "policy.toml", idle_timeout="15m")


def test_a_preset_is_what_the_program_has():
    session = FakeSidecar(preset="owasp-high-value", min_id_length=16).create(subject="ada").session
    assert (session.idle_timeout, session.absolute_timeout) == (5 * MINUTE, 240 * MINUTE)


def test_durations_are_written_as_in_a_policy_file():
    for text, value in (("90s", 1.5), ("1h 30m", 90), ("1h30m", 90), ("2days", 2880), ("500ms", 1 / 120), ("1w", 10080)):
        assert _span("key", text) == value * MINUTE


@pytest.mark.parametrize(
    ("glob", "matched", "others"),
    [
        ("/api/*/poll", ["/api/a/poll"], ["/api/a/b/poll", "/api/poll", "/x/api/a/poll"]),
        ("/app/**", ["/app/", "/app/a", "/app/a/b"], ["/app", "/apple"]),
        ("/**/beat", ["/beat", "/a/beat", "/a/b/beat"], ["beat", "/a/heartbeat"]),
        ("**", ["/", "/a/b", "a"], []),
        ("/{shop,blog}/?", ["/shop/a", "/blog/b"], ["/shop/", "/shop/ab", "/wiki/a"]),
        ("/[a-c]x[!0-9]", ["/axz", "/bxy"], ["/dxz", "/ax1", "/ax/"]),
        ("/a.b+c", ["/a.b+c"], ["/aXb+c", "/a.bbc"]),
        ("*.example.com", ["a.example.com"], ["example.com"]),
    ],
)
def test_globs(glob, matched, others):
    pattern = _glob([glob])
    assert [text for text in matched + others if pattern.fullmatch(text)] == matched


def test_a_hold_is_renewed_by_the_fakes_clock():
    sidecar = FakeSidecar(idle_timeout="15m", work_hold={"budget": "3h"})
    session_id = sidecar.create().session_id
    ended = []
    with sidecar.holding(session_id, purpose="report", on_end=ended.append) as hold:
        sidecar.advance(120 * MINUTE)
        assert sidecar.touch(session_id, activity=Activity.BACKGROUND).allowed and hold.ended is None
        sidecar.end(session_id)
        sidecar.advance(MINUTE)
        assert hold.ended.reason is EndReason.LOGOUT and ended == [hold.ended]
        with pytest.raises(SessionEndedError):
            hold.raise_if_ended()
    threads = {thread.name for thread in threading.enumerate()}
    assert "session-sidecar-hold" not in threads


def test_release_of_the_last_hold_ends_a_session_whose_browser_is_long_gone():
    sidecar = FakeSidecar(idle_timeout="15m", presence={"lost_grace": "1m"})
    session_id = sidecar.create().session_id
    sidecar.hold(session_id, "tab", kind=HoldKind.PRESENCE, ttl=MINUTE)
    sidecar.hold(session_id, "work", ttl=5 * MINUTE)
    sidecar.advance(4 * MINUTE)
    assert sidecar.release(session_id, "work").released
    assert sidecar.touch(session_id).reason is EndReason.BROWSER_CLOSED


def test_asyncio_over_the_same_sessions():
    fake = FakeSidecar(idle_timeout="15m", warn_before=["2m"])
    session_id = fake.create(subject="ada").session_id

    async def main():
        sidecar = fake.asynchronous()
        told = []
        async with sidecar.holding(session_id, ttl=MINUTE), sidecar.watch([session_id]) as watch:
            async for event in watch:
                told.append(event)
                if isinstance(event, events.SnapshotEnd):
                    asyncio.get_running_loop().call_soon(sidecar.advance, 30 * MINUTE)
                    assert isinstance(await sidecar.check(session_id), Live)
                    asyncio.get_running_loop().call_soon(fake.end, session_id)
                elif isinstance(event, events.Ended):
                    break
        async with sidecar.watch(subject="ada", resume_token="garbled") as again:
            assert await anext(again) == events.BeginAnew("RESUME_TOKEN_INVALID")
            assert isinstance(await anext(again), events.SnapshotEnd)
        assert not (await sidecar.touch(session_id)).allowed
        await sidecar.close()
        return [type(event) for event in told]

    assert asyncio.run(main()) == [events.Snapshot, events.SnapshotEnd, events.Ended]


def test_a_watch_of_a_thread_waits_and_is_closed_from_another():
    sidecar = FakeSidecar()
    session_id = sidecar.create().session_id
    watch = sidecar.watch(everything=True)
    told = []
    stands = threading.Event()

    def follow():
        for event in watch:
            told.append(type(event))
            stands.set()
            if isinstance(event, events.Ended):
                break
        told.extend(type(event) for event in watch)

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    assert stands.wait(20)
    sidecar.end(session_id)
    watch.close()
    reader.join(20)
    assert not reader.is_alive() and told[0] is events.Snapshot


def test_a_watch_goes_on_from_its_token_but_not_from_another_fakes():
    sidecar = FakeSidecar()
    first = sidecar.watch(whole_tenant=True)
    assert [type(event) for event in first.told()] == [events.SnapshotEnd]
    first.close()
    sidecar.end(sidecar.create().session_id)
    assert [type(event) for event in sidecar.watch(whole_tenant=True, resume_token=first.resume_token).told()] == [events.Ended]
    told = FakeSidecar().watch(whole_tenant=True, resume_token=first.resume_token).told()
    assert told[0] == events.BeginAnew("RESUME_TOKEN_EXPIRED") and isinstance(told[1], events.SnapshotEnd)
    with pytest.raises(InvalidRequestError):
        sidecar.watch(whole_tenant=True, heartbeat_interval=timedelta()).told()
    other = sidecar.watch(everything=True)
    other.told()
    sidecar.drain()
    assert [type(event) for event in other.told()] == [events.Draining]


def test_administrators():
    sidecar = FakeSidecar()
    ids = [sidecar.create(subject="vera").session_id for _ in range(3)]
    desk = sidecar.admin()
    assert len(list(desk.list_sessions(subject="vera", page_size=2))) == 3
    assert desk.end_sessions(subject="vera", excepted=[ids[0]], note="stolen").ended_count == 2
    assert isinstance(sidecar.touch(ids[1]), Ended) and sidecar.touch(ids[0]).allowed
    assert len(list(desk.list_sessions(states=[SessionState.ENDED]))) == 2
    with pytest.raises(NotPermittedError, match="keeps no histories"):
        desk.explain(ids[0])


def test_tenants_are_those_that_it_serves():
    sidecar = FakeSidecar(tenant="shop")
    assert sidecar.create().session.tenant == "shop"
    with pytest.raises(NotPermittedError):
        sidecar.with_options(tenant="blog").create()
    both = FakeSidecar(tenants=["shop", "blog"])
    ref = both.with_options(tenant="shop").create().session.status.session_ref
    assert isinstance(both.with_options(tenant="blog").check(ref), Unknown)


def test_threads_may_share_it():
    sidecar = FakeSidecar(max_extensions=100, absolute_timeout="1h")
    session_id = sidecar.create().session_id

    def extend(_: int) -> int:
        sidecar.advance(seconds(0.1))
        return sidecar.extend(session_id).status.version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(extend, range(100)))
    assert len(set(versions)) == 100 and sidecar.check(session_id).session.extensions == 100
    assert sidecar.check(session_id).status.limit is Limit.IDLE


def test_no_id_is_shown_or_kept():
    sidecar = FakeSidecar()
    session_id = sidecar.create(subject="ada").session_id
    sidecar.rotate(session_id)
    assert session_id not in repr(sidecar) + repr(vars(sidecar._server))


def test_it_stands_in_for_a_sidecar_to_the_type(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
from datetime import timedelta
from session_sidecar import AsyncSidecar, Sidecar, SidecarAdmin
from session_sidecar.fake import FakeSidecar

sidecar: Sidecar = FakeSidecar(idle_timeout="15m", presence={"leave_grace": timedelta(seconds=9)}, rules=[{"name": "a", "verdict": "count", "path": "/a"}])
alike: FakeSidecar = FakeSidecar().with_options(fail="open")
awaited: AsyncSidecar = alike.asynchronous()
desk: SidecarAdmin = alike.admin()
FakeSidecar(idle_timeout=900)  # type: ignore[arg-type]
FakeSidecar(idle_timout="15m")  # type: ignore[call-arg]
"""
    )
    code, told = run("-m", "mypy", "--config-file", CONFIG, "--cache-dir", "/dev/null", program, env={"MYPYPATH": str(HERE / "src"), "PATH": "/usr/bin:/bin"}, cwd=tmp_path)
    assert code == 0, told
