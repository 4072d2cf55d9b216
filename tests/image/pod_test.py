"""What the charts render runs as a pod: the application calls the sidecar beside it, others the shared one."""

import json
from signal import Signals

import pytest

import charts
import pods
from support.certificates import Authority
from support.process import eventually

# In the application's container, with what the manifest gave it: nothing here says where the sidecar is.
CREATE = """
from session_sidecar import Sidecar
print(Sidecar().create(subject="ada").session_id)
"""
TOUCH = """
import json, sys
from datetime import timedelta
from session_sidecar import Activity, Sidecar
answer = Sidecar().with_options(deadline=timedelta(seconds=5)).touch(sys.argv[1], activity=Activity.USER)
print(json.dumps({"kind": type(answer).__name__, "allowed": answer.allowed}))
"""


SIDECAR = "session-sidecar"
SHOP, SERVICE = (next(case for case in charts.cases() if case.name == name) for name in ("shop-memory", "service-token"))
# How the library chart puts the sidecar into a pod: as a native one, and beside the application where Kubernetes has none.
MODES = {"native": charts.NEWEST, "classic": "1.28"}


@pytest.fixture(scope="module", params=MODES)
def pod(request, image, app):
    """A pod of the example's chart, all of whose probes say yes."""
    rendered = charts.render(SHOP, kubernetes=MODES[request.param], values={"sidecar": {"mode": request.param}})
    manifest = pods.Manifest(rendered.manifests, {"": app, SIDECAR: image})
    assert bool(manifest.spec.get("initContainers")) == (request.param == "native")
    with pods.running_pod(manifest) as pod:
        pod.app = pod.container("shop")
        pod.await_probes()
        yield pod


def python(pod, program: str, *arguments: str) -> str:
    return pod.app.exec("python3", "-c", program, *arguments).stdout.strip()


def test_the_application_calls_the_sidecar_over_what_they_share(pod):
    session = python(pod, CREATE)
    assert json.loads(python(pod, TOUCH, session)) == {"kind": "Touched", "allowed": True}


def test_probes_say_no_while_it_stands_still(pod):
    """Each of them: one that answers from somewhere else would say yes."""
    sidecar = pod.container(SIDECAR)
    probes = [(kind, told) for container, kind, told in pod.manifest.probes() if container == SIDECAR]
    assert {kind for kind, _ in probes} >= {"startupProbe", "readinessProbe", "livenessProbe"}
    sidecar.kill(Signals.SIGSTOP)
    try:
        # Not at once: a thread that runs on another processor stops a little later.
        eventually(lambda: set(sidecar.threads()) == {"T"}, "all its threads stand still")
        asked = {kind: pod.probe(SIDECAR, told) for kind, told in probes if "httpGet" in told}
    finally:
        sidecar.kill(Signals.SIGCONT)
    assert asked and not any(asked.values()), asked
    pod.await_probes()


def test_the_api_is_not_at_the_pods_address(pod):
    """Metrics and probes are; who is not in the pod cannot call."""
    listening = pod.inside("ss", "--listening", "--tcp", "--numeric", "--no-header").stdout.split("\n")
    local = [line.split()[3] for line in listening if line]
    ports = {address.rpartition(":")[2] for address in local if not address.startswith("127.0.0.1:")}
    wanted = {str(one["containerPort"]) for one in pod.manifest.container(SIDECAR)["ports"]}
    assert ports and ports <= wanted, local


def test_a_killed_sidecar_comes_back_at_the_same_socket(pod):
    session = python(pod, CREATE)
    sidecar = pod.container(SIDECAR)
    before, first = sidecar.restarts, sidecar.pid
    sidecar.kill(Signals.SIGKILL)
    eventually(lambda: sidecar.restarts > before and sidecar.state["Running"] and sidecar.pid != first, "it is started again")
    pod.await_probes()
    # Its memory is gone, it says so, and the application is not let in by it.
    assert json.loads(python(pod, TOUCH, session)) == {"kind": "Unknown", "allowed": False}
    assert json.loads(python(pod, TOUCH, python(pod, CREATE)))["kind"] == "Touched"
    assert pod.app.state["Running"] and pod.app.restarts == 0, "and the application was not restarted for it"


def test_the_shared_service_is_one_for_who_has_the_token(binary, image, tmp_path):
    """Its certificate, key and token come from Secrets, which the chart makes of values here."""
    authority = Authority(tmp_path / "authority")
    certificate, key = (path.read_text() for path in authority.sign("server", names=f"IP:{pods.ADDRESS}"))
    data = {"sessions-tls": {"data": {"tls.crt": certificate, "tls.key": key}}}
    rendered = charts.render(SERVICE, values={"secrets": data})
    (token,) = (secret for secret in rendered.of_kind("Secret") if secret["metadata"]["name"] == "sessions-token")
    (tmp_path / "token").write_text(token["stringData"]["token"])
    with pods.running_pod(pods.Manifest(rendered.manifests, {"": image, SIDECAR: image})) as pod:
        pod.await_probes()
        call = [binary, "create", "--target", f"https://{pods.ADDRESS}:50151", "--tls-ca-file", authority.certificate]
        done = pod.inside(*call, "--token-file", tmp_path / "token")
        assert done.returncode == 0, done.stderr
        done = pod.inside(*call)
        assert done.returncode and "CALLER_NOT_AUTHENTICATED" in done.stderr, done.stderr
