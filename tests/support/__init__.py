"""What the conformance suite and the program tests share: the API's stubs, and a session-sidecar process to test."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / ".tools"
# `./dev test` names the one that it has built.
DEFAULT_BINARY = Path(os.environ.get("SIDECAR_UNDER_TEST", REPOSITORY / "target/debug/session-sidecar"))
