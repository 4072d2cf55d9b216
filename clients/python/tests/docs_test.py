"""The examples of the docs hold: to mypy --strict, and when they are run beside a real sidecar."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENT
from support import REPOSITORY
from support.process import PATIENCE

HERE = Path(__file__).resolve().parents[1]
CONFIG = str(HERE / "tests/mypy.ini")
PAGES = ["docs/python.md", "docs/holds.md", "clients/python/README.md", "README.md"]
USED = {"docs/holds.md": "session_id = sidecar.create().session_id\nassert pulse(session_id)\ndone(session_id)\n"}
# An example has the client's own deadline, of 250 ms. In a process that has just begun, on a busy machine, its first call may need more.
PATIENTLY = f"""
import runpy, sys
from datetime import timedelta
from session_sidecar._client import AsyncClient, SyncClient
for client in (AsyncClient, SyncClient):
    client.__init__.__kwdefaults__["deadline"] = timedelta(seconds={PATIENT.total_seconds()})
runpy.run_path(sys.argv[1], run_name="__main__")
"""
EXAMPLES = [
    pytest.param(example + USED.get(page, ""), id=f"{page}-{number}")
    for page in PAGES
    for number, example in enumerate(re.findall(r"^```python\n(.*?)^```", (REPOSITORY / page).read_text(), re.DOTALL | re.MULTILINE))
]


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(process, example, tmp_path):
    program = tmp_path / "example.py"
    program.write_text(example)
    env = {"SESSION_SIDECAR_TARGET": process.tcp, "PYTHONPATH": str(HERE / "src")}
    ran = subprocess.run([sys.executable, "-c", PATIENTLY, program], env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if "answer.allowed, answer" in example:
        assert ran.stdout.startswith("True Touched(")


def test_the_examples_are_well_typed(tmp_path):
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(example.values[0])
    command = [sys.executable, "-m", "mypy", "--config-file", CONFIG, "--cache-dir", "/dev/null", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, env={"MYPYPATH": str(HERE / "src")}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
