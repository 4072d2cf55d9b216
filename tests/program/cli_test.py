"""The client commands, end to end."""

import json
import subprocess

import pytest

from support.api import Client
from support.process import clean_environment, eventually, run

ID = "an-id-of-at-least-16-bytes"


@pytest.fixture(params=["tcp", "uds"])
def sidecar(serve, directory, request):
    """A sidecar with a test clock; `sidecar.target` is what the commands are told."""
    policy = directory / "policy.toml"
    policy.write_text('[policy.default]\nidle_timeout = "60s"\nabsolute_timeout = "10m"\n')
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


def test_without_json_create_prints_the_id_alone_and_the_others_a_line_for_people(binary, sidecar):
    created = run(binary, "create", "--target", sidecar.target, "--subject", "alice")
    session_id = created.stdout.strip()
    assert len(session_id) == 43 and created.stdout == f"{session_id}\n"
    assert session_id not in created.stderr
    for verb in ("touch", "check", "extend", "end"):
        said = run(binary, verb, "--target", sidecar.target, stdin=session_id)
        assert said.returncode == 0 and len(said.stdout.splitlines()) == 1
        assert session_id not in said.stdout + said.stderr


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


@pytest.mark.parametrize("verb", ["create", "touch", "check", "extend", "end", "watch"])
def test_an_id_on_the_command_line_is_refused(binary, sidecar, verb):
    for arguments in ([ID], ["--session-id", ID], ["--id", ID]):
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
