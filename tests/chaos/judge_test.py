"""The judge must be content with what is right, and each rule must catch what it is for."""

from dataclasses import replace

import pytest

from chaos.history import Call, Fault, History, Message, Policy
from chaos.judge import RULES, judged
from chaos.story import story

POLICY = Policy(idle=4.0, absolute=60.0, leads=[1.0])
KIOSK = Policy(idle=4.0, absolute=60.0, leads=[1.0], leave=2.0, lost=3.0)


def touch(at: float, name: str = "1.0", **fields) -> Call:
    told = {"sidecar": 0, "got": at + 0.01, "scope": "STORE", "ref": f"ref-{name}", "state": "ACTIVE", "counted": True}
    return Call("Touch", name=name, sent=at, **(told | fields))


def create(at: float, name: str = "1.0", policy: str = "default", **fields) -> Call:
    return replace(touch(at, name, policy=policy, **fields), verb="Create", counted=False)


def told(at: float, kind: str, name: str = "1.0", watch: str = "a", **fields) -> Message:
    known = {"chain": 0, "sidecar": 0, "ref": f"ref-{name}", "name": name.partition(".")[0], "limit": "IDLE" if kind != "ended" else ""}
    return Message(watch, at=at, kind=kind, **(known | fields))


def opened(at: float, watch: str = "a", **fields) -> list[Message]:
    stream = Message(watch, 0, 0, at, "open", **fields)
    return [stream, replace(stream, at=at + 0.1, kind="snapshot_end", names=[])]


def ending(at: float, reason: str = "IDLE_TIMEOUT", version: int = 2, **fields) -> list[Message]:
    """A warning and the end, as two watches are told of them."""
    return [
        message
        for watch in "ab"
        for message in (
            told(at - 1, "warning", watch=watch, point=1.0, version=version, **fields),
            told(at, "ended", watch=watch, end_reason=reason, version=version + 1, **fields),
        )
    ]


def history(calls: list[Call], messages: list[Message], faults: list[Fault] | None = None) -> History:
    """A run from 0 to 100. By default it has one fault, from 1 to 5; the last touch of another session shows that all is healed."""
    witness = [create(20, "9.0"), touch(21, "9.0")]
    last = [message for watch in "ab" for message in (*opened(0, watch), *[replace(m, watch=watch) for m in ending(25.2, name="9.0")[:2]])]
    found = History({"default": POLICY, "kiosk": KIOSK}, [*calls, *witness], [*last, *messages], faults or [Fault("store-kill", "", 1, 5)])
    found.calm, found.stopped, found.closed = 5.0, 50.0, 100.0
    return found.sort()


def broken(*args) -> set[str]:
    return {breach.rule for breach in judged(history(*args)).breaches}


def test_a_run_without_a_fault_in_it_passes_and_every_rule_looks_at_something():
    gone = Message("a", 0, 0, 3, "lost", code="UNAVAILABLE")
    refused = touch(27, code="FAILED_PRECONDITION", reason="SESSION_ENDED", end_reason="IDLE_TIMEOUT", state="", counted=False)
    verdict = judged(history([create(20), touch(22), refused], [gone, *ending(26.2)]))
    assert verdict.breaches == []
    assert set(verdict.looked_at) == set(RULES)


def test_early():
    assert broken([create(20), touch(23)], ending(26.2)) == {"early"}
    assert broken([create(20), replace(touch(21), verb="Extend", seconds=8.0)], ending(26.2)) == {"early"}
    hold = replace(touch(21), verb="Hold", kind="WORK", hold="h", seconds=3.0)
    assert broken([create(20), hold], ending(26.9)) == {"early"}
    released = replace(touch(22), verb="Release", hold="h")
    assert broken([create(20), hold, released], ending(26.2)) == set()
    assert broken([create(20)], ending(26.2, "ABSOLUTE_TIMEOUT", limit="ABSOLUTE")) >= {"early"}
    # What was not counted, or is only known to one sidecar, promises nothing.
    for promise in (touch(23, counted=False), touch(23, scope="LOCAL"), touch(23, code="DEADLINE_EXCEEDED", scope="", state="")):
        assert "early" not in broken([create(20), promise], ending(24.2))


def test_a_retry_promises_no_more_than_the_first_attempt():
    lost = create(20, code="DEADLINE_EXCEEDED", scope="", state="", ref="")
    assert "early" not in broken([lost, create(22)], ending(24.5))
    assert "early" in broken([lost, create(22)], ending(23.9))


def test_a_promise_that_came_after_the_word_of_the_end_is_not_for_the_rule_early():
    assert broken([create(20), touch(24.5, sidecar=1)], ending(24.2)) == set()
    assert broken([create(20), touch(24.1, sidecar=1)], ending(24.2)) == {"early"}


def test_early_by_a_closed_browser():
    hold = replace(touch(21), verb="Hold", kind="PRESENCE", hold="p", seconds=2.0)
    ends = [told(at, "ended", watch=watch, end_reason="BROWSER_CLOSED", version=3) for watch in "ab" for at in [24.9]]
    assert broken([create(20, policy="kiosk"), hold], ends) == {"early"}
    assert broken([create(20, policy="kiosk"), hold], [replace(end, at=25.1) for end in ends]) == set()


def test_early_over_a_rotation():
    rotate = replace(touch(21), verb="Rotate", new_name="1.1", successor="ref-1.1", end_reason="ROTATED")
    moved = [told(21.0, "ended", watch=watch, end_reason="ROTATED", successor="ref-1.1", version=2) for watch in "ab"]
    late_touch = touch(20.9)
    assert broken([create(20), late_touch, rotate], [*moved, *ending(24.5, name="1.1")]) == {"early"}
    assert broken([create(20), late_touch, rotate], [*moved, *ending(25.2, name="1.1")]) == set()
    anew = replace(rotate, authenticated=True)
    assert broken([create(20), anew], [*moved, *ending(24.9, name="1.1")]) == {"early"}


def test_late():
    assert broken([create(20)], ending(26.2)) == {"late"}
    assert broken([create(20), touch(28)], ending(32.1)) == {"late"}
    # A fault excuses it, until ten seconds after.
    assert broken([create(20)], ending(26.2), [Fault("clock", "", 15, 18)]) == {"late"}
    # So does a machine that stands still, also when there are no people any more.
    assert broken([create(48)], ending(54.2), [Fault("clock", "", 1, 5)]) == {"late"}
    assert broken([create(48)], ending(54.2), [Fault("clock", "", 1, 5), Fault("starved", "", 51, 52)]) == set()
    # Three killed sidecars may be those whose turn it is, as long as they count as there.
    kills = [Fault(kind, "", at, at) for kind, at in (("sidecar-kill", 12), ("kill-in-rotate", 13), ("sidecar-kill", 14))]
    assert broken([create(20)], ending(26.2), kills) == set()
    assert broken([create(20)], ending(27.6), kills) == {"late"}
    assert broken([create(20)], ending(26.2), kills[1:]) == {"late"}
    assert broken([create(20)], ending(26.2), [*kills[1:], Fault("sidecar-kill", "", 10, 10)]) == {"late"}
    calm = history([create(20)], ending(28.2), [Fault("clock", "", 15, 19)])
    calm.calm = 19.0
    assert not [breach for breach in judged(calm).breaches if breach.rule == "late"]


def test_an_end_is_told_by_leaving_it_out_or_by_the_answer_to_a_rotation():
    lost = [Fault("store-kill", "", 1, 23, epoch=True)]
    anew = [
        message
        for watch in "ab"
        for message in (Message(watch, 0, 0, 23.9, "expired"), Message(watch, 1, 0, 24, "open"), Message(watch, 1, 0, 25, "snapshot_end"))
    ]
    known = [told(24.9, "snapshot", "9.0", watch=watch, chain=1, version=1) for watch in "ab"]
    ends = [replace(message, chain=1) for message in ending(25.2, name="9.0") if message.kind == "ended"]

    def of(calls, messages, closed=100.0):
        run = history(calls, [*anew, *known, *messages], lost)
        run.messages = [message for message in run.messages if message.chain or message.at < 24]
        run.messages += ends
        run.closed = closed
        return {breach.rule for breach in judged(run.sort()).breaches} - {"unwarned"}

    assert of([create(20)], []) == set()
    assert of([create(18)], []) == {"late"}
    # What the initial state shows has not ended yet.
    alive = [told(24.8, "snapshot", watch=watch, chain=1, version=1) for watch in "ab"]
    assert of([create(20)], alive) == {"late", "missing"}
    rotate = replace(touch(21), verb="Rotate", ref="", new_name="1.1", successor="ref-1.1", end_reason="ROTATED")
    assert of([create(20), rotate], []) == set()
    assert "one reason" in of([create(20), rotate], [told(26, "ended", chain=1, end_reason="LOGOUT", version=3)])


def test_missing():
    assert broken([create(20)], [message for message in ending(24.2) if message.watch == "a"]) == {"missing"}
    assert broken([create(20)], []) == {"late", "missing"}
    ids = opened(21, "ids", everything=False, names=["1.0"])
    assert broken([create(20)], [*ids, *ending(24.2)]) == {"missing"}
    heard = [replace(message, watch="ids") for message in ending(24.2)[:2]]
    snapshot = told(21.05, "snapshot", watch="ids", version=1)
    assert broken([create(20)], [*ids, snapshot, *heard, *ending(24.2)]) == set()


def test_missing_after_a_watch_began_anew():
    restart = [Message("a", 0, 0, 24, "expired"), Message("a", 1, 0, 24.1, "open"), Message("a", 1, 0, 24.3, "snapshot_end")]
    alive = told(24.2, "snapshot", chain=1, version=1, state="ACTIVE")
    rest = [replace(message, chain=1) if message.watch == "a" else message for message in ending(26.2)]
    witness = [replace(message, chain=1) for message in ending(25.2, name="9.0")[:2]]
    lost = [Fault("store-kill", "", 1, 23, epoch=True)]
    fine = [create(20), touch(22)], [*restart, alive, *rest, told(24.2, "snapshot", "9.0", chain=1, version=1), *witness], lost
    run = history(*fine)
    run.messages = [m for m in run.messages if not (m.watch == "a" and m.chain == 0 and m.at > 24.05)]
    assert not [breach for breach in judged(run).breaches if breach.rule in ("missing", "resumable", "unwarned")]
    run.messages = [m for m in run.messages if not (m.ref == "ref-1.0" and m.kind == "ended" and m.watch == "a")]
    assert [breach.rule for breach in judged(run).breaches if breach.rule == "missing"] == ["missing"]


def test_duplicate_and_order():
    end = ending(24.2)
    assert broken([create(20)], [*end, replace(end[1], at=24.5)]) == {"duplicate", "order"}
    assert broken([create(20)], [*end, told(24.6, "warning", point=1.0, version=9)]) == {"order"}
    assert broken([create(20)], [*end, told(23.6, "warning", point=1.0, version=2)]) == {"order"}
    assert broken([create(20)], [*end, told(21, "cleared", version=1)]) == {"order"}
    fine = [told(23, "cleared", watch=watch, version=1) for watch in "ab"] + [told(22, "warning", watch=watch, point=1.0) for watch in "ab"]
    assert broken([create(20), touch(22.5)], [*[replace(m, version=1 if m.kind == "warning" else 2) for m in fine], *ending(26.6, version=3)]) == set()


def test_one_reason():
    end = ending(24.2)
    assert broken([create(20)], [*end[:3], replace(end[3], end_reason="ABSOLUTE_TIMEOUT")]) >= {"one reason"}
    other = touch(25, code="FAILED_PRECONDITION", reason="SESSION_ENDED", end_reason="SUPERSEDED", state="")
    assert broken([create(20), other], end) >= {"one reason"}


def test_unwarned():
    assert broken([create(20)], [message for message in ending(24.2) if message.kind == "ended"]) == {"unwarned"}


def test_revived():
    assert "revived" in broken([create(20), touch(26)], ending(24.2))
    # Another sidecar may lag a little, the one that said it may not.
    assert "revived" not in broken([create(20), touch(25, counted=False)], ending(24.2))
    end = replace(touch(21), verb="End", kind="LOGOUT", end_reason="LOGOUT", state="ENDED")
    ended = [told(21, "ended", watch=watch, end_reason="LOGOUT", version=2) for watch in "ab"]
    assert broken([create(20), end, touch(21.5, sidecar=0)], ended) == {"revived"}
    assert broken([create(20), end, touch(22.1, sidecar=1), touch(30, "9.0", sidecar=1, code="NOT_FOUND", state="")], ended) >= set()
    assert "revived" in broken([create(20), end, touch(23, sidecar=1)], ended)
    assert "revived" in broken([create(20), end, create(24)], ended)


def test_a_failover_excuses_only_what_its_journal_died_with():
    end = replace(touch(21), verb="End", kind="LOGOUT", end_reason="LOGOUT", state="ENDED")
    failover = Fault("failover", "", 21.5, 23, epoch=True, rollback=True)
    again = touch(30)
    assert "revived" in broken([create(15), end, again], ending(34.2), [failover])
    killed = Fault("sidecar-kill", "", 21.6, 22, sidecar=0)
    assert "revived" not in broken([create(15), end, again], ending(34.2), [failover, killed])
    promise = [create(15), touch(21)]
    assert "early" in broken(promise, ending(22.2), [failover])
    assert "early" not in broken(promise, ending(22.2), [failover, killed])
    # A sidecar that answered somebody after the failover had told its journal before.
    later = replace(killed, began=26, ended=27)
    assert "revived" not in broken([create(15), end, again], ending(34.2), [failover, later])
    assert "revived" in broken([create(15), end, touch(24, "8.0", code="NOT_FOUND", state="", ref=""), touch(24.5, "9.0"), again], ending(34.2), [failover, later])


def test_unknown():
    assert "unknown" in broken([create(20), touch(22, code="NOT_FOUND", reason="SESSION_UNKNOWN", state="", ref="")], ending(24.2))
    assert "unknown" in broken([create(20), touch(22, state="UNKNOWN")], ending(24.2))
    never = touch(22, "7.0", code="NOT_FOUND", reason="SESSION_UNKNOWN", state="", ref="")
    assert broken([create(20), never], ending(24.2)) == set()


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED"])
def test_unavailable(code):
    failed = touch(22, code=code, state="", ref="", scope="")
    assert "unavailable" in broken([create(20), failed], ending(24.2))
    early_on = replace(failed, sent=3, got=5)
    excused = code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert ("unavailable" in broken([create(20), early_on], ending(24.2))) is not excused
    assert ("unavailable" in broken([create(20), early_on], ending(24.2), [Fault("full", "", 3, 5)])) is (code == "INTERNAL")


def test_resumable():
    expired = Message("a", 0, 0, 30, "expired")
    assert broken([create(20)], [*ending(24.2), expired]) == {"resumable"}
    assert "resumable" in broken([create(20)], [*ending(24.2), Message("a", 0, 0, 30, "refused", code="INVALID_ARGUMENT")])
    assert "resumable" in broken([create(20)], [*ending(24.2), Message("a", 0, 0, 30, "lost", code="UNAVAILABLE")])
    goodbye, over = Message("a", 0, 0, 30, "draining"), Message("a", 0, 0, 30.1, "lost", code="ended")
    assert "resumable" not in broken([create(20)], [*ending(24.2), goodbye, over])
    assert "resumable" in broken([create(20)], [*ending(24.2), over])
    assert "resumable" in broken([create(20)], [*ending(24.2), goodbye, replace(over, code="UNAVAILABLE")])


def test_healed():
    assert "healed" in broken([create(20), touch(22, scope="LOCAL")], ending(24.2))
    assert "healed" in broken([create(20), touch(3, sidecar=1)], ending(24.2))
    # Where the machine stood still to the last, nobody can say.
    assert "healed" not in broken([create(20), touch(3, sidecar=1)], ending(24.2), [Fault("store-kill", "", 1, 5), Fault("starved", "", 44, 45)])


def test_unasked():
    ended = [told(22, "ended", watch=watch, end_reason="LOGOUT", version=2) for watch in "ab"]
    assert "unasked" in broken([create(20)], ended)
    assert "unasked" in broken([create(20)], [replace(end, end_reason="BROWSER_CLOSED") for end in ended])
    assert "unasked" in broken([create(20)], [replace(end, end_reason="SUPERSEDED") for end in ended])


def test_a_breach_is_told_as_a_story():
    verdict = judged(history([create(20), touch(23)], ending(26.2), [Fault("store-pause", "2.0 s", 22, 24)]))
    told_as = story(verdict, verdict.of("early")[0])
    assert "early" in told_as and "Touch" in told_as and "store-pause" in told_as and "ended" in told_as
