"""Spans of calls, as a collector of OpenTelemetry gets them."""

import queue
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collector_service
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from support.api import Client, until_available, v1
from support.certificates import Authority
from support.process import PATIENCE, eventually, free_port, run, tool

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = ("traceparent", f"00-{TRACE}-{CALLER}-01")
NOT_SAMPLED = ("traceparent", f"00-{TRACE}-{CALLER}-00")
SECRET = "a-session-id-that-nobody-may-see"
SESSIONS = "sessionsidecar.v1.SessionService"


class Collector(collector_service.TraceServiceServicer):
    """A collector of one's own: keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: queue.Queue[tuple[collector.ExportTraceServiceRequest, dict[str, str]]] = queue.Queue()
        self._spans: list[Span] = []

    def Export(self, request, context):
        self.requests.put((request, dict(context.invocation_metadata())))
        return collector.ExportTraceServiceResponse()

    def spans(self, count: int) -> list[Span]:
        """The first spans that have come, waiting until there are so many."""
        while len(self._spans) < count:
            request, _ = self.requests.get(timeout=PATIENCE)
            self._spans += [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
        return self._spans

    def server_span(self, trace: str) -> Span:
        """That of a call in this trace, waiting until it has come."""
        while not (found := [span for span in self._spans if span.kind == Span.SPAN_KIND_SERVER and span.trace_id.hex() == trace]):
            self.spans(len(self._spans) + 1)
        (span,) = found
        return span


@contextmanager
def collecting(port: int, credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    server = grpc.server(ThreadPoolExecutor(2))
    collected = Collector()
    collector_service.add_TraceServiceServicer_to_server(collected, server)
    bound = server.add_secure_port(f"localhost:{port}", credentials) if credentials else server.add_insecure_port(f"127.0.0.1:{port}")
    assert bound == port
    server.start()
    yield collected
    server.stop(0).wait()


def variables(port: int, **more: str) -> dict[str, str]:
    """As an operator sets them; spans are sent at once."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "50"} | more


def attributes(span: Span) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def test_calls_have_spans_below_those_of_their_callers(serve):
    port = free_port()
    with collecting(port) as collected:
        sidecar = serve(env=variables(port))
        with Client(sidecar.tcp) as client:
            client.sessions.Create(v1.CreateRequest(session_id=SECRET, subject="ada"), metadata=[SAMPLED], timeout=10)
            # Who is sampled decides the caller.
            client.sessions.Touch(v1.TouchRequest(session_id=SECRET), metadata=[NOT_SAMPLED], timeout=10)
            with pytest.raises(grpc.RpcError):
                client.sessions.Touch(v1.TouchRequest(session_id="an-unknown-session-id"), metadata=[SAMPLED], timeout=10)
            stream = client.sessions.WatchExpiry(v1.WatchExpiryRequest(scope=v1.WatchScope(whole_tenant=True)), timeout=60)
            next(stream)
            # Without a caller's span a trace begins here.
            client.sessions.Check(v1.CheckRequest(session_id=SECRET), timeout=10)
            stream.cancel()
        spans = collected.spans(4)
        by_name = {span.name: span for span in spans}
        assert len(spans) == 4
        assert set(by_name) == {f"{SESSIONS}/{verb}" for verb in ("Create", "Touch", "Check", "WatchExpiry")}
        create, touch, check, watch = (by_name[f"{SESSIONS}/{verb}"] for verb in ("Create", "Touch", "Check", "WatchExpiry"))
        for span in (create, touch):
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
        for span in (check, watch):
            assert span.trace_id.hex() != TRACE and not span.parent_span_id
        assert all(span.kind == Span.SPAN_KIND_SERVER and span.start_time_unix_nano < span.end_time_unix_nano for span in spans)
        assert attributes(create) == {"rpc.system.name": "grpc", "rpc.method": create.name, "rpc.response.status_code": "OK"}
        # What the caller did wrong is no error of the server's.
        assert attributes(touch)["rpc.response.status_code"] == "NOT_FOUND" and touch.status.code == Status.STATUS_CODE_UNSET
        assert attributes(watch)["rpc.response.status_code"] == "CANCELLED"
        assert SECRET not in str(spans) and "ada" not in str(spans)
        # The collector has them before the sidecar knows.
        eventually(lambda: sidecar.metrics("trace_spans_total")['{outcome="sent"}'] == 4, "they are counted")
        assert sidecar.stop() == 0


def test_what_the_collector_is_told_of_the_service(serve):
    port = free_port()
    with collecting(port) as collected:
        sidecar = serve(env=variables(port, OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test", OTEL_EXPORTER_OTLP_HEADERS="x-tenant=ours"))
        with Client(sidecar.tcp) as client:
            client.create()
        request, metadata = collected.requests.get(timeout=PATIENCE)
        (told,) = request.resource_spans
        said = {attribute.key: attribute.value.string_value for attribute in told.resource.attributes}
        assert said["service.name"] == "session-sidecar" and said["service.version"] and said["deployment.environment.name"] == "test"
        assert metadata["x-tenant"] == "ours"


def test_what_is_left_is_sent_at_the_end_and_a_name_is_taken(serve):
    port = free_port()
    with collecting(port) as collected:
        sidecar = serve(env=variables(port, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_SERVICE_NAME="shop-sessions", OTEL_PROPAGATORS="none"))
        with Client(sidecar.tcp) as client:
            client.sessions.Create(v1.CreateRequest(), metadata=[SAMPLED], timeout=10)
        assert sidecar.stop() == 0
        request, _ = collected.requests.get(timeout=PATIENCE)
        (told,) = request.resource_spans
        assert {attribute.key: attribute.value.string_value for attribute in told.resource.attributes}["service.name"] == "shop-sessions"
        (span,) = told.scope_spans[0].spans
        assert span.trace_id.hex() != TRACE


def test_calls_of_the_store_are_below_those_that_make_them(serve, directory):
    (port, store, key) = (free_port(), free_port(), directory / "key")
    key.write_bytes(b"0123456789abcdef" * 2)
    key.chmod(0o600)
    redis = subprocess.Popen([tool("redis-server"), "--port", str(store), "--save", "", "--dir", str(directory)], stdout=subprocess.DEVNULL)
    try:
        with collecting(port) as collected:
            listening = ["--store", f"redis://127.0.0.1:{store}", "--store-key-file", str(key)]
            eventually(lambda: run(Path(tool("redis-cli")), "-p", str(store), "ping").stdout == "PONG\n", "redis answers")
            sidecar = serve(*listening, env=variables(port))
            with Client(sidecar.tcp) as client:

                def create_in_a_trace() -> str:
                    trace = uuid4().hex
                    request = v1.CreateRequest(session_id=SECRET, request_id="a-request-of-this-test")
                    client.sessions.Create(request, metadata=[("traceparent", f"00-{trace}-{CALLER}-01")], timeout=10)
                    return trace

                trace = until_available(create_in_a_trace)
            # It ends after all that is below it.
            create = collected.server_span(trace)
            spans = [span for span in collected.spans(0) if span.trace_id.hex() == trace]
            calls = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT]
            assert calls
            for call in calls:
                assert call.parent_span_id == create.span_id
                assert call.name == f"EVALSHA {attributes(call)['db.stored_procedure.name']}"
                assert create.start_time_unix_nano <= call.start_time_unix_nano <= call.end_time_unix_nano
            assert SECRET not in str(collected.spans(0))
    finally:
        redis.kill()
        redis.wait()


def test_a_collector_that_is_away_is_told_of_once_and_hurts_nobody(serve):
    port = free_port()
    sidecar = serve(env=variables(port))
    with Client(sidecar.tcp) as client:
        client.create()
        eventually(lambda: sidecar.metrics("trace_spans_total").get('{outcome="lost"}') == 1, "the span is counted")
        client.create()
        eventually(lambda: sidecar.metrics("trace_spans_total").get('{outcome="lost"}') == 2, "the next one, too")
        assert sidecar.output().count("spans do not reach the collector") == 1
        with collecting(port) as collected:

            def call():
                client.create()
                return not collected.requests.empty()

            eventually(call, "the collector is found again")
            eventually(lambda: "spans reach the collector again" in sidecar.output(), "that is said")


def test_a_collector_is_spoken_to_by_tls(serve, directory):
    authority = Authority(directory / "authority")
    certificate, key = authority.sign("collector")
    port = free_port()
    with collecting(port, grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])) as collected:
        sidecar = serve(env=variables(port, OTEL_EXPORTER_OTLP_ENDPOINT=f"https://localhost:{port}", OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority.certificate)))
        with Client(sidecar.tcp) as client:
            client.create()
        assert collected.spans(1)[0].name == f"{SESSIONS}/Create"


def test_nothing_is_traced_without_an_endpoint_and_a_bad_one_is_refused(serve, binary):
    sidecar = serve(env={"OTEL_SERVICE_NAME": "shop"})
    assert "trace_spans" not in sidecar.http("/metrics")[1]
    for bad, told in [("collector:4317", "must be a URL"), ("ftp://collector", "must be a URL")]:
        done = run(binary, "check-config", env={"OTEL_EXPORTER_OTLP_ENDPOINT": bad})
        assert done.returncode == 64 and "OTEL_EXPORTER_OTLP_ENDPOINT" in done.stderr and told in done.stderr
    done = run(binary, "check-config", env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert done.returncode == 64 and "OTEL_EXPORTER_OTLP_PROTOCOL must be grpc" in done.stderr
