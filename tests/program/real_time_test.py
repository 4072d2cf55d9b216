"""The real clock, without --dev: all other tests move time by hand."""

import time

import pytest

from support.api import Client, Code, v1
from support.process import PATIENCE

ID = "an-id-of-at-least-16-bytes"


@pytest.fixture
def impatient(serve, directory):
    """A sidecar whose sessions last for some seconds."""

    def start(idle_timeout):
        policy = directory / "policy.toml"
        policy.write_text(f'[policy.default]\nidle_timeout = "{idle_timeout}s"\nabsolute_timeout = "1h"\nwarn_before = ["1s"]\n')
        return serve("--policy-file", str(policy))

    return start


def test_a_warning_and_an_end_come_in_time_without_any_traffic(impatient):
    with Client(impatient(2).tcp) as client:
        watch = client.watch()
        assert next(watch).HasField("snapshot_end")
        created = time.monotonic()
        client.create(ID)
        assert next(watch).HasField("warning")
        warned = time.monotonic() - created
        ended = next(watch).ended
        lived = time.monotonic() - created
    assert ended.end.reason == v1.END_REASON_IDLE_TIMEOUT
    # Never early; and late only by what a busy machine may take to wake us. The exact bound is tested elsewhere.
    assert 1 <= warned < PATIENCE
    assert 2 <= lived < PATIENCE


def test_after_a_pause_of_the_process_people_can_still_touch(impatient):
    """G14: nobody could reach a process that was stopped, so it ends no session by idleness before somebody could."""
    sidecar = impatient(4)  # more than it takes until all its threads are stopped, and less than the pause
    with Client(sidecar.tcp) as client:
        client.create(ID)
        with sidecar.standing_still():
            time.sleep(6)  # the pause is what is tested: longer than 5 s
        assert client.sessions.Touch(v1.TouchRequest(session_id=ID), timeout=10, wait_for_ready=True).counted


def test_a_gateway_that_gives_its_calls_up_during_a_pause_keeps_its_watch(serve):
    """Given up calls look like rapid reset; the watch on the same connection must not pay for them."""
    sidecar = serve()
    with Client(sidecar.tcp) as client:
        client.create(ID)
        watch = client.watch()
        assert next(watch).HasField("snapshot_end")
        with sidecar.standing_still():
            calls = [client.sessions.Check.future(v1.CheckRequest(session_id=ID), timeout=0.3) for _ in range(300)]
            assert {call.code() for call in calls} == {Code.DEADLINE_EXCEEDED}
        client.sessions.End(v1.EndRequest(session_id=ID), timeout=10, wait_for_ready=True)
        assert next(watch).ended.end.reason == v1.END_REASON_LOGOUT
