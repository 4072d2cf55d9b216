"""From SIGTERM to exit."""

import signal

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import http2
from support.api import Client, v1
from support.process import eventually

WATCH_ALL = v1.WatchExpiryRequest(scope=v1.WatchScope(whole_tenant=True)).SerializeToString()
NO_WINDOW = http2.PREFACE + http2.settings(window=0)


def stuck_stream(sidecar) -> http2.RawConnection:
    """A watcher that gives the server no window: not even the goodbye can be sent to it."""
    connection = http2.RawConnection(sidecar.port, NO_WINDOW + http2.call("WatchExpiry", 1, WATCH_ALL))
    answered = next(stream for kind, stream, _ in connection.frames() if kind == http2.HEADERS)
    assert answered == 1
    return connection


def test_sigterm_drains_a_hundred_streams_and_exits_0(serve):
    sidecar = serve("--drain-timeout", "300s")
    with Client(sidecar.tcp) as over_tcp, Client(sidecar.uds) as over_uds:
        health = health_pb2_grpc.HealthStub(over_tcp.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        streams = [client.watch() for client in (over_tcp, over_uds) for _ in range(50)]
        for stream in streams:
            assert next(stream).HasField("snapshot_end")

        sidecar.terminate()
        for stream in streams:
            goodbye = next(stream)
            assert goodbye.HasField("draining") and goodbye.resume_token
            assert next(stream, None) is None, "the stream ends after Draining, with OK"
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert sidecar.wait() == 0, "nothing held it up, and it has not waited out the drain timeout"


def test_it_is_not_ready_while_it_drains(serve):
    sidecar = serve("--drain-timeout", "60s")
    with stuck_stream(sidecar):
        sidecar.terminate()
        eventually(lambda: sidecar.http("/readyz")[0] == 503, "/readyz says 503")
        assert sidecar.http("/livez")[0] == 200, "it is alive, and must not be killed"
        assert sidecar.process.poll() is None


def test_the_drain_timeout_ends_a_drain_that_is_stuck(serve):
    sidecar = serve("--drain-timeout", "1s")
    with stuck_stream(sidecar):
        assert sidecar.stop() == 0


def test_a_second_sigterm_exits_at_once(serve):
    sidecar = serve("--drain-timeout", "300s")
    with stuck_stream(sidecar):
        sidecar.terminate()
        eventually(lambda: sidecar.http("/readyz")[0] == 503, "it drains")
        sidecar.terminate()
        sidecar.wait()


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_an_idle_sidecar_stops_at_either_signal(serve, signal_name):
    sidecar = serve()
    sidecar.process.send_signal(getattr(signal, signal_name))
    assert sidecar.wait() == 0


def test_sighup_ends_nobody(serve):
    sidecar = serve()
    with Client(sidecar.tcp) as client:
        sidecar.process.send_signal(signal.SIGHUP)
        client.create()
        assert sidecar.stop() == 0
