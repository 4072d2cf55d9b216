"""values.yaml and the README's table of a chart, made from its values.schema.json, which is the one place where a value is described.

UPDATE_DOCS=1 .tools/charts/bin/pytest tests/charts -k generated    writes them anew
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

_WIDTH = 116


def values_yaml(chart: Path) -> str:
    """The chart's values.yaml."""
    schema = json.loads((chart / "values.schema.json").read_text())
    head = "# Made from values.schema.json: change that, and see tests/charts/README.md. What each value does is in README.md, too.\n"
    return head + "".join(_entry(name, entry, 0) for name, entry in schema["properties"].items() if name != "global")


def table(chart: Path) -> str:
    """The table of the chart's values, as Markdown."""
    schema = json.loads((chart / "values.schema.json").read_text())
    lines = ["| Value | Default | What it says |", "|---|---|---|"]
    for name, entry in _leaves(schema["properties"], ""):
        default = json.dumps(entry["default"], ensure_ascii=False)
        allowed = "".join(f"{' or ' if index else ' One of '}`{word}`" for index, word in enumerate(entry.get("enum", [])))
        told = entry["description"] + (f"{allowed}." if allowed and not _tells_each(entry) else "")
        lines.append(f"| `{name}` | `{default}` | {told.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _tells_each(entry: Schema) -> bool:
    return all(str(word) in entry["description"] for word in entry["enum"])


def _leaves(properties: dict[str, Schema], prefix: str) -> Iterator[tuple[str, Schema]]:
    for name, entry in properties.items():
        if name == "global":
            continue
        if "default" in entry:
            yield prefix + name, entry
        else:
            about = entry["description"]
            first = True
            for leaf, below in _leaves(entry["properties"], f"{prefix}{name}."):
                yield leaf, below | ({"description": f"{about} {below['description']}"} if first else {})
                first = False


def _entry(name: str, entry: Schema, depth: int) -> str:
    indent = "  " * depth
    blank = "" if depth else "\n"
    comment = textwrap.fill(
        entry["description"],
        width=_WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    if "default" in entry:
        return f"{blank}{comment}\n{_yaml(name, entry['default'], depth)}"
    inner = "".join(_entry(below, about, depth + 1) for below, about in entry["properties"].items())
    return f"{blank}{comment}\n{indent}{name}:\n{inner}"


def _yaml(name: str, value: Any, depth: int) -> str:
    """A key and its value: JSON's scalars, and empty or flat collections, are YAML's."""
    indent = "  " * depth
    if isinstance(value, dict) and value:
        return f"{indent}{name}:\n" + "".join(_yaml(key, below, depth + 1) for key, below in value.items())
    return f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}\n"
