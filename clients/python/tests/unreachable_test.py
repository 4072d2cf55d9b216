"""When nobody knows: deadlines, the fail policy, and coming back."""

import asyncio
import logging
import os
import time
from datetime import timedelta

import pytest
from helpers import NEVER_ISSUED, PATIENT, black_hole, seconds, standing_still
from support.process import eventually, free_port

from session_sidecar import (
    AsyncSidecar,
    Ended,
    Fail,
    Live,
    Ref,
    Sidecar,
    SidecarUnreachableError,
    Touch,
    Touched,
    Unknown,
    Unreachable,
)


@pytest.mark.parametrize("fail", list(Fail))
def test_the_fail_policy_decides_questions_and_commands_raise(fail):
    with Sidecar(f"127.0.0.1:{free_port()}", fail=fail) as sidecar:
        answers = [
            sidecar.touch(NEVER_ISSUED),
            sidecar.check(NEVER_ISSUED),
            *sidecar.touch_many([Touch(NEVER_ISSUED)] * 2),
            *sidecar.check_many([NEVER_ISSUED, Ref("A" * 22)]),
        ]
        assert len(answers) == 6
        for answer in answers:
            assert isinstance(answer, Unreachable) and answer.allowed == (fail is Fail.OPEN)
        for command in (
            lambda: sidecar.create(),
            lambda: sidecar.extend(NEVER_ISSUED),
            lambda: sidecar.rotate(NEVER_ISSUED),
            lambda: sidecar.end(NEVER_ISSUED),
            lambda: sidecar.hold(NEVER_ISSUED, "work", ttl=seconds(5)),
            lambda: sidecar.release(NEVER_ISSUED, "work"),
        ):
            with pytest.raises(SidecarUnreachableError):
                command()


def test_an_ended_or_unknown_session_is_never_allowed(process):
    with Sidecar(process.tcp, fail="open", deadline=PATIENT) as sidecar:
        session_id = sidecar.create().session_id
        sidecar.end(session_id)
        for ask in (sidecar.touch, sidecar.check):
            assert isinstance(over := ask(session_id), Ended) and not over.allowed
            assert isinstance(never := ask(NEVER_ISSUED), Unknown) and not never.allowed


def test_a_black_hole_costs_the_deadline_and_no_more():
    with black_hole() as target, Sidecar(target) as sidecar:
        began = time.monotonic()
        answer = sidecar.touch(NEVER_ISSUED)
        took = time.monotonic() - began
    assert isinstance(answer, Unreachable) and answer.code == "DEADLINE_EXCEEDED"
    assert 0.2 < took < 5


def test_a_black_hole_costs_asyncio_the_deadline_and_no_more():
    async def ask(target):
        async with AsyncSidecar(target, fail="open") as sidecar:
            return await sidecar.touch(NEVER_ISSUED)

    with black_hole() as target:
        answer = asyncio.run(ask(target))
    assert answer == Unreachable(True, "DEADLINE_EXCEEDED", answer.message)


def test_a_sidecar_that_stands_still_costs_the_deadline(process, sidecar):
    session_id = sidecar.create().session_id
    hasty = sidecar.with_options(deadline=timedelta(milliseconds=250))
    with standing_still(process):
        answer = hasty.touch(session_id)
    assert isinstance(answer, Unreachable) and answer.code == "DEADLINE_EXCEEDED" and not answer.allowed
    assert isinstance(sidecar.touch(session_id), Touched), "it goes on over the same connection"


def test_a_sidecar_that_comes_back_is_found_and_the_outage_logged_once(serve, directory, caplog):
    caplog.set_level(logging.INFO, "session_sidecar")
    listen = [f"tcp://127.0.0.1:{free_port()}"]
    first = serve("--dev", listen=listen)
    with Sidecar(listen[0].removeprefix("tcp://")) as sidecar:
        patient = sidecar.with_options(deadline=PATIENT)
        session_id = patient.create().session_id
        first.process.kill()
        first.process.wait()
        for _ in range(5):
            assert isinstance(sidecar.touch(session_id), Unreachable)
        serve("--dev", listen=listen)
        answer = eventually(lambda: not isinstance(found := patient.touch(session_id), Unreachable) and found, "it is found again")
        assert isinstance(answer, Unknown), "memory is lost with the process"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "does not answer" in told[0] and "answers again" in told[1]
    assert session_id not in caplog.text


def test_a_restart_between_two_calls_is_not_noticed(serve):
    """The connection of the first process is dead; the call that finds that out is made once more."""
    listen = [f"tcp://127.0.0.1:{free_port()}"]
    first = serve("--dev", listen=listen)
    with Sidecar(listen[0].removeprefix("tcp://"), deadline=PATIENT) as sidecar:
        sidecar.create()
        first.process.kill()
        first.process.wait()
        serve("--dev", listen=listen)
        created = eventually(lambda: _created(sidecar), "a session begins")
        assert isinstance(sidecar.check(created.session_id), Live)


def _created(sidecar):
    try:
        return sidecar.create()
    except SidecarUnreachableError:
        return None


def test_the_target_is_that_of_the_environment(process, monkeypatch):
    for target in (process.tcp, f"http://{process.tcp}", f"tcp://{process.tcp}/", process.uds, f"unix://{process.socket_path}"):
        monkeypatch.setenv("SESSION_SIDECAR_TARGET", target)
        with Sidecar(deadline=PATIENT) as sidecar:
            assert isinstance(sidecar.check(NEVER_ISSUED), Unknown), target
    monkeypatch.delenv("SESSION_SIDECAR_TARGET")
    assert Sidecar().target == "127.0.0.1:50151"


def test_proxies_of_the_environment_are_not_meant(process, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert not os.environ.get("no_proxy") or monkeypatch.delenv("no_proxy") is None
    with Sidecar(process.tcp, deadline=PATIENT) as sidecar:
        assert isinstance(sidecar.check(NEVER_ISSUED), Unknown)


def test_a_closed_client_opens_again(sidecar):
    session_id = sidecar.create().session_id
    sidecar.close()
    sidecar.close()
    assert sidecar.touch(session_id).allowed


def test_each_event_loop_has_a_connection(process):
    sidecar = AsyncSidecar(process.tcp, deadline=PATIENT)
    created = asyncio.run(sidecar.create())
    assert asyncio.run(sidecar.touch(created.session_id)).allowed
