"""The .proto files keep their own rules (proto/buf.yaml)."""

import subprocess

import pytest

from support import REPOSITORY
from support.process import tool


@pytest.mark.parametrize("check", [["lint"], ["format", "--diff", "--exit-code"]], ids=lambda check: check[0])
def test_buf_is_content(check):
    result = subprocess.run([tool("buf"), *check, "proto"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
