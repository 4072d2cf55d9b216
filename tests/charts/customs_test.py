"""Custom resources, those of the charts and those of examples/kubernetes, are what their makers' schemas say."""

import json
import subprocess
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from charts import HERE, REPOSITORY, Manifest, cases, render

pytestmark = pytest.mark.full

EXAMPLES = sorted((REPOSITORY / "examples/kubernetes").glob("*.yaml"))


def violations(manifests: list[Manifest]) -> list[list[str]]:
    """What is wrong with each."""
    found: list[list[str]] = [[] for _ in manifests]
    compiled = []
    for number, manifest in enumerate(manifests):
        if manifest["apiVersion"].startswith("gateway.envoyproxy.io/"):
            schema = json.loads((HERE / f"schemas/{manifest['kind']}.json").read_text())
            found[number] = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(manifest)]
        else:
            compiled.append(number)
    done = subprocess.run(
        ["node", str(HERE / "customs.mjs")],
        input=json.dumps([manifests[number] for number in compiled]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for number, errors in zip(compiled, json.loads(done.stdout), strict=True):
        found[number] = errors
    return [[*errors, *_broken_rules(manifest)] for errors, manifest in zip(found, manifests, strict=True)]


def _broken_rules(manifest: Manifest) -> list[str]:
    """What the CRD of HTTPRoute has as rules in CEL, which no schema has: the filter ExternalAuth has the block of its protocol, and no other."""
    if manifest["kind"] != "HTTPRoute":
        return []
    filters = [filter["externalAuth"] for rule in manifest["spec"]["rules"] for filter in rule.get("filters", []) if "externalAuth" in filter]
    return [
        f"externalAuth {'needs' if wanted else 'may not have'} {block} with the protocol {auth['protocol']}"
        for auth in filters
        for block in ("grpc", "http")
        if (wanted := auth["protocol"].lower() == block) != (block in auth)
    ]


@cache
def rendered() -> list[Manifest]:
    """Of all cases."""
    kinds = ("PodMonitor", "ServiceMonitor", "PrometheusRule")
    return [manifest for case in cases() for kind in kinds for manifest in render(case).of_kind(kind)]


def test_those_of_the_charts() -> None:
    assert {manifest["kind"] for manifest in rendered()} == {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
    assert not any(violations(rendered()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_those_of_the_examples(path: Path) -> None:
    manifests = list(yaml.safe_load_all(path.read_text()))
    assert len(manifests) >= 2
    found = [error for errors in violations(manifests) for error in errors]
    if path.stem == "gateway-api":
        # The package has the fields of the experimental channel, but the standard channel's list of filters. Nothing else is let pass.
        assert [error.split(" {")[0] for error in found] == ["/spec/rules/1/filters/0/type enum"]
    else:
        assert not found, found


def test_a_broken_rule_is_found() -> None:
    (path,) = [path for path in EXAMPLES if path.stem == "gateway-api"]
    route = next(yaml.safe_load_all(path.read_text()))
    auth = route["spec"]["rules"][1]["filters"][0]["externalAuth"]
    auth["http"] = auth.pop("grpc")
    told = violations([route])[0]
    assert {"externalAuth needs grpc with the protocol GRPC", "externalAuth may not have http with the protocol GRPC"} <= set(told)


def test_violations_are_found() -> None:
    """The proof of the tests before it: each manifest with an unknown field in its spec."""
    manifests = [*rendered(), *(manifest for path in EXAMPLES for manifest in yaml.safe_load_all(path.read_text()))]
    wrong = [manifest | {"spec": manifest["spec"] | {"unknownField": 1}} for manifest in manifests]
    for manifest, errors in zip(wrong, violations(wrong), strict=True):
        assert any("unknownField" in error for error in errors), manifest["kind"]
