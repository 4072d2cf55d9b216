"""What a history says about each session: what was asked of it, when it ended, and the bounds between which it must have ended.

A *life* is one ref. A rotation ends a life and begins the next one, which inherits what keeps it alive unless the person
authenticated anew. Bounds come from send and receive times alone: whatever a call did, it did between the two.
"""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

from .history import Call, Fault, History, Message, Policy

# The store counts in milliseconds.
TICK = 0.002
# A failover may roll back what the store acknowledged in the second before it (STORE.md §8); another one for measuring it.
ROLLBACK = 2.0
# How long after a fault a call may still fail, and an end still be late.
HEALING = 10.0


@dataclass
class End:
    """One place where somebody was told that a life ended."""

    at: float
    reason: str
    sidecar: int
    answered: bool  # rather than pushed
    from_watch: str = ""


@dataclass
class Life:
    """One ref."""

    ref: str
    name: str = ""
    policy: Policy | None = None
    born: Call | None = None  # the acknowledged Create or Rotate
    before: "Life | None" = None
    by: Call | None = None  # the Rotate that made it from `before`
    tried: float = float("inf")  # when it was first asked for: a retry is answered with what an earlier attempt did
    calls: list[Call] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)

    def first_end(self) -> End | None:
        """The earliest word of its end."""
        return min(self.ends, key=lambda end: end.at, default=None)


class Lives:
    """All lives of a history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.of: dict[str, Life] = {}
        self._ref_of_name: dict[str, str] = {}
        self._attempts: dict[str, list[Call]] = defaultdict(list)  # calls whose answer names no ref, by name
        self._rotations: dict[str, float] = {}  # when each new name was first asked for
        self._kills = [fault for fault in history.faults if fault.sidecar >= 0]
        self._rollbacks = [fault for fault in history.faults if fault.rollback]
        # When calls were sent that the store stood behind, by sidecar.
        self._answered: dict[int, list[float]] = defaultdict(list)
        for call in history.calls:
            if call.acknowledged:
                self._answered[call.sidecar].append(call.sent)
        for call in history.calls:
            self._read_call(call)
        for message in history.messages:
            self._read_message(message)
        for name, calls in self._attempts.items():
            if life := self.named(name):
                life.calls += calls
                life.tried = min([life.tried, *(call.sent for call in calls if call.verb == "Create")])
        for life in self.of.values():
            life.calls.sort(key=lambda call: call.sent)
            if life.by is not None:
                life.before = self.named(life.by.name)
                if life.before is not None:
                    life.policy = life.policy or life.before.policy
        for call in history.calls:
            # Whoever is told of a successor is told that the old name is over.
            if call.verb == "Rotate" and call.successor and (life := self.named(call.name)):
                life.ends.append(End(call.got, "ROTATED", call.sidecar, True))

    def named(self, name: str) -> Life | None:
        """The life of an id."""
        return self.of.get(self._ref_of_name.get(name, ""))

    def get(self, ref: str) -> Life:
        """The life of a ref, also if nobody has heard of it before."""
        return self.of.setdefault(ref, Life(ref))

    def _read_call(self, call: Call) -> None:
        if call.verb == "Rotate":
            self._rotations.setdefault(call.new_name, call.sent)
        if call.verb == "Rotate" and call.successor:
            life = self.get(call.successor)
            life.name = call.new_name
            self._ref_of_name.setdefault(call.new_name, call.successor)
            life.tried = min(life.tried, self._rotations.get(call.new_name, call.sent))
            if life.by is None:
                life.by = call
                life.born = call if call.acknowledged else None
        # Whoever finds a session unknown says so of the id, whatever ref it makes of it.
        if not call.ref or call.code == "NOT_FOUND":
            self._attempts[call.name].append(call)
            return
        life = self.get(call.ref)
        life.calls.append(call)
        if not call.alias and call.verb != "Rotate":
            life.name = call.name
            self._ref_of_name.setdefault(call.name, call.ref)
        if call.verb == "Create":
            life.tried = min(life.tried, call.sent)
        if call.verb == "Create" and call.acknowledged:
            life.born = life.born or call
        if call.policy:
            life.policy = self.history.policies[call.policy]
        if call.end_reason:
            life.ends.append(End(call.got, call.end_reason, call.sidecar, True))

    def _read_message(self, message: Message) -> None:
        if not message.ref:
            return
        life = self.get(message.ref)
        life.name = life.name or message.name
        if message.end_reason:
            life.ends.append(End(message.at, message.end_reason, message.sidecar, False, message.watch))

    # What the documented exceptions leave of an acknowledgement.

    def held(self, call: Call) -> bool:
        """Whether an acknowledgement binds: unless a failover rolled it back and the sidecar that had it in its journal is gone."""
        for rollback in self._rollbacks:
            if rollback.began - ROLLBACK <= call.got <= rollback.ended:
                if any(call.sent <= kill.ended and self._takes_along(kill, rollback) for kill in self._kills if kill.sidecar == call.sidecar):
                    return False
        return True

    def _takes_along(self, kill: Fault, rollback: Fault) -> bool:
        """Whether a sidecar was killed before it can have told its journal: it does so before it answers anybody."""
        if kill.began > rollback.ended + HEALING:
            return False
        answered = self._answered[kill.sidecar]
        place = bisect_right(answered, rollback.ended)
        return place == len(answered) or answered[place] >= kill.began

    # Not before. A promise that was sent after the end had been told is none: whether it may be given is for `revived` to say.

    def idle_floor(self, life: Life, told: float = float("inf")) -> tuple[float, Call | None]:
        """Before this moment it can't have ended by IDLE_TIMEOUT, and the call that promised so, before `told`."""
        best: tuple[float, Call | None] = (float("-inf"), None)
        policy = life.policy
        if policy is None:
            return best
        idle = policy.idle - (policy.window() if policy.at_most else 0.0)
        if life.by is not None and life.by.acknowledged and self.held(life.by) and life.by.authenticated:
            best = (life.tried + idle, life.by)
        elif life.before is not None and not (life.by and life.by.authenticated):
            best = self.idle_floor(life.before, told)
        for call in life.calls:
            if call.sent >= told:
                break
            if not (call.acknowledged and self.held(call)):
                continue
            promised = float("-inf")
            if call is life.born and call.verb == "Create":
                promised = life.tried + idle
            elif call.verb == "Touch" and call.counted:
                promised = call.sent + idle
            elif call.verb == "Extend":
                promised = call.sent + (idle if call.clamped or policy.at_most else max(idle, call.seconds))
            elif call.verb == "Hold" and call.kind == "WORK":
                promised = min(call.sent + call.seconds, self._released(life, call.hold)) + idle
            if promised > best[0]:
                best = (promised, call)
        return best

    def absolute_floor(self, life: Life) -> float:
        """Before this moment it can't have ended by ABSOLUTE_TIMEOUT."""
        if life.policy is None:
            return float("-inf")
        if life.by is not None:
            if life.by.authenticated:
                return life.tried + life.policy.absolute
            return self.absolute_floor(life.before) if life.before else float("-inf")
        return life.tried + life.policy.absolute if life.born and self.held(life.born) else float("-inf")

    def presence_floor(self, life: Life, told: float = float("inf")) -> tuple[float, Call | None]:
        """Before this moment it can't have ended by BROWSER_CLOSED, and the call that promised so, before `told`."""
        best: tuple[float, Call | None] = (float("-inf"), None)
        policy = life.policy
        if policy is None:
            return best
        if life.before is not None:
            best = self.presence_floor(life.before, told)
        for call in life.calls:
            if call.sent >= told:
                break
            if not (call.acknowledged and self.held(call)):
                continue
            promised = float("-inf")
            if call.verb == "Touch" and call.counted or call.verb == "Extend":
                promised = call.sent + min(policy.leave, policy.lost)
            elif call.verb == "Hold":
                released = self._released(life, call.hold)
                lapse = call.sent + call.seconds
                grace = min(policy.leave, policy.lost) if call.kind == "PRESENCE" else 0.0
                promised = min(lapse, released) + grace
            if promised > best[0]:
                best = (promised, call)
        return best

    def _released(self, life: Life, hold: str) -> float:
        """When somebody first asked to release a hold, of this life or of the next ones (a hold moves with a rotation)."""
        number = life.name.partition(".")[0]
        return self._releases().get((number, hold), float("inf"))

    def _releases(self) -> dict[tuple[str, str], float]:
        if not hasattr(self, "_released_at"):
            self._released_at: dict[tuple[str, str], float] = {}
            for call in self.history.calls:
                if call.verb == "Release":
                    self._released_at.setdefault((call.name.partition(".")[0], call.hold), call.sent)
        return self._released_at

    # Not after.

    def ceiling(self, life: Life, until: float = float("inf")) -> float:
        """After this moment it can't have lived, by the calls that were sent before `until`; but for faults and the time that it takes to tell."""
        policy = life.policy
        if policy is None:
            return float("inf")
        latest = float("-inf")
        if life.by is not None:
            latest = self._done(life.by) + policy.idle
            if life.before is not None:
                latest = max(latest, self.ceiling(life.before, until))
        for call in life.calls:
            if call.sent >= until:
                break
            if call.code != "OK" and not call.uncertain:
                continue
            done = self._done(call)
            if call.verb in ("Create", "Touch"):
                latest = max(latest, done + policy.idle)
            elif call.verb == "Extend":
                latest = max(latest, done + max(call.seconds, policy.idle))
            elif call.verb == "Hold":
                latest = max(latest, done + call.seconds + policy.idle)
        return min(latest, self._absolute_ceiling(life))

    def _absolute_ceiling(self, life: Life) -> float:
        if life.by is not None and life.by.authenticated:
            return self._done(life.by) + life.policy.absolute
        if life.before is not None:
            return self._absolute_ceiling(life.before)
        return self._done(life.born) + life.policy.absolute if life.born else float("inf")

    def _done(self, call: Call) -> float:
        """When a call was done at the latest. One that got no answer may linger in a connection until the faults are over."""
        return max(call.got, self.history.calm + 1) if call.uncertain else call.got
