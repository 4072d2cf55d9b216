"""Helm, and what it renders."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
HELM = REPOSITORY / "helm"
TOOLS = REPOSITORY / ".tools"

Manifest = dict[str, Any]

# The oldest with native sidecars, one in the middle, the newest.
KUBERNETES = ("1.29", "1.33", "1.37")
NEWEST = KUBERNETES[-1]


class Refused(Exception):
    """Helm did not render, and says why."""


@cache
def charts() -> Path:
    """A copy of the charts whose dependencies are built."""
    copy = Path(tempfile.mkdtemp(prefix="charts-"))
    shutil.copytree(HELM, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("charts"))
    for chart in ("session-sidecar", "example"):
        _run("helm4", "dependency", "build", str(copy / chart))
    return copy


@dataclass(frozen=True)
class Case:
    """A chart with values."""

    name: str
    chart: str
    values: Path

    @property
    def kubernetes(self) -> tuple[str, ...]:
        """Where it can run."""
        return (NEWEST,) if self.name == "platform" else ("1.28", *KUBERNETES) if self.name == "shop-classic" else KUBERNETES


def cases() -> list[Case]:
    """All of the matrix."""
    return [
        Case(path.stem, "example" if path.stem.startswith("shop") else "session-sidecar", path)
        for path in sorted((HERE / "cases").glob("*.yaml"))
    ]


@dataclass
class Rendered:
    """What came of a case."""

    manifests: list[Manifest] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Manifest]:
        """The objects of a kind."""
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def pods(self) -> Iterator[Manifest]:
        """Specs of all pods."""
        for manifest in self.manifests:
            if manifest["kind"] == "Pod":
                yield manifest["spec"]
            elif manifest["kind"] == "Deployment":
                yield manifest["spec"]["template"]["spec"]

    def sidecar(self) -> Manifest:
        """The container of the sidecar."""
        (container,) = [
            container
            for pod in self.pods()
            for container in [*(pod.get("initContainers") or []), *pod["containers"]]
            if container["name"] == "session-sidecar"
        ]
        return container

    def policy_file(self) -> str:
        """The policy file that the chart makes."""
        (text,) = [config["data"]["policy.toml"] for config in self.of_kind("ConfigMap") if "policy.toml" in config["data"]]
        return text


def render(
    case: Case, helm: str = "helm4", kubernetes: str = NEWEST, *, values: Manifest | None = None, alone: bool = False, schema: bool = True
) -> Rendered:
    """Renders a case, with values on top of it, or with those alone; whether the schema takes them or not, if it is not to be asked."""
    command = [helm, "template", "sessions", str(charts() / case.chart), "--namespace", "shop", "--kube-version", kubernetes]
    if not schema:
        command.append("--skip-schema-validation")
    if not alone:
        command += ["--values", str(case.values)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values or {}, file)
        file.flush()
        text = _run(*command, "--values", file.name)
    return Rendered([manifest for manifest in yaml.safe_load_all(text) if manifest])


def lint(chart: str, helm: str, values: Path | None) -> str:
    """`helm lint --strict`."""
    return _run(helm, "lint", "--strict", str(charts() / chart), *(["--values", str(values)] if values else []))


def package(chart: str, directory: Path) -> Path:
    """The chart as an archive, of which Case takes the path, too."""
    _run("helm4", "package", str(charts() / chart), "--destination", str(directory))
    (archive,) = directory.glob("*.tgz")
    return archive


def notes(case: Case, values: Manifest | None = None) -> str:
    """What the chart says after an installation of a case, with values on top of it."""
    with tempfile.TemporaryDirectory(prefix="charts-") as directory:
        copy = Path(directory) / case.chart
        shutil.copytree(charts() / case.chart, copy)
        # `helm template` leaves NOTES out, and `helm install --dry-run` asks a cluster: so they are rendered as another file is.
        text = (copy / "templates/NOTES.txt").read_text()
        (copy / "templates/notes.yaml").write_text(f"notes: |\n  {{{{- $notes := include \"notes\" . }}}}{{{{ $notes | nindent 2 }}}}\n")
        (copy / "templates/_notes.tpl").write_text('{{- define "notes" -}}\n' + text + "\n{{- end -}}")
        top = Path(directory) / "top.json"
        top.write_text(json.dumps(values or {}))
        told = ["--values", str(case.values), "--values", str(top)]
        rendered = _run("helm4", "template", "sessions", str(copy), "--namespace", "shop", *told, "-s", "templates/notes.yaml")
    return str(yaml.safe_load(rendered)["notes"])


def _run(helm: str, *arguments: str) -> str:
    binary = TOOLS / "bin" / helm
    assert binary.exists(), f"{helm} is missing: run tests/charts/setup.sh all"
    done = subprocess.run([str(binary), *arguments], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout
