#!/usr/bin/env python3
"""`./dev chaos`: hurts a store and its sidecars while people use them, and judges what everybody was told. See README.md."""

import argparse
import asyncio
import collections
import json
import multiprocessing
import os
import random
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos import history as past
from chaos.faults import ALONE, FAULTS, World
from chaos.fleet import FORMATS, Build, Sidecar
from chaos.judge import RULES, Verdict, judged
from chaos.lives import HEALING
from chaos.machine import Machine
from chaos.policies import LONGEST_LIFE, POLICIES, toml
from chaos.proxy import Proxy
from chaos.servers import STORES
from chaos.story import story
from support import DEFAULT_BINARY, REPOSITORY
from support.process import PATIENCE

HERE = Path(__file__).resolve().parent
# One history is judged at a time: a long run is a row of these.
ROUND = 180.0  # seconds
# How long people go on after the last fault: until all must be healed, and a while longer to see it.
CALM = HEALING + 6.0
# How long the watches stay after the stop: the work that people have begun goes on for some seconds; then until every session must be over, and told.
AFTER = LONGEST_LIFE + 9.0
# A fault begins about this often, in seconds, and so many are on at most.
EVERY = 1.0
AT_ONCE = 2
STORIES = 3  # of each rule
# People stay so much longer at most, where the machine brings a fault into the calm.
LONGEST_CALM = 30.0
# For so long after a replica has taken over not all sentinels and sidecars have heard of it.
SWITCH = 3.0


class Client:
    """A process of people or of watchers."""

    def __init__(self, part: str, home: Path, plan: dict) -> None:
        self.part = part
        self.out = home / f"{part}.jsonl"
        self._plan = home / f"{part}.json"
        self._plan.write_text(json.dumps(plan | {"out": str(self.out)}))
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it; it is ready when this returns."""
        environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "chaos.clients", self.part, str(self._plan)]
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
        await self.hear("ready")

    async def hear(self, word: str) -> None:
        """Waits for its word."""
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line.decode().strip() == word, f"the {self.part} said {line!r} instead of {word}"

    async def order(self, order: dict, answer: str = "") -> None:
        """Tells it what to do."""
        async with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            if answer:
                await self.hear(answer)

    async def close(self) -> None:
        """Lets it write its last lines and end."""
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), PATIENCE) == 0, f"the {self.part} failed"

    def kill(self) -> None:
        """Ends it, whatever it does."""
        if self._process and self._process.returncode is None:
            self._process.kill()


class Run:
    """The store and the sidecars of all rounds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        self.home: Path = options.home
        self.name = secrets.token_hex(4)
        self.crashes: list[str] = []
        self.store = None
        binaries = [options.binary, *([options.beside] if options.beside else [])]
        self.builds = [Build(letter, binary) for letter, binary in zip("AB", binaries, strict=False)]
        self.proxies: list[Proxy] = []
        self.sidecars: list[Sidecar] = []

    async def start(self) -> None:
        """Starts the store, then the sidecars."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        (self.home / "policy.toml").write_text(toml())
        (self.home / "key").write_bytes(secrets.token_bytes(32))
        (self.home / "key").chmod(0o600)
        arguments = ["--policy-file", str(self.home / "policy.toml")]
        if self.options.mode == "memory":
            arguments += ["--key-file", str(self.home / "key")]
        else:
            arguments += ["--store-key-file", str(self.home / "key")]
            self.store = await asyncio.to_thread(STORES[self.options.mode], self.home, self.options.engine)
        # Another build may not know the newer one, which nobody writes then.
        formats = [] if self.options.beside or not self.store else FORMATS
        for number in range(self.options.sidecars):
            own = []
            if self.options.mode == "mixed":
                self.proxies.append(await Proxy(self.store.servers[0].port).start())
                own = ["--store", self.store.url(self.proxies[-1].port)]
            elif self.store:
                own = ["--store", self.store.url()]
            # Its own draws: those of the faults are the same with one build and with two.
            rng = random.Random(self.options.seed + number)
            self.sidecars.append(Sidecar(number, self.builds, self.home, arguments + own + self.options.argument, formats, rng))
            self.sidecars[-1].start()
        for sidecar in self.sidecars:
            await asyncio.to_thread(sidecar.wait_until_ready)

    async def round(self, number: int, seconds: float) -> Path:
        """One round: people, faults, calm. Answers where its histories are."""
        home = self.home / f"round-{number}"
        home.mkdir()
        plan = {"targets": [sidecar.target for sidecar in self.sidecars], "run": f"{self.name}{number}", "visits": self.options.visits}
        plan["seed"] = self.rng.getrandbits(32)
        clients = {part: Client(part, home, plan) for part in ("watchers", "people")}

        async def order(part: str, what: dict) -> None:
            await clients[part].order(what, "burst" if what["do"] == "burst" else "")

        self.world = World(self.store, self.sidecars, self.proxies, order, self.rng)
        began = time.monotonic()
        with (home / "director.jsonl").open("w") as file:
            record = past.Recorder(file)
            machine = Machine(record, home / "disk", self._processes)
            try:
                for client in clients.values():
                    await client.start()
                with machine:
                    await asyncio.sleep(6)
                    await self._break(time.monotonic() + max(seconds - 6 - CALM - AFTER, 5), record)
                    record(past.Mark("calm", time.monotonic()))
                    longest = time.monotonic() + LONGEST_CALM
                    await self._calm(CALM)
                    while (left := min(machine.last + CALM, longest) - time.monotonic()) > 0:
                        await self._calm(left)
                    await clients["people"].order({"do": "stop"}, "stop")
                    record(past.Mark("stopped", time.monotonic()))
                    await self._calm(AFTER)
                    record(past.Mark("closed", time.monotonic()))
                for client in clients.values():
                    await client.close()
                self._note_takeovers(began, record)
            finally:
                for client in clients.values():
                    client.kill()
        return home

    def _processes(self) -> dict[str, int]:
        """All that run now, by name."""
        named = {f"sidecar {sidecar.number}": sidecar.process for sidecar in self.sidecars}
        named |= {f"server {server.port}": server.process for server in (self.store.servers if self.store else [])}
        return {name: process.pid for name, process in named.items()}

    def _note_takeovers(self, since: float, record: past.Recorder) -> None:
        """A failover is a fault also where nobody drew one: a pause of the primary, or of what the sentinels ask it through, brings it about."""
        for server in self.store.servers if self.store else []:
            for at in server.promotions():
                if at >= since:
                    record(past.Fault("takeover", f"{server.port} became a primary", at, at + SWITCH, epoch=True, rollback=True))

    async def _calm(self, seconds: float) -> None:
        """Waits, and sees whether everything still runs."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._look_for_crashes()
            await asyncio.sleep(min(left, 0.5))

    def _look_for_crashes(self) -> None:
        for sidecar in self.sidecars:
            if not sidecar.alive() and not self.world.lock(sidecar).locked():
                self.crashes.append(f"sidecar {sidecar.number} ended by itself with {sidecar.process.returncode}: {_tail(sidecar.log)}")
                sidecar.start()

    async def _break(self, until: float, record: past.Recorder) -> None:
        """One fault after the other, some at the same time, all mended at the end."""
        faults = {name: fault for name, fault in FAULTS[self.options.mode].items() if not self.options.faults or name in self.options.faults}
        running: set[asyncio.Task] = set()
        while faults and time.monotonic() < until:
            name = self.rng.choice(list(faults))
            if name in ALONE and running:
                await asyncio.wait(running)
            task = asyncio.create_task(self._one(name, faults[name], record))
            running.add(task)
            if name in ALONE:
                await asyncio.wait(running)
            await asyncio.sleep(self.rng.uniform(0.2, 2 * EVERY - 0.2))
            if len(running) >= AT_ONCE:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            done = {task for task in running if task.done()}
            running -= done
            for task in done:
                task.result()
            if name in ALONE:
                # Replicas follow the new primary before the next one is chosen.
                await asyncio.sleep(3)
            self._look_for_crashes()
        for task in running:
            await task

    async def _one(self, name: str, fault, record: past.Recorder) -> None:
        try:
            happened = await fault(self.world)
        except AssertionError as problem:  # something did not come back
            self.crashes.append(f"{name}: {problem}")
            return
        if happened is None:
            return
        record(happened)
        if self.options.verbose:
            print(f"  {name} {happened.what} ({happened.ended - happened.began:.1f} s)", flush=True)

    def secrets_told(self) -> list[str]:
        """Logs and metrics of the sidecars and files of the store in which a session's id can be read."""
        own_ids = re.compile(rf"chaos-{self.name}\d+-\d+-\d+-id".encode())
        files = [sidecar.log for sidecar in self.sidecars] + [
            path for engine in ("redis", "valkey") for path in self.home.glob(f"{engine}-*/**/*") if path.is_file()
        ]
        told = [str(path) for path in files if own_ids.search(path.read_bytes())]
        pages = {sidecar.number: sidecar.get("/metrics") or "" for sidecar in self.sidecars}
        return told + [f"metrics of sidecar {number}" for number, page in pages.items() if own_ids.search(page.encode())]

    def panics(self) -> list[str]:
        """Sidecars that panicked."""
        return [f"sidecar {sidecar.number} panicked" for sidecar in self.sidecars if "panicked" in sidecar.log.read_text(errors="replace")]

    async def close(self) -> None:
        """Ends all processes."""
        for sidecar in self.sidecars:
            if sidecar.alive():
                sidecar.kill()
        for proxy in self.proxies:
            await proxy.close()
        if self.store:
            self.store.close()


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-5:])


def unit_checks() -> tuple[int, int]:
    """The judge's and the proxy's own tests: how many passed, how many failed."""
    tests = [str(HERE / name) for name in ("judge_test.py", "proxy_test.py")]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], capture_output=True, text=True, check=False)
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    if done.returncode:
        print(done.stdout, done.stderr)
    return found.get("passed", 0), found.get("failed", 0) + found.get("error", 0) + (done.returncode != 0 and not found)


def report(number: int, round_home: Path) -> tuple[Verdict, collections.Counter]:
    """Judges the histories of one round: prints what it was, and the stories of what went wrong. Answers the verdict, and how much there was."""
    verdict = judged(past.read(POLICIES, sorted(round_home.glob("*.jsonl"))))
    history = verdict.lives.history
    faults = collections.Counter(fault.kind for fault in history.faults)
    ends = collections.Counter(life.first_end().reason for life in verdict.lives.of.values() if life.ends)
    codes = collections.Counter(call.code for call in history.calls)
    scopes = collections.Counter(call.scope for call in history.calls if call.scope)
    moved = collections.Counter(message.kind for message in history.messages if message.kind in ("open", "resumed", "lost", "expired", "refused", "away"))
    print(f"\nround {number}: {len(verdict.lives.of)} sessions, {len(history.calls)} calls, {len(history.messages)} messages, {len(history.faults)} faults")
    for name, counted in (("faults", faults), ("ends", ends), ("answers", codes), ("scopes", scopes), ("watches", moved)):
        print(f"  {name:8} {', '.join(f'{key} {count}' for key, count in counted.most_common())}")
    for rule in RULES:
        for breach in verdict.of(rule)[:STORIES]:
            print(f"\n{story(verdict, breach)}")
    sys.stdout.flush()
    drawn = sum(faults.values()) - sum(faults[kind] for kind in past.UNDRAWN)
    much = {"sessions": len(verdict.lives.of), "calls": len(history.calls), "messages": len(history.messages), "faults": drawn}
    verdict.lives = None  # an hour's histories would not fit
    return verdict, collections.Counter(much | {kind: faults[kind] for kind in past.UNDRAWN})


def judge_again(home: Path) -> int:
    """Judges the histories of an earlier run, all of it or one round. Answers the exit code."""
    rounds = [home] if (home / "director.jsonl").exists() else sorted(home.glob("round-*"), key=lambda path: int(path.name.partition("-")[2]))
    verdicts, much = [], collections.Counter()
    for number, round_home in enumerate(rounds):
        verdict, more = report(number, round_home)
        verdicts.append(verdict)
        much += more
    failed = table(verdicts, {}, much)
    print(f"{len(RULES) - failed} passed, {failed} failed")
    return int(failed > 0)


def table(verdicts: list[Verdict], others: dict[str, tuple[str, list[str]]], much: collections.Counter) -> int:
    """The rules, how much each looked at and what it found. Answers how many failed."""
    print(f"\nin all {len(verdicts)} rounds: {', '.join(f'{count} {what}' for what, count in much.items())}")
    print(f"\n{'rule':12} {'looked at':>10} {'breaches':>9}  promise")
    failed = 0
    for rule in RULES:
        looked_at = sum(verdict.looked_at[rule] for verdict in verdicts)
        breaches = sum(len(verdict.of(rule)) for verdict in verdicts)
        failed += breaches > 0
        print(f"{rule:12} {looked_at:10} {breaches:9}  {verdicts[0].told[rule] if verdicts else ''}")
    for rule, (promise, found) in others.items():
        failed += bool(found)
        print(f"{rule:12} {'':10} {len(found):9}  {promise}")
        for line in found[:STORIES]:
            print(f"    {line}")
    return failed


async def play(options: argparse.Namespace) -> int:
    """The whole run. Answers the exit code."""
    passed, failed = unit_checks()
    print(f"chaos: mode {options.mode}, seed {options.seed}, {options.seconds:g} s; unit checks: {passed} passed, {failed} failed", flush=True)
    run = Run(options)
    for build in run.builds:
        print(f"  build {build.letter}: {build.name}", flush=True)
    verdicts, much = [], collections.Counter()
    try:
        await run.start()
        rounds = max(1, round(options.seconds / ROUND))
        # In a process of its own: here are the proxies, which must go on meanwhile.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as judge:
            for number in range(rounds):
                home = await run.round(number, options.seconds / rounds)
                verdict, more = await asyncio.get_running_loop().run_in_executor(judge, report, number, home)
                verdicts.append(verdict)
                much += more
        others = {
            "crash": ("no sidecar ends by itself or panics", run.crashes + run.panics()),
            "secret": ("no session id is in a log, a metric or the store", run.secrets_told()),
        }
        broken = table(verdicts, others, much)
    finally:
        await run.close()
    failed += broken
    passed += len(RULES) + len(others) - broken
    if much["starved"]:
        print(f"\nThe machine was too busy {much['starved']} times: what happened then is excused. Run it alone to see more.")
    if failed:
        print(f"\nhistories and logs: {options.home}\nagain: ./dev chaos {shlex.join(sys.argv[1:])} --seed {options.seed}")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=150, help="how long, at least 45; default 150")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31), help="draws faults and visits; times differ all the same")
    parser.add_argument("--mode", choices=sorted(FAULTS), default="mixed", help="memory: one sidecar without a store")
    parser.add_argument("--faults", type=lambda text: text.split(","), default=[], help="only these, separated by commas; none: `none`")
    parser.add_argument("--engine", choices=["redis", "valkey"], default="redis")
    parser.add_argument("--sidecars", type=int, help="how many; default 3")
    parser.add_argument("--visits", type=int, default=1200, help="how many people there are at once; default 1200")
    parser.add_argument("--binary", type=Path, default=DEFAULT_BINARY, help="the session-sidecar to test")
    parser.add_argument("--beside", type=Path, help="another build: the sidecars take turns, and a restart may bring another one")
    parser.add_argument("--argument", action="append", default=[], help="a further argument of every sidecar, repeatable: --argument=--store-outage=fail-closed")
    parser.add_argument("--home", type=Path, default=REPOSITORY / "target/chaos", help="where histories and logs go; it is emptied first")
    parser.add_argument("--judge", type=Path, metavar="HOME", help="run nothing: judge the histories of an earlier run, or of one of its rounds, again")
    parser.add_argument("--verbose", action="store_true", help="print each fault as it is over")
    options = parser.parse_args()
    if options.judge:
        return judge_again(options.judge)
    options.sidecars = options.sidecars or (1 if options.mode == "memory" else 3)
    unknown = set(options.faults) - set(FAULTS[options.mode]) - {"none"}
    if unknown:
        parser.error(f"mode {options.mode} has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(FAULTS[options.mode]))}")
    # What a run has started ends with it, also if somebody ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return asyncio.run(play(options))


if __name__ == "__main__":
    sys.exit(main())
