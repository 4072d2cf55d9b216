"""When nobody knows: deadlines, the fail policy, and coming back."""

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from datetime import timedelta

import pytest
from helpers import NEVER_ISSUED, PATIENT, black_hole, seconds
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
    events,
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
    with process.standing_still():
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
    listen = [f"tcp://127.0.0.1:{free_port()}"]
    first = serve("--dev", listen=listen)
    with Sidecar(listen[0].removeprefix("tcp://"), deadline=PATIENT) as sidecar:
        sidecar.create()
        first.process.kill()
        first.process.wait()
        serve("--dev", listen=listen)
        assert isinstance(sidecar.check(sidecar.create().session_id), Live)


class CutsOff:
    """Goes between a client and a sidecar. After `cut`, the next call is passed on, and its connection is closed before the answer
    comes."""

    def __init__(self, port):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._cut = False
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        self._cut = True

    def close(self):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source, sink, asks):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks and self._cut and begins_a_call(data):
                    self._cut = False
                    source.shutdown(socket.SHUT_RDWR)
                    sink.sendall(data)
                    return  # The sidecar carries it out; its answer finds nobody, and then this connection is closed too.
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def begins_a_call(data):
    """Whether a HEADERS frame of HTTP/2 is among these; others, such as WINDOW_UPDATE, come at any time."""
    data = data.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    while len(data) >= 9:
        if data[3] == 1:
            return True
        data = data[9 + int.from_bytes(data[:3]) :]
    return False


@pytest.fixture
def between(process):
    proxy = CutsOff(process.port)
    yield proxy
    proxy.close()


def test_a_call_that_lost_its_connection_is_made_again(between):
    with Sidecar(between.target, deadline=PATIENT) as sidecar:
        session_id = sidecar.create().session_id
        calls = [
            lambda: sidecar.touch(session_id).allowed,
            lambda: sidecar.check(session_id).allowed,
            lambda: sidecar.create().session_id,
            lambda: sidecar.extend(session_id).status,
            lambda: sidecar.hold(session_id, "work", ttl=seconds(5)).granted_ttl,
            lambda: sidecar.end(sidecar.rotate(session_id).session_id).ended_now,
        ]
        for number, call in enumerate(calls):
            between.cut()
            assert call(), "and an End that was repeated says what the first one did"
            assert between.connections == number + 2


def test_a_create_that_was_made_again_is_one_session(between):
    with Sidecar(between.target, deadline=PATIENT) as sidecar:
        sidecar.create(subject="other")
        between.cut()
        created = sidecar.create(subject="ada")
        with sidecar.watch(subject="ada") as watch:
            assert next(watch).session.session_ref == created.session.status.session_ref
            assert isinstance(end := next(watch), events.SnapshotEnd) and end.snapshot_count == 1


def test_what_cannot_be_repeated_without_a_trace_is_not(between):
    with Sidecar(between.target, deadline=PATIENT) as sidecar:
        session_id = sidecar.create().session_id
        sidecar.hold(session_id, "work", ttl=seconds(5))
        between.cut()
        with pytest.raises(SidecarUnreachableError):
            sidecar.release(session_id, "work")


def test_an_asyncio_call_that_lost_its_connection_is_made_again(between):
    async def live():
        async with AsyncSidecar(between.target, deadline=PATIENT) as sidecar:
            session_id = (await sidecar.create()).session_id
            between.cut()
            assert (await sidecar.touch(session_id)).allowed

    asyncio.run(live())
    assert between.connections == 2


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
