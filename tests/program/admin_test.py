"""The admin commands and the audit log, end to end: what support staff and auditors get from a real process."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from support.process import Sidecar, eventually, free_port, run

EX_USAGE = 64
IDS = {name: f"{name}-{'x' * 20}" for name in ("alice", "bob", "carol")}


class Desk:
    """A sidecar with a test clock, an audit log and a listener for operators."""

    def __init__(self, serve, binary: Path, directory: Path, *arguments: str) -> None:
        self.binary = binary
        self.log = directory / "audit.jsonl"
        self.key = directory / "key"
        self.key.write_bytes(os.urandom(32))
        policy = directory / "policy.toml"
        policy.write_text('[policy.default]\nidle_timeout = "60s"\nabsolute_timeout = "10m"\n')
        port, admin_port = free_port(), free_port()
        self.target = f"http://127.0.0.1:{port}"
        self.admin_target = f"http://127.0.0.1:{admin_port}"
        self.sidecar: Sidecar = serve(
            "--dev", "--policy-file", str(policy), "--key-file", str(self.key), "--audit-log", str(self.log), *arguments,
            listen=[f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{admin_port}?verbs=admin"],
        )  # fmt: skip

    def run(self, *arguments: str, target: str = "", stdin: str = ""):
        result = run(self.binary, *arguments, "--target", target or self.target, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def admin(self, *arguments: str, stdin: str = "") -> str:
        """Runs an admin command, and answers what it prints."""
        return self.run(*arguments, target=self.admin_target, stdin=stdin)

    def json(self, *arguments: str, stdin: str = "") -> dict:
        """The same as JSON."""
        return json.loads(self.admin(*arguments, "--json", stdin=stdin))

    def create(self, name: str, *arguments: str) -> str:
        """Creates a session, and answers its ref."""
        answer = self.run("create", "--id-file", "-", "--json", *arguments, stdin=IDS[name])
        return json.loads(answer)["session"]["status"]["sessionRef"]

    def lines(self) -> list[dict]:
        """The audit log as it is now: its whole lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def desk(serve, binary, directory) -> Desk:
    return Desk(serve, binary, directory)


def test_the_commands_tell_people_and_programs(desk):
    ada = desk.create("alice", "--subject", "ada", "--label", "app=shop")
    desk.create("bob", "--subject", "bob")
    for _ in range(3):
        desk.run("touch", "--activity", "background", stdin=IDS["alice"])

    listed = desk.json("list", "--subject", "ada", "--label", "app=shop")
    assert [session["status"]["sessionRef"] for session in listed["sessions"]] == [ada]
    table = desk.admin("list").splitlines()
    assert table[0].split()[:3] == ["REF", "STATE", "SUBJECT"] and len(table) == 3
    columns = {line.index("ACTIVE") for line in table[1:]}
    assert columns == {table[0].index("STATE")}, "the columns line up"
    assert "there are more" in desk.admin("list", "--limit", "1")
    pages = desk.json("list", "--limit", "1")
    rest = desk.json("list", "--page-token", pages["nextPageToken"])
    assert len(rest["sessions"]) == 1 and "nextPageToken" not in rest

    assert desk.admin("stats").splitlines()[1].split() == ["ACTIVE", "2"]
    assert desk.json("stats")["ghostSessionCount"] == "1"
    assert [policy["name"] for policy in desk.json("policies")["policies"]] == ["default"]
    assert desk.admin("policies").startswith("POLICY")
    assert '[policy.default]' in desk.admin("policies", "--toml")

    dry = desk.json("end-sessions", "--subject", "ada", "--dry-run")
    assert dry == {"matchedCount": "1", "endedCount": "0", "sessionRefs": [ada]}
    spared = desk.json("end-sessions", "--whole-tenant", "--except-id-file", "-", stdin=IDS["bob"])
    assert (spared["matchedCount"], spared["endedCount"], spared["sessionRefs"]) == ("1", "1", [ada])
    assert "0 sessions ended" in desk.admin("end-sessions", "--subject", "ada", "--actor-id", "desk")
    # Scripts read counts, also those that are zero.
    assert desk.json("end-sessions", "--subject", "ada")["matchedCount"] == "0"
    assert desk.json("stats")["unenforcedEndCount"] == "0"

    for arguments in (["--ref", ada], ["--subject", "ada", "--from", "2020-01-01T00:00:00Z"], ["--id-file", "-"]):
        explained = desk.admin("explain", *arguments, stdin=IDS["alice"])
        assert "because it was revoked, by an administrator" in explained
        assert "declared-background" in explained and "ignored" in explained
        assert IDS["alice"] not in explained
    assert "nothing is known" in desk.admin("explain", "--ref", "A" * 22)


def test_the_admin_verbs_are_off_unless_a_listener_says_so(desk, binary):
    desk.create("alice")
    for command in (["list"], ["stats"], ["policies"], ["explain", "--ref", "A" * 22], ["end-sessions", "--whole-tenant"]):
        refused = run(binary, *command, "--target", desk.target)
        assert refused.returncode == 1 and "PermissionDenied" in refused.stderr
    assert desk.json("stats")["states"][0]["sessionCount"] == "1"
    verbs = {"ListSessions", "GetStats", "ListPolicies", "ExplainSession", "EndSessions"}
    # A thread writes them, after the answers.
    eventually(lambda: {line["method"] for line in desk.lines() if line.get("result") == "PERMISSION_DENIED"} == verbs, "all five are in the audit log")


@pytest.mark.parametrize("arguments", [["--session-id", IDS["alice"]], [IDS["alice"]]], ids=["flag", "word"])
def test_an_id_on_the_command_line_is_refused(binary, arguments):
    refused = run(binary, "explain", *arguments)
    assert refused.returncode == EX_USAGE and not refused.stdout


def test_every_line_parses_and_the_log_answers_when_the_process_is_gone(desk, binary):
    ada = desk.create("alice", "--subject", "ada@example.org")
    desk.create("bob", "--subject", "bob@example.org")
    desk.run("extend", "--wanted", "90s", stdin=IDS["alice"])
    desk.run("end", "--reason", "revoked", "--actor-id", "desk", "--note", "asked for", stdin=IDS["bob"])
    desk.run("advance", "120s")
    desk.create("carol")
    assert desk.sidecar.stop() == 0, "SIGTERM, and all that was answered is in the file"

    text = desk.log.read_text()
    assert text.endswith("\n")
    lines = desk.lines()
    assert [line["event"] for line in lines] == ["create", "create", "extend", "end", "end", "create"]
    assert all(line["v"] == 1 and line["time"].endswith("Z") for line in lines)
    assert not any(session_id in text for session_id in IDS.values()), "G15"
    assert "@example.org" not in text, "subjects are hashed"
    assert stat.S_IMODE(desk.log.stat().st_mode) == 0o600

    def from_log(*arguments: str):
        return run(binary, "explain", "--from-log", str(desk.log), *arguments)

    by_ref = from_log("--ref", ada)
    assert by_ref.returncode == 0, by_ref.stderr
    assert "by inactivity: the last counted activity was at" in by_ref.stdout
    assert "it had been extended 1 time" in by_ref.stdout
    told = json.loads(from_log("--ref", ada, "--json").stdout)
    assert told["session_ref"] == ada and [entry["event"] for entry in told["entries"]] == ["create", "extend", "end"]

    without_key = from_log("--subject", "bob@example.org")
    assert without_key.returncode == 1 and "--key-file" in without_key.stderr
    by_subject = from_log("--subject", "bob@example.org", "--key-file", str(desk.key), "--from", "2020-01-01T00:00:00Z")
    assert by_subject.returncode == 0, by_subject.stderr
    assert 'by ADMIN (desk), who noted "asked for"' in by_subject.stdout
    too_early = from_log("--subject", "bob@example.org", "--key-file", str(desk.key), "--to", "2020-01-01T00:00:00Z")
    assert too_early.returncode == 1
    assert from_log().returncode == 1, "an id cannot be looked for"


def test_a_moved_log_is_opened_anew_at_sighup(desk, directory):
    desk.create("alice")
    moved = directory / "audit.jsonl.1"
    eventually(lambda: desk.log.exists() and desk.lines(), "the first line is written")
    desk.log.rename(moved)
    desk.sidecar.process.send_signal(signal.SIGHUP)
    eventually(desk.log.exists, "the file is there again")
    desk.create("bob")
    assert desk.sidecar.stop() == 0
    assert len(moved.read_text().splitlines()) == 1 and len(desk.lines()) == 1


def test_subjects_can_be_plain(serve, binary, directory):
    desk = Desk(serve, binary, directory, "--audit-subject", "plain")
    desk.create("alice", "--subject", "ada")
    desk.sidecar.stop()
    assert desk.lines()[0]["subject"] == "ada"
    found = run(binary, "explain", "--from-log", str(desk.log), "--subject", "ada")
    assert found.returncode == 0 and "The log tells of no end" in found.stdout


def test_a_log_that_cannot_be_opened_is_a_wrong_configuration(binary, directory):
    refused = run(binary, "serve", "--admin-listen", "off", "--audit-log", str(directory / "no" / "audit.jsonl"))
    assert refused.returncode == EX_USAGE
    assert "--audit-log" in refused.stderr and "audit.jsonl" in refused.stderr


def test_a_disk_that_is_full_is_told_once_and_stops_nobody(serve):
    sidecar = serve("--audit-log", "/dev/full")
    for _ in range(3):
        created = run(sidecar.binary, "create", "--target", f"http://{sidecar.tcp}")
        assert created.returncode == 0, created.stderr
    eventually(lambda: "the audit log cannot be written" in sidecar.output(), "it is in the log")
    assert sidecar.stop() == 0
    assert sidecar.output().count("it is tried again every second") == 1
    assert "lines are lost" in sidecar.output(), "and what was lost is told at the end"
