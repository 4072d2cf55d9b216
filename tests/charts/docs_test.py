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

# Values that only a page's other blocks, or a Secret, complete: none. Each block renders by itself, on the chart that its first line names.
SHIMS = {
    # What would ask a cluster is rendered, or made without one.
    "helm": """case "$1" in
    install | upgrade) shift; [ "$1" != --install ] || shift; exec {tools}/helm4 template "$@" ;;
    dependency) exec {tools}/helm4 "$@" ;;
    test) echo "not run: helm $*" ;;
    *) echo "nobody tries helm $1" >&2; exit 1 ;;
esac""",
    "kubectl": """[ "$1" = create ] && [ "$2" = secret ] || {{ echo "nobody tries kubectl $*" >&2; exit 1; }}
file= from=
for argument; do case $argument in --from-file=*) [ -s "${{argument#--from-file=}}" ] || {{ echo "$argument is not there" >&2; exit 1; }} ;; esac; done""",
}


def blocks(language: str) -> Iterator[str]:
    """Fenced blocks of the page."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


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
    shims = tmp_path / "bin"
    shims.mkdir()
    for name, script in SHIMS.items():
        (shims / name).write_text("#!/bin/bash\nset -eu\n" + script.format(tools=TOOLS / "bin") + "\n")
        (shims / name).chmod(0o755)
    shutil.copytree(HELM, tmp_path / "helm", ignore=shutil.ignore_patterns("charts"))
    script = "\n".join(blocks("sh"))
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nkind: Deployment\n") == 2 and "not run: helm test sessions" in done.stdout
    assert (tmp_path / "key").stat().st_size == 32
    written = (tmp_path / "sessions.yaml").read_text()
    assert any(block.split("\n", 1)[1] == written for _, block in values()), "the file of the commands is the block of values before them"


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
