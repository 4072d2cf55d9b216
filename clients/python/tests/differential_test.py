"""The fake and the program, side by side: random histories of calls, on which both must say the same, to the version and the event.

The program's clock goes on by itself while it is asked. So every call of the fake is made at the time at which the program says that
it answered; and calls are made at whole even seconds, a few milliseconds late, while nothing that a policy below brings is due then:
not the idle end (a half second), not the lapse of a hold (three tenths), nor what follows from these."""

import dataclasses
import random
import threading
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

from helpers import NEVER_ISSUED, PATIENT, seconds
from support.process import eventually

from session_sidecar import (
    Activity,
    Actor,
    ClearedCause,
    EndReason,
    Hints,
    HoldKind,
    InvalidRequestError,
    NotPermittedError,
    PageVisibility,
    Ref,
    RefusedError,
    SessionEndedError,
    SessionState,
    SessionUnknownError,
    Sidecar,
    SidecarAdmin,
    SidecarError,
    Touch,
    events,
)
from session_sidecar.fake import FakeSidecar
from session_sidecar.testing import advance

USUAL = """
idle_timeout = "20s 500ms"
warn_before = ["8s", "3s"]
absolute_timeout = "3m 500ms"
absolute_warn_before = ["20s", "5s"]
tombstone_ttl = "90s 400ms"
"""
POLICIES = f"""
[policy.default]
{USUAL}
max_extensions = 2
work_hold = {{ max_ttl = "12s 300ms", budget = "14s 300ms", max_live = 2 }}
presence = {{ leave_grace = "4s 500ms", lost_grace = "3s 500ms", max_ttl = "11s 300ms", max_live = 2 }}

[policy.desk]
{USUAL}
max_sessions_per_subject = 2
at_subject_cap = "end-oldest"
at_most = true
presence = {{ leave_grace = "6s 500ms", max_ttl = "11s 300ms" }}
work_hold = {{ max_ttl = "12s 300ms", budget = "6s 300ms" }}

[policy.ruled]
{USUAL}
unmatched = "ignore"
max_sessions_per_subject = 2
work_hold = "off"
rules = [
    {{ name = "previews", sec_purpose = ["preview", "Prefetch"], sec_fetch_mode = ["CORS", "no-cors"], verdict = "ignore" }},
    {{ name = "clicks", sec_fetch_user = "?1", sec_fetch_mode = "navigate", verdict = "count" }},
    {{ name = "polls", path = ["/api/*/poll", "/**/beat"], verdict = "ignore" }},
    {{ name = "robots", kind = "user", host = "*.Robots.example", verdict = "ignore" }},
    {{ name = "forms", method = ["POST", "PUT"], path = "/app/**", visibility = "visible", verdict = "count" }},
    {{ name = "pages", sec_fetch_dest = "document", path = "/{{shop,blog}}/**", verdict = "count" }},
]

[policy.wall]
passive = true
absolute_timeout = "70s 500ms"
tombstone_ttl = "90s 400ms"

[policy.trial]
{USUAL}
enforce = false
presence = {{ leave_grace = "4s 500ms", lost_grace = "9s 500ms" }}
work_hold = {{ max_ttl = "12s 300ms", budget = "20s 300ms", max_live = 2 }}
"""
NAMES = ["default", "default", "default", "desk", "desk", "desk", "ruled", "ruled", "wall", "trial", "trial", "none"]
VERBS = {
    "create": 8,
    "touch": 24,
    "touch_many": 3,
    "check": 12,
    "check_many": 3,
    "extend": 10,
    "hold": 14,
    "release": 8,
    "rotate": 5,
    "end": 3,
    "list_sessions": 2,
    "end_sessions": 1,
}
# How much the program may be late, and the calls' times beside even seconds.
TOLERANCE = 0.1
CALLS = 1500
SEEDS = range(3)


class Both:
    """A sidecar and a fake, and what their sessions are called here."""

    def __init__(self, sidecar: Sidecar, desk: SidecarAdmin, policy_file: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.sidecar = sidecar
        self.fake = FakeSidecar(policy_file=policy_file)
        self.clients = {"create": (sidecar, self.fake)} | {verb: (desk, self.fake.admin()) for verb in ("list_sessions", "end_sessions")}
        # By name: the ids at both. And what refs and ids stand for, at either.
        self.ids: list[tuple[str, str]] = [(NEVER_ISSUED, NEVER_ISSUED)]
        self.meaning: dict[str, str] = {}
        self.story: list[str] = []
        self.seen: Counter[str] = Counter()
        self.last = None
        self.now = advance(sidecar, seconds(0.001))
        self.begin = self.fake._server.now = self.now

    # ---- Time ----

    def wait(self, duration: int) -> None:
        """Goes to an even second, and as many more."""
        now = advance(self.sidecar, timedelta(microseconds=1))
        late = (now - self.begin).total_seconds() % 2
        rest = duration + (2 - late if late > TOLERANCE / 2 else 0)
        self.synchronise(advance(self.sidecar, seconds(rest)) if rest else now)

    def synchronise(self, now: datetime) -> None:
        if now > self.now:
            self.now = now
            self.fake.advance(now - self.fake._server.now)

    # ---- What is asked ----

    def turn(self) -> None:
        """For a while the calls are about one session or subject, and of few kinds: else hardly any limit is ever reached."""
        self.focus = self.ids[-1] if self.rng.random() < 0.7 else self.rng.choice(self.ids[-8:])
        self.subject = self.either("", "ada", "bob")
        self.policy = self.either(*NAMES)
        few = self.rng.choices([*VERBS], [*VERBS.values()], k=3)
        self.verbs = few if self.rng.random() < 0.6 else list(VERBS)
        self.waits = self.either([0], [0, 0, 2, 4], [0, 0, 0, 2, 6, 8, 22])
        if self.rng.random() < 0.7:
            self.ask(*self.drawn("create"))

    def call(self) -> None:
        """One call, some time after the one before."""
        self.wait(self.rng.choice(self.waits))
        again = self.last and self.rng.random() < 0.1
        self.last = self.last if again else self.drawn(self.rng.choices(self.verbs, [VERBS[verb] for verb in self.verbs])[0])
        self.ask(*self.last)

    def drawn(self, verb: str):
        return verb, self.arguments(verb)

    def either(self, *choices):
        return self.rng.choice(choices)

    def perhaps(self, chance: float, value):
        return value() if self.rng.random() < chance else None

    def given(self, **arguments):
        return {name: value for name, value in arguments.items() if value is not None}

    def name(self) -> tuple[str, str]:
        """A session by its id: mostly that which the calls are about for a while, or one of the latest."""
        latest = self.rng.choices([0, 4, len(self.ids)], [70, 25, 5])[0]
        return self.rng.choice(self.ids[-latest:]) if latest else self.focus

    def request_id(self) -> str | None:
        # Remembered for ten minutes: never asked for again just then.
        period = int((self.now - self.begin).total_seconds()) // 400
        return self.perhaps(0.4, lambda: f"request-{period}-{self.rng.randrange(6)}")

    def own_id(self, chance: float) -> tuple[str | None, str | None]:
        """An id of the application's own, for both: a fresh one, or one that stands for something."""
        if self.rng.random() > chance:
            return None, None
        fresh = f"own-id-{self.rng.randrange(10**9):012}"
        return self.either((fresh, fresh), (fresh, fresh), self.name())

    def activity(self):
        return self.either(None, Activity.USER, Activity.USER, Activity.BACKGROUND)

    def hints(self) -> Hints:
        return Hints(
            host=self.either("", "shop.example", "one.robots.EXAMPLE", "a.b.robots.example"),
            method=self.either("", "GET", "POST", "put"),
            path=self.either("", "/api/shop/poll?x=1", "/api/a/b/poll", "/app/cart", "/beat", "/a/b/beat", "/shop/", "/blog/a/b", "/shop"),
            sec_fetch_user=self.either("", "?1"),
            sec_fetch_mode=self.either("", "navigate", "cors"),
            sec_fetch_dest=self.either("", "document", "empty"),
            sec_purpose=self.either("", "", "prefetch;prerender", "Other, PREFETCH"),
            page_visibility=self.either(None, PageVisibility.VISIBLE, PageVisibility.HIDDEN),
            input_report=self.rng.random() < 0.2,
        )

    def touch_arguments(self):
        idle_for = self.perhaps(0.2, lambda: seconds(self.rng.randrange(0, 40)))
        return self.given(activity=self.activity(), idle_for=idle_for, hints=self.perhaps(0.4, self.hints))

    def arguments(self, verb: str):
        """The arguments of a call, those of the fake last."""
        rng, one = self.rng, self.name()
        match verb:
            case "create":
                own = self.own_id(0.3)
                named = self.given(
                    subject=self.subject,
                    policy=self.policy,
                    labels=self.perhaps(0.3, lambda: {"app": self.either("shop", "blog")}),
                    idle_timeout=self.perhaps(0.2, lambda: seconds(self.either(17.5, 19.5, 21.5))),
                    absolute_timeout=self.perhaps(0.2, lambda: seconds(self.either(60.5, 100.5, 300.5))),
                    authenticated_ago=self.perhaps(0.3, lambda: seconds(self.either(0, 30, 150, 160, 190))),
                    idle_for=self.perhaps(0.2, lambda: seconds(self.either(0, 5, 13, 18, 22))),
                    authentication_level=self.either("", "aal2"),
                    request_id=self.request_id(),
                )
                return [((), named | self.given(session_id=each)) for each in own]
            case "touch":
                named = self.touch_arguments()
                return [((each,), named) for each in one]
            case "touch_many":
                touches = [(self.name(), self.touch_arguments()) for _ in range(rng.randrange(1, 6))]
                return [(([Touch(name[side], **named) for name, named in touches],), {}) for side in (0, 1)]
            case "check":
                by_ref = rng.random() < 0.4
                return [((self.ref(side, one[side]) if by_ref else one[side],), {}) for side in (0, 1)]
            case "check_many":
                names = [(self.name(), rng.random() < 0.4) for _ in range(rng.randrange(1, 6))]
                return [
                    (([self.ref(side, name[side]) if by_ref else name[side] for name, by_ref in names],), {}) for side in (0, 1)
                ]
            case "extend":
                wanted = self.perhaps(0.4, lambda: seconds(self.either(0, 1.5, 10.5, 40.5, 400.5)))
                named = self.given(wanted_duration=wanted, request_id=self.request_id())
                return [((each,), named) for each in one]
            case "hold":
                named = {"ttl": seconds(self.either(2.3, 6.3, 30.3)), "kind": self.either(HoldKind.WORK, HoldKind.PRESENCE)}
                named["purpose"] = self.either("", "report")
                hold_id = self.either("a", "b", "c")
                return [((each, hold_id), named) for each in one]
            case "release":
                hold_id = self.either("a", "b", "c")
                return [((each, hold_id), {}) for each in one]
            case "rotate":
                ago = self.perhaps(0.4, lambda: seconds(self.either(0, 30, 60, 190)))
                new = self.own_id(0.4)
                named = self.given(
                    subject=self.perhaps(0.2, lambda: self.either("ada", "bob")),
                    authenticated_ago=ago,
                    authentication_level=None if ago is None else "aal3",
                    request_id=self.request_id(),
                )
                return [((one[side],), named | self.given(new_session_id=new[side])) for side in (0, 1)]
            case "end":
                named = self.given(
                    reason=self.either(None, EndReason.REVOKED, EndReason.IDLE_TIMEOUT),
                    actor=self.either(None, Actor.SYSTEM),
                    actor_id=self.either("", "desk"),
                    note=self.either("", "why"),
                    request_id=self.request_id(),
                )
                return [((each,), named) for each in one]
            case "list_sessions":
                states = self.either([], [SessionState.ENDED], [SessionState.EXPIRING], [SessionState.ACTIVE, SessionState.ENDED])
                named = {"subject": self.either("", "ada"), "states": states, "policy": self.either("", "desk"), "page_size": self.either(3, 100)}
                return [((), named), ((), named)]
            case "end_sessions":
                spared = self.name()
                named = {"subject": self.either("ada", "bob"), "dry_run": self.either(True, False), "note": "all"}
                return [((), {**named, "excepted": [spared[side]]}) for side in (0, 1)]
        raise AssertionError(verb)

    def ref(self, side: int, session_id: str) -> Ref:
        return (self.sidecar, self.fake)[side].check(session_id).session_ref

    # ---- What is answered ----

    def ask(self, verb: str, both) -> None:
        answers = []
        for client, (given, named) in zip(self.clients.get(verb, (self.sidecar, self.fake)), both, strict=True):
            try:
                answer = getattr(client, verb)(*given, **named)
                if verb == "list_sessions":
                    answer = list(answer)
            except SidecarError as error:
                answer = error
            if not answers:
                self.synchronise(max(server_times(answer), default=self.now))
            answers.append(answer)
        self.learn(verb, *answers)
        told = [self.plain(answer) for answer in answers]
        if verb == "list_sessions":
            told = [sorted(each, key=lambda session: session["status"]["session_ref"]) for each in told]
        if verb == "end_sessions" and isinstance(told[0], dict):
            told = [{**each, "session_refs": sorted(each["session_refs"])} for each in told]
        self.seen[f"{verb} {outcome(answers[0])}"] += 1
        asked = self.plain([[list(given), named] for given, named in both][0])
        self.story.append(f"{(self.now - self.begin).total_seconds():9.3f} {verb} {asked}")
        problem = difference(*told)
        assert problem is None, "\n".join([*self.story[-40:], f"{problem}", f"program: {told[0]}", f"fake:    {told[1]}"])

    def learn(self, verb: str, real, fake) -> None:
        """Names a new session."""
        if verb not in ("create", "rotate") or isinstance(real, SidecarError) or isinstance(fake, SidecarError):
            return
        pair = (real.session_id, fake.session_id)
        if pair not in self.ids:
            self.focus = pair
            self.ids.append(pair)
            name = f"s{len(self.ids)}"
            for side, each in zip(pair, (real, fake), strict=True):
                self.meaning[side] = name
                self.meaning[each.session.status.session_ref] = name

    def plain(self, value):
        """What is told, comparable: times since the beginning, sessions by their names."""
        match value:
            case datetime():
                return (value - self.begin).total_seconds()
            case timedelta():
                return value.total_seconds()
            case SessionEndedError() | SessionUnknownError():
                return [type(value).__name__, self.plain(value.answer)]
            case RefusedError():
                return ["Refused", value.code, value.reason, self.plain(value.session_ref)]
            case InvalidRequestError():
                return ["Invalid", value.fields]
            case NotPermittedError():
                return ["NotPermitted", value.code]
            case Ref() if value not in self.meaning:
                return "an unknown one"
            case str():
                return self.meaning.get(value, str(value))
            case list() | tuple():
                return [self.plain(each) for each in value]
            case dict():
                return {str(key): self.plain(each) for key, each in value.items()}
        if dataclasses.is_dataclass(value):
            fields = {field.name: self.plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return {"": type(value).__name__, **{name: each for name, each in fields.items() if name != "server_time"}}
        return value


def outcome(answer) -> str:
    """What a call came to, in a word."""
    match answer:
        case RefusedError():
            return answer.reason
        case SessionEndedError():
            return str(answer.answer.reason)
        case InvalidRequestError():
            return str(answer.fields)
    return f"{type(answer).__name__} {getattr(answer, 'result', '')} {getattr(answer, 'clamped_by', '')}".strip()


def server_times(value):
    """All that a program said that its clock was."""
    if isinstance(value, list | tuple):
        return [each for item in value for each in server_times(item)]
    if isinstance(value, SessionEndedError | SessionUnknownError):
        return server_times(value.answer)
    if dataclasses.is_dataclass(value):
        own = [value.server_time] if getattr(value, "server_time", None) else []
        return own + [each for field in dataclasses.fields(value) for each in server_times(getattr(value, field.name))]
    return []


def difference(real, fake, path=""):
    """Where two answers differ, if they do."""
    if isinstance(real, float) and isinstance(fake, float | int):
        return None if abs(real - fake) <= TOLERANCE else f"{path}: {real} and {fake}"
    if isinstance(real, dict) and isinstance(fake, dict) and real.keys() == fake.keys():
        parts = [(key, real[key], fake[key]) for key in real]
    elif isinstance(real, list) and isinstance(fake, list) and len(real) == len(fake):
        parts = [(place, *pair) for place, pair in enumerate(zip(real, fake, strict=True))]
    else:
        return None if real == fake else f"{path}: {real} and {fake}"
    return next((told for key, one, other in parts if (told := difference(one, other, f"{path}.{key}"))), None)


def by_session(both: Both, told: list[events.Event]):
    """What happened to each session, in order."""
    happened: dict[str, list] = {}
    for event in told:
        if hasattr(event, "session"):
            plain = both.plain(event)
            happened.setdefault(plain["session"]["session_ref"], []).append(plain)
    return happened


# What the histories must have come to, or they show less than they seem to.
MUST_BE_SEEN = {
    "create Created",
    "create SESSION_EXISTS",
    "create ALREADY_PAST_LIMIT",
    "create SUBJECT_CAP",
    "create REQUEST_ID_REUSED",
    "touch Touched COUNTED",
    "touch Touched IGNORED",
    "touch Touched STALE",
    "touch READ_ONLY_SESSION",
    "extend Extended  None",
    "extend Extended  ABSOLUTE",
    "extend EXTENSION_LIMIT",
    "extend REQUEST_ID_REUSED",
    "hold Held  None",
    "hold Held  MAX_TTL",
    "hold Held  BUDGET",
    "hold Held  ABSOLUTE",
    "hold HOLD_BUDGET",
    "hold HOLD_CAP",
    "hold HOLD_KIND",
    "hold PRESENCE_OFF",
    "rotate Rotated",
    "rotate SESSION_EXISTS",
    "rotate NEW_SESSION_ENDED",
    "rotate ALREADY_PAST_LIMIT",
}


def side_by_side(serve, policy_file: Path, seed: int) -> tuple[Counter[str], list[events.Event]]:
    """One history. Answers what its calls came to, and what happened."""
    process = serve("--dev", "--policy-file", str(policy_file), query="?verbs=use,issue,end,watch-all,admin")
    with Sidecar(process.tcp, deadline=PATIENT) as sidecar, SidecarAdmin(process.tcp, deadline=PATIENT) as desk:
        both = Both(sidecar, desk, policy_file, seed)
        watch, faked = sidecar.watch(everything=True), both.fake.watch(everything=True)
        heard: list[events.Event] = []
        reader = threading.Thread(target=lambda: heard.extend(watch), daemon=True)
        reader.start()
        told = faked.told()
        eventually(lambda: heard, "the watch stands")
        for number in range(CALLS):
            if number % 12 == 0:
                both.turn()
            both.call()
        both.wait(30)
        told += faked.told()
        eventually(lambda: len(heard) >= len(told), "all events have come", patience=5)
        watch.close()
        reader.join()
    real, fake = by_session(both, heard), by_session(both, told)
    assert real.keys() == fake.keys()
    for session, happened in real.items():
        problem = difference(happened, fake[session])
        assert problem is None, f"{session} {problem}\nprogram: {happened}\nfake:    {fake[session]}"
    return both.seen, told


def test_the_fake_says_what_the_program_says(serve, tmp_path):
    policy_file = tmp_path / "policy.toml"
    policy_file.write_text(POLICIES)
    seen: Counter[str] = Counter()
    reasons, causes = set(), set()
    for seed in SEEDS:
        came_to, told = side_by_side(serve, policy_file, seed)
        seen += came_to
        reasons |= {event.end.reason for event in told if isinstance(event, events.Ended)}
        causes |= {event.cause for event in told if isinstance(event, events.Cleared)}
    assert seen.keys() >= MUST_BE_SEEN, MUST_BE_SEEN - seen.keys()
    assert reasons == set(EndReason) - {EndReason.OTHER}
    # A policy does not change here, and where a release moves an idle deadline to there is no window.
    assert causes == set(ClearedCause) - {ClearedCause.OTHER, ClearedCause.POLICY_CHANGED, ClearedCause.RELEASED}
