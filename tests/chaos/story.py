"""Tells a breach as the short story of its session: who asked what, what was answered and told, what was broken meanwhile."""

from .history import Call, Fault, Message
from .judge import Breach, Verdict, overlapping

# Lines of one story. The first ones and the last ones say most.
LINES = 40
AFTER = 5.0
# Faults that were over so long before the breach are not told.
BEFORE = 15.0


def story(verdict: Verdict, breach: Breach) -> str:
    """The story of a breach."""
    lives = verdict.lives
    history = lives.history
    refs = {breach.ref} if breach.ref else set()
    life = lives.of.get(breach.ref)
    while life is not None and life.before is not None:
        life = life.before
        refs.add(life.ref)
    calls = [call for ref in refs for call in lives.of[ref].calls] if refs <= set(lives.of) else []
    messages = [message for message in history.messages if message.ref in refs] if refs else []
    moments = [call.sent for call in calls] + [message.at for message in messages] + [breach.at]
    began = min(moments) if refs else breach.at - 5
    faults = overlapping(history, max(began - 1, breach.at - BEFORE), breach.at + 1)
    start = history.calls[0].sent if history.calls else 0.0
    lines = [(call.sent, _call(call)) for call in dict.fromkeys(map(_Same, calls))]
    lines += [(message.at, _message(message)) for message in messages]
    lines += [(fault.began, _fault(fault, start)) for fault in faults]
    # What came long after is another story.
    lines = sorted((line for line in lines if line[0] < breach.at + AFTER), key=lambda line: line[0])
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], (lines[half][0], f"… {len(lines) - LINES} lines …"), *lines[-half:]]
    name = f" of session {lives.of[breach.ref].name}" if breach.ref in lives.of else ""
    head = f"{breach.rule}{name}: {breach.text} (at {breach.at - start:.3f})"
    return "\n".join([head, *(f"    {at - start:9.3f}  {text}" for at, text in lines)])


class _Same:
    """A call that is equal only to itself: a life and its predecessor may both have it."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._call is other._call

    def __hash__(self) -> int:
        return id(self._call)

    def __getattr__(self, name: str) -> object:
        return getattr(self._call, name)


def _call(call: Call) -> str:
    asked = [call.verb, call.name, f"on sidecar {call.sidecar}"]
    asked += [f"{call.kind} hold" if call.hold else call.kind] if call.kind else []
    asked += [f"{call.seconds:g} s"] if call.seconds else []
    asked += [f"-> {call.new_name}"] if call.new_name else []
    answer = [call.code] if call.code != "OK" else []
    answer += [call.reason, call.state, call.scope, call.end_reason]
    answer += ["counted"] if call.counted else []
    answer += ["alias"] if call.alias else []
    return f"{' '.join(asked)}: {' '.join(filter(None, answer)) or 'OK'} (after {call.got - call.sent:.3f} s)"


def _message(message: Message) -> str:
    parts = [message.kind, message.limit, f"{message.point:g} s before" if message.point else "", message.state, message.end_reason]
    return f"  watch {message.watch}/{message.chain} on sidecar {message.sidecar}: {' '.join(filter(None, parts))}, version {message.version}"


def _fault(fault: Fault, start: float) -> str:
    return f"! {fault.kind} {fault.what} until {fault.ended - start:.3f}"
