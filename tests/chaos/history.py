"""What was asked, answered, told and broken in one run, as lines of JSON. All times are seconds of the machine's monotonic clock."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TextIO


@dataclass(slots=True)
class Policy:
    """The limits that the sessions of one policy are under, in seconds."""

    idle: float
    absolute: float
    leads: list[float]
    at_most: bool = False
    leave: float = 0.0  # 0: no presence
    lost: float = 0.0
    per_subject: int = 0  # 0: no limit

    def window(self) -> float:
        """By how much a touch may reach ahead (STORE.md, lease-ahead): the coalescing window c."""
        widest = (self.idle - max(self.leads, default=0.0)) / 4
        return min(max(self.idle / 100, 0.25), 10.0, widest)


@dataclass(slots=True)
class Call:
    """One call and its outcome. `name` says which id it named: the visit's number, and how often the visit was rotated."""

    verb: str
    sidecar: int
    name: str
    sent: float
    got: float
    code: str = "OK"
    reason: str = ""  # of an error
    scope: str = ""
    ref: str = ""
    state: str = ""
    alias: bool = False
    policy: str = ""
    counted: bool = False
    seconds: float = 0.0  # Hold: what was asked or granted. Extend: what was wanted
    clamped: bool = False  # Extend: the absolute deadline cut it short
    hold: str = ""
    kind: str = ""
    new_name: str = ""  # Rotate
    successor: str = ""
    authenticated: bool = False
    end_reason: str = ""

    @property
    def acknowledged(self) -> bool:
        """Whether it succeeded, and the store knows."""
        return self.code == "OK" and self.scope in ("STORE", "MEMORY")

    @property
    def live(self) -> bool:
        """Whether the answer says that the session lives."""
        return self.code == "OK" and self.state in ("ACTIVE", "EXPIRING")

    @property
    def uncertain(self) -> bool:
        """Whether it may or may not have been done, now or later."""
        return self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED") or self.scope == "LOCAL"


@dataclass(slots=True)
class Message:
    """One message of a watch, or what befell the watch: `open`, `lost` (the stream broke), `expired` (the token did), `refused`.

    A `chain` is a row of streams joined by resume tokens; another one begins whenever a watch is opened without a token.
    """

    watch: str
    chain: int
    sidecar: int
    at: float
    kind: str
    everything: bool = True
    names: list[str] = field(default_factory=list)  # `open` of a watch by id
    ref: str = ""
    name: str = ""
    limit: str = ""
    point: float = 0.0
    version: int = 0
    state: str = ""
    end_reason: str = ""
    successor: str = ""
    predecessor: str = ""
    code: str = ""


@dataclass(slots=True)
class Fault:
    """Something that was broken for a while. `epoch`: resume tokens may not outlive it; `rollback`: the store may forget its last second."""

    kind: str
    what: str
    began: float
    ended: float
    epoch: bool = False
    rollback: bool = False
    sidecar: int = -1  # a sidecar that was killed


@dataclass(slots=True)
class Mark:
    """A moment of the run: `calm` (the last fault is over), `stopped` (no more calls), `closed` (the watches are closed)."""

    what: str
    at: float


# Faults that nobody drew: a machine that is busy with others, a replica that takes over.
UNDRAWN = ("starved", "takeover")

KINDS = {kind.__name__: kind for kind in (Call, Message, Fault, Mark)}


@dataclass
class History:
    """One run."""

    policies: dict[str, Policy]
    calls: list[Call] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    calm: float = 0.0
    stopped: float = 0.0
    closed: float = 0.0

    def add(self, record: Call | Message | Fault | Mark) -> None:
        """Puts a record where it belongs."""
        match record:
            case Call():
                self.calls.append(record)
            case Message():
                self.messages.append(record)
            case Fault():
                self.faults.append(record)
            case Mark(what, at):
                setattr(self, what, at)

    def sort(self) -> "History":
        """Brings everything into the order of time."""
        self.calls.sort(key=lambda call: call.sent)
        self.messages.sort(key=lambda message: message.at)
        self.faults.sort(key=lambda fault: fault.began)
        undrawn = [fault.ended for fault in self.faults if fault.kind in UNDRAWN and fault.began < self.stopped]
        self.calm = max([self.calm, *undrawn])
        return self


class Recorder:
    """Writes records to a file, a line each; what is at its default is left out."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._defaults = {kind: [(each.name, each.default) for each in fields(kind)] for kind in KINDS.values()}

    def __call__(self, record: Call | Message | Fault | Mark) -> None:
        """Writes one."""
        kind = type(record)
        told = {name: value for name, default in self._defaults[kind] if (value := getattr(record, name)) != default and value != []}
        self._file.write(json.dumps([kind.__name__, told], separators=(",", ":")) + "\n")


def read(policies: dict[str, Policy], files: Iterable[Path]) -> History:
    """The whole history. A last line that a killed process did not finish is left out."""
    history = History(policies)
    for path in files:
        for line in path.read_text().splitlines():
            try:
                kind, told = json.loads(line)
            except ValueError:
                continue
            history.add(KINDS[kind](**told))
    return history.sort()
