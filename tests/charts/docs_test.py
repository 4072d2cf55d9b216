"""The pages about deploying: their values render, their commands run, their templates are the example's, and what is made from the schemas is up to date."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import generated
from charts import HELM, REPOSITORY, TOOLS, Case, cases, charts, render

PAGE = (REPOSITORY / "docs/deploy.md").read_text()

# A cluster is a folder with one for each namespace, and in it a file for each Secret.
SHIMS = {
    # What would ask a cluster is rendered, or made without one.
    "helm": """command=$1 namespace= create= wait=
    shift
    arguments=()
    while [ $# -gt 0 ]; do
        case $1 in
            --install) ;;
            --create-namespace) create=yes ;;
            --wait) wait=yes ;;
            --namespace) namespace=$2; shift ;;
            *) arguments+=("$1") ;;
        esac
        shift
    done
    case $command in
        upgrade)
            [ -z "$create" ] || mkdir -p "$CLUSTER/$namespace"
            [ -d "$CLUSTER/$namespace" ] || { echo "there is no namespace $namespace" >&2; exit 1; }
            rendered=$(TOOLS/helm4 template --namespace "$namespace" "${arguments[@]}")
            echo "$rendered"
            [ -n "$wait" ] || exit 0
            for secret in $(sed -n 's/^ *secretName: //p' <<<"$rendered"); do
                [ -e "$CLUSTER/$namespace/$secret" ] || { echo "its pods wait for the Secret $secret for ever" >&2; exit 1; }
            done
            touch "$CLUSTER/$namespace/.ready" ;;
        dependency) exec TOOLS/helm4 dependency "${arguments[@]}" ;;
        test)
            [ -e "$CLUSTER/$namespace/.ready" ] || { echo "nobody waited until the pods are ready" >&2; exit 1; }
            echo "not run: helm test ${arguments[*]}" ;;
        *) echo "nobody tries helm $command" >&2; exit 1 ;;
    esac""",
    "kubectl": """case "$1 $2" in
        "create namespace") exec mkdir "$CLUSTER/$3" ;;
        "create secret") ;;
        *) echo "nobody tries kubectl $*" >&2; exit 1 ;;
    esac
    secret=$4 namespace=
    shift 4
    while [ $# -gt 0 ]; do
        case $1 in
            --namespace) namespace=$2; shift ;;
            --from-file=* | --cert=* | --key=*) [ -s "${1##*=}" ] || { echo "$1 is not there" >&2; exit 1; } ;;
        esac
        shift
    done
    [ -d "$CLUSTER/$namespace" ] || { echo "there is no namespace $namespace" >&2; exit 1; }
    touch "$CLUSTER/$namespace/$secret"
""",
    "docker": """case $1 in
        build) [ "$2 $4" = "--tag ." ] && echo "$3" >built ;;
        push) [ "$(cat built)" = "$2" ] ;;
        *) false ;;
    esac""",
}


def blocks(language: str, text: str = PAGE) -> Iterator[str]:
    """Fenced blocks of the page, or of a part of it."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def values() -> list[tuple[str, str]]:
    """Blocks of values, with the chart that their first line names."""
    return [(match[1], block) for block in blocks("yaml") if (match := re.match(r"# helm/(\S+)\n", block))]


@pytest.mark.parametrize(("chart", "block"), values(), ids=[str(number) for number, _ in enumerate(values())])
def test_values_render(chart: str, block: str) -> None:
    case = Case("docs", chart, Path())
    assert render(case, values=yaml.safe_load(block), alone=True).manifests


def test_no_block_is_left_out() -> None:
    assert len(values()) == 9
    assert len(list(blocks("yaml"))) == len(values()) + 2, "the dependency and the templates are compared with the example"


def test_the_commands_run(tmp_path: Path) -> None:
    """Those of each section in their order, by somebody who read no other."""
    shims = tmp_path / "bin"
    shims.mkdir()
    for name, script in SHIMS.items():
        (shims / name).write_text("#!/bin/bash\nset -eu\n" + script.replace("TOOLS", str(TOOLS / "bin")) + "\n")
        (shims / name).chmod(0o755)
    printed, homes = "", {}
    for number, section in enumerate(re.split(r"^## ", PAGE, flags=re.MULTILINE)):
        if not (script := "\n".join(blocks("sh", section))):
            continue
        home = homes[section.splitlines()[0]] = tmp_path / str(number)
        (home / "cluster").mkdir(parents=True)
        shutil.copytree(HELM, home / "helm", ignore=shutil.ignore_patterns("charts"))
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=home,
            env={**os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "CLUSTER": str(home / "cluster")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    image, pods, service = homes.values()
    assert printed.count("\nkind: Deployment\n") == 2 and "not run: helm test sessions" in printed
    assert printed.count(f'image: "{(image / "built").read_text().strip()}"') == 2, "it is the image that was pushed"
    assert (pods / "key").stat().st_size == 32
    written = (service / "sessions.yaml").read_text()
    assert any(block.split("\n", 1)[1] == written for _, block in values()), "the file of the commands is the block of values before them"


@pytest.mark.parametrize(("chart", "block"), values(), ids=[str(number) for number, _ in enumerate(values())])
def test_callers_of_other_namespaces_are_let_in(chart: str, block: str) -> None:
    policies = render(Case("docs", chart, Path()), values=yaml.safe_load(block), alone=True).of_kind("NetworkPolicy")
    assert all("namespaceSelector" in peer for policy in policies for peer in policy["spec"]["ingress"][0]["from"])


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples/kubernetes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_manifest_says_whom_the_release_lets_in(path: Path) -> None:
    text = path.read_text()
    (line,) = re.findall(r"^#   (networkPolicy: .*)$", text, re.MULTILINE)
    (gateway,) = [case for case in cases() if case.name == "gateway"]
    (policy,) = render(gateway, values=yaml.safe_load(line)).of_kind("NetworkPolicy")
    peers = str(policy["spec"]["ingress"][0]["from"])
    callers = set(re.findall(r"cluster\.local/ns/([\w-]+)/sa/", text))
    assert "kubernetes.io/metadata.name" in peers and all(f"'{namespace}'" in peers for namespace in callers)


def test_a_manifest_names_ports_that_the_service_has() -> None:
    (gateway,) = [case for case in cases() if case.name == "gateway"]
    ports = {port["name"] for port in render(gateway).of_kind("Service")[0]["spec"]["ports"]}
    named = set(re.findall(r"sectionName: ([\w-]+)", (REPOSITORY / "examples/kubernetes/envoy-gateway.yaml").read_text()))
    assert named and named <= ports


def test_the_templates_are_the_examples() -> None:
    dependency, templates = [block for block in blocks("yaml") if not block.startswith("# helm/")]
    assert dependency in (HELM / "example/Chart.yaml").read_text()
    files = "".join(path.read_text() for path in sorted((HELM / "example/templates").glob("*.yaml")))
    lines = templates.splitlines()
    assert all(line in files.splitlines() for line in lines), [line for line in lines if line not in files.splitlines()]
    used = set(re.findall(r'include "(session-sidecar\.\w+)"', files))
    assert used == set(re.findall(r'include "(session-sidecar\.\w+)"', templates))


@pytest.mark.parametrize("chart", ["session-sidecar", "session-sidecar-lib"])
def test_what_is_generated_is_up_to_date(chart: str) -> None:
    folder = HELM / chart
    readme = (folder / "README.md").read_text()
    before, after = readme.split("<!-- values -->\n")[0], readme.split("<!-- /values -->\n")[1]
    made = {
        folder / "values.yaml": generated.values_yaml(folder),
        folder / "README.md": f"{before}<!-- values -->\n{generated.table(folder)}<!-- /values -->\n{after}",
    }
    for path, text in made.items():
        if os.environ.get("UPDATE_DOCS"):
            path.write_text(text)
        assert path.read_text() == text, f"UPDATE_DOCS=1 pytest tests/charts -k generated writes {path} anew"


def test_the_librarys_readme_names_its_templates() -> None:
    defined = re.findall(r'define "(session-sidecar\.\w+)"', "".join(path.read_text() for path in (HELM / "session-sidecar-lib/templates").iterdir()))
    public = re.findall(r"^\| `(session-sidecar\.\w+)`", (HELM / "session-sidecar-lib/README.md").read_text(), re.MULTILINE)
    used = re.findall(r'include "(session-sidecar\.\w+)"', "".join(path.read_text() for path in (HELM / "example/templates").iterdir()))
    assert set(public) <= set(defined) and set(used) <= set(public)


@pytest.mark.parametrize("page", ["deploy", "runbook", "metrics"])
def test_links_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / f"docs/{page}.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / "docs" / path).resolve() if path else REPOSITORY / f"docs/{page}.md"
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


def test_the_charts_copy_is_whole() -> None:
    """What all tests render is what is in the repository."""
    for case in cases():
        for path in (HELM / case.chart / "templates").rglob("*.*"):
            assert (charts() / path.relative_to(HELM)).read_text() == path.read_text()
