"""Clients that mean harm, or are broken. After each, the sidecar answers as if nothing had been."""

import contextlib
import resource
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

import http2
from http2 import RawConnection
from support.api import Client, Code, reason, v1, violations
from support.process import PATIENCE, Sidecar, eventually

OPENING = http2.PREFACE + http2.settings()
WATCH_TENANT = v1.WatchExpiryRequest(scope=v1.WatchScope(whole_tenant=True)).SerializeToString()
HANDSHAKE_TIMEOUT = 10  # seconds
QUEUE = 64


@pytest.fixture
def sidecar(serve):
    """A sidecar that must be in good health at the end of the test."""
    sidecar = serve("--max-watchers", "3", "--watch-queue", str(QUEUE))
    before = resident_megabytes(sidecar)
    yield sidecar
    assert_well(sidecar)
    assert resident_megabytes(sidecar) < before + 100
    assert sidecar.stop() == 0


def assert_well(sidecar) -> None:
    """It answers an honest client."""
    with Client(sidecar.tcp) as client:
        session_id = client.create().session_id
        assert client.sessions.Touch(v1.TouchRequest(session_id=session_id), timeout=10).counted
        assert client.end(session_id).ended_now
    assert sidecar.http("/readyz")[0] == 200


def resident_megabytes(sidecar) -> float:
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_clients_that_say_nothing_are_hung_up_on(sidecar):
    began = time.monotonic()
    first_words = {"nothing": b"", "half a preface": http2.PREFACE[:10]}
    connections = {words: RawConnection(sidecar.port, opening) for words, opening in first_words.items()}
    assert_well(sidecar)
    for words, connection in connections.items():
        with connection:
            assert connection.was_closed(), words
    assert HANDSHAKE_TIMEOUT - 1 < time.monotonic() - began < HANDSHAKE_TIMEOUT + PATIENCE


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
        b"\xff" * 4096,
    ],
)
def test_garbage_in_place_of_a_preface_is_hung_up_on(sidecar, garbage):
    began = time.monotonic()
    with RawConnection(sidecar.port, garbage) as connection:
        assert connection.was_closed()
        assert time.monotonic() - began < HANDSHAKE_TIMEOUT, "there was nothing to wait for"


def test_garbage_after_the_preface_is_hung_up_on(sidecar):
    with RawConnection(sidecar.port, http2.PREFACE + b"\xff" * 4096) as connection:
        assert connection.was_closed()


def test_rapid_reset(sidecar):
    with RawConnection(sidecar.port, OPENING) as connection:
        for first in range(1, 40_000, 2_000):
            batch = (
                http2.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.header_block("WatchExpiry"))
                + http2.reset(stream)
                for stream in range(first, first + 2_000, 2)
            )
            if not connection.send(b"".join(batch)):
                break
        assert_well(sidecar)


@pytest.mark.parametrize(
    "provocation",
    [
        pytest.param(
            lambda stream: http2.frame(http2.WINDOW_UPDATE, 0, stream, struct.pack(">I", 0)), id="window update of 0"
        ),
        pytest.param(
            lambda stream: http2.frame(http2.WINDOW_UPDATE, 0, stream, struct.pack(">I", 2**31 - 1)),
            id="window overflow",
        ),
        pytest.param(lambda stream: http2.frame(http2.DATA, http2.END_STREAM, stream) * 2, id="data after the end"),
    ],
)
def test_made_you_reset(sidecar, provocation):
    """Streams that the server itself must reset, again and again (CVE-2025-8671): it must tire of that."""
    with RawConnection(sidecar.port, OPENING) as connection:
        for first in range(1, 10_000, 500):
            batch = (
                http2.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.header_block("WatchExpiry"))
                + provocation(stream)
                for stream in range(first, first + 500, 2)
            )
            if not connection.send(b"".join(batch)):
                break
        assert connection.was_closed()


def test_half_a_header_block_then_silence(sidecar):
    half = http2.frame(http2.HEADERS, 0, 1, http2.header_block("Touch")[:40])
    connections = [RawConnection(sidecar.port, OPENING + half) for _ in range(200)]
    assert_well(sidecar)
    for connection in connections:
        connection.socket.close()


def test_an_endless_header_block_is_cut_off(sidecar):
    """CONTINUATION flood (CVE-2024-27316)."""
    continuation, kilobytes = 0x9, b"\x00\x04name\x7f\x81\x07" + b"v" * 1024
    with RawConnection(
        sidecar.port, OPENING + http2.frame(http2.HEADERS, 0, 1, http2.header_block("Touch"))
    ) as connection:
        flood = http2.frame(continuation, 0, 1, kilobytes) * 1024
        accepted = all(connection.send(flood) for _ in range(100))
        assert not accepted or connection.was_closed()


def test_a_message_over_the_limit_is_an_error_and_the_connection_goes_on(sidecar):
    with Client(sidecar.tcp) as client:
        touches = [v1.TouchRequest(session_id="x" * 256)] * 5_000
        with pytest.raises(grpc.RpcError) as refused:
            client.sessions.BatchTouch(v1.BatchTouchRequest(touches=touches), timeout=10)
        assert refused.value.code() == Code.RESOURCE_EXHAUSTED and "1048576 bytes" in refused.value.details()
        assert reason(refused.value) == "MESSAGE_TOO_LARGE"
        assert sidecar.metrics("rpcs_total")['{method="BatchTouch",code="RESOURCE_EXHAUSTED"}'] == 1
        assert client.create().session_id


BATCH = v1.BatchTouchRequest(touches=[v1.TouchRequest(session_id="x" * 256)] * 3_900).SerializeToString()


def batch_touch(client: Client) -> grpc.StreamUnaryMultiCallable:
    """The verb, by callers who send a request in pieces."""
    return client.channel.stream_unary("/sessionsidecar.v1.SessionService/BatchTouch", request_serializer=bytes, response_deserializer=bytes)


def fill_the_room(client: Client, rest: threading.Event) -> list[grpc.Future]:
    """Sends twenty requests of a megabyte that do not come whole before `rest`. There is room for sixteen, for the 10 s that they may take."""

    def unfinished():
        yield BATCH
        rest.wait()

    calls = [batch_touch(client).future(unfinished(), timeout=60) for _ in range(20)]
    eventually(lambda: sum(call.done() for call in calls) >= 4, "those that have no room are refused")
    return calls


def test_requests_that_do_not_come_whole_have_room_for_sixteen_of_the_largest_on_a_connection(sidecar):
    rest = threading.Event()
    with Client(sidecar.tcp) as client, Client(sidecar.tcp) as other:
        try:
            calls = fill_the_room(client, rest)
            assert other.create().session_id, "another connection has room of its own"
            assert client.create().session_id, "what is small needs none"
        finally:
            rest.set()
        codes = [call.exception().code() for call in calls]
        refused = [call.exception() for call in calls if call.code() == Code.RESOURCE_EXHAUSTED]
        assert {reason(error) for error in refused} == {"CONNECTION_BUSY"} and "16 MiB" in refused[0].details()
        assert sidecar.metrics("rpcs_total")['{method="BatchTouch",code="RESOURCE_EXHAUSTED"}'] == len(refused)
        assert set(codes) == {Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT}, "the others are read when they are whole"
        # What they took is free again.
        assert client.create().session_id
        with pytest.raises(grpc.RpcError) as read:
            batch_touch(client)(iter([BATCH]), timeout=10)
        assert read.value.code() == Code.INVALID_ARGUMENT


def silent_call(client: Client, path: str, say_nothing: threading.Event) -> tuple[grpc.StreamStreamMultiCallable, Callable]:
    """A method, and requests of which none comes before the event."""

    def silent():
        say_nothing.wait()
        yield from ()

    return client.channel.stream_stream(path, request_serializer=bytes, response_deserializer=bytes), silent


def test_who_does_not_read_the_answers_of_reflection_has_sixty_four_streams_on_a_connection(sidecar):
    say_nothing = threading.Event()
    with Client(sidecar.tcp) as client:
        call, silent = silent_call(client, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", say_nothing)
        calls = [call(silent(), timeout=60) for _ in range(200)]

        def refused() -> int:
            return sum(each.done() and each.code() == Code.RESOURCE_EXHAUSTED for each in calls)

        try:
            eventually(lambda: refused() >= 200 - 64, "there is no room for all")
            assert refused() == 200 - 64
            assert client.create().session_id
        finally:
            say_nothing.set()
        for each in calls:
            each.cancel()


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("/sessionsidecar.v1.SessionService/Touch", [("x", "y" * 14_000)]),
        ("/sessionsidecar.v1.SessionService/Touch?" + "y" * 14_000, []),
    ],
    ids=["headers", "path"],
)
def test_streams_that_say_nothing_have_the_same_room(sidecar, path, head):
    say_nothing = threading.Event()
    with Client(sidecar.tcp) as client:
        call, silent = silent_call(client, path, say_nothing)
        calls = []

        def two_hundred_are_refused() -> bool:
            # Some megabytes may not have come yet: what says nothing may take their room, of which 1,300 have all.
            if sum(not each.done() for each in calls) < 1_500:
                calls.extend(call(silent(), metadata=head, timeout=60) for _ in range(40))
            return sum(each.done() and each.code() == Code.RESOURCE_EXHAUSTED for each in calls) >= 200

        try:
            fill_the_room(client, say_nothing)
            eventually(two_hundred_are_refused, "there is no room for all")
            assert client.create().session_id
        finally:
            say_nothing.set()
        for each in calls:
            each.cancel()


def test_a_list_of_very_many_is_refused_before_it_is_decoded(sidecar):
    """Half a million empty touches are a megabyte, and two hundred when they are decoded."""
    with Client(sidecar.tcp) as client:
        touch = client.channel.unary_unary("/sessionsidecar.v1.SessionService/BatchTouch", request_serializer=bytes, response_deserializer=bytes)
        for count, told in [(1_001, "touches"), (8_192, "touches"), (8_193, "more than 8192 fields"), (524_000, "more than 8192 fields")]:
            with pytest.raises(grpc.RpcError) as refused:
                touch(b"\x0a\0" * count, timeout=10)
            assert refused.value.code() == Code.INVALID_ARGUMENT and told in refused.value.details()
        assert sidecar.metrics("rpcs_total")['{method="BatchTouch",code="INVALID_ARGUMENT"}'] == 4
        assert client.create().session_id


def test_who_need_not_show_who_they_are_cannot_send_much(sidecar):
    """They name a service or a file: of 5,000 bytes, in the field 1 or 3."""
    with Client(sidecar.tcp) as client:

        def ask(method: str, field: bytes) -> list[bytes]:
            call = client.channel.stream_stream(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
            return list(call(iter([field + b"\x88\x27" + b"x" * 5_000]), timeout=10))

        with pytest.raises(grpc.RpcError) as refused:
            ask("grpc.health.v1.Health/Check", b"\x0a")
        assert refused.value.code() == Code.RESOURCE_EXHAUSTED and "4096 bytes" in refused.value.details()
        assert ask("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x1a") == [], "it is over"


def test_a_full_batch_of_the_longest_ids_is_no_message_over_the_limit(sidecar):
    with Client(sidecar.tcp) as client:
        touches = [v1.TouchRequest(session_id="x" * 256)] * 1_000
        answer = client.sessions.BatchTouch(v1.BatchTouchRequest(touches=touches), timeout=10)
        assert {outcome.error.reason for outcome in answer.outcomes} == {"SESSION_UNKNOWN"}


def test_more_watchers_than_the_cap_are_refused_and_a_place_is_given_back(sidecar):
    with Client(sidecar.tcp) as client:
        watches = [client.watch() for _ in range(3)]
        for watch in watches:
            assert next(watch).HasField("snapshot_end")
        with pytest.raises(grpc.RpcError) as refused:
            next(client.watch())
        assert refused.value.code() == Code.RESOURCE_EXHAUSTED
        assert reason(refused.value) == "WATCHER_CAP"
        watches[0].cancel()
        eventually(lambda: watch_stands(client), "the place of a watcher that left is free")


def watch_stands(client: Client) -> bool:
    watch = client.watch()
    try:
        return next(watch).HasField("snapshot_end")
    except grpc.RpcError:
        return False
    finally:
        watch.cancel()


class Listener:
    """An honest watcher: reads all that comes, at once."""

    def __init__(self, client: Client) -> None:
        self.ended: list[str] = []
        stream = client.watch()
        assert next(stream).HasField("snapshot_end")
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def _listen(self, stream) -> None:
        with contextlib.suppress(grpc.RpcError):  # the test closes the channel
            self.ended.extend(message.ended.session.session_ref for message in stream if message.HasField("ended"))


def flood(client: Client, listener: Listener) -> None:
    """Causes 500 fat events, far more than a queue and a window hold."""
    labels = {f"label-{number}": "x" * 128 for number in range(8)}
    refs = []
    for _ in range(500):
        session = client.create(labels=labels)
        client.end(session.session_id)
        refs.append(session.session.status.session_ref)
    eventually(lambda: len(listener.ended) >= len(refs), "the honest watcher hears of every end")
    assert listener.ended == refs, "each once, in order"


def test_a_watcher_that_does_not_read_is_cut_off_and_told_so_and_nobody_else_misses_anything(sidecar):
    # A small window, and nothing grows it.
    slow_options = {"grpc.http2.lookahead_bytes": 4096, "grpc.http2.bdp_probe": 0}
    with Client(sidecar.tcp) as client, Client(sidecar.tcp, **slow_options) as slow:
        listener = Listener(client)
        stream = slow.watch()
        last = next(stream)
        flood(client, listener)
        eventually(lambda: sidecar.metric("watchers_cut_off_total") == 1, "the slow watcher is cut off")

        # It wakes up: it gets what was on its way, the reason, and resumes where it was.
        heard = []
        with pytest.raises(grpc.RpcError) as cut_off:
            for last in stream:
                heard.append(last.ended.session.session_ref)
        assert cut_off.value.code() == Code.RESOURCE_EXHAUSTED
        assert reason(cut_off.value) == "WATCHER_TOO_SLOW"
        resumed = slow.watch(resume_token=last.resume_token)
        while len(heard) < len(listener.ended):
            heard.append(next(resumed).ended.session.session_ref)
        assert heard == listener.ended, "nothing is lost or doubled, and the order is kept"


def test_a_watcher_without_any_window_is_cut_off_too(sidecar):
    """It holds one of the few places, and can be sent nothing, not even a goodbye."""
    opening = http2.PREFACE + http2.settings(window=0) + http2.call("WatchExpiry", 1, WATCH_TENANT)
    with Client(sidecar.tcp) as client, RawConnection(sidecar.port, opening) as stuck:
        assert any(kind == http2.HEADERS for kind, _, _ in stuck.frames())
        listener = Listener(client)
        flood(client, listener)
        eventually(lambda: sidecar.metric("watchers_cut_off_total") == 1, "the stuck watcher is cut off")
        others = [client.watch() for _ in range(2)]
        for watch in others:
            assert next(watch).HasField("snapshot_end"), "its place is free"


def test_a_crowd_at_the_admin_port_keeps_nobody_out(serve):
    sidecar = serve()
    crowd = [
        RawConnection(sidecar.admin_port, opening)
        for opening in (b"", b"GET /metrics HTT", b"\xff" * 100)
        for _ in range(100)
    ]
    assert sidecar.http("/readyz")[0] == 200
    assert sidecar.http("/metrics")[0] == 200
    for connection in crowd:
        connection.socket.close()


def test_what_cannot_be_decoded_is_the_callers_fault_and_names_the_field(sidecar):
    with Client(sidecar.tcp) as client:
        touch = client.channel.unary_unary(
            "/sessionsidecar.v1.SessionService/Touch", request_serializer=bytes, response_deserializer=bytes
        )
        # Field 2 is session_id; \xff is in no UTF-8.
        with pytest.raises(grpc.RpcError) as refused:
            touch(b"\x12\x01\xff", timeout=10)
        assert refused.value.code() == Code.INVALID_ARGUMENT
        assert violations(refused.value) == {"session_id"}
        with pytest.raises(grpc.RpcError) as refused:
            touch(b"\x12\xff", timeout=10)
        assert refused.value.code() == Code.INVALID_ARGUMENT
        nothing = client.channel.stream_unary(
            "/sessionsidecar.v1.SessionService/Touch", request_serializer=bytes, response_deserializer=bytes
        )
        with pytest.raises(grpc.RpcError) as refused:
            nothing(iter([]), timeout=10)
        assert refused.value.code() == Code.INVALID_ARGUMENT and "there is none" in refused.value.details()
        with pytest.raises(grpc.RpcError) as refused:
            touch(b"", timeout=10, compression=grpc.Compression.Gzip)
        assert refused.value.code() == Code.UNIMPLEMENTED and "gzip" in refused.value.details()
        counted = sidecar.metrics("rpcs_total")
        assert counted['{method="Touch",code="INVALID_ARGUMENT"}'] == 3 and counted['{method="Touch",code="UNIMPLEMENTED"}'] == 1
        assert client.create().session_id


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "INVALID_ARGUMENT"), (b"\0\0\0\0\x05\x12", "INVALID_ARGUMENT"), (b"\7\0\0\0\0", "INVALID_ARGUMENT"), (b"\1\0\0\0\0", "INTERNAL")],
    ids=["none", "cut off", "no flag", "compressed by nothing"],
)
def test_what_is_no_message_is_counted(sidecar, body, code):
    frames = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.header_block("Touch")) + http2.frame(http2.DATA, http2.END_STREAM, 1, body)
    with RawConnection(sidecar.port, OPENING + frames):
        eventually(lambda: sidecar.metrics("rpcs_total")[f'{{method="Touch",code="{code}"}}'] == 1, "it is counted")


def test_a_small_limit_of_open_files_is_raised(serve):
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        sidecar = serve()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with contextlib.ExitStack() as crowd:
        for _ in range(400):
            crowd.enter_context(RawConnection(sidecar.port, OPENING))
        assert_well(sidecar)
        with Client(sidecar.uds) as other:
            assert other.create().session_id


def test_a_limit_of_open_files_that_is_too_small_is_told(binary, directory):
    wrapped = directory / "limited"
    wrapped.write_text(f'#!/bin/sh\nulimit -n 512\nexec {binary} "$@"\n')
    wrapped.chmod(0o755)
    with Sidecar(wrapped, directory, "--max-connections", "100") as sidecar:
        assert "LimitNOFILE" not in sidecar.output()
    with Sidecar(wrapped, directory) as sidecar:
        assert all(part in sidecar.output() for part in ('"maximum":512', '"wanted":10256', "LimitNOFILE"))
