"""Bad configuration exits 64 and says what to do; the dangerous kinds are refused."""

import re

import grpc
import pytest

from support.api import Client, Code
from support.process import run

EX_USAGE = 64


def check(binary, *arguments, **options):
    return run(binary, "check-config", *arguments, **options)


def test_the_defaults_are_good(binary):
    assert check(binary).returncode == 0


def test_plaintext_on_a_routable_address_is_refused_unless_it_is_said_aloud(binary):
    # Nothing is bound here: check-config opens no port.
    routable = ["--listen", "tcp://0.0.0.0:0"]
    refused = check(binary, *routable)
    assert refused.returncode == EX_USAGE
    assert "--allow-plaintext" in refused.stderr and "0.0.0.0" in refused.stderr
    assert check(binary, *routable, "--allow-plaintext").returncode == 0


def test_an_unknown_key_is_named_with_its_line_and_a_suggestion(binary, directory):
    policy = directory / "policy.toml"
    policy.write_text('[policy.default]\nabsolute_timeout = "12h"\nidle_timout = "15m"\n')
    for command in ("check-config", "serve"):
        refused = run(binary, command, "--policy-file", str(policy))
        assert refused.returncode == EX_USAGE
        assert re.search(r"(line |:)3\b", refused.stderr), refused.stderr
        assert "idle_timout" in refused.stderr
        assert re.search(r"\bidle_timeout\b", refused.stderr), refused.stderr
        assert "policy.toml" in refused.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[policy.default]\nidle_timeout = "soon"\n', "idle_timeout"),
        ('[policy.default]\nidle_timeout = "0s"\n', "idle_timeout"),
        ('[policy.default]\nidle_timeout = "15m"\nabsolute_timeout = "5m"\nmax_extensions = -1\n', "max_extensions"),
        ('[policy.default]\nunmatched = "perhaps"\n', "unmatched"),
        ('[policy.default]\nwarn_before = "2m"\n', "warn_before"),
        ("[policy.default\n", "policy.toml"),
    ],
)
def test_a_bad_policy_is_named(binary, directory, text, named):
    policy = directory / "policy.toml"
    policy.write_text(text)
    refused = check(binary, "--policy-file", str(policy))
    assert refused.returncode == EX_USAGE
    assert named in refused.stderr


def test_a_policy_file_without_default_is_said_aloud(binary, directory, serve):
    policy = directory / "policy.toml"
    policy.write_text('[policy.staff]\nidle_timeout = "15m"\n')
    checked = check(binary, "--policy-file", str(policy))
    assert checked.returncode == 0
    assert "warning" in checked.stdout and "`default`" in checked.stdout and "staff" in checked.stdout
    assert "no policy is named `default`" in serve("--policy-file", str(policy)).output()
    policy.write_text("[policy.default]\n")
    assert "warning" not in check(binary, "--policy-file", str(policy)).stdout


def test_a_key_file_that_others_can_read_is_said_aloud(binary, directory, serve):
    key = directory / "key"
    key.write_bytes(bytes(range(32)))
    for mode, loose in ((0o600, False), (0o440, False), (0o644, True), (0o460, True)):
        key.chmod(mode)
        checked = check(binary, "--key-file", str(key))
        assert checked.returncode == 0
        assert ("chmod 600" in checked.stdout) == loose, f"{mode:o}"
        assert (f"{mode:04o}" in checked.stdout) == loose
    assert "chmod 600" in serve("--key-file", str(key)).output()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-flag"],
        ["--listen", "http://127.0.0.1:1"],
        ["--listen", "tcp://127.0.0.1"],
        ["--listen", "unix://relative.sock"],
        ["--listen", "unix:///tmp/s.sock?mode=999"],
        ["--listen", "tcp://127.0.0.1:1?verbs=use,fly"],
        ["--listen", "tcp://127.0.0.1:1?colour=red"],
        ["--policy-file", "/nonexistent/policy.toml"],
        ["--key-file", "/nonexistent/key"],
        # They have no end.
        ["--policy-file", "/dev/zero"],
        ["--key-file", "/dev/zero"],
        ["--drain-timeout", "soon"],
        ["--max-sessions", "many"],
        ["--log-format", "xml"],
        ["--admin-listen", "nowhere"],
    ],
)
def test_a_bad_flag_is_refused(binary, arguments):
    refused = check(binary, *arguments)
    assert refused.returncode == EX_USAGE, refused.stderr
    assert arguments[0].lstrip("-") in refused.stderr or arguments[-1] in refused.stderr


def test_flags_can_be_set_by_the_environment(binary):
    refused = check(binary, env={"SESSION_SIDECAR_LISTEN": "tcp://0.0.0.0:0"})
    assert refused.returncode == EX_USAGE
    assert check(binary, env={"SESSION_SIDECAR_LISTEN": "tcp://127.0.0.1:0"}).returncode == 0


@pytest.mark.parametrize("value", ["1", "true"])
def test_the_test_clock_cannot_be_switched_on_by_the_environment(serve, value):
    sidecar = serve(env={"SESSION_SIDECAR_DEV": value})
    with Client(sidecar.tcp) as client, pytest.raises(grpc.RpcError) as refused:
        client.advance(1)
    assert refused.value.code() == Code.UNIMPLEMENTED


def test_the_test_clock_comes_with_dev(serve):
    sidecar = serve("--dev")
    with Client(sidecar.tcp) as client:
        client.advance(1)
