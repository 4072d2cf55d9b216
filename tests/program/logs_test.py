"""What the log says, and how."""

import json
import re

import pytest

from support.process import Sidecar, run


def lines(sidecar: Sidecar) -> list[str]:
    return sidecar.output().splitlines()


@pytest.mark.parametrize("arguments", [[], ["--log-format", "json"], ["--dev", "--log-format", "json"]], ids=" ".join)
def test_json_is_one_object_a_line(serve, arguments):
    sidecar = serve(*arguments)
    sidecar.stop()
    assert {"INFO"} <= {json.loads(line)["level"] for line in lines(sidecar)}


@pytest.mark.parametrize("arguments", [["--dev"], ["--log-format", "human"]], ids=" ".join)
def test_a_log_that_goes_to_a_file_has_no_colours(serve, arguments):
    sidecar = serve(*arguments)
    sidecar.stop()
    assert lines(sidecar) and not lines(sidecar)[0].startswith("{")
    assert "\x1b" not in sidecar.output()


def test_it_says_which_ports_it_was_given_and_what_a_restart_loses(serve):
    sidecar = serve("--log-format", "human", listen=["tcp://127.0.0.1:0"])
    assert re.search(r"127\.0\.0\.1:[1-9]\d+", sidecar.output().replace(str(sidecar.admin_port), ""))
    assert "restart" in sidecar.output(), "G16: memory mode says what a restart loses"


def test_an_unreadable_filter_is_refused(binary):
    assert run(binary, "check-config", "--log", "a=b=c").returncode == 64
