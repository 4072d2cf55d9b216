"""checkov over everything that is rendered: what it finds beyond the baseline is a failure, and so is a line of the baseline that it finds no more."""

import json
import os
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from charts import HERE, TOOLS, cases, render

pytestmark = pytest.mark.full

BASELINE = HERE / "checkov-baseline.yaml"


def test_the_baseline(tmp_path: Path) -> None:
    for case in cases():
        rendered = render(case)
        if case.chart == "example":
            # The application's container is its owner's affair.
            for pod in rendered.pods():
                pod["containers"], pod["initContainers"] = [rendered.sidecar()], []
        (tmp_path / f"{case.name}.yaml").write_text(yaml.safe_dump_all(rendered.manifests))
    done = subprocess.run(
        [str(TOOLS / "checkov/bin/checkov"), "--framework", "kubernetes", "--directory", str(tmp_path), "--output", "json", "--quiet", "--skip-download", "--soft-fail"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LOG_LEVEL": "ERROR", "BC_SKIP_MAPPING": "TRUE"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 500
    found = {
        (check["check_id"], f"{check['resource'].split('.')[0]} {Path(check['file_path']).stem}")
        for check in report["results"]["failed_checks"]
    }
    known = {(entry["check"], pattern) for entry in yaml.safe_load(BASELINE.read_text()) for pattern in entry["where"]}
    new = {(check, where) for check, where in found if not any(check == other and fnmatch(where, pattern) for other, pattern in known)}
    gone = {(check, pattern) for check, pattern in known if not any(check == other and fnmatch(where, pattern) for other, where in found)}
    assert not new and not gone, f"new: {sorted(new)}, found no more: {sorted(gone)}"
