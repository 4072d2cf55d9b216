"""What the conformance suite and the program tests share: the API's stubs, and a session-sidecar process to test."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / ".tools"
DEFAULT_BINARY = REPOSITORY / "target/debug/session-sidecar"
