"""Runs a Kubernetes pod with podman, and does what a kubelet does and podman does not: probes, a pod's address, volumes' rights.

What podman 4.3 lacks is changed in the manifest before it sees it, and nothing else is:
  - native sidecars (initContainers with restartPolicy Always) stand among the containers;
  - probes are taken out: podman would run curl inside the container. `Pod.probe` asks from outside, at the pod's address, as a kubelet does;
  - volumes are folders of this machine: an emptyDir that all may write to, ConfigMaps and Secrets read-only; they and all containers get the group
    that fsGroup names;
  - references to the pod's own fields, ConfigMaps and Secrets in `env` are replaced by their values, and $(NAME) as Kubernetes expands it.
"""

import base64
import copy
import os
import re
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from containers import Container, inspect, podman
from support.process import PATIENCE, eventually

ADDRESS = "10.231.77.2"
WORKLOADS = ("Pod", "Deployment", "StatefulSet", "DaemonSet", "Job")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


class Manifest:
    """Kubernetes documents, and the pod among them."""

    def __init__(self, documents: list[dict], images: dict[str, str]) -> None:
        """`images` says which local image stands for a container, by the container's name; "" is for all others."""
        self.documents = [without_nothing(document) for document in documents]
        hooks = [one for one in self.documents if "helm.sh/hook" in (one["metadata"].get("annotations") or {})]
        workloads = [one for one in self.documents if one["kind"] in WORKLOADS and one not in hooks]
        assert len(workloads) == 1, f"one of {', '.join(WORKLOADS)} is to be run, and there are {len(workloads)}"
        [self.workload] = workloads
        template = self.workload if self.workload["kind"] == "Pod" else self.workload["spec"]["template"]
        self.metadata = template.get("metadata", {})
        self.spec = template["spec"]
        native = [one for one in self.spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
        self.initial = [one for one in self.spec.get("initContainers", []) if one not in native]
        self.containers = native + self.spec["containers"]
        self.images = images
        self.group: int | None = self.spec.get("securityContext", {}).get("fsGroup")

    def container(self, name: str) -> dict:
        """A container of the pod, as the manifest has it."""
        return next(one for one in self.containers if one["name"] == name)

    def probes(self) -> list[tuple[str, str, dict]]:
        """All probes: container, kind, what it says."""
        return [(one["name"], kind, one[kind]) for one in self.containers for kind in PROBES if kind in one]

    def for_podman(self, name: str, folder: Path) -> str:
        """The pod as podman can run it, its volumes in `folder`."""
        spec = copy.deepcopy(self.spec)
        spec["containers"] = [self._container(one) for one in self.containers]
        spec["initContainers"] = [self._container(one) for one in self.initial]
        spec["volumes"] = [self._volume(one, folder) for one in spec.get("volumes", [])]
        if self.group is not None:
            spec["securityContext"].setdefault("supplementalGroups", []).append(self.group)
        spec.setdefault("restartPolicy", "Always")
        metadata = {"name": name, "labels": self.metadata.get("labels", {})}
        return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def _container(self, given: dict) -> dict:
        made = {key: value for key, value in copy.deepcopy(given).items() if key not in (*PROBES, "restartPolicy", "envFrom", "ports", "lifecycle")}
        made["image"] = self.images.get(given["name"], self.images[""])
        if given["name"] not in self.images:
            # The stand-in has a command of its own.
            made = {key: value for key, value in made.items() if key not in ("command", "args")}
        made["imagePullPolicy"] = "Never"
        known: dict[str, str] = {}
        for source in given.get("envFrom", []):
            [(kind, reference)] = source.items()
            known |= self._data("ConfigMap" if kind == "configMapRef" else "Secret", reference["name"])
        for variable in given.get("env", []):
            value = str(variable.get("value", "")) if "valueFrom" not in variable else self._value(variable["valueFrom"], given)
            known[variable["name"]] = expanded(value, known)
        made["env"] = [{"name": key, "value": value} for key, value in known.items()]
        for words in ("command", "args"):
            if words in made:
                made[words] = [expanded(word, known) for word in made[words]]
        return made

    def _value(self, source: dict, container: dict) -> str:
        [(kind, reference)] = source.items()
        if kind == "fieldRef":
            fields = {"status.podIP": ADDRESS, "status.hostIP": ADDRESS, "spec.nodeName": "node", "metadata.namespace": "default"}
            return fields.get(reference["fieldPath"], self.workload["metadata"]["name"])
        if kind == "resourceFieldRef":
            return str(container["resources"][reference["resource"].partition(".")[0]][reference["resource"].partition(".")[2]])
        return self._data("ConfigMap" if kind == "configMapKeyRef" else "Secret", reference["name"])[reference["key"]]

    def _data(self, kind: str, name: str) -> dict[str, str]:
        for document in self.documents:
            if document["kind"] == kind and document["metadata"]["name"] == name:
                decoded = {key: base64.b64decode(value).decode() for key, value in (document.get("data") or {}).items() if kind == "Secret"}
                return decoded or document.get("stringData") or document.get("data") or {}
        raise AssertionError(f"the pod needs the {kind} {name}, which is not among the documents")

    def _volume(self, given: dict, folder: Path) -> dict:
        place = folder / given["name"]
        place.mkdir()
        sources = given["projected"]["sources"] if "projected" in given else [given]
        for source in sources:
            for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
                if reference := source.get(key):
                    data = self._data(kind, reference.get("name") or reference["secretName"])
                    items = reference.get("items") or [{"key": name, "path": name} for name in data]
                    for item in items:
                        self._file(place / item["path"], data[item["key"]], item.get("mode", reference.get("defaultMode", 0o644)))
        if self.group is not None:
            os.chown(place, 0, self.group)
        # As a kubelet makes an emptyDir: each user of the pod may put a socket there, which gets the group.
        shared = 0o777 if "emptyDir" in given else 0o755
        place.chmod(shared if self.group is None else shared | stat.S_ISGID)
        return {"name": given["name"], "hostPath": {"path": str(place), "type": "Directory"}}

    def _file(self, path: Path, text: str, mode: int) -> None:
        path.write_text(text)
        # With fsGroup a kubelet gives the group what the owner has.
        path.chmod(mode | ((mode & 0o600) >> 3) if self.group is not None else mode)
        if self.group is not None:
            os.chown(path, 0, self.group)


def without_nothing(value: Any) -> Any:
    """A document without its nulls, which mean the same to Kubernetes."""
    if isinstance(value, dict):
        return {key: without_nothing(one) for key, one in value.items() if one is not None}
    return [without_nothing(one) for one in value] if isinstance(value, list) else value


def expanded(text: str, known: dict[str, str]) -> str:
    """Text in which $(NAME) is replaced by the variables known so far, and $$(NAME) by $(NAME)."""
    return re.sub(r"\$\$\(|\$\((\w+)\)", lambda found: known.get(found[1], found[0]) if found[1] else "$(", text)


class Pod:
    """A pod that runs."""

    def __init__(self, name: str, manifest: Manifest, pid: int) -> None:
        self.name = name
        self.manifest = manifest
        self._pid = pid

    def container(self, name: str) -> Container:
        """A container of it."""
        return Container(f"{self.name}-{name}")

    def probe(self, container: str, told: dict) -> bool:
        """Asks once what a probe asks, from outside of the container."""
        if command := told.get("exec"):
            return self.container(container).exec(*command["command"], check=False).returncode == 0
        if http := told.get("httpGet"):
            address = f"{http.get('scheme', 'HTTP').lower()}://{http.get('host', ADDRESS)}:{self._port(container, http['port'])}{http.get('path', '/')}"
            done = self.inside("curl", "--silent", "--insecure", "--max-time", str(told.get("timeoutSeconds", 1)), "--output", "/dev/null", "--write-out", "%{http_code}", address)
            return done.returncode == 0 and 200 <= int(done.stdout) < 400
        raise AssertionError(f"a probe of a kind that this kubelet does not know: {told}")

    def await_probes(self) -> None:
        """Waits until all probes say yes; each within the time that the manifest gives its container to start."""
        for container, kind, told in self.manifest.probes():
            patience = min(PATIENCE, told.get("periodSeconds", 10) * told.get("failureThreshold", 3) + told.get("initialDelaySeconds", 0))
            eventually(lambda container=container, told=told: self.probe(container, told), f"{kind} of {container}", patience)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of this machine in the pod's network."""
        enter = ["nsenter", "--target", str(self._pid), "--net"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=PATIENCE, check=False)

    def _port(self, container: str, port: int | str) -> int:
        ports = self.manifest.container(container).get("ports", [])
        return port if isinstance(port, int) else next(one["containerPort"] for one in ports if one["name"] == port)


@contextmanager
def running_pod(manifest: Manifest) -> Iterator[Pod]:
    """Runs the pod until the block is left."""
    name = f"sidecar-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="sidecar-pod-") as home:
        Path(home).chmod(0o755)
        file = Path(home) / "pod.yaml"
        file.write_text(manifest.for_podman(name, Path(home)))
        try:
            podman("play", "kube", "--network", "none", "--start=false", str(file))
            infra = Container(inspect(name, "pod")["InfraContainerID"])
            podman("start", infra.name)
            give_address(infra.pid)
            podman("pod", "start", name)
            yield Pod(name, manifest, infra.pid)
        finally:
            podman("pod", "rm", "--force", "--time", "0", name, check=False)


def give_address(pid: int) -> None:
    """Gives the network of a process a pod's address, and no way out. It needs one before the first container binds it."""
    for words in (
        "link add eth0 type veth peer name node0",
        f"address add {ADDRESS}/24 dev eth0",
        "link set eth0 up",
        "link set node0 up",
    ):
        subprocess.run(["nsenter", "--target", str(pid), "--net", "ip", *words.split()], check=True)
