"""Policies as the sidecar's policy file has them, and the rules that decide which touches count."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

from .._proto import session_service_pb2 as pb

Span: TypeAlias = timedelta | str
"""A duration: a timedelta, or a text such as "15m" as in a policy file."""


class RuleKeys(TypedDict, total=False):
    """The keys of a rule."""

    name: str
    verdict: Literal["count", "ignore"]
    kind: Literal["user", "background", "unspecified"]
    host: str | Sequence[str]
    method: str | Sequence[str]
    path: str | Sequence[str]
    sec_fetch_user: str | Sequence[str]
    sec_fetch_mode: str | Sequence[str]
    sec_fetch_dest: str | Sequence[str]
    sec_purpose: str | Sequence[str]
    visibility: Literal["visible", "hidden"]


class PolicyKeys(TypedDict, total=False):
    """The keys of a policy, as `docs/options.md` explains them. What is not given is as in the policy that a new user meets."""

    preset: str
    revision: int
    idle_timeout: Span
    absolute_timeout: Span
    warn_before: Sequence[Span]
    absolute_warn_before: Sequence[Span]
    unmatched: Literal["count", "ignore"]
    max_extensions: int
    tombstone_ttl: Span
    min_id_length: int
    work_hold: Literal["on", "off"] | Mapping[str, Span | int]
    presence: Literal["on", "off"] | Mapping[str, Span | int]
    max_sessions_per_subject: int
    at_subject_cap: Literal["refuse", "end-oldest"]
    passive: bool
    at_most: bool
    enforce: bool
    rules: Sequence[RuleKeys]


# Longer than any absolute timeout: the idle timeout of a session that inactivity does not end.
NEVER = timedelta(days=36500)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """What holds of one kind may do."""

    max_ttl: timedelta
    max_live: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a policy says to one session."""

    policy: str = "default"
    revision: int = 0
    idle_timeout: timedelta = 15 * MINUTE
    absolute_timeout: timedelta = 12 * HOUR
    idle_points: tuple[timedelta, ...] = (2 * MINUTE, MINUTE)
    absolute_points: tuple[timedelta, ...] = (10 * MINUTE, 2 * MINUTE)
    unmatched_counts: bool = True
    rules: tuple[Rule, ...] = ()
    max_extensions: int | None = None
    tombstone_ttl: timedelta = 24 * HOUR
    work: HoldLimits = HoldLimits(5 * MINUTE, 8)
    budget: timedelta = 2 * HOUR
    presence: HoldLimits | None = None
    leave_grace: timedelta = MINUTE / 2
    lost_grace: timedelta = 15 * MINUTE
    passive: bool = False
    at_most: bool = False
    enforced: bool = True
    min_id_length: int = 16
    max_sessions_per_subject: int | None = None
    ends_oldest: bool = False
    own_idle_timeout: timedelta | None = None
    own_absolute_timeout: timedelta | None = None

    def stricter(self, idle_timeout: timedelta | None, absolute_timeout: timedelta | None) -> Limits:
        """These limits with stricter timeouts for one session. The warning points stay, as far as they fit."""
        if idle_timeout is None and absolute_timeout is None:
            return self
        idle = min(self.idle_timeout, idle_timeout or self.idle_timeout)
        absolute = min(self.absolute_timeout, absolute_timeout or self.absolute_timeout)
        return replace(
            self,
            idle_timeout=idle,
            absolute_timeout=absolute,
            idle_points=_points(self.idle_points, idle),
            absolute_points=_points(self.absolute_points, absolute),
            own_idle_timeout=idle_timeout,
            own_absolute_timeout=absolute_timeout,
        )

    def judge(self, activity: int, hints: pb.TouchHints | None, reports_input: bool) -> Verdict:
        """Whether a touch counts. BACKGROUND never does; USER does, unless an own rule about USER says otherwise. What declares
        nothing goes through the own rules; if there are none and hints came, the built-in ones; then it is `unmatched`."""
        for rule in self.rules:
            if rule.kind == activity and rule.admits(hints):
                return Verdict(rule.name, rule.counts and activity != pb.ACTIVITY_BACKGROUND)
        if activity == pb.ACTIVITY_USER:
            return Verdict("declared-user", True)
        if activity == pb.ACTIVITY_BACKGROUND:
            return Verdict("declared-background", False)
        built_in = _built_in(hints, reports_input) if hints and not self.rules else None
        return built_in or Verdict("unmatched", self.unmatched_counts)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a touch counts, and the rule that decided."""

    rule: str
    counts: bool

    @property
    def user(self) -> bool:
        """Whether it is surely a person's: declared, or known by a rule. Such activity renews the budget of WORK."""
        return self.counts and self.rule != "unmatched"


# ---- Rules ----

_WORDS = ("method", "sec_fetch_user", "sec_fetch_mode", "sec_fetch_dest")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy. A touch must meet all conditions that are set; what is not known of a request meets none."""

    name: str
    counts: bool
    kind: int
    visibility: int | None
    words: Mapping[str, tuple[str, ...]]
    host: re.Pattern[str] | None
    path: re.Pattern[str] | None

    def admits(self, hints: pb.TouchHints | None) -> bool:
        """Whether a touch of the kind that this is about meets it."""
        if hints is None:
            return self.visibility is None and not self.words and not self.host and not self.path
        path = hints.path.partition("?")[0]
        return (
            self.visibility in (None, hints.page_visibility)
            and all(_is_among(key, getattr(hints, key), wanted) for key, wanted in self.words.items())
            and not (self.host and not (hints.host and self.host.fullmatch(hints.host)))
            and not (self.path and not (path and self.path.fullmatch(path)))
        )


def _is_among(key: str, value: str, wanted: Sequence[str]) -> bool:
    words = {value.lower()}
    if key == "sec_purpose":
        words |= _purposes(value)
    return bool(value) and any(word.lower() in words for word in wanted)


def _purposes(value: str) -> set[str]:
    return set(re.split("[;, ]", value.lower()))


def _built_in(hints: pb.TouchHints, reports_input: bool) -> Verdict | None:
    if _purposes(hints.sec_purpose) & {"prefetch", "prerender"}:
        return Verdict("prefetch", False)
    if hints.page_visibility == pb.PAGE_VISIBILITY_HIDDEN:
        return Verdict("hidden-page", False)
    if hints.sec_fetch_mode.lower() == "navigate" and hints.sec_fetch_user == "?1":
        return Verdict("user-navigation", True)
    # The report itself is made by a script too, and is what the others are ignored for.
    if hints.sec_fetch_dest.lower() == "empty" and not hints.input_report and reports_input:
        return Verdict("script-request", False)
    return None


_GLOB = re.compile(
    r"(?P<through>(?<![^/])\*\*/)|(?P<below>(?<=/)\*\*\Z)|(?P<whole>\A\*\*\Z)|(?P<stars>\*+)|(?P<one>\?)"
    r"|\[(?P<no>[!^])?(?P<set>\]?[^\]]*)\]|\\(?P<plain>.)|(?P<brace>[{},])|(?P<letter>.)",
    re.DOTALL,
)


def _glob(texts: Sequence[str], flags: int = 0) -> re.Pattern[str] | None:
    """Globs as the sidecar has them: `*` and `?` stay within a segment between slashes, `**` as a whole segment crosses them,
    `{a,b}` is either."""
    if not texts:
        return None
    depth = 0

    def translated(found: re.Match[str]) -> str:
        nonlocal depth
        match found.lastgroup:
            case "through":
                return "(?:.*/)?"
            case "below" | "whole":
                return ".*"
            case "stars":
                return "[^/]*"
            case "one":
                return "[^/]"
            case "set":
                letters = re.sub(r"([\\\[\]^&~|])", r"\\\1", found["set"])
                return f"(?!/)[{'^' if found['no'] else ''}{letters}]"
            case "brace" if found["brace"] == "{":
                depth += 1
                return "(?:"
            case "brace" if depth and found["brace"] == "}":
                depth -= 1
                return ")"
            case "brace" if depth:
                return "|"
        return re.escape(found["plain"] or found["letter"] or found["brace"])

    return re.compile("|".join(f"(?:{_GLOB.sub(translated, text)})" for text in texts), flags)


# ---- Reading ----

_UNITS = {
    "nsec ns": timedelta(microseconds=1) / 1000,
    "usec us": timedelta(microseconds=1),
    "msec ms": timedelta(milliseconds=1),
    "seconds second secs sec s": timedelta(seconds=1),
    "minutes minute mins min m": MINUTE,
    "hours hour hrs hr h": HOUR,
    "days day d": timedelta(days=1),
    "weeks week wks wk w": timedelta(weeks=1),
    "months month M": timedelta(days=30.44),
    "years year yrs yr y": timedelta(days=365.25),
}
_UNIT = {word: length for words, length in _UNITS.items() for word in words.split()}
_PRESETS: dict[str, PolicyKeys] = {
    "nist-aal1": {"idle_timeout": "1d", "absolute_timeout": "30d"},
    "nist-aal2": {"idle_timeout": "1h", "absolute_timeout": "1d", "unmatched": "ignore"},
    "nist-aal3": {"unmatched": "ignore"},
    "pci-dss-8.2.8": {"unmatched": "ignore"},
    "owasp-high-value": {
        "idle_timeout": "5m",
        "absolute_timeout": "4h",
        "unmatched": "ignore",
        "max_sessions_per_subject": 1,
        "at_subject_cap": "end-oldest",
    },
}


def read(policy_file: str | os.PathLike[str] | None, keys: PolicyKeys) -> dict[str, Limits]:
    """The policies of a file, or the one that is called `default` and has these keys. A file's other tables are for the sidecar."""
    if policy_file is not None and keys:
        raise TypeError(f"policy_file and {', '.join(keys)}: give a file, or the keys of one policy")
    tables: dict[str, Any] = {"default": keys}
    if policy_file is not None:
        tables = tomllib.loads(Path(policy_file).read_text()).get("policy", {})
    return {name: _limits(name, table) for name, table in tables.items()}


def _limits(name: str, given: Mapping[str, Any]) -> Limits:
    unknown = given.keys() - PolicyKeys.__annotations__.keys()
    if unknown:
        raise ValueError(f"policy {name}: there is no key {', '.join(sorted(unknown))}")
    base: Mapping[str, Any] = {}
    if preset := given.get("preset"):
        if preset not in _PRESETS:
            raise ValueError(f"policy {name}: there is no preset {preset}: {', '.join(_PRESETS)}")
        base = {**_PRESETS[preset], "work_hold": "off", "at_most": True, "min_id_length": 22}
    keys = {**base, **given}
    usual = Limits()
    passive = keys.get("passive", False)
    if passive and ("idle_timeout" in given or given.get("warn_before")):
        raise ValueError(f"policy {name}: idle_timeout and warn_before cannot be set with passive: inactivity does not end it")
    absolute = _span("absolute_timeout", keys.get("absolute_timeout", usual.absolute_timeout))
    idle = NEVER if passive else _span("idle_timeout", keys.get("idle_timeout", usual.idle_timeout))
    if not passive and idle > absolute:
        raise ValueError(f"policy {name}: idle_timeout must be at most absolute_timeout, {absolute}")
    idle_points = [] if passive else keys.get("warn_before", usual.idle_points)
    work, budget = _work(keys.get("work_hold", "on"))
    presence, leave_grace, lost_grace = _presence(keys.get("presence", "off"), min(idle, absolute))
    return Limits(
        policy=name,
        revision=keys.get("revision", 0),
        idle_timeout=idle,
        absolute_timeout=absolute,
        idle_points=_points([_span("warn_before", lead) for lead in idle_points], idle),
        absolute_points=_points(
            [_span("absolute_warn_before", lead) for lead in keys.get("absolute_warn_before", usual.absolute_points)], absolute
        ),
        unmatched_counts=keys.get("unmatched", "count") == "count",
        rules=tuple(_rule(each) for each in keys.get("rules", ())),
        max_extensions=keys.get("max_extensions"),
        tombstone_ttl=_span("tombstone_ttl", keys.get("tombstone_ttl", usual.tombstone_ttl)),
        work=work,
        budget=budget,
        presence=presence,
        leave_grace=leave_grace,
        lost_grace=lost_grace,
        passive=passive,
        at_most=keys.get("at_most", False),
        enforced=keys.get("enforce", True),
        min_id_length=keys.get("min_id_length", usual.min_id_length),
        max_sessions_per_subject=keys.get("max_sessions_per_subject"),
        ends_oldest=keys.get("at_subject_cap") == "end-oldest",
    )


def _points(leads: Sequence[timedelta], timeout: timedelta) -> tuple[timedelta, ...]:
    """Leads as they are in force: the longest first, none over half of the timeout, each once."""
    return tuple(sorted({min(lead, timeout / 2) for lead in leads}, reverse=True))


def _span(key: str, value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    parts = re.findall(r"(\d+)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else []
    if not parts or re.sub(r"\d+\s*[A-Za-z]+\s*", "", value) or any(unit not in _UNIT for _, unit in parts):
        raise ValueError(f'{key} must be a timedelta, or a duration like "90s" or "15m"')
    return sum((int(number) * _UNIT[unit] for number, unit in parts), timedelta())


def _table(key: str, value: Any, usual: Mapping[str, Any]) -> dict[str, Any] | None:
    """A switch that may be a table; None if it is off."""
    if value in ("on", "off"):
        return dict(usual) if value == "on" else None
    if not isinstance(value, Mapping) or value.keys() - usual.keys():
        raise ValueError(f'{key} must be "on", "off", or a table with {", ".join(usual)}')
    return {**usual, **{name: each if name == "max_live" else _span(f"{key}.{name}", each) for name, each in value.items()}}


def _work(value: Any) -> tuple[HoldLimits, timedelta]:
    usual = Limits()
    known = _table("work_hold", value, {"max_ttl": usual.work.max_ttl, "budget": usual.budget, "max_live": usual.work.max_live})
    if known is None:
        return replace(usual.work, max_live=0), usual.budget
    return HoldLimits(known["max_ttl"], known["max_live"]), known["budget"]


def _presence(value: Any, window: timedelta) -> tuple[HoldLimits | None, timedelta, timedelta]:
    usual = Limits()
    known = _table(
        "presence", value, {"leave_grace": usual.leave_grace, "lost_grace": window, "max_ttl": 10 * MINUTE, "max_live": 64}
    )
    if known is None:
        return None, usual.leave_grace, usual.lost_grace
    return HoldLimits(known["max_ttl"], known["max_live"]), known["leave_grace"], known["lost_grace"]


def _rule(table: Mapping[str, Any]) -> Rule:
    unknown = table.keys() - RuleKeys.__annotations__.keys()
    if unknown or not {"name", "verdict"} <= table.keys():
        raise ValueError(f"a rule has a name, a verdict and {', '.join(RuleKeys.__annotations__)}")
    texts = {key: (value,) if isinstance(value, str) else tuple(value) for key, value in table.items()}
    return Rule(
        name=table["name"],
        counts=table["verdict"] == "count",
        kind=pb.Activity.Value(f"ACTIVITY_{table.get('kind', 'unspecified').upper()}"),
        visibility=pb.PageVisibility.Value(f"PAGE_VISIBILITY_{table['visibility'].upper()}") if "visibility" in table else None,
        words={key: texts[key] for key in (*_WORDS, "sec_purpose") if key in texts},
        host=_glob(texts.get("host", ()), re.IGNORECASE),
        path=_glob(texts.get("path", ())),
    )
