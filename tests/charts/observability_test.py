"""Metrics are what docs/metrics.md says, alerts fire when they should, and the dashboard asks for metrics that exist."""

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml

from charts import HELM, HERE, REPOSITORY, cases, render
from support.process import Sidecar, eventually, free_port, run, tool
from truth_test import certify, redis

ALERTS = HELM / "session-sidecar/files/alerts.yaml"
DASHBOARD = HELM / "session-sidecar/files/dashboard.json"
PREFIX = "session_sidecar_"


Rules = list[dict[str, Any]]


class Served:
    """The metrics of a sidecar: type and labels by name, and values by label."""

    def __init__(self, text: str) -> None:
        self.types = {name: kind for name, kind in re.findall(rf"^# TYPE {PREFIX}(\w+) (\w+)$", text, re.MULTILINE)}
        self.labels: dict[str, set[str]] = {name: set() for name in self.types}
        self.values: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name, labels in re.findall(rf"^{PREFIX}(\w+?)(?:\{{(.*)\}})? [^ ]+$", text, re.MULTILINE):
            family = name if name in self.types else re.sub("_(bucket|sum|count)$", "", name)
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
                if label != "le":
                    self.labels[family].add(label)
                    self.values[family, label].add(value)


@pytest.fixture(scope="module")
def served(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """All that sidecars serve: one with its own memory and an audit log, one with a shared store, both with a door and a policy file."""
    home = tmp_path_factory.mktemp("metrics")
    policy, key = home / "policy.toml", home / "key"
    policy.write_text("[policy.default]\n")
    key.write_bytes(b"0123456789abcdef" * 2)
    key.chmod(0o600)
    text = ""
    with redis(home) as store:
        for number, kind in enumerate((["--audit-log", str(home / "audit")], ["--store", f"redis://127.0.0.1:{store}", "--store-key-file", str(key)])):
            place, door = home / str(number), f"127.0.0.1:{free_port()}"
            place.mkdir()
            listen = [f"tcp://127.0.0.1:{free_port()}"]
            certify(place)
            files = f"tls-cert-file={place}/tls.crt&tls-key-file={place}/tls.key&client-ca-file={place}/tls.crt"
            listen.append(f"tcp://127.0.0.1:{free_port()}?{files}")
            # Nobody is there.
            traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
            with Sidecar(binary, place, "--policy-file", str(policy), "--door-listen", door, *kind, listen=listen, env=traced) as sidecar:

                def is_created() -> bool:
                    done = run(binary, "create", "--target", listen[0].replace("tcp", "http"))
                    assert done.returncode == 0 or "Unavailable" in done.stderr, done.stderr
                    return done.returncode == 0

                eventually(is_created, "a session begins: a store on a busy machine may take longer than it has")
                with pytest.raises(HTTPError):
                    urlopen(f"http://{door}/authz", timeout=10)
                if "--store" in kind:
                    eventually(lambda: sidecar.metric("store_calls_total") > 0, "the store is called")
                text += sidecar.http("/metrics")[1]
    return Served(text)


@cache
def page() -> dict[str, tuple[str, set[str], str]]:
    """Type, labels and the whole row of each metric of docs/metrics.md."""
    rows: dict[str, tuple[str, set[str], str]] = {}
    for line in (REPOSITORY / "docs/metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" |")]
        if line.startswith("| `"):
            names, kind, labels, _ = cells
            keys = set(re.findall(r"`(\w+)`(?=:|,|$)", re.sub(r": [^:]*", ":", labels)))
            rows |= {name: (kind, keys, line) for name in re.findall(r"`(\w+)`", names)}
    return rows


def test_the_page_is_what_is_served(served: Served) -> None:
    told = page()
    assert set(told) == set(served.types)
    for name, kind in served.types.items():
        assert told[name][:2] == (kind, served.labels[name]), name


def test_closed_sets_of_values_are_told(served: Served) -> None:
    closed = [
        ("touches_total", "result"),
        ("holds_started_total", "kind"),
        ("warnings_total", "limit"),
        ("sessions_ended_total", "reason"),
        ("unenforced_ends_total", "limit"),
        ("policy_reloads_total", "outcome"),
    ]
    for name, label in closed:
        values = served.values[name, label]
        assert values and values == set(re.findall(r"`(\w+)`", page()[name][2].split(f"`{label}`:")[1].split("|")[0])), name


def test_operating_says_where_they_are() -> None:
    assert "[metrics.md](metrics.md)" in (REPOSITORY / "docs/operating.md").read_text()


def test_the_other_pages_name_metrics_that_exist() -> None:
    pages = {path.name: path.read_text() for path in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")] if path.name != "metrics.md"}
    named = {(place, name) for place, text in pages.items() for name in re.findall(rf"\b(?:{PREFIX})?([a-z]\w*_total)\b", text)}
    foreign = {("runbook.md", "container_cpu_cfs_throttled_periods_total")}
    assert foreign < named and {(place, name) for place, name in named - foreign if name not in page()} == set()


def test_the_program_logs_what_the_pages_quote() -> None:
    """Italics of the runbook, and of the table of operating.md that is about the log."""
    lines = [line for path in (REPOSITORY / "src").rglob("*.rs") for line in path.read_text().splitlines() if not line.lstrip().startswith("//")]
    code = re.sub(r"\\\n\s*", "", "\n".join(lines))
    table = (REPOSITORY / "docs/operating.md").read_text().split("| In the log |")[1].split("\n\n")[0]
    text = re.sub("`[^`]*`", "", table + (REPOSITORY / "docs/runbook.md").read_text())
    quoted = re.findall(r"(?<!\*)\*([^*|]+)\*(?!\*)", text)
    assert len(quoted) > 20
    assert [line for line in quoted if not all(part in code for part in line.split("…"))] == []


def rules() -> Rules:
    """The alerts."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs promtool."""
    return subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, check=False, cwd=HERE)


def test_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", "alerts.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_is_left_out() -> None:
    quiet, *firing = yaml.safe_load((HERE / "alerts.test.yaml").read_text())["tests"]
    names = {rule["alert"] for rule in rules()}
    assert {check["alertname"] for check in quiet["alert_rule_test"]} == names
    assert {check["alertname"] for test in firing for check in test["alert_rule_test"] if check["exp_alerts"]} == names


@pytest.mark.parametrize("expression", ["vector(1)", "vector(1) > 1"], ids=["always", "never"])
def test_a_broken_alert_is_found(expression: str, tmp_path: Path) -> None:
    """The proof of the tests of alerts: of alerts that fire always, or never, each is named."""
    broken = [rule | {"expr": expression} for rule in rules()]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": broken}]}))
    tests = (HERE / "alerts.test.yaml").read_text().replace("../../helm/session-sidecar/files/alerts.yaml", str(tmp_path / "alerts.yaml"))
    (tmp_path / "test.yaml").write_text(tests)
    said = promtool("test", "rules", str(tmp_path / "test.yaml"))
    named = set(re.findall(r"alertname: (\w+)", said.stdout + said.stderr))
    assert said.returncode and named == {rule["alert"] for rule in rules()}


def test_the_chart_renders_the_rules(tmp_path: Path) -> None:
    (case,) = [case for case in cases() if case.name == "platform"]
    (rule,) = render(case).of_kind("PrometheusRule")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    rendered = {rule["alert"]: rule for rule in rule["spec"]["groups"][0]["rules"]}
    assert set(rendered) == {rule["alert"] for rule in rules()}
    assert rendered["SessionSidecarSessionsNearCap"]["expr"].endswith("> 0.8 * 5000")
    assert rendered["SessionSidecarCertificateExpires"]["expr"].endswith("< 3 * 86400")
    for name, alert in rendered.items():
        assert alert["labels"]["team"] == "platform" and alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"]["runbook_url"] == f"https://example.com/runbook.md#{name.lower()}"


def test_every_alert_has_a_page_in_the_runbook() -> None:
    headings = re.findall(r"^## (SessionSidecar\w+)$", (REPOSITORY / "docs/runbook.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """All expressions of the dashboard, as Grafana would send them."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "2m").replace("$namespace", ".*").replace("$pod", ".*")
            assert "$" not in expression, f"{panel['title']} has a variable that nobody sets"
            yield panel["title"], expression


def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    recorded = [{"record": f"dashboard:{number}", "expr": expression} for number, (_, expression) in enumerate(dashboard_expressions())]
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = promtool("check", "rules", str(tmp_path / "dashboard.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(recorded)} rules found" in done.stdout


@pytest.mark.parametrize("source", ["dashboard", "alerts"])
def test_every_metric_that_is_asked_for_exists(source: str, served: Served) -> None:
    """With its labels and, where these are a closed set, their values."""
    expressions = list(dashboard_expressions()) if source == "dashboard" else [(rule["alert"], rule["expr"]) for rule in rules()]
    known = set(served.types)
    asked = set()
    for where, expression in expressions:
        for name, selector in re.findall(rf"\b{PREFIX}(\w+)(?:\{{([^}}]*)\}})?", expression):
            family = name if name in known else re.sub("_(bucket|sum|count)$", "", name)
            assert family in known, f"{where} asks for {name}"
            asked.add(family)
            for label, _, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector):
                assert label in served.labels.get(family, set()) | {"namespace", "pod"}, f"{where} asks for {family} by {label}"
                if (family, label) == ("rpcs_total", "code") and value:
                    assert set(value.split("|")) <= served.values[family, label], f"{where} asks for the code {value}"
    if source == "dashboard":
        assert asked >= known - {"store_replayed_events_total"}, f"the dashboard does not show {known - asked}"


def test_the_dashboard_is_laid_out() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not taken & cells, panel["title"]
        assert panel["type"] == "row" or panel["description"], panel["title"]
        taken |= cells
