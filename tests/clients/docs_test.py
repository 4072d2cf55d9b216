"""The pages' own code, run. (The filter and the middleware are set up by it in site_test.py.)"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from support.process import Sidecar as Process
from support.process import clean_environment

CLIENTS = {
    "java.md": lambda: build.java("Client", build.kept_text("Client.java", build.snippet("java.md", "Client.java"))),
    "ruby.md": lambda: build.ruby(build.kept_text("client.rb", build.snippet("ruby.md", "client.rb"))),
    "cpp.md": lambda: [str(build.cpp("docs", build.kept_text("main.cc", build.snippet("cpp.md", "main.cc"))))],
}


@pytest.mark.parametrize("page", CLIENTS)
def test_the_client(serve: Callable[..., Process], page: str):
    process = serve("--dev")
    environment = clean_environment(SESSION_SIDECAR_TARGET=process.tcp)
    # What it prints depends on how fast it is: its deadline is the real one.
    for _ in range(5):
        done = subprocess.run(CLIENTS[page](), env=environment, capture_output=True, text=True, timeout=60, check=False)
        if "does not answer" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "go on: 20 s are left" in said or "go on: 19 s are left" in said
    assert f"log in again: your session ended: {'END_REASON_' if page == 'cpp.md' else ''}LOGOUT" in said
    assert ("ada is logged out" in said) == (page == "cpp.md")


@pytest.mark.parametrize(("page", "made"), [("java.md", "*.java"), ("ruby.md", "*_pb.rb"), ("cpp.md", "*.pb.h")])
def test_how_code_is_generated(directory: Path, page: str, made: str):
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (build.REPOSITORY / "docs" / page).read_text(), re.M | re.S)
    for name in ("proto", "clients"):
        (directory / name).symlink_to(build.REPOSITORY / name)
    path = {"PATH": f"{build.USR}/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(build.LIBRARIES)}
    subprocess.run(["sh", "-euc", block], cwd=directory, env=path, check=True, timeout=60)
    assert list((directory / "generated").rglob(made))
