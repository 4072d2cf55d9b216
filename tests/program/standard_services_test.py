"""What operators' tools find beside the API: health, reflection, metrics."""

import subprocess

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support.api import Client, Code
from support.process import run, tool

SERVICE = "sessionsidecar.v1.SessionService"
ADMIN = "sessionsidecar.v1.SessionAdminService"


@pytest.mark.parametrize("service", ["", SERVICE, ADMIN])
def test_health_is_serving(serve, service):
    with Client(serve().tcp) as client:
        answer = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_a_service_that_is_not_here_is_not_found(serve):
    with Client(serve().tcp) as client, pytest.raises(grpc.RpcError) as refused:
        health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert refused.value.code() == Code.NOT_FOUND


def test_healthcheck_exits_0_while_it_serves_and_1_when_it_is_gone(serve, binary):
    sidecar = serve()
    targets = [f"http://127.0.0.1:{sidecar.port}", f"unix:{sidecar.socket_path}"]
    for target in targets:
        assert run(binary, "healthcheck", "--target", target).returncode == 0
        assert run(binary, "healthcheck", env={"SESSION_SIDECAR_TARGET": target}).returncode == 0
    sidecar.stop()
    for target in targets:
        gone = run(binary, "healthcheck", "--target", target)
        assert gone.returncode == 1
        assert target in gone.stderr


@pytest.mark.parametrize("dev", [False, True])
def test_reflection_v1_lists_the_methods_that_are_served(serve, dev):
    sidecar = serve(*["--dev"] * dev)
    listed = subprocess.run(
        [tool("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", f"http://{sidecar.tcp}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    verbs = {method.rpartition("/")[2] for method in listed if method.startswith(f"{SERVICE}/")}
    assert verbs == {
        "Create", "Touch", "BatchTouch", "Check", "Extend", "Hold", "Release", "Rotate", "End", "WatchExpiry",
    }  # fmt: skip
    administered = {method.rpartition("/")[2] for method in listed if method.startswith(f"{ADMIN}/")}
    assert administered == {"ListSessions", "EndSessions", "ExplainSession", "ListPolicies", "GetStats"}
    assert "grpc.health.v1.Health/Check" in listed
    assert ("sessionsidecar.dev.v1.TestClockService/Advance" in listed) == dev


def test_reflection_v1alpha_describes_the_service(serve):
    with Client(serve().tcp) as client:
        reflection = ProtoReflectionDescriptorDatabase(client.channel)
        assert {SERVICE, ADMIN, "grpc.health.v1.Health"} <= set(reflection.get_services())
        file = reflection.FindFileContainingSymbol(SERVICE)
        assert file.package == "sessionsidecar.v1"


def test_metrics_are_what_prometheus_wants_and_count(serve):
    sidecar = serve()
    with Client(sidecar.tcp) as client:
        session = client.create()
        client.end(session.session_id)
        status, metrics = sidecar.http("/metrics")
        assert status == 200
        checked = subprocess.run(
            [tool("promtool"), "check", "metrics"], input=metrics, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0 and not checked.stderr, checked.stderr
        series = {line.split("{")[0].split(" ")[0] for line in metrics.splitlines() if not line.startswith("#")}
        assert all(name.startswith("session_sidecar_") for name in series)
        assert sidecar.metric("sessions_created_total") == 1
        assert sidecar.metric("sessions_ended_total") == 1


def test_the_admin_port_knows_three_pages(serve):
    sidecar = serve()
    assert [sidecar.http(path)[0] for path in ("/livez", "/readyz", "/metrics", "/", "/debug")] == [
        200,
        200,
        200,
        404,
        404,
    ]
