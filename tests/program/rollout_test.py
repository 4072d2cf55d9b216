"""A rolling update with a shared store, as Kubernetes makes one: the new sidecar is ready, the old one leaves the Service's list of endpoints,
and then gets SIGTERM. The people, the watches and the judge are those of `./dev chaos`. Nothing is broken here, so that the judge excuses
nothing, unless the machine is so busy that sidecars give up calls to the store."""

import asyncio
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import grpc.aio
import pytest
from chaos.chains import chains
from chaos.clients import People, Plan
from chaos.fleet import VERBS
from chaos.history import Call, Fault, History, Message, Policy
from chaos.judge import judged
from chaos.lives import Lives
from chaos.machine import Machine
from chaos.policies import POLICIES, toml
from chaos.servers import Server
from chaos.story import story
from chaos.visits import Visit
from chaos.watching import Watch
from chaos.wire import OPTIONS

from support.api import Client, _services, v1
from support.process import PATIENCE, Sidecar, eventually

REPLICAS = 2
AT_ONCE = 30
# Sessions that end before each step of the rollout, and after the last.
ENDS = 12
DRAIN = 20  # seconds
# The sessions whose calls are under way when a sidecar is told to stop outlive the drill, also on a busy machine.
PATIENT = Policy(idle=600.0, absolute=3600.0, leads=[60.0])
PATIENTS = 10_000  # the least of their numbers
EVENTS = ("warning", "cleared", "ended")

Row = list[tuple[str, str, float, int, str]]


@pytest.fixture
def store(directory: Path) -> Iterator[Server]:
    """A Redis."""
    server = Server(directory, durable=False)
    yield server
    server.close()


class Endpoint:
    """A sidecar as the Service's clients have it. It knows which calls it has not answered, and which watches do not stand yet."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar
        self.channel = grpc.aio.insecure_channel(sidecar.tcp, list(OPTIONS.items()))
        self.stub = _services.SessionServiceStub(self.channel)
        self._unanswered: set[asyncio.Task] = set()

    def __getattr__(self, verb: str) -> Callable:
        return partial(self._call, verb)

    def _call(self, verb: str, request, **options):
        call = getattr(self.stub, verb)(request, **options)
        headers = asyncio.ensure_future(call.initial_metadata())
        self._unanswered.add(headers)
        headers.add_done_callback(self._unanswered.discard)
        return call

    async def answers(self) -> None:
        """Waits for its answers to all who found it in the list: what `preStop` is for."""
        await asyncio.gather(*self._unanswered, return_exceptions=True)


class Unhurried:
    """An endpoint whose calls are under way until they are told to end: the last bit of the request is missing."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.end = asyncio.Event()
        self.under_way = 0
        self._endpoint = endpoint

    def __getattr__(self, verb: str) -> Callable:
        return partial(self._call, verb)

    async def _call(self, verb: str, request, **options):
        path, answer = f"/sessionsidecar.v1.SessionService/{verb}", getattr(v1, f"{verb}Response")
        call = self._endpoint.channel.stream_unary(path, type(request).SerializeToString, answer.FromString)(**options)
        await call.write(request)
        # It has got what came before this by the same connection.
        await self._endpoint.stub.Check(v1.CheckRequest(session_id="an-id-of-at-least-16-bytes"))
        self.under_way += 1
        await self.end.wait()
        await call.done_writing()
        return await call


class TenantWatch(Watch):
    """A watch of one tenant."""

    def _scope(self) -> v1.WatchScope:
        return v1.WatchScope(whole_tenant=True)


class ForgetfulWatch(Watch):
    """A watch that keeps no tokens: each stream begins with the initial state."""

    def _broke(self, code: str) -> None:
        was_complete = self._complete
        super()._broke(code)
        if was_complete:
            self._begin_anew()


class LateWatch(Watch):
    """A watch of everything that comes with a token of another's."""

    def __init__(self, name: str, sidecars: list, token: str, rng: random.Random, record: Callable) -> None:
        super().__init__(name, sidecars, 0, rng, record)
        self._token = token
        self._complete = True


class Drill:
    """One rolling update, and what everybody saw of it."""

    def __init__(self, start: Callable[[], Sidecar]) -> None:
        self.history = History(POLICIES)
        self.failures: list[dict] = []
        self.running: list[Sidecar] = []
        self._start = start
        self._run = secrets.token_hex(4)
        self._rng = random.Random(7)
        self._people = People(Plan("", [], self._run, 7, AT_ONCE), self._record)
        # What the clients choose from.
        self._service: list[Endpoint] = self._people.sidecars
        self._replaced: list[float] = []  # when, by place
        self._watches: dict[Watch, asyncio.Task] = {}
        self._streams: dict[str, int] = {}  # at which sidecar each watch has its stream
        self._patients: list[tuple[Visit, list, int]] = []

    def _record(self, record: Call | Message | Fault, place: int | None = None) -> None:
        """Notes what a client saw. It says at which place of the list; the history says of which sidecar, by number."""
        if isinstance(record, Call):
            record.sidecar = self._number(record.sidecar if place is None else place, record.sent)
        elif isinstance(record, Message):
            if record.kind in ("open", "resumed"):
                self._streams[record.watch] = self._number(record.sidecar, record.at)
            record.sidecar = self._streams[record.watch]
        self.history.add(record)

    def _number(self, place: int, at: float) -> int:
        return place + REPLICAS * (len(self._replaced) > place and at >= self._replaced[place])

    async def run(self, store: Server) -> None:
        """All of it."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.failures.append(context))
        for _ in range(REPLICAS):
            self._service.append(await self._started())
        with Client(self._service[0].sidecar.tcp) as client:
            first_token = next(client.watch(scope=v1.WatchScope(everything=True))).resume_token
        try:
            # The store writes no file, so the disk may be busy.
            with Machine(self._record, None, lambda: {"the store": store.process.pid} | {each.tcp: each.process.pid for each in self.running}):
                await self._update(first_token)
        finally:
            for watch in self._watches:
                watch.close()
        await asyncio.gather(*self._watches.values())

    async def _update(self, first_token: str) -> None:
        for place in range(REPLICAS):
            for kind, name in ((Watch, "all"), (TenantWatch, "tenant"), (ForgetfulWatch, "forgetful")):
                self._watch(kind(f"{name}-{place}", self._service, place, self._rng, self._record))
        await self._until(lambda: len(self._told("snapshot_end")) == len(self._watches), "the watches stand")
        for _ in range(AT_ONCE):
            self._people.spawn(self._people.one_place(self._rng.uniform(0, 2)))
        for place in range(REPLICAS):
            await self._bustle()
            await self._replace(place)
        await self._bustle()
        self._watch(LateWatch("late", self._service, first_token, self._rng, self._record))
        await self._wind_up()

    async def _started(self) -> Endpoint:
        self.running.append(await asyncio.to_thread(self._start))
        return Endpoint(self.running[-1])

    def _watch(self, watch: Watch) -> None:
        self._watches[watch] = asyncio.create_task(watch.run())

    def _told(self, *kinds: str) -> list[Message]:
        return [message for message in self.history.messages if message.kind in kinds]

    async def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain: {what}"
            await asyncio.sleep(0.02)

    async def _bustle(self) -> None:
        """People come and go for a while."""
        before = len({message.ref for message in self._told("ended")})
        await self._until(lambda: len({message.ref for message in self._told("ended")}) >= before + ENDS, "sessions end")

    async def _replace(self, place: int) -> None:
        """One step: a new sidecar in the place of an old one."""
        old, number = self._service[place], place
        ids = {visit.name: visit.session_id for visit in self._people.visits.values() if visit.session_id and not visit.over}
        self._watch(Watch(f"ids-{place}", self._service, place, self._rng, self._record, ids))
        # From then on their tokens are good for more than the initial state.
        told = {watch.name for watch in self._watches}
        await self._until(lambda: {message.watch for message in self._told(*EVENTS)} >= told, "each watch is told of something")
        calls, unhurried = await self._calls_under_way(place)

        new = await self._started()
        self._service[place] = new
        self._replaced.append(time.monotonic())
        await old.answers()

        there = {watch for watch, at in self._streams.items() if at == number and self._last(watch).kind != "lost"}
        assert {name.partition("-")[0] for name in there} >= {"all", "tenant", "forgetful", "ids"}
        began = time.monotonic()
        old.sidecar.terminate()
        await asyncio.to_thread(eventually, lambda: old.sidecar.http("/readyz")[0] == 503, "it is not ready")
        await self._until(lambda: all(self._streams[watch] != number for watch in there), "they watch elsewhere")
        await asyncio.gather(*(endpoint.answers() for endpoint in self._service))
        assert {message.watch for message in self._told("draining") if message.sidecar == number} == there
        assert old.sidecar.process.poll() is None, "calls are under way"
        unhurried.end.set()
        await asyncio.gather(*calls)
        assert await asyncio.to_thread(old.sidecar.wait) == 0
        assert time.monotonic() - began < DRAIN and "they are dropped" not in old.sidecar.output()
        self.running.remove(old.sidecar)

    def _last(self, watch: str) -> Message:
        return next(message for message in reversed(self.history.messages) if message.watch == watch)

    async def _calls_under_way(self, place: int) -> tuple[list[asyncio.Task], Unhurried]:
        """Calls that the sidecar has begun and can't finish yet, one of each kind."""
        unhurried, tasks = Unhurried(self._service[place]), []
        for number, act in enumerate((Visit.touch, Visit.check, Visit.extend, Visit.rotate, Visit.end, Visit.create)):
            sidecars = [self._service[place]]
            visit = Visit(PATIENTS * (place + 1) + number, self._run, sidecars, self._rng, partial(self._record, place=place))
            visit.policy = "patient"
            assert act is Visit.create or await visit.create()
            sidecars[0] = unhurried
            tasks.append(asyncio.create_task(act(visit)))
            self._patients.append((visit, sidecars, place))
        await self._until(lambda: unhurried.under_way == len(tasks), "they are under way")
        return tasks, unhurried

    async def _wind_up(self) -> None:
        """Nobody comes any more; every session ends, and every watch is told."""
        self._people.stopping.set()
        await self._until(lambda: not self._people.visits, "people stop")
        for visit, sidecars, place in self._patients:
            sidecars[0] = self._service[place]
            if not visit.over:
                await visit.end()
        self.history.stopped = time.monotonic()
        born = {call.successor or call.ref for call in self.history.calls if call.verb in ("Create", "Rotate") and call.code == "OK"}
        whole = [watch for watch in self._watches if watch.name.partition("-")[0] in ("all", "tenant", "late")]
        await self._until(lambda: all(watch.ended >= born for watch in whole), "all ends are told")
        await self._until(lambda: not judged(self.history.sort()).of("missing"), "all ends are told to all who watch")
        self.history.calm = self.history.closed = time.monotonic()

    def rows(self) -> dict[tuple[str, int], dict[str, Row]]:
        """What each chain was told of each session, in order."""
        rows: dict[tuple[str, int], dict[str, Row]] = defaultdict(lambda: defaultdict(list))
        for message in self._told(*EVENTS):
            event = (message.kind, message.limit, message.point, message.version, message.end_reason)
            rows[message.watch, message.chain][message.ref].append(event)
        return rows


@pytest.fixture
def drill(serve, directory, store, monkeypatch) -> Drill:
    """A rolling update with a shared store, before it begins."""
    monkeypatch.setattr("chaos.wire.PATIENCE", PATIENCE)
    monkeypatch.setitem(POLICIES, "patient", PATIENT)
    policy, key = directory / "policy.toml", directory / "key"
    policy.write_text(toml())
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(32))
    arguments = ["--store", f"redis://127.0.0.1:{store.port}", "--store-key-file", str(key), "--policy-file", str(policy)]
    return Drill(partial(serve, *arguments, "--drain-timeout", f"{DRAIN}s", query=f"?verbs={VERBS}"))


def test_a_rolling_update_with_a_shared_store_loses_nothing(drill, store):
    asyncio.run(drill.run(store))
    history = drill.history.sort()
    verdict = judged(history)
    assert not drill.failures
    assert {message.end_reason for message in history.messages} >= {"IDLE_TIMEOUT", "ROTATED"}
    assert not verdict.breaches, "\n\n".join(story(verdict, breach) for breach in verdict.breaches)
    unserved = [call for call in history.calls if call.code != "OK" and not call.reason]
    assert not unserved, "the list had a sidecar that did not serve"
    assert {call.code for call in history.calls if int(call.name.partition(".")[0]) >= PATIENTS} == {"OK"}, "calls under way are finished"
    # Resumed at another sidecar, and never begun anew.
    opened = Counter(message.watch for message in history.messages if message.kind == "open")
    resumed = Counter(message.watch for message in history.messages if message.kind == "resumed")
    for watch, number in Counter(message.watch for message in history.messages if message.kind == "draining").items():
        forgets = watch.startswith("forgetful")
        assert (opened[watch], resumed[watch]) == ((number + 1, 0) if forgets else (1, number)), watch
    told_alike(drill, verdict.lives)
    initial_states_are_whole(history, verdict.lives)
    warned_at_each_point(drill, verdict.lives)


def told_alike(drill: Drill, lives: Lives) -> None:
    """Every chain is told the same as the log, read to the end by a token from before all, but for what its initial state told already."""
    rows = drill.rows()
    log = rows["late", 0]
    for chain in chains(drill.history, lives):
        told = rows[chain.watch, chain.number]
        for ref in {*told, *chain.snapshots}:
            born = lives.of[ref].born
            owed = log[ref]
            if ref in chain.snapshots:
                owed = [event for event in owed if event[3] > chain.snapshots[ref].version]
            elif born and born.got < chain.opened:
                # Its deadline had passed, and its end was about to be told.
                owed = owed[-1:]
            assert told[ref] == (owed if chain.last else owed[: len(told[ref])]), f"{chain.name}, {ref}"


def initial_states_are_whole(history: History, lives: Lives) -> None:
    """Who is found alive when an initial state is complete is in it, or has been told of since."""
    looked_at = 0
    for chain in chains(history, lives):
        if not chain.everything or chain.complete == float("inf"):
            continue
        for life in lives.of.values():
            if life.born and life.born.got < chain.opened and any(call.live and call.acknowledged and call.ref == life.ref and call.sent > chain.complete for call in life.calls):
                looked_at += 1
                assert chain.knows(life.ref), f"{chain.name} knows nothing of {life.name}"
    assert looked_at


def warned_at_each_point(drill: Drill, lives: Lives) -> None:
    """Who ended by inactivity was warned at each point before."""
    looked_at = 0
    for ref, row in drill.rows()["late", 0].items():
        points = set()
        for kind, limit, point, _, reason in row:
            if limit == "IDLE":
                points = points | {point} if kind == "warning" else set()
            if reason == "IDLE_TIMEOUT":
                looked_at += 1
                assert points == set(lives.of[ref].policy.leads), row
    assert looked_at
