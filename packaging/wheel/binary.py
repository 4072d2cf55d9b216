"""Puts the program into the wheel: the one that the variable SESSION_SIDECAR_BINARY names."""

import os
import struct
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The field e_machine of an ELF file.
MACHINES = {62: "x86_64", 183: "aarch64"}


class ProgramHook(BuildHookInterface):
    """One wheel for each architecture, and for all Pythons."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds."""
        named = os.environ.get("SESSION_SIDECAR_BINARY")
        if not named:
            raise RuntimeError("SESSION_SIDECAR_BINARY must name the program that goes into the wheel: cargo build --release makes one")
        program = Path(named).resolve(strict=True)
        build_data["pure_python"] = False
        # Which Linux it needs at least is what `auditwheel repair` finds out, and writes in place of `linux`.
        build_data["tag"] = f"py3-none-linux_{machine(program)}"
        build_data["shared_scripts"][str(program)] = "session-sidecar"


def machine(program: Path) -> str:
    """The architecture that a program is for, as wheels name it."""
    with program.open("rb") as file:
        header = file.read(20)
    number = struct.unpack_from("<H", header, 18)[0] if header.startswith(b"\x7fELF") and len(header) == 20 else None
    if number not in MACHINES:
        raise RuntimeError(f"{program} is no Linux program for {' or '.join(MACHINES.values())}")
    return MACHINES[number]
