"""A manifest runs as a pod: the application calls the sidecar beside it. `--manifest` is one to run, tests/image/pod.yaml by default; a chart's
output for example. It needs a container of the image session-sidecar, and an application that has the socket and SESSION_SIDECAR_TARGET."""

import json
from signal import Signals

import pytest

import pods
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


@pytest.fixture(scope="module")
def pod(request, image, app):
    """The pod, all of whose probes say yes."""
    text = request.config.getoption("--manifest").read_text()
    names = {one["name"]: one["image"] for one in pods.Manifest(text, {}).containers}
    [sidecar] = [name for name, named in names.items() if "session-sidecar" in named]
    name = request.config.getoption("--app-container")
    [name] = [name] if name else names.keys() - {sidecar}
    with pods.running_pod(pods.Manifest(text, {"": app, sidecar: image})) as pod:
        pod.sidecar, pod.app = sidecar, pod.container(name)
        pod.await_probes()
        yield pod


def python(pod, program: str, *arguments: str) -> str:
    return pod.app.exec("python3", "-c", program, *arguments).stdout.strip()


def test_the_application_calls_the_sidecar_over_what_they_share(pod):
    session = python(pod, CREATE)
    assert json.loads(python(pod, TOUCH, session)) == {"kind": "Touched", "allowed": True}


def test_probes_say_no_while_it_stands_still(pod):
    """Each of them: one that answers from somewhere else would say yes."""
    sidecar = pod.container(pod.sidecar)
    probes = [(kind, told) for container, kind, told in pod.manifest.probes() if container == pod.sidecar]
    assert {kind for kind, _ in probes} >= {"startupProbe", "readinessProbe", "livenessProbe"}
    sidecar.kill(Signals.SIGSTOP)
    try:
        # Not at once: a thread that runs on another processor stops a little later.
        eventually(lambda: set(sidecar.threads()) == {"T"}, "all its threads stand still")
        asked = {kind: pod.probe(pod.sidecar, told) for kind, told in probes if "httpGet" in told}
    finally:
        sidecar.kill(Signals.SIGCONT)
    assert asked and not any(asked.values()), asked
    pod.await_probes()


def test_the_api_is_not_at_the_pods_address(pod):
    """Metrics and probes are; who is not in the pod cannot call."""
    listening = pod.inside("ss", "--listening", "--tcp", "--numeric", "--no-header").stdout.split("\n")
    local = [line.split()[3] for line in listening if line]
    ports = {address.rpartition(":")[2] for address in local if not address.startswith("127.0.0.1:")}
    wanted = {str(one["containerPort"]) for one in pod.manifest.container(pod.sidecar)["ports"]}
    assert ports and ports <= wanted, local


def test_a_killed_sidecar_comes_back_at_the_same_socket(pod):
    session = python(pod, CREATE)
    sidecar = pod.container(pod.sidecar)
    before, first = sidecar.restarts, sidecar.pid
    sidecar.kill(Signals.SIGKILL)
    eventually(lambda: sidecar.restarts > before and sidecar.state["Running"] and sidecar.pid != first, "it is started again")
    pod.await_probes()
    # Its memory is gone, it says so, and the application is not let in by it.
    assert json.loads(python(pod, TOUCH, session)) == {"kind": "Unknown", "allowed": False}
    assert json.loads(python(pod, TOUCH, python(pod, CREATE)))["kind"] == "Touched"
    assert pod.app.state["Running"] and pod.app.restarts == 0, "and the application was not restarted for it"
