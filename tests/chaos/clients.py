"""The processes of a run's clients: `python -m chaos.clients people|watchers PLAN`. Orders come as lines of JSON on standard input."""

import asyncio
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from .history import Recorder
from .visits import Visit
from .watching import Watch
from .wire import stubs

# Ids of one watch by id.
GROUP = 24
# Every so many visits are watched by id.
WATCHED = 8


@dataclass
class Plan:
    """What a client process is to do."""

    out: str
    targets: list[str]
    run: str
    seed: int
    visits: int  # how many at once


class Orders:
    """Lines from standard input. When it ends, so does the process."""

    async def start(self) -> "Orders":
        self._reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin)
        return self

    async def next(self) -> dict:
        """The next order; `close` when there are no more."""
        line = await self._reader.readline()
        return json.loads(line) if line else {"do": "close"}


def say(word: str) -> None:
    """Tells the director that an order is carried out."""
    print(word, flush=True)


class People:
    """All visits, and the watches of some of them."""

    def __init__(self, plan: Plan, record: Recorder) -> None:
        self.plan = plan
        self.record = record
        self.rng = random.Random(plan.seed)
        self.sidecars = stubs(plan.targets)
        self.stopping = asyncio.Event()
        self.visits: dict[int, Visit] = {}
        self.watches: list[tuple[Watch, asyncio.Task]] = []
        self._group: dict[str, str] = {}
        self._count = 0
        self._tasks: set[asyncio.Task] = set()

    def visit(self) -> Visit:
        """The next visit."""
        self._count += 1
        visit = Visit(self._count, self.plan.run, self.sidecars, random.Random(self.rng.random()), self.record)
        self.visits[visit.number] = visit
        return visit

    def spawn(self, work) -> None:
        """Runs something beside the rest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()

    async def one_place(self, wait: float) -> None:
        """One visit after another, until the run stops."""
        await asyncio.sleep(wait)
        while not self.stopping.is_set():
            await self.whole(self.visit())

    async def whole(self, visit: Visit, sidecar: int | None = None) -> None:
        """One visit."""
        async with visit.lock:
            created = await visit.create(sidecar)
        if created:
            if visit.number % WATCHED == 0:
                self.watch(visit)
            await visit.run(self.stopping)
        else:
            await asyncio.sleep(0.2)
        self.visits.pop(visit.number, None)

    def watch(self, visit: Visit) -> None:
        """Puts its id into a group; a full group is watched."""
        self._group[visit.name] = visit.session_id
        if len(self._group) >= GROUP:
            rng = random.Random(self.rng.random())
            watch = Watch(f"ids-{len(self.watches)}", self.sidecars, rng.randrange(len(self.sidecars)), rng, self.record, self._group)
            self.watches.append((watch, asyncio.create_task(watch.run())))
            self._group = {}

    async def burst(self, sidecar: int, count: int) -> None:
        """Many Creates and Rotates to one sidecar at once: it is about to be killed between the steps of some of them."""
        idle = [visit for visit in self.visits.values() if visit.session_id and not visit.over and not visit.lock.locked()]
        for visit in self.rng.sample(idle, min(count, len(idle))):
            self.spawn(self._rotate(visit, sidecar))
        for _ in range(count):
            self.spawn(self.whole(self.visit(), sidecar))
        await asyncio.sleep(0)
        say("burst")

    async def _rotate(self, visit: Visit, sidecar: int) -> None:
        async with visit.lock:
            await visit.rotate(sidecar, authenticated=self.rng.random() < 0.2)

    async def run(self) -> None:
        """Carries out orders until `close`."""
        orders = await Orders().start()
        for _ in range(self.plan.visits):
            self.spawn(self.one_place(self.rng.uniform(0, 6)))
        say("ready")
        while (order := await orders.next())["do"] != "close":
            match order["do"]:
                case "burst":
                    await self.burst(order["sidecar"], order["count"])
                case "stop":
                    self.stopping.set()
                    say("stop")
        for watch, _ in self.watches:
            watch.close()
        await asyncio.gather(*[task for _, task in self.watches], return_exceptions=True)


async def watchers(plan: Plan, record: Recorder) -> None:
    """A watch of everything for each sidecar, begun there."""
    orders = await Orders().start()
    rng = random.Random(plan.seed + 1)
    sidecars = stubs(plan.targets)
    watches = [Watch(f"all-{i}", sidecars, i, random.Random(rng.random()), record) for i in range(len(sidecars))]
    tasks = [asyncio.create_task(watch.run()) for watch in watches]
    say("ready")
    while (order := await orders.next())["do"] != "close":
        watches[order["watch"]].go_away(order["seconds"])
    for watch in watches:
        watch.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def main() -> None:
    """Plays one of the two parts."""
    plan = Plan(**json.loads(Path(sys.argv[2]).read_text()))
    with Path(plan.out).open("w") as file:
        record = Recorder(file)
        await (People(plan, record).run() if sys.argv[1] == "people" else watchers(plan, record))


if __name__ == "__main__":
    asyncio.run(main())
