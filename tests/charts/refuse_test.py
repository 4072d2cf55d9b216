"""What the charts refuse, and that they say what to do."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from charts import HELM, REPOSITORY, TOOLS, Case, Refused, cases, render

SHOP, SERVICE, GATEWAY, PLATFORM = (
    next(case for case in cases() if case.name == name) for name in ("shop-memory", "service-token", "gateway", "platform")
)
KEY = {"key": {"secretName": "key"}}
START = {"unknown": "start", "start": {"app_session_age": "1h"}}
OPEN = {"enabled": True}


def refused(case: Case, values: dict[str, Any], helm: str = "helm4", **options: Any) -> str:
    """What Helm says; fails if it renders."""
    with pytest.raises(Refused) as refusal:
        render(case, helm, values=values, **options)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("case", "values", "told"),
    [
        (SHOP, {"replicaCount": 2}, ["2 replicas with the memory store", "sidecar.store.url", "sidecar.stickySessions"]),
        (SERVICE, {"replicaCount": 3}, ["3 replicas with the memory store"]),
        (SHOP, {"sidecar": {"store": {"url": "redis://r"}}}, ["sidecar.key.secretName is needed", "head -c 32 /dev/urandom"]),
        (SHOP, {"sidecar": {"store": {"otherKey": {"secretName": "k"}}}}, ["sidecar.store.otherKey is for a shared store"]),
        (SHOP, {"sidecar": {"network": OPEN}}, ["sidecar.network can be reached", "tls.secretName", "allowPlaintext"]),
        (SERVICE, {"sidecar": {"network": {"token": {"secretName": ""}}}}, ["must know its callers", "clientCa.secretName"]),
        (SERVICE, {"sidecar": {"network": {"tls": {"secretName": ""}, "allowPlaintext": True}}}, ["need sidecar.network.tls.secretName"]),
        (
            SHOP,
            {"sidecar": {"network": OPEN | {"allowPlaintext": True}}},
            ["sidecar.loopback and sidecar.network have the same port, 50151"],
        ),
        (SHOP, {"sidecar": {"admin": {"port": 50151}}}, ["have the same port, 50151"]),
        (SHOP, {"sidecar": {"socket": {"uids": [1000]}}}, ["sidecar.loopback.enabled to false"]),
        (SHOP, {"sidecar": {"socket": {"enabled": False}, "loopback": {"enabled": False}}}, ["nobody could call the sidecar"]),
        (SHOP, {"sidecar": {"doorListener": OPEN | {"routable": True}}}, ["sidecar.doorListener.allowPlaintext"]),
        (SERVICE, {"sidecar": {"network": {"enabled": False}}}, ["sidecar.network.enabled is false"]),
        (GATEWAY, {"sidecar": {"doorListener": {"routable": False}}}, ["mode: gateway needs sidecar.doorListener"]),
        (SERVICE, {"mode": "gateway", "sidecar": {"doorListener": {"enabled": True, "routable": True, "allowPlaintext": True}}}, ["needs sidecar.door:"]),
        (PLATFORM, {"sidecar": {"policyConfigMap": ""}}, ["injection needs sidecar.policyConfigMap"]),
        (PLATFORM, {"sidecar": {"mode": "classic"}}, ["leave sidecar.mode native"]),
    ],
)
def test_what_no_schema_can_say(case: Case, values: dict[str, Any], told: list[str], helm: str) -> None:
    said = refused(case, values, helm)
    assert all(words in said for words in told), said


def test_versions() -> None:
    assert "native needs Kubernetes 1.29" in refused(SHOP, {}, kubernetes="1.28")
    assert "needs MutatingAdmissionPolicy of Kubernetes 1.36" in refused(PLATFORM, {}, kubernetes="1.35")
    assert "1.25.0" in refused(SERVICE, {}, kubernetes="1.24")


def test_sticky_sessions_are_the_users_word() -> None:
    (deployment,) = render(SHOP, values={"replicaCount": 2, "sidecar": {"stickySessions": True}}).of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 2


def sidecar(**values: Any) -> dict[str, Any]:
    """Values of the library."""
    return {"sidecar": values}


@pytest.mark.parametrize(
    ("case", "values", "told"),
    [
        (SERVICE, {"replicas": 2}, "replicas"),
        (SERVICE, {"mode": "sidecar"}, "mode"),
        (SERVICE, {"replicaCount": -1}, "replicaCount"),
        (SERVICE, {"prometheusRule": {"certificateDays": 0}}, "certificateDays"),
        (SERVICE, {"secrets": {"x": {"data": {}}}}, "data"),
        (SERVICE, {"networkPolicy": {"client": []}}, "client"),
        # An empty list, an empty peer and an empty selector are everybody.
        (SERVICE, {"networkPolicy": {"clients": []}}, "clients"),
        (SERVICE, {"networkPolicy": {"clients": [{}]}}, "clients"),
        (SERVICE, {"networkPolicy": {"clients": [{"podSelectr": {}}]}}, "podSelectr"),
        (SERVICE, {"networkPolicy": {"clients": [{"podSelector": {"matchLabel": {}}}]}}, "matchLabel"),
        (SERVICE, {"networkPolicy": {"metrics": [{"namespaceSelectr": {}}]}}, "namespaceSelectr"),
        (SHOP, sidecar(polices={}), "polices"),
        (SHOP, sidecar(mode="init"), "mode"),
        (SHOP, sidecar(image={"digest": "sha256:12"}), "digest"),
        (SHOP, sidecar(policies={"default": {"idle_timout": "15m"}}), "idle_timout"),
        (SHOP, sidecar(policies={"default": {"idle_timeout": 900}}), "idle_timeout"),
        (SHOP, sidecar(policies={"default": {"idle_timeout": "15 minutes?"}}), "idle_timeout"),
        (SHOP, sidecar(policies={"default": {"idle_timeout": "15 parsecs"}}), "idle_timeout"),
        (SHOP, sidecar(policies={"default": {"preset": "nist"}}), "preset"),
        (SHOP, sidecar(policies={"default": {"rules": [{"name": "x", "verdict": "maybe"}]}}), "verdict"),
        (SHOP, sidecar(policies={"default": {"rules": [{"name": "x"}]}}), "verdict"),
        (SHOP, sidecar(policies={"default": {"rules": [{"name": "Bad Name", "verdict": "count"}]}}), "name"),
        (SHOP, sidecar(policies={"default": {"presence": "maybe"}}), "presence"),
        (SHOP, sidecar(policies={"default": {"warn_before": ["1m"] * 17}}), "warn_before"),
        (SHOP, sidecar(door={"cookie": "x"}), "cookie"),
        (SHOP, sidecar(door={"unknown": "allow"}), "unknown"),
        (SHOP, sidecar(door={"unknown": "start"}), "start"),
        (SHOP, sidecar(door={"unknown": "start", "start": {"rate": 5}}), "start"),
        (SHOP, sidecar(door={"unknown": "start", "start": {"allow_revival": False}}), "start"),
        (SHOP, sidecar(door={"start": {"app_session_age": "1h"}}), "unknown"),
        (SHOP, sidecar(door={"unknown": "deny", "start": {"app_session_age": "1h"}}), "unknown"),
        (SERVICE, sidecar(door=START, policies={"web": {}}), "default"),
        (SHOP, sidecar(door={"routes": [{}]}), "routes"),
        (SHOP, sidecar(door={"routes": [{"path": "/x"}]}), "routes"),
        (SHOP, sidecar(door={"routes": [{"path": "/x", "public": False}]}), "routes"),
        (SHOP, sidecar(door={"routes": [{"public": True}]}), "routes"),
        (SHOP, sidecar(door={"routes": [{"path": [], "public": True}]}), "path"),
        (SHOP, sidecar(door={"routes": [{"path": "/x", "public": True, "passive": True}]}), "passive"),
        (SHOP, sidecar(door=START | {"routes": [{"path": "/x", "public": True, "policy": "default"}]}), "policy"),
        (SHOP, sidecar(door={"routes": [{"path": "/x", "policy": "default"}]}), "unknown"),
        (SHOP, sidecar(door={"unknown": "deny", "routes": [{"path": "/s", "public": True}, {"path": "/x", "policy": "default"}]}), "unknown"),
        (SHOP, sidecar(door={"cookies": []}), "header"),
        (SHOP, sidecar(door={"cookies": [], "header": ""}), "header"),
        (SHOP, sidecar(door={"header": "X Session"}), "header"),
        (SHOP, sidecar(door={"cookies": ["session id"]}), "cookies"),
        (SHOP, sidecar(door={"cookies": ["s" * 65]}), "cookies"),
        (SHOP, sidecar(door={"cookies": [{"name": "s", "path": "shop"}]}), "path"),
        (SHOP, sidecar(door={"cookies": [{"name": "s", "path": "/shop; Secure"}]}), "path"),
        (SHOP, sidecar(door={"cookies": [{"name": "s", "domain": "shop.example:80"}]}), "domain"),
        (SHOP, sidecar(door={"cookies": [{"name": "__Host-s", "domain": "shop.example"}]}), "domain"),
        (SHOP, sidecar(door={"cookies": [{"name": "__Host-s", "path": "/shop"}]}), "path"),
        (SHOP, sidecar(door={"tenant": "a b"}), "tenant"),
        (SHOP, sidecar(door={"origins": ["app.example"]}), "origins"),
        (SHOP, sidecar(door={"origins": ["https://app.example/"]}), "origins"),
        (SHOP, sidecar(door={"login_url": "login"}), "login_url"),
        (SHOP, sidecar(door={"login_url": "//login.example"}), "login_url"),
        (SHOP, sidecar(door={"login_url": "/login#form"}), "login_url"),
        (SHOP, sidecar(callers=[{"uid": 1, "certificate": "x", "verbs": ["use"]}]), "callers"),
        (SHOP, sidecar(callers=[{"verbs": ["use"]}]), "callers"),
        (SHOP, sidecar(callers=[{"uid": 1, "verbs": ["everything"]}]), "verbs"),
        (SHOP, sidecar(callers=[{"uid": 1, "verbs": []}]), "verbs"),
        (SHOP, sidecar(callers=[{"uid": 1, "verbs": ["use"], "tenants": []}]), "tenants"),
        (SHOP, sidecar(socket={"mode": "660"}), "mode"),
        (SHOP, sidecar(socket={"uids": ["root"]}), "uids"),
        (SHOP, sidecar(socket={"group": "staff"}), "group"),
        (SHOP, sidecar(loopback={"port": 70000}), "port"),
        (SHOP, sidecar(admin={"port": 0}), "port"),
        (SHOP, sidecar(bindAddress="localhost"), "bindAddress"),
        (SHOP, sidecar(store={"url": "http://redis"}), "url"),
        (SHOP, sidecar(store={"url": "redis://redis/a database"}), "url"),
        (SHOP, sidecar(store={"window": "5 parsecs"}), "window"),
        (SHOP, sidecar(store={"namespace": "a b"}), "namespace"),
        (SHOP, sidecar(store={"outage": "open"}), "outage"),
        (SHOP, sidecar(store={"format": 3}), "format"),
        (SHOP, sidecar(store={"password": "secret"}), "password"),
        (SHOP, sidecar(key={"secret": "x"}), "secret"),
        (SHOP, sidecar(runAsUser=0), "runAsUser"),
        (SHOP, sidecar(audit={"target": "/var/log/audit"}), "target"),
        (SHOP, sidecar(mesh={"kind": "cilium"}), "kind"),
        (SHOP, sidecar(extraArgs="--dev"), "extraArgs"),
    ],
)
def test_schema(case: Case, values: dict[str, Any], told: str, helm: str) -> None:
    said = refused(case, values, helm)
    assert "schema" in said and told in said, said


@pytest.mark.parametrize("url", ["redis://u:secret@h", "rediss+cluster://:secret@h1,h2", "redis+sentinel://u:sec/ret@h/m", "redis://u:secret word@h"])
def test_a_password_in_the_address_is_refused_and_not_shown(url: str, helm: str) -> None:
    said = refused(SHOP, {"sidecar": {"store": {"url": url}} | KEY}, helm)
    assert "schema" in said and "url" in said
    assert " " in url or ("sec" not in said and "not" in said), said


@pytest.mark.parametrize("url", ["redis://h:6379/1", "rediss://app@h:6379", "redis+sentinel://app@s1:1,s2:2/m/1", "redis+cluster://[::1]:6379,h"])
def test_an_address_without_a_password_is_not(url: str) -> None:
    render(SHOP, values={"sidecar": {"store": {"url": url}} | KEY})


def test_the_alias_is_asked_for(tmp_path: Path, helm: str) -> None:
    shutil.copytree(HELM, tmp_path / "helm", ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    chart = tmp_path / "helm/example/Chart.yaml"
    chart.write_text("".join(line for line in chart.read_text().splitlines(True) if "alias" not in line))
    tool = str(TOOLS / "bin" / helm)
    subprocess.run([tool, "dependency", "update", str(chart.parent)], check=True, capture_output=True)
    done = subprocess.run([tool, "template", str(chart.parent)], capture_output=True, text=True, check=False)
    assert done.returncode and "needs `alias: sidecar`" in done.stderr


def _documented(heading: str) -> set[str]:
    page = (REPOSITORY / "docs/options.md").read_text()
    section = page.split(f"\n{heading}\n")[1].split("\n#")[0]
    return _keys(section)


def _keys(section: str) -> set[str]:
    return {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}


def test_the_schema_knows_the_keys_of_a_policy_file() -> None:
    """docs/options.md is made from the code that reads the file."""
    known = json.loads((HELM / "session-sidecar-lib/values.schema.json").read_text())["definitions"]
    policy = known["policy"]["properties"]
    assert set(policy) == _documented("## Policy file")
    assert set(policy["rules"]["items"]["properties"]) == _documented("### Rules")
    door = known["door"]["properties"]
    page = (REPOSITORY / "docs/options.md").read_text()
    first, second = page.split("\n### The HTTP door\n")[1].split("\n### ")[0].split("Each route is a table")
    assert set(door) - {"routes"} == _keys(first)
    assert set(door["routes"]["items"]["properties"]) == _keys(second)
    # A token is a Secret here, and a file there.
    assert set(known["caller"]["properties"]) - {"tokenSecret"} == _documented("### Callers") - {"token_file"}
