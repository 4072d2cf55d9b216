#!/usr/bin/env python3
"""Makes src/session_sidecar/_proto from the .proto files, with the grpcio-tools of tests/requirements.txt: generate.py [FOLDER]."""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"
SOURCES = {
    PROTO: [
        "sessionsidecar/v1/session_service.proto",
        "sessionsidecar/v1/session_admin_service.proto",
        "sessionsidecar/dev/v1/test_clock_service.proto",
    ],
    HERE / "proto": ["errors.proto"],
}
GENERATED = HERE / "src/session_sidecar/_proto"


def generate(into: Path) -> None:
    """Writes messages and their stubs, all into one package: they import nothing but protobuf and each other."""
    for root, files in SOURCES.items():
        with tempfile.TemporaryDirectory() as made:
            command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(root), f"--python_out={made}", f"--pyi_out={made}"]
            subprocess.run([*command, *files], check=True)
            for path in Path(made).rglob("*_pb2.py*"):
                text = path.read_text().replace("from sessionsidecar.v1 import ", "from . import ")
                (into / path.name).write_text(text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else GENERATED)
