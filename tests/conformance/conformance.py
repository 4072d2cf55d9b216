#!/usr/bin/env python3
"""Runs the conformance scenario with each client over each transport, and compares the transcripts. See README.md."""

import argparse
import difflib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Container
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "clients")]

import build
from support import DEFAULT_BINARY, TOOLS
from support.process import Sidecar

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.txt"
PYTHON = str(TOOLS / "venv/bin/python")
# What makes the command of each; the target stands for "{}".
CLIENTS = {
    "grpcio": lambda: [PYTHON, str(HERE / "run.py"), "{}"],
    "grpc-js": lambda: ["node", str(HERE / "run.mjs"), "{}"],
    "session_sidecar (Python)": lambda: [PYTHON, str(HERE.parents[1] / "clients/python/tests/conformance.py"), "{}"],
    "session-sidecar (Node)": lambda: ["node", str(HERE.parents[1] / "clients/node/tests/conformance.mjs"), "{}"],
    "session-sidecar (Go)": lambda: [str(TOOLS / "bin/go-conformance"), str(HERE / "scenario.json"), "{}"],
    "grpc-java": lambda: [*build.java("Run", HERE / "Run.java"), "{}", str(HERE / "scenario.json")],
    "grpc of Ruby": lambda: [*build.ruby(HERE / "run.rb"), "{}"],
    "grpc++": lambda: [str(build.cpp("run", HERE / "run.cc")), "{}", str(HERE / "scenario.json")],
}
# They need tools of their own, and are built with their first run; run with --all, or --only.
OPTIONAL = {"session-sidecar (Go)", "grpc-java", "grpc of Ruby", "grpc++"}
# The clients that have a fake: it plays in its own process, and no sidecar runs. What fakes are not asked, and why; all else must be the
# same.
FAKES = ["session_sidecar (Python)", "session-sidecar (Node)", "session-sidecar (Go)"]
NOT_ASKED_OF_A_FAKE = {
    "ExplainSession": "they keep no histories",
    "ListPolicies": "they do not judge policies",
    "GetStats": "they count nothing",
}
TRANSPORTS = {"tcp": lambda sidecar: sidecar.tcp, "uds": lambda sidecar: sidecar.uds}
VERBS = ["use", "issue", "end", "watch-own", "watch-all", "admin"]
PATIENCE = 120  # seconds for one run


def arguments(directory: Path) -> list[str]:
    """What the sidecar is started with. Its key is always the same: pages are in the order of refs."""
    key = directory / "key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(range(32)))
    return ["--dev", "--policy-file", str(HERE / "policy.toml"), "--key-file", str(key)]


def command(client: str, target: str) -> list[str]:
    """What runs a client against a target."""
    return [target if word == "{}" else word for word in CLIENTS[client]()]


def transcript(binary: Path, client: str, transport: str) -> tuple[str, list[str]]:
    """What a client printed, and what was wrong beside it."""
    with (
        tempfile.TemporaryDirectory() as directory,
        Sidecar(binary, Path(directory), *arguments(Path(directory)), query="?verbs=" + ",".join(VERBS)) as sidecar,
        (Path(directory) / "complaints").open("w+") as complaints,
    ):
        run = subprocess.Popen(command(client, TRANSPORTS[transport](sidecar)), stdout=subprocess.PIPE, stderr=complaints, text=True)
        killer = threading.Timer(PATIENCE, run.kill)
        killer.start()
        lines, problems = [], []
        for line in run.stdout:
            lines.append(line)
            if line == "Stop\n":
                sidecar.terminate()
        if run.wait() != 0:
            complaints.seek(0)
            problems.append(f"the client exited with {run.returncode}: {complaints.read()}")
        elif (code := sidecar.wait()) != 0:
            problems.append(f"the sidecar exited with {code} after SIGTERM: {sidecar.output()[-2000:]}")
        killer.cancel()
        return "".join(lines), problems


def fake_transcript(client: str) -> tuple[str, list[str]]:
    """What the fake of a client printed, and what was wrong beside it."""
    run = subprocess.run(command(client, "fake"), capture_output=True, text=True, timeout=PATIENCE, check=False)
    return run.stdout, [f"it exited with {run.returncode}: {run.stderr}"] if run.returncode else []


def without(transcript: str, verbs: Container[str]) -> str:
    """A transcript in which the answers to some verbs are left out, but not that they were to be asked."""
    kept, leaves = [], False
    for line in transcript.splitlines(keepends=True):
        if not line.startswith("  "):
            leaves = line.split(" ", 1)[0] in verbs
        if not (leaves and line.startswith("  ")):
            kept.append(line)
    return "".join(kept)


def complaints(expected: str, printed: str) -> list[str]:
    """The difference, if there is one."""
    lines = difflib.unified_diff(expected.splitlines(), printed.splitlines(), "expected.txt", "printed", lineterm="")
    return ["\n".join(lines)] if expected != printed else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--binary", type=Path, default=DEFAULT_BINARY, help="the sidecar to test (default: %(default)s)"
    )
    parser.add_argument(
        "--accept", action="store_true", help="write expected.txt from the first run; review the difference"
    )
    parser.add_argument("--all", action="store_true", help="those clients too that need tools of their own")
    parser.add_argument("--only", metavar="TEXT", help="the clients whose name has this text, and nothing else")
    arguments = parser.parse_args()
    for needed in (arguments.binary, TOOLS / "venv/bin/python", HERE / "node_modules"):
        if not needed.exists():
            parser.error(f"{needed} is missing: cargo build makes the binary, tests/setup.sh the rest")

    failed = 0
    clients = [client for client in CLIENTS if arguments.all or client not in OPTIONAL]
    if arguments.only is not None:
        clients = [client for client in CLIENTS if arguments.only in client]
    runs = [(client, transport) for client in clients for transport in TRANSPORTS]
    for client, transport in runs:
        printed, problems = transcript(arguments.binary.resolve(), client, transport)
        if arguments.accept and not problems:
            EXPECTED.write_text(printed)
            arguments.accept = False
        problems = complaints(EXPECTED.read_text(), printed) + problems
        failed += bool(problems)
        print(f"{'FAILED' if problems else 'ok':6} {client} over {transport}", *problems, sep="\n", flush=True)
    left_out = "; ".join(f"{verb}, for {reason}" for verb, reason in NOT_ASKED_OF_A_FAKE.items())
    fakes = [client for client in clients if client in FAKES]
    for client in fakes:
        printed, problems = fake_transcript(client)
        problems = complaints(without(EXPECTED.read_text(), NOT_ASKED_OF_A_FAKE), printed) + problems
        failed += bool(problems)
        print(f"{'FAILED' if problems else 'ok':6} {client}'s fake (not asked: {left_out})", *problems, sep="\n", flush=True)
    print(f"{len(runs) + len(fakes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
