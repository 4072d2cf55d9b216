"""The client commands, end to end."""

import json
import os
import re
import subprocess

import pytest

from support import REPOSITORY
from support.api import Client
from support.process import PATIENCE, clean_environment, eventually, run

ID = "an-id-of-at-least-16-bytes"
OTHER_ID = "another-id-of-at-least-16-bytes"
POLICIES = """
[policy.default]
idle_timeout = "60s"
absolute_timeout = "10m"

[policy.desk]
idle_timeout = "60s"
absolute_timeout = "10m"
presence = "on"
max_sessions_per_subject = 1
at_subject_cap = "end-oldest"

[policy.trial]
enforce = false
idle_timeout = "60s"

[policy.wall]
passive = true
"""


@pytest.fixture(params=["tcp", "uds"])
def sidecar(serve, directory, request):
    """A sidecar with a test clock; `sidecar.target` is what the commands are told."""
    policy = directory / "policy.toml"
    policy.write_text(POLICIES)
    sidecar = serve("--dev", "--policy-file", str(policy))
    sidecar.target = f"http://{sidecar.tcp}" if request.param == "tcp" else f"unix:{sidecar.socket_path}"
    return sidecar


@pytest.fixture
def command(binary, sidecar):
    """Runs a client command, which must succeed, and answers the JSON that it prints."""

    def call(*arguments: str, **options: str) -> dict:
        result = run(binary, *arguments, "--json", "--target", sidecar.target, **options)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return call


def test_a_session_from_create_to_end(command):
    created = command(
        "create",
        "--id-file",
        "-",
        "--subject",
        "alice",
        "--label",
        "app=shop",
        "--idle-timeout",
        "30s",
        stdin=f"{ID}\n",
    )
    assert created["sessionId"] == ID
    session = created["session"]
    assert (session["subject"], session["labels"], session["idleTimeout"]) == ("alice", {"app": "shop"}, "30s")
    ref = session["status"]["sessionRef"]

    touched = command("touch", "--activity", "user", stdin=f"{ID}\n")
    assert touched["counted"] is True and touched["status"]["sessionRef"] == ref
    assert "counted" not in command("touch", "--activity", "background", stdin=ID)

    for checked in (command("check", stdin=ID), command("check", "--ref", ref)):
        assert checked["session"]["status"]["state"] == "SESSION_STATE_ACTIVE"

    extended = command("extend", "--wanted", "45s", stdin=ID)
    # From 30 s after the touch to 45 s after the extension.
    assert 15 < float(extended["grantedDuration"].rstrip("s")) < 30

    ended = command("end", "--reason", "revoked", "--actor-id", "desk", "--note", "stolen", stdin=ID)
    assert ended["endedNow"] is True
    end = ended["end"]
    assert (end["reason"], end["actor"], end["actorId"], end["note"]) == (
        "END_REASON_REVOKED",
        "ACTOR_ADMIN",
        "desk",
        "stolen",
    )
    assert command("check", stdin=ID)["session"]["status"]["state"] == "SESSION_STATE_ENDED"


def test_a_first_session_as_the_readme_tells_it(binary, serve, directory):
    """By somebody who types: 3 s go by after each command."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (REPOSITORY / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (commands,) = [block.splitlines() for block in blocks if "session-sidecar advance" in block]
    assert len(commands) == 5
    (directory / "session-sidecar").symlink_to(binary)
    seen = {"watch": "until grep -q LIVE told; do sleep 0.1; done", "advance": "until grep -q WARNING told; do sleep 0.1; done"}
    script = ["trap 'kill %1' EXIT"]
    for line in commands:
        script += [line, *(wait for word, wait in seen.items() if f"session-sidecar {word}" in line), "session-sidecar advance 3s"]
    script += ["until grep -q CLEARED told; do sleep 0.1; done"]
    env = clean_environment(SESSION_SIDECAR_TARGET=f"http://{serve('--dev').tcp}", PATH=f"{directory}:{os.environ['PATH']}")
    with (directory / "told").open("w") as told:
        done = subprocess.run(["bash", "-euc", "\n".join(script)], cwd=directory, env=env, stdout=told, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr + (directory / "told").read_text()


def test_without_json_create_prints_the_id_alone_and_the_others_a_line_for_people(binary, sidecar):
    created = run(binary, "create", "--target", sidecar.target, "--subject", "alice")
    session_id = created.stdout.strip()
    assert len(session_id) == 43 and created.stdout == f"{session_id}\n"
    assert session_id not in created.stderr
    held = ["--hold-id", "upload"]
    for verb in (["touch"], ["check"], ["extend"], ["hold", *held, "--ttl", "5s"], ["release", *held], ["end"]):
        said = run(binary, *verb, "--target", sidecar.target, stdin=session_id)
        assert said.returncode == 0 and len(said.stdout.splitlines()) == 1, said.stderr
        assert session_id not in said.stdout + said.stderr


def test_a_hold_from_begin_to_release(binary, sidecar, command):
    command("create", "--id-file", "-", "--policy", "desk", stdin=ID)
    held = command("hold", "--hold-id", "upload", "--ttl", "30s", "--purpose", "a film", stdin=ID)
    assert held["created"] is True and held["grantedTtl"] == "30s"
    assert command("hold", "--hold-id", "upload", "--ttl", "10m", stdin=ID)["clampedBy"] == "HOLD_CLAMP_MAX_TTL"
    page = command("hold", "--hold-id", "tab", "--kind", "presence", "--ttl", "30s", stdin=ID)
    assert page["created"] is True
    holds = {hold["holdId"]: hold["kind"] for hold in command("check", stdin=ID)["session"]["holds"]}
    assert holds == {"upload": "HOLD_KIND_WORK", "tab": "HOLD_KIND_PRESENCE"}
    shown = run(binary, "check", "--target", sidecar.target, stdin=ID).stdout
    assert 'hold "upload" (WORK) for ' in shown and 'purpose "a film"' in shown
    said = run(binary, "hold", "--target", sidecar.target, "--hold-id", "upload", "--ttl", "10m", stdin=ID).stdout
    assert said.startswith("renewed for ") and "longest TTL" in said
    for released in (True, False):
        assert command("release", "--hold-id", "upload", stdin=ID).get("released", False) == released
    said = run(binary, "release", "--target", sidecar.target, "--hold-id", "tab", stdin=ID).stdout
    assert said.startswith("released; ") and "(PRESENCE)" in said


def test_a_rotation_with_a_new_id_of_its_own(binary, sidecar, command, directory):
    old = command("create", "--id-file", "-", "--authentication-level", "aal1", stdin=ID)["session"]["status"]
    ids = {}
    for name, text in (("old", ID), ("new", OTHER_ID), ("request", "rotation-7f3a")):
        ids[name] = directory / name
        ids[name].write_text(f"{text}\n")
    arguments = ["rotate", "--id-file", str(ids["old"]), "--new-id-file", str(ids["new"])]
    for _ in range(2):
        rotated = command(*arguments, "--request-id-file", str(ids["request"]))
        assert rotated["sessionId"] == OTHER_ID
        assert rotated["session"]["predecessorRef"] == old["sessionRef"]
    new_ref = rotated["session"]["status"]["sessionRef"]
    assert rotated["previousEnd"]["successorRef"] == new_ref
    alias = run(binary, "touch", "--target", sidecar.target, stdin=ID).stdout
    assert "named by its former id" in alias and new_ref in alias
    assert f"was {old['sessionRef']}" in run(binary, "check", "--target", sidecar.target, stdin=OTHER_ID).stdout
    ended = run(binary, "check", "--target", sidecar.target, "--ref", old["sessionRef"]).stdout
    assert "ROTATED by SYSTEM" in ended and f"goes on as {new_ref}" in ended


def test_a_login_prints_the_new_id_alone(binary, sidecar, command):
    for name in ("guest", "other"):
        command("create", "--id-file", "-", "--policy", "desk", stdin=f"{name}-{ID}")
    arguments = ["rotate", "--target", sidecar.target, "--subject", "ada", "--authenticated-ago", "0s"]
    rotated = run(binary, *arguments, "--authentication-level", "aal2", stdin=f"other-{ID}")
    assert rotated.returncode == 0, rotated.stderr
    other = command("check", stdin=rotated.stdout)["session"]
    assert (other["subject"], other["authenticationLevel"]) == ("ada", "aal2")
    rotated = run(binary, *arguments, stdin=f"guest-{ID}")
    session_id = rotated.stdout.strip()
    assert len(session_id) == 43 and session_id not in rotated.stderr
    assert f"ended SUPERSEDED {other['status']['sessionRef']}" in rotated.stderr
    over = run(binary, "touch", "--target", sidecar.target, stdin=f"guest-{ID}")
    assert over.returncode == 1 and "SESSION_ENDED" in over.stderr and "successor_ref" in over.stderr
    alone = run(binary, "rotate", "--target", sidecar.target, "--authentication-level", "aal2", stdin=session_id)
    assert alone.returncode == 64 and "--authenticated-ago" in alone.stderr


def test_hints_are_judged_and_the_rule_is_named(binary, sidecar, command):
    command("create", "--id-file", "-", stdin=ID)
    for arguments, rule in (
        (["--sec-purpose", "prefetch"], "prefetch"),
        (["--visibility", "hidden"], "hidden-page"),
        (["--sec-fetch-mode", "navigate", "--sec-fetch-user", "?1", "--sec-fetch-dest", "document"], "user-navigation"),
        (["--host", "shop.example", "--method", "POST", "--path", "/cart", "--visibility", "visible"], "unmatched"),
        (["--activity", "user", "--input-report"], "declared-user"),
        (["--sec-fetch-dest", "empty"], "script-request"),
    ):
        touched = command("touch", *arguments, stdin=ID)
        assert touched["rule"] == rule, arguments
        assert touched.get("counted", False) == (rule in ("user-navigation", "unmatched", "declared-user"))
    said = run(binary, "touch", "--target", sidecar.target, "--visibility", "hidden", stdin=ID).stdout
    assert said.startswith("ignored (hidden-page); ")


def test_what_a_policy_makes_of_a_session_is_shown(binary, sidecar, command):
    for name in ("wall", "trial"):
        command("create", "--id-file", "-", "--policy", name, stdin=f"{name}-{ID}")
    assert run(binary, "advance", "--target", sidecar.target, "90s").returncode == 0
    check = ["check", "--target", sidecar.target]
    assert "for reading only" in run(binary, *check, stdin=f"wall-{ID}").stdout
    said = run(binary, *check, stdin=f"trial-{ID}").stdout
    assert "only observed" in said and "would have ended: IDLE_TIMEOUT by POLICY" in said
    refused = run(binary, "touch", "--target", sidecar.target, "--method", "POST", stdin=f"wall-{ID}")
    assert refused.returncode == 1 and "READ_ONLY_SESSION" in refused.stderr


def test_a_request_id_is_read_from_a_file_and_makes_a_retry_safe(binary, sidecar, command, directory):
    request = directory / "request"
    request.write_text("request-7f3a\n")
    by = ["--request-id-file", str(request)]
    first, again = (command("create", *by)["sessionId"] for _ in range(2))
    assert first == again
    request.write_text("request-of-extend\n")
    first, again = (command("extend", *by, stdin=again)["status"]["expireTime"] for _ in range(2))
    assert first == again
    command("create", "--id-file", "-", stdin=ID)
    for _ in range(2):
        assert command("end", *by, stdin=ID)["endedNow"] is True
    assert "endedNow" not in command("end", stdin=ID)
    for verb in ("extend", "rotate", "end"):
        both = run(binary, verb, "--target", sidecar.target, "--request-id-file", "-", stdin=ID)
        assert both.returncode == 1 and "--id-file and --request-id-file" in both.stderr


def test_an_id_is_read_from_a_file(command, directory):
    file = directory / "id"
    file.write_text(f"{ID}\n")
    ref = command("create", "--id-file", str(file))["session"]["status"]["sessionRef"]
    for verb in ("touch", "check", "extend", "end"):
        answer = command(verb, "--id-file", str(file))
        assert answer.get("session", answer)["status"]["sessionRef"] == ref


def test_a_ref_that_begins_with_a_hyphen_is_a_ref(command, sidecar):
    """One in 64 does: base64url."""
    with Client(sidecar.tcp) as client:
        refs = (client.create().session.status.session_ref for _ in range(2_000))
        ref = next(ref for ref in refs if ref.startswith("-"))
    assert command("check", "--ref", ref)["session"]["status"]["sessionRef"] == ref


@pytest.mark.parametrize("verb", ["create", "touch", "check", "extend", "hold", "release", "rotate", "end", "watch"])
def test_an_id_on_the_command_line_is_refused(binary, sidecar, verb):
    for arguments in ([ID], ["--session-id", ID], ["--id", ID], ["--new-session-id", ID], ["--request-id", ID]):
        refused = run(binary, verb, "--target", sidecar.target, *arguments)
        assert refused.returncode not in (0, 1), "a wrong use, not a failed call"
        assert not refused.stdout


def test_errors_exit_1_and_say_why_without_the_id(binary, sidecar):
    session_id = run(binary, "create", "--target", sidecar.target).stdout.strip()
    run(binary, "end", "--target", sidecar.target, stdin=session_id)
    for stdin, why in ((ID, "SESSION_UNKNOWN"), (session_id, "SESSION_ENDED"), ("", "session_id")):
        failed = run(binary, "touch", "--target", sidecar.target, stdin=stdin)
        assert failed.returncode == 1
        assert why in failed.stderr
        assert not stdin or stdin not in failed.stderr
    nobody = run(binary, "touch", "--target", "http://127.0.0.1:1", stdin=ID)
    assert nobody.returncode == 1 and "http://127.0.0.1:1" in nobody.stderr


def test_the_tenant_is_sent(binary, sidecar):
    refused = run(binary, "touch", "--target", sidecar.target, "--tenant", "shop", stdin=ID)
    assert refused.returncode == 1 and "tenant" in refused.stderr


@pytest.mark.parametrize("by", ["id_file", "subject", "whole_tenant", "everything"])
def test_watch_prints_an_event_a_line(binary, sidecar, command, directory, by):
    command("create", "--id-file", "-", "--subject", "alice", "--idle-timeout", "20s", stdin=ID)
    ids = directory / "ids"
    ids.write_text(f"{ID}\n")
    scope = {
        "id_file": ["--id-file", str(ids)],
        "subject": ["--subject", "alice"],
        "whole_tenant": ["--whole-tenant"],
        "everything": [],
    }
    printed = directory / "printed"
    with printed.open("wb") as output:
        watch = subprocess.Popen(
            [str(binary), "watch", "--json", "--initial-state", "--target", sidecar.target, *scope[by]],
            stdin=subprocess.DEVNULL, stdout=output, env=clean_environment(),
        )  # fmt: skip

    def messages() -> list[dict]:
        return [json.loads(line) for line in printed.read_text().splitlines(keepends=True) if line.endswith("\n")]

    try:
        eventually(lambda: len(messages()) == 2, "the snapshot and its end are printed")
        assert run(binary, "advance", "--target", sidecar.target, "20s").returncode == 0
        eventually(lambda: any("ended" in message for message in messages()), "the end is printed")
        sidecar.terminate()
        assert watch.wait(30) == 0, "a watch that was told of the shutdown ends well"
    finally:
        watch.kill()
    kinds = [next(kind for kind in message if kind not in ("resumeToken", "emitTime")) for message in messages()]
    assert kinds[:2] == ["snapshot", "snapshotEnd"] and kinds[-2:] == ["ended", "draining"]
    assert set(kinds[2:-2]) == {"warning"}
    assert (ID in printed.read_text()) == (by == "id_file"), "only who named the id hears it"
