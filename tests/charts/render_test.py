"""What the charts render: as it was agreed to, for every version of Kubernetes, and allowed in a restricted namespace."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import utils as kubernetes_validate

from charts import HELM, HERE, REPOSITORY, TOOLS, Case, Manifest, Rendered, cases, lint, notes, package, render

MATRIX = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)

# Custom resources have schemas of their own: customs_test.py.
CUSTOM = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}


@MATRIX
def test_lint(case: Case, helm: str) -> None:
    lint(case.chart, helm, case.values)


@pytest.mark.parametrize("chart", ["session-sidecar", "session-sidecar-lib", "example"])
def test_lint_without_values(chart: str, helm: str) -> None:
    lint(chart, helm, None)


@MATRIX
def test_golden(case: Case, helm: str) -> None:
    """Both versions of Helm render the same, which is what is kept. UPDATE_DOCS=1 keeps it anew: review the difference."""
    rendered = _kept(render(case, helm))
    golden = HERE / "golden" / f"{case.name}.yaml"
    if os.environ.get("UPDATE_DOCS") and helm == "helm4":
        golden.write_text(rendered)
    assert rendered == golden.read_text(), f"UPDATE_DOCS=1 pytest tests/charts -k {case.name} renders {golden} anew"


@pytest.mark.full
def test_the_package_renders_the_same(tmp_path: Path) -> None:
    """What a release would publish has the library in it."""
    chart = package("session-sidecar", tmp_path)
    case = _case("service-token")
    assert _kept(render(Case(case.name, str(chart), case.values))) == (HERE / "golden/service-token.yaml").read_text()


def test_the_packages_of_a_release_name_its_image(tmp_path: Path) -> None:
    (tmp_path / "helm").symlink_to(TOOLS / "bin/helm4")
    script, packages = REPOSITORY / "packaging/release/charts.sh", tmp_path / "dist"
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run([script, "ghcr.io/owner/session-sidecar", packages], env={**os.environ, "PATH": path}, check=True, capture_output=True)
    assert len(list(packages.iterdir())) == 2
    (chart,) = packages.glob("session-sidecar-[0-9]*.tgz")
    case = _case("service-token")
    image = render(Case(case.name, str(chart), case.values)).sidecar()["image"]
    assert image.startswith("ghcr.io/owner/session-sidecar:")
    (library,) = packages.glob("session-sidecar-lib-*.tgz")
    with tarfile.open(library) as archive:
        for name in ("values.yaml", "values.schema.json", "README.md"):
            text = archive.extractfile(f"session-sidecar-lib/{name}")
            assert text and b'"ghcr.io/owner/session-sidecar"' in text.read()
    workflow = (REPOSITORY / ".github/workflows/release.yml").read_text()
    assert 'packaging/release/charts.sh "${IMAGE,,}" dist' in workflow and "helm package" not in workflow


def test_no_golden_is_left_over() -> None:
    assert {path.stem for path in (HERE / "golden").glob("*.yaml")} == {case.name for case in cases()}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _kept(rendered: Rendered) -> str:
    dashboard = (HELM / "session-sidecar/files/dashboard.json").read_text().strip()
    for manifest in rendered.of_kind("ConfigMap"):
        data = manifest["data"]
        if data.get("session-sidecar.json", "").strip() == dashboard:
            data["session-sidecar.json"] = "(files/dashboard.json)"
    ordered = sorted(rendered.manifests, key=lambda manifest: (manifest["kind"], manifest["metadata"]["name"]))
    return yaml.dump_all(ordered, Dumper=_Dumper, sort_keys=True, width=150)


@MATRIX
def test_kubernetes_knows_every_field(case: Case, kubernetes: str) -> None:
    for version in {kubernetes, *case.kubernetes[:-3]} & set(case.kubernetes):
        for manifest in render(case, kubernetes=version).manifests:
            if manifest["kind"] not in CUSTOM:
                kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    """The proof of the test before it."""
    (deployment,) = render(_case("shop-memory")).of_kind("Deployment")
    deployment["spec"]["template"]["spec"]["initContainers"][0]["startupProb"] = {}
    with pytest.raises(Exception, match="startupProb"):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


@MATRIX
def test_a_restricted_namespace_takes_the_pods(case: Case) -> None:
    """The Pod Security Standard "restricted": https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    for pod in render(case).pods():
        assert not _violations(pod)


def test_violations_are_found() -> None:
    """The proof of the test before it."""
    (pod,) = render(_case("shop-memory")).pods()
    pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    pod["hostNetwork"] = True
    pod["securityContext"]["sysctls"].append({"name": "kernel.msgmax", "value": "1"})
    pod["initContainers"][0]["securityContext"] = {"runAsUser": 0}
    assert len(_violations(pod)) == 8


SAFE_SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"}
ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def _violations(pod: Manifest) -> list[str]:
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [volume["name"] for volume in pod.get("volumes") or [] if not ALLOWED_VOLUMES & set(volume)]
    common = pod.get("securityContext") or {}
    found += [item["name"] for item in common.get("sysctls", []) if item["name"] not in SAFE_SYSCTLS]
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        own = container.get("securityContext", {})
        merged = {**common, **own}
        holds = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"] and not own["capabilities"].get("add"),
            "runAsNonRoot": merged.get("runAsNonRoot") is True,
            "runAsUser": merged.get("runAsUser") != 0,
            "seccompProfile": merged.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
            "privileged": not own.get("privileged"),
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, held in holds.items() if not held]
    return found


def test_what_the_pod_looks_like() -> None:
    native = next(render(_case("shop-memory")).pods())
    assert native["initContainers"][0]["restartPolicy"] == "Always"
    assert [container["name"] for container in native["containers"]] == ["shop"]
    classic = next(render(_case("shop-classic"), kubernetes="1.28").pods())
    assert not classic["initContainers"]
    assert [container["name"] for container in classic["containers"]] == ["shop", "session-sidecar"]
    assert "restartPolicy" not in classic["containers"][1]


def test_a_memory_store_is_recreated_and_a_shared_one_rolls() -> None:
    strategies = {
        name: render(_case(name)).of_kind("Deployment")[0]["spec"]["strategy"]["type"]
        for name in ("shop-memory", "shop-store", "service-token", "service-mtls-store", "service-mesh")
    }
    assert strategies == {
        "shop-memory": "Recreate",
        "shop-store": "RollingUpdate",
        "service-token": "Recreate",
        "service-mtls-store": "RollingUpdate",
        "service-mesh": "Recreate",
    }


def test_old_kubernetes_gets_nothing_that_it_would_refuse() -> None:
    old = render(_case("service-token"), kubernetes="1.29")
    assert "lifecycle" not in old.sidecar(), "the action sleep came with 1.30"
    assert "lifecycle" in render(_case("service-token"), kubernetes="1.30").sidecar()
    (pod,) = list(render(_case("shop-memory"), kubernetes="1.26", values={"sidecar": {"mode": "classic"}}).pods())
    assert "sysctls" not in pod["securityContext"], "the sysctl is a safe one since 1.27"


def test_large_numbers_are_told_whole(helm: str) -> None:
    """OpenShift gives out users from a thousand million on."""
    number = 1000650000
    values = {
        "sidecar": {
            "runAsUser": number,
            "fsGroup": number,
            "socket": {"uids": [number], "gids": [number, 5], "group": str(number)},
            "maxSessions": 4000000000,
            "maxTombstones": 2000000,
            "maxWatchers": 3000000,
            "maxConnections": 1000000,
            "callers": [{"uid": number, "verbs": ["use"]}],
            "policies": {"default": {"revision": 9007199254740991, "max_extensions": 1000000}},
        }
    }
    rendered = render(_case("shop-classic"), helm, values=values)
    sidecar, (pod,) = rendered.sidecar(), rendered.pods()
    assert [sidecar["securityContext"][key] for key in ("runAsUser", "runAsGroup")] == [number, number]
    assert pod["securityContext"]["fsGroup"] == number
    assert f"group={number}&uids={number}&gids={number},5" in sidecar["args"][1]
    wanted = {"--max-sessions=4000000000", "--max-tombstones=2000000", "--max-watchers=3000000", "--max-connections=1000000"}
    assert wanted <= set(sidecar["args"])
    assert all(line in rendered.policy_file().splitlines() for line in (f"uid = {number}", "revision = 9007199254740991", "max_extensions = 1000000"))


@pytest.mark.parametrize("mode", ["native", "classic"])
def test_istio_is_not_asked_before_it_is_there(mode: str) -> None:
    """It sends probes to its own proxy, which may start after a native sidecar, unless they run a command."""
    values = {"sidecar": {"mode": mode, "mesh": {"kind": "istio"}, "socket": {"uids": [1000]}, "loopback": {"enabled": False}}}
    sidecar = render(_case("shop-memory"), values=values).sidecar()
    ways = [next(iter(key for key in sidecar[probe] if key in ("exec", "httpGet"))) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert ways == (["exec", "exec", "httpGet"] if mode == "native" else ["httpGet"] * 3)
    assert any("probe.sock" in argument for argument in sidecar["args"]) == (mode == "native")


def test_a_port_of_tls_is_not_called_grpc() -> None:
    """Istio would take its TLS for HTTP/2 in clear text."""
    ports = {}
    for name, kind in (("service-token", "istio"), ("service-token", "none"), ("service-mesh", "istio"), ("service-mesh", "none")):
        service = render(_case(name), values={"sidecar": {"mesh": {"kind": kind}}}).of_kind("Service")[0]
        port = service["spec"]["ports"][0]
        ports[name, kind] = (port["name"], port.get("appProtocol"))
    assert ports == {
        ("service-token", "istio"): ("tls-api", "tls"),
        ("service-token", "none"): ("tls-api", None),
        ("service-mesh", "istio"): ("grpc-api", "grpc"),
        ("service-mesh", "none"): ("grpc-api", "kubernetes.io/h2c"),
    }


def test_nobody_may_scrape_but_the_test() -> None:
    (policy,) = render(_case("service-token"), values={"networkPolicy": {"metrics": []}}).of_kind("NetworkPolicy")
    assert len(policy["spec"]["ingress"][1]["from"]) == 1


def test_the_limit_of_memory_is_enough_for_the_default_caps() -> None:
    """As docs/deploy.md reckons: live sessions, remembered ends, and pages at the door, which are connections."""
    sidecar = render(_case("gateway")).sidecar()
    caps = {name: int(number) for name, number in (argument.lstrip("-").split("=") for argument in sidecar["args"] if argument.startswith("--max-"))}
    needed = 12_000_000 + caps["max-sessions"] * 600 + caps["max-tombstones"] * 1_000 + caps["max-connections"] * 22_000
    limit = sidecar["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Mi")) * 2**20 > needed > 256 * 2**20


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("service-token", ["WHAT A ROLLOUT LOSES: everything", "(TLS, bearer tokens)", "helm test sessions", "callers   pods of the namespace shop alone"]),
        ("service-mtls-store", ["WHAT A ROLLOUT LOSES: nothing", "redis+sentinel://", "(TLS, client certificates)", '[{"namespaceSelector":{"matchLabels":{"team":"shop"}}}]']),
        ("service-mesh", ["WHAT A ROLLOUT LOSES: everything", "CLEAR TEXT", "callers   every pod", "You said that sessions stick to a pod"]),
        ("gateway", ["door      http://sessions-session-sidecar.shop:50153"]),
        ("platform", ["Nothing runs here", "PrometheusRule", "SUCH A POD LOSES: all sessions"]),
    ],
)
def test_notes(name: str, told: list[str]) -> None:
    text = notes(_case(name))
    assert all(words in text for words in told), text


STICKY = {"replicaCount": 2, "sidecar": {"stickySessions": True}}
SOCKET = "SESSION_SIDECAR_TARGET=unix:/run/session-sidecar/api.sock\n"
LOOPBACK = "http://127.0.0.1:50151"


@pytest.mark.parametrize(
    ("name", "values", "told", "untold"),
    [
        ("shop-memory", {}, ["LOSES: everything", "(strategy\nRecreate)", SOCKET, f"{LOOPBACK} in the pod", "50152 of each pod, /metrics", "label"], ["stick to a pod", "network"]),
        ("shop-memory", STICKY, ["LOSES: everything", "You said that sessions stick to a pod. Where they do not, people are logged out"], []),
        ("shop-store", {}, ["LOSES: nothing. Sessions are in rediss://app@redis.internal:6379;", "the PodMonitor sessions-session-sidecar\n"], ["Recreate", "label"]),
        ("shop-store", STICKY, ["LOSES: nothing"], ["stick to a pod"]),
        ("shop-classic", {}, [SOCKET], [LOOPBACK]),
        ("shop-memory", {"sidecar": {"socket": {"enabled": False}}}, [f"SESSION_SIDECAR_TARGET={LOOPBACK}\n"], ["unix:", "in the pod"]),
        (
            "shop-classic",
            {"sidecar": {"socket": {"enabled": False}, "network": {"enabled": True, "port": 50160, "allowPlaintext": True}}},
            ["network   port 50160 of each pod"],
            ["TARGET", LOOPBACK],
        ),
        ("shop-memory", {"sidecar": {"policyConfigMap": "mine"}}, ["change of the ConfigMap mine is followed without a rollout"], ["sidecar.policies"]),
    ],
)
def test_notes_of_a_chart_that_includes_the_library(name: str, values: Manifest, told: list[str], untold: list[str]) -> None:
    text = notes(_case(name), values)
    assert all(words in text for words in told) and not [words for words in untold if words in text], text


@pytest.mark.parametrize(
    ("service", "shop", "values"),
    [("service-token", "shop-memory", {}), ("service-mesh", "shop-memory", STICKY), ("service-token", "shop-memory", {"sidecar": {"policyConfigMap": "mine"}})],
)
def test_both_charts_say_alike_what_a_rollout_loses(service: str, shop: str, values: Manifest) -> None:
    loses = [notes(_case(name), values).partition("WHAT A ROLLOUT LOSES")[2] for name in (service, shop)]
    assert loses[0] == loses[1] and loses[0].endswith("is followed without a rollout.\n")


def test_the_notes_name_the_target_that_the_pod_has() -> None:
    for values in ({}, {"sidecar": {"socket": {"enabled": False}}}):
        (pod,) = render(_case("shop-memory"), values=values).pods()
        (variable,) = pod["containers"][0]["env"]
        assert f"  API       {variable['name']}={variable['value']}\n" in notes(_case("shop-memory"), values)


def _case(name: str) -> Case:
    (case,) = [case for case in cases() if case.name == name]
    return case
