"""What each watch was told, chain by chain. A chain is a row of streams that resume tokens join; it must read like one stream."""

from dataclasses import dataclass, field

from .history import History, Message
from .lives import Life, Lives

# A session may end while the initial state is being sent: its events then come without a snapshot before them.
SETTLING = 5.0
LIMITS = ("IDLE", "ABSOLUTE")


@dataclass
class _Told:
    """What a chain was told of one ref."""

    version: int = 0
    ended: bool = False
    # Limits of which a warning may stand that this chain was not told of: it stood before.
    unsure: set[str] = field(default_factory=set)
    standing: dict[str, set[float]] = field(default_factory=dict)


@dataclass
class Chain:
    """One row of streams."""

    watch: str
    number: int
    everything: bool
    opened: float
    names: list[str]
    complete: float = float("inf")  # when the initial state was
    last: bool = True  # whether it was open when the run was over
    snapshots: dict[str, Message] = field(default_factory=dict)
    ended: dict[str, list[float]] = field(default_factory=dict)
    disorder: list[tuple[str, float, str]] = field(default_factory=list)
    timeouts: list[tuple[Message, bool]] = field(default_factory=list)
    events: int = 0
    _successors: set[str] = field(default_factory=set)
    _told: dict[str, _Told] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What stories call it."""
        return f"watch {self.watch}" + (f", begun anew ({self.number})" if self.number else "")

    def owed(self, lives: Lives) -> list[str]:
        """The refs of whose end it must have been told, if it was open to the last."""
        if not self.last:
            return []
        owed = set(self.snapshots)
        if not self.everything:
            # A watch by id follows a session over its rotations.
            followed = [lives.of.get(ref) for ref in self._successors] + [lives.named(name) for name in self.names]
            return sorted(owed | {life.ref for life in followed if life and life.born is not None and lives.held(life.born)})
        for life in lives.of.values():
            if life.born is not None and lives.held(life.born) and life.born.sent > self.opened:
                owed.add(life.ref)
        return sorted(owed)

    def knows(self, ref: str) -> bool:
        """Whether it was told anything of a session."""
        return ref in self._told

    def hear(self, message: Message, lives: Lives) -> None:
        """Takes one message in."""
        if message.successor:
            self._successors.add(message.successor)
        match message.kind:
            case "snapshot":
                self._snapshot(message)
            case "snapshot_end":
                self.complete = min(self.complete, message.at)
            case "warning" | "cleared" | "ended":
                self._event(message, lives)

    def _snapshot(self, message: Message) -> None:
        self.snapshots[message.ref] = message
        told = self._told.setdefault(message.ref, _Told())
        told.version = max(told.version, message.version)
        told.unsure = set(LIMITS) if message.state == "EXPIRING" else set()
        if message.end_reason:
            if told.ended:
                self.disorder.append((message.ref, message.at, "a snapshot tells its end again"))
            told.ended = True
            self.ended.setdefault(message.ref, []).append(message.at)
        elif told.ended:
            self.disorder.append((message.ref, message.at, "a snapshot shows it alive after Ended"))

    def _event(self, message: Message, lives: Lives) -> None:
        self.events += 1
        ref, at = message.ref, message.at
        told = self._told.get(ref)
        if told is None:
            life = lives.of.get(ref)
            absent = self._absent(life)
            if absent and at > self.complete + SETTLING:
                self.disorder.append((ref, at, f"{message.kind} of a session that lived before and that the initial state left out"))
            told = self._told[ref] = _Told(unsure=set(LIMITS) if absent else set())
        if told.ended:
            self.disorder.append((ref, at, f"{message.kind} after Ended"))
        if message.version <= told.version and not told.ended:
            self.disorder.append((ref, at, f"{message.kind} has version {message.version} after {told.version}"))
        told.version = max(told.version, message.version)
        points = told.standing.setdefault(message.limit, set())
        match message.kind:
            case "warning":
                if message.point in points:
                    self.disorder.append((ref, at, f"a second warning of {message.point:g} s before {message.limit}"))
                points.add(message.point)
            case "cleared":
                if not points and message.limit not in told.unsure:
                    self.disorder.append((ref, at, f"Cleared of {message.limit}, of which no warning stands"))
                points.clear()
                told.unsure.discard(message.limit)
            case "ended":
                told.ended = True
                self.ended.setdefault(ref, []).append(at)
                limit = {"IDLE_TIMEOUT": "IDLE", "ABSOLUTE_TIMEOUT": "ABSOLUTE"}.get(message.end_reason)
                if limit:
                    self.timeouts.append((message, bool(told.standing.get(limit)) or limit in told.unsure))

    def _absent(self, life: Life | None) -> bool:
        """Whether a session that the initial state did not name lived when the chain began."""
        return self.everything and life is not None and life.born is not None and life.born.got < self.opened


def chains(history: History, lives: Lives) -> list[Chain]:
    """All chains, each having heard its messages in order."""
    found: dict[tuple[str, int], Chain] = {}
    for message in history.messages:
        key = (message.watch, message.chain)
        if message.kind == "open" and key not in found:
            found[key] = Chain(message.watch, message.chain, message.everything, message.at, message.names)
            if message.chain and (before := found.get((message.watch, message.chain - 1))):
                before.last = False
        elif message.kind == "closed":
            found[key].last = False
        elif key in found:
            found[key].hear(message, lives)
    return list(found.values())
