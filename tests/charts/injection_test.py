"""The MutatingAdmissionPolicy: its expressions are evaluated, and the pod that comes out is the one that the library chart renders."""

import copy
import json
import re
from typing import Any

import celpy
import jsonpatch
import pytest
import yaml
from kubernetes_validate import utils as kubernetes_validate

from charts import REPOSITORY, Manifest, Rendered, cases, render

PLATFORM, SHOP = (next(case for case in cases() if case.name == name) for name in ("platform", "shop-memory"))

PAGE = (REPOSITORY / "docs/deploy.md").read_text()

PLAIN: Manifest = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "shop", "labels": {"session-sidecar/inject": "true"}},
    "spec": {"containers": [{"name": "shop", "image": "registry.example/shop:1.0"}, {"name": "worker", "image": "w"}]},
}
FURNISHED: Manifest = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "shop"},
    "spec": {
        "securityContext": {"fsGroup": 2000, "runAsNonRoot": True},
        "initContainers": [{"name": "migrate", "image": "m"}],
        "containers": [
            {
                "name": "shop",
                "image": "s",
                "env": [{"name": "A", "value": "b"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    },
}


def mutated(pod: Manifest, rendered: Rendered | None = None) -> Manifest:
    """The pod after the policy's mutations, which an API server makes in their order."""
    (policy,) = (rendered or render(PLATFORM)).of_kind("MutatingAdmissionPolicy")
    if not all(evaluate(condition["expression"], pod) for condition in policy["spec"]["matchConditions"]):
        return pod
    for mutation in policy["spec"]["mutations"]:
        if mutation["patchType"] == "JSONPatch":
            patch = evaluate(mutation["jsonPatch"]["expression"], pod)
            pod = jsonpatch.apply_patch(pod, patch)
        else:
            pod = merged(pod, evaluate(mutation["applyConfiguration"]["expression"], pod), "")
    return pod


def evaluate(expression: str, pod: Manifest) -> Any:
    """A CEL expression over a pod. Typed objects, which only an API server knows, are maps here."""
    plain = re.sub(r"\b(Object(\.\w+)*|JSONPatch)\s*\{", "{", expression)
    plain = re.sub(r'([{,]\s*)(\w+):', r'\1"\2":', plain)
    environment = celpy.Environment()
    program = environment.program(environment.compile(plain))
    return python(program.evaluate({"object": celpy.json_to_cel(pod)}))


def python(value: Any) -> Any:
    """A CEL value as JSON has it."""
    if isinstance(value, celpy.celtypes.BoolType):
        return bool(value)
    if isinstance(value, dict):
        return {str(key): python(below) for key, below in value.items()}
    if isinstance(value, list):
        return [python(item) for item in value]
    return int(value) if isinstance(value, int) else str(value)


# Lists whose items have a key, as in Kubernetes' own schema: https://kubernetes.io/docs/reference/using-api/server-side-apply/
KEYS = {"containers": "name", "env": "name", "volumeMounts": "mountPath"}


def merged(old: Any, new: Any, name: str) -> Any:
    """Server-side apply: objects and lists with a key are merged; anything else may not be set in an ApplyConfiguration unless it is a scalar."""
    if isinstance(new, dict):
        return {**old, **{key: merged(old.get(key, [] if isinstance(value, list) else {}), value, key) for key, value in new.items()}}
    if isinstance(new, list):
        assert name in KEYS, f"the list {name} is atomic: an ApplyConfiguration may not set it"
        key = KEYS[name]
        known = {item[key]: item for item in old}
        return list((known | {item[key]: merged(known.get(item[key], {}), item, "") for item in new}).values())
    return new


def test_the_pod_is_the_one_that_the_library_renders() -> None:
    pod = mutated(PLAIN)
    values = {"sidecar": {"policyConfigMap": "session-policies", "maxSessions": 5000}}
    (expected,) = render(SHOP, values=values).pods()
    sidecar = expected["initContainers"][0]
    assert pod["spec"]["initContainers"] == [sidecar]
    assert pod["spec"]["volumes"] == expected["volumes"]
    assert pod["spec"]["securityContext"] == expected["securityContext"]
    application = expected["containers"][0]
    for container in pod["spec"]["containers"]:
        assert container["env"] == application["env"] and container["volumeMounts"] == application["volumeMounts"]
    assert pod["metadata"]["labels"] == {"session-sidecar/inject": "true", "session-sidecar/scrape": "true"}
    kubernetes_validate.validate(pod, "1.37", strict=True)


def test_the_pod_of_the_page_is_the_librarys() -> None:
    """With the values of docs/deploy.md and nothing else."""
    (block,) = re.findall(r"^```yaml\n(# helm/session-sidecar\n[^`]*\ninjection:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    pod = mutated(PLAIN, render(PLATFORM, values=yaml.safe_load(block), alone=True))
    (expected,) = render(SHOP, values={"sidecar": {"policyConfigMap": "session-policies"}}).pods()
    assert pod["spec"]["initContainers"] == expected["initContainers"]


def test_probes_of_a_mesh_are_injected_too() -> None:
    rendered = render(PLATFORM, values={"sidecar": {"mesh": {"kind": "istio"}}})
    (policy,) = rendered.of_kind("MutatingAdmissionPolicy")
    pod = jsonpatch.apply_patch(PLAIN, evaluate(policy["spec"]["mutations"][0]["jsonPatch"]["expression"], PLAIN))
    assert pod["spec"]["initContainers"][0]["startupProbe"]["exec"]["command"][-1] == "--target=unix:/run/session-sidecar-probe/probe.sock"
    assert "session-sidecar-probe" in [volume["name"] for volume in pod["spec"]["volumes"]]


def test_what_the_pod_has_stays() -> None:
    before = copy.deepcopy(FURNISHED)
    pod = mutated(FURNISHED)
    assert FURNISHED == before
    spec = pod["spec"]
    assert [container["name"] for container in spec["initContainers"]] == ["session-sidecar", "migrate"]
    assert spec["securityContext"]["fsGroup"] == 2000 and spec["securityContext"]["runAsNonRoot"] is True
    assert [volume["name"] for volume in spec["volumes"]] == ["data", "session-sidecar", "session-sidecar-policy"]
    assert [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]] == ["/data", "/run/session-sidecar"]
    assert [variable["name"] for variable in spec["containers"][0]["env"]] == ["A", "SESSION_SIDECAR_TARGET"]
    kubernetes_validate.validate(pod, "1.37", strict=True)


@pytest.mark.parametrize("pod", [PLAIN, FURNISHED], ids=["plain", "furnished"])
def test_twice_is_once(pod: Manifest) -> None:
    once = mutated(pod)
    assert mutated(once) == once


def test_literals_are_of_one_kind() -> None:
    """Kubernetes' CEL takes no map or list of values of several kinds: objects have a type, and only quantities are maps."""
    (policy,) = render(PLATFORM).of_kind("MutatingAdmissionPolicy")
    for mutation in policy["spec"]["mutations"]:
        expression = mutation.get("jsonPatch", mutation.get("applyConfiguration"))["expression"]
        for literal in re.findall(r"(?<![\w.])\{[^{}]*\}", expression):
            values = json.loads(literal).values()
            assert len({type(value) for value in values}) == 1, literal


def test_secrets_and_a_store_are_injected_too() -> None:
    values = {"sidecar": {"store": {"url": "redis://r"}, "key": {"secretName": "k"}, "extraEnv": [{"name": "A", "value": "b"}]}}
    (policy,) = render(PLATFORM, values=values).of_kind("MutatingAdmissionPolicy")
    pod = jsonpatch.apply_patch(PLAIN, evaluate(policy["spec"]["mutations"][0]["jsonPatch"]["expression"], PLAIN))
    sidecar = pod["spec"]["initContainers"][0]
    assert "--store=redis://r" in sidecar["args"] and sidecar["env"] == [{"name": "A", "value": "b"}]
    assert {"name": "session-sidecar-key", "mountPath": "/etc/session-sidecar/key", "readOnly": True} in sidecar["volumeMounts"]
    (secret,) = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
    assert secret == {"secretName": "k", "defaultMode": 0o440, "items": [{"key": "key", "path": "key"}]}
