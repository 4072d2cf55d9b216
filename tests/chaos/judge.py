"""The judge: reads the history of a run and names every breach of what was promised. It is pure, and knows nothing of how the run was made.

Each rule is a generator over the lives; it counts what it looked at, so that a rule that saw nothing shows. Only answers that the store
stands behind are judged: LOCAL ones promise less. The exceptions are those of STORE.md §8 and are made in `lives.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .chains import Chain, chains
from .history import UNDRAWN, Call, Fault, History, Message
from .lives import HEALING, TICK, Life, Lives

# What an answer on another sidecar may lag behind an end (STORE.md §7).
STALE = 1.5
# A deadline is noticed within the sweep's period, and told within this much more on a machine that is busy with us.
SWEEP = 0.25
SLACK = 1.0
# A sidecar that was killed counts as there for so long. If those whose turn it is to look at a bucket are three such, others do
# within two to three seconds (docs/one-pod-or-many.md).
THERE = 15.0
KILLED = {"sidecar-kill", "kill-in-rotate"}
NEGLECT = 2.0

IDLE, ABSOLUTE, BROWSER = "IDLE_TIMEOUT", "ABSOLUTE_TIMEOUT", "BROWSER_CLOSED"


@dataclass
class Breach:
    """A promise that was broken."""

    rule: str
    ref: str
    at: float
    text: str


@dataclass
class Verdict:
    """What the judge found."""

    breaches: list[Breach] = field(default_factory=list)
    looked_at: Counter = field(default_factory=Counter)
    told: dict[str, str] = field(default_factory=dict)
    lives: Lives | None = None

    def of(self, rule: str) -> list[Breach]:
        """The breaches of one rule."""
        return [breach for breach in self.breaches if breach.rule == rule]


class Judge:
    """One reading of one history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.lives = Lives(history)
        self.chains = chains(history, self.lives)
        self.healed_at = history.calm + HEALING
        # The same for ends, which come also when there are no people any more.
        undrawn = [fault.ended for fault in history.faults if fault.kind in UNDRAWN]
        self.settled_at = max([history.calm, *undrawn]) + HEALING
        self.seen: Counter = Counter()

    def ghosts(self, at: float) -> int:
        """How many sidecars count as there at a moment and are not."""
        return sum(fault.kind in KILLED and fault.began <= at < fault.began + THERE for fault in self.history.faults)

    def verdict(self) -> Verdict:
        """Applies every rule."""
        verdict = Verdict(lives=self.lives)
        for name, rule in RULES.items():
            verdict.told[name] = (rule.__doc__ or "").splitlines()[0]
            for ref, at, text in rule(self, lambda by=1, name=name: self.seen.update({name: by})):
                verdict.breaches.append(Breach(name, ref, at, text))
        verdict.looked_at = self.seen
        verdict.breaches.sort(key=lambda breach: breach.at)
        return verdict

    def troubled(self, sent: float, got: float, kind: str = "") -> bool:
        """Whether a fault was on, or had been a moment ago."""
        return any(
            fault.began <= got and sent <= fault.ended + HEALING and fault.kind.startswith(kind) for fault in self.history.faults
        )


    def left_out(self, life: Life) -> float:
        """When a watch of everything that began after its birth was told the whole initial state, and this session was not in it: it was over."""
        since = life.born.got if life.born else float("inf")
        return min((chain.complete for chain in self.chains if chain.everything and chain.opened > since and not chain.knows(life.ref)), default=float("inf"))


Found = Iterator[tuple[str, float, str]]
Count = Callable[..., None]


def early(judge: Judge, count: Count) -> Found:
    """no end before the deadline that an acknowledged call established"""
    for life in judge.lives.of.values():
        floors: dict[str, tuple[float, Call | None]] = {}
        first = life.first_end()
        for end in life.ends:
            if end.reason not in (IDLE, ABSOLUTE, BROWSER):
                continue
            count()
            if end.reason not in floors:
                floors[end.reason] = {
                    IDLE: judge.lives.idle_floor,
                    ABSOLUTE: lambda life, _: (judge.lives.absolute_floor(life), life.born),
                    BROWSER: judge.lives.presence_floor,
                }[end.reason](life, first.at)
            floor, call = floors[end.reason]
            if end.at < floor - TICK:
                yield life.ref, end.at, f"{end.reason} was told {floor - end.at:.3f} s before the deadline that {call.verb if call else 'its birth'} established"
                break


def late(judge: Judge, count: Count) -> Found:
    """when all is well again, an end is told in time, and nothing lives past its deadline"""
    for life in judge.lives.of.values():
        if life.policy is None or life.born is None or not judge.lives.held(life.born):
            continue

        def bound_by(until: float, life: Life = life) -> float:
            bound = max(judge.lives.ceiling(life, until) + life.policy.window() + SWEEP, judge.settled_at) + SLACK
            return bound + (NEGLECT if judge.ghosts(bound) >= 3 else 0)

        bound = bound_by(float("inf"))
        if bound >= judge.history.closed:
            continue
        count()
        first = life.first_end()
        told = min(first.at if first else float("inf"), judge.left_out(life))
        if told == float("inf"):
            yield life.ref, bound, "nobody was ever told of its end"
        elif told > bound:
            yield life.ref, told, f"{first.reason if first else 'its end'} was first told {told - bound:.3f} s after the last moment for it"
        for call in life.calls:
            if call.verb not in ("Create", "Rotate") and call.sent > judge.settled_at and call.live and call.acknowledged and call.ref == life.ref:
                if (over := call.sent - bound_by(call.sent)) > 0:
                    yield life.ref, call.sent, f"{call.verb} found it alive {over:.3f} s after the last moment for its end"
                    break


def missing(judge: Judge, count: Count) -> Found:
    """every session's end is told to every watch that should hear of it"""
    for chain in judge.chains:
        for ref in chain.owed(judge.lives):
            count()
            if ref not in chain.ended:
                life = judge.lives.of.get(ref)
                first = life.first_end() if life else None
                known = f"others were told {first.reason}" if first else "nobody was told"
                yield ref, first.at if first else judge.history.closed, f"{chain.name} was never told of its end ({known})"


def duplicate(judge: Judge, count: Count) -> Found:
    """no watch is told twice of one end"""
    for chain in judge.chains:
        for ref, times in chain.ended.items():
            count()
            if len(times) > 1:
                yield ref, times[1], f"{chain.name} was told {len(times)} times of its end"


def one_reason(judge: Judge, count: Count) -> Found:
    """whoever was told of an end was told the same reason"""
    for life in judge.lives.of.values():
        if not life.ends:
            continue
        count(len(life.ends))
        reasons = {end.reason for end in life.ends}
        if len(reasons) > 1:
            yield life.ref, max(end.at for end in life.ends), f"ended by {' and by '.join(sorted(reasons))}"


def order(judge: Judge, count: Count) -> Found:
    """Warning, then Cleared or Ended; each point once; nothing after Ended; versions rise"""
    for chain in judge.chains:
        count(chain.events)
        for ref, at, text in chain.disorder:
            yield ref, at, f"{chain.name}: {text}"


def unwarned(judge: Judge, count: Count) -> Found:
    """no session ends by a timeout that was not warned of"""
    for chain in judge.chains:
        for message, warned in chain.timeouts:
            count()
            if not warned:
                yield message.ref, message.at, f"{chain.name} was told of {message.end_reason} without a warning"


def revived(judge: Judge, count: Count) -> Found:
    """whoever asks after an end was told finds no live session, and the id can't be created again"""
    for life in judge.lives.of.values():
        binding = [end for end in life.ends if not _rolled_back(judge, life, end)]
        if not binding:
            continue
        first = min(end.at for end in binding)
        answered: dict[int, float] = {}
        for end in binding:
            if end.answered:
                answered[end.sidecar] = min(answered.get(end.sidecar, end.at), end.at)
        for call in life.calls:
            count()
            since = min(first + STALE, answered.get(call.sidecar, float("inf")))
            if call.sent <= since:
                continue
            if call.ref == life.ref and call.live and call.acknowledged and call.verb != "Rotate":
                yield life.ref, call.sent, f"{call.verb} on sidecar {call.sidecar} found it alive {call.sent - first:.3f} s after its end was told"


def _rolled_back(judge: Judge, life: Life, end) -> bool:
    """Whether an end falls under the exception for failovers that take the journal with them."""
    told = Call("End", end.sidecar, life.name, end.at, end.at, scope="STORE")
    return not judge.lives.held(told)


def unknown(judge: Judge, count: Count) -> Found:
    """a session that was created is never UNKNOWN"""
    for life in judge.lives.of.values():
        if life.born is None or not judge.lives.held(life.born):
            continue
        for call in life.calls:
            if call.sent < life.born.got:
                continue
            count()
            if call.code == "NOT_FOUND" or call.code == "OK" and call.state == "UNKNOWN":
                yield life.ref, call.got, f"{call.verb} on sidecar {call.sidecar} found it unknown {call.got - life.born.got:.3f} s after its creation"
                break


def unavailable(judge: Judge, count: Count) -> Found:
    """calls fail only while something is broken, and only in the documented ways"""
    for call in judge.history.calls:
        count()
        match call.code:
            case "OK" | "NOT_FOUND":
                fine = True
            case "FAILED_PRECONDITION" | "ALREADY_EXISTS":
                fine = call.reason in ("SESSION_ENDED", "SESSION_EXISTS", "NEW_SESSION_ENDED")
            case "RESOURCE_EXHAUSTED":
                fine = judge.troubled(call.sent, call.got, "full")
            case "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "CANCELLED":
                fine = judge.troubled(call.sent, call.got)
            case _:
                fine = False
        if not fine:
            yield call.ref, call.got, f"{call.verb} of {call.name} on sidecar {call.sidecar} failed with {call.code} {call.reason}"


def resumable(judge: Judge, count: Count) -> Found:
    """a token is refused only if the store lost its log; streams break only while something is broken, or after Draining"""
    last: dict[str, Message] = {}
    for message in judge.history.messages:
        before = last.get(message.watch, message)
        heard = before.at
        if message.kind == "expired":
            count()
            lost = [fault for fault in judge.history.faults if fault.epoch and fault.began <= message.at and fault.ended + 2 * HEALING >= heard]
            if not lost:
                yield "", message.at, f"{message.watch} could not resume on sidecar {message.sidecar}"
        elif message.kind == "refused":
            yield "", message.at, f"{message.watch} was refused on sidecar {message.sidecar}: {message.code}"
        elif message.kind == "lost":
            count()
            goodbye = before.kind == "draining" and message.code == "ended"
            if not goodbye and not judge.troubled(heard, message.at):
                yield "", message.at, f"{message.watch} lost its stream on sidecar {message.sidecar}: {message.code}"
        last[message.watch] = message


def healed(judge: Judge, count: Count) -> Found:
    """a moment after the last fault every sidecar answers from the store"""
    heard: Counter = Counter()
    for call in judge.history.calls:
        if call.verb != "Touch" or not judge.healed_at <= call.sent < judge.history.stopped:
            continue
        count()
        if call.code != "OK" and call.uncertain or call.code == "OK" and not call.acknowledged:
            yield call.ref, call.got, f"sidecar {call.sidecar} answered {call.code} {call.scope}, {call.sent - judge.history.calm:.1f} s after the last fault"
        else:
            heard[call.sidecar] += 1
    # If the machine itself stood still to the last, nobody can say.
    seen_well = judge.healed_at < judge.history.stopped
    for sidecar in sorted({call.sidecar for call in judge.history.calls} - set(heard)) if seen_well else []:
        yield "", judge.history.stopped, f"sidecar {sidecar} answered no Touch after the last fault"


def unasked(judge: Judge, count: Count) -> Found:
    """no session ends for a reason that nobody gave"""
    asked: dict[str, set[str]] = defaultdict(set)  # reasons, by visit
    for call in judge.history.calls:
        if call.verb in ("End", "Rotate"):
            asked[call.name.partition(".")[0]].add("ROTATED" if call.verb == "Rotate" else call.kind)
    for life in judge.lives.of.values():
        for end in life.ends:
            count()
            given = asked[life.name.partition(".")[0]]
            if end.reason in ("LOGOUT", "REVOKED", "ROTATED") and end.reason not in given:
                yield life.ref, end.at, f"{end.reason}, and nobody asked for it"
            elif life.policy is None:
                continue
            elif end.reason == "SUPERSEDED" and not life.policy.per_subject or end.reason == BROWSER and not life.policy.leave:
                yield life.ref, end.at, f"{end.reason}, and its policy has none"


RULES: dict[str, Callable[[Judge, Count], Found]] = {
    "early": early,
    "late": late,
    "missing": missing,
    "duplicate": duplicate,
    "one reason": one_reason,
    "order": order,
    "unwarned": unwarned,
    "revived": revived,
    "unknown": unknown,
    "unavailable": unavailable,
    "resumable": resumable,
    "healed": healed,
    "unasked": unasked,
}


def judged(history: History) -> Verdict:
    """The verdict on a history."""
    return Judge(history).verdict()


def overlapping(history: History, began: float, ended: float) -> list[Fault]:
    """The faults of a period."""
    return [fault for fault in history.faults if fault.began <= ended and began <= fault.ended]
