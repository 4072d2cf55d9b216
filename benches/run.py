#!/usr/bin/env python3
"""Measures the sidecar against its floor (an empty handler of the same build) and its peer (Redis), alone and in a fleet that shares
a store, and prints a table.

    benches/run.py             all of it, medians of three interleaved rounds: about 20 minutes
    benches/run.py --quick     a look: one small round, about two minutes
    benches/run.py --only T7   some of it (comma-separated)

Only ratios of interleaved runs say anything on a machine that is shared. Everything runs on loopback and is bounded in
count and time.
"""

import argparse
import contextlib
import datetime
import http.client
import json
import os
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
TOUCH = "/sessionsidecar.v1.SessionService/Touch"
HOT_ID = "bench-session-hot-000000"
POLICY = """
[policy.default]
idle_timeout = "1h"
warn_before = ["{lead}s"]
"""
DOOR = """
[door]
cookies = ["sessionid"]
login_url = "/login.html"
"""
ENVOY = ROOT / ".tools/venv/bin/envoy"


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, timeout=900, **options):
    """Runs a command to its end and answers its standard output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def install_peers():
    programs = {"h2load": "nghttp2-client", "redis-server": "redis-server", "redis-benchmark": "redis-tools"}
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    if missing:
        say(f"installing {' '.join(missing)}")
        run(["apt-get", "update"])
        run(["apt-get", "install", "-y", "--no-install-recommends", *missing])


def build():
    """Builds the program and the tools, and answers both paths."""
    say("building")
    programs = {}
    # The program last: cargo bench leaves one in its place that has the features of dev-dependencies.
    for what in (["bench", "--bench", "bench", "--no-run"], ["build", "--release", "--bin", "session-sidecar"]):
        for line in run(["cargo", *what, "--message-format=json"], timeout=3600, cwd=ROOT).splitlines():
            message = json.loads(line)
            if message.get("executable"):
                programs[message["target"]["kind"][0]] = message["executable"]
    return programs["bin"], programs["bench"]


# What the kernel says about processes.


def cpu_seconds(pid, thread=None):
    """Processor time of a process, or of its threads of one name."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if thread is None or (task / "comm").read_text().strip() == thread:
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    def __init__(self, args, program, tools, folder):
        self.args, self.program, self.tools, self.folder = args, program, tools, Path(folder)
        self.rows, self.raw = [], {}
        quick = args.quick
        self.rounds = args.rounds or (1 if quick else 3)
        self.seconds = 1 if quick else 4
        self.million = 100_000 if quick else 1_000_000

    # Processes.

    def tool(self, *arguments, timeout=900):
        return json.loads(run([self.tools, *arguments], timeout=timeout))

    @contextlib.contextmanager
    def process(self, command, **options):
        process = subprocess.Popen([str(part) for part in command], **options)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def sidecar(self, lead=120, *more, policy=POLICY):
        """The real program."""
        port, admin = free_port(), free_port()
        file = self.folder / f"policy-{port}.toml"
        file.write_text(policy.format(lead=lead))
        unix = self.folder / f"sidecar-{port}.sock"
        command = [self.program, "serve", "--listen", f"tcp://127.0.0.1:{port}", "--listen", f"unix://{unix}"]
        command += ["--admin-listen", f"127.0.0.1:{admin}", "--policy-file", file, "--log", "warn"]
        command += ["--workers", WORKERS, "--max-sessions", 20_000_000, *more]
        with self.process(command) as process:
            wait_for(port)
            process.target, process.admin, process.unix = f"127.0.0.1:{port}", admin, f"unix:{unix}"
            yield process

    @contextlib.contextmanager
    def floor(self, answer):
        command = [self.tools, "floor", "--workers", WORKERS, "--answer", answer]
        with self.process(command, stdout=subprocess.PIPE, text=True) as process:
            process.target = json.loads(process.stdout.readline())["address"]
            yield process

    @contextlib.contextmanager
    def redis(self, *more):
        port = free_port()
        unix = self.folder / f"redis-{port}.sock"
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--unixsocket", unix, "--dir", self.folder]
        command += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *more]
        with self.process(command, stdout=subprocess.DEVNULL) as process:
            wait_for(port)
            process.port, process.unix = port, unix
            yield process

    def fill(self, server, sessions, *more):
        filled = self.tool("fill", "--target", server.target, "--sessions", sessions, *more)
        say(f"  filled {sessions} sessions at {filled['per_second']:.0f}/s")
        return filled

    def touch(self, server, ids, connections, streams, batch=1, target=None, more=()):
        arguments = ["touch", "--target", target or server.target, "--pid", server.pid, "--ids", ids]
        arguments += ["--connections", connections, "--streams", streams, "--batch", batch]
        return self.tool(*arguments, "--seconds", self.seconds, *more)

    def create_hot(self, server):
        command = [self.program, "create", "--target", f"http://{server.target}", "--id-file", "-"]
        run(command, input=HOT_ID)
        path = self.folder / "touch.bin"
        message = bytes([0x12, len(HOT_ID)]) + HOT_ID.encode()
        path.write_bytes(bytes([0]) + len(message).to_bytes(4, "big") + message)

    def h2load(self, server, connections, streams, seconds):
        return ["h2load", "-t", "1", "--warm-up-time=1", "-D", seconds, "-c", connections, "-m", streams, "-d",
                self.folder / "touch.bin", "-H", "content-type:application/grpc", "-H", "te:trailers",
                f"http://{server.target}{TOUCH}"]

    # The table.

    def wants(self, *targets):
        return not self.args.only or any(target in self.args.only for target in targets)

    def row(self, target, what, peer, ours, ratio, prototype, goal, met):
        verdict = "–" if met is None else "met" if met else "**missed**"
        self.rows.append((target, what, peer, ours, ratio, prototype, goal, verdict))
        say("  " + " | ".join(self.rows[-1]))

    def compare(self, runs):
        """Runs A B A B … and answers what each measured, a number a round."""
        results = [[] for _ in runs]
        for _ in range(self.rounds):
            for place, measure in enumerate(runs):
                results[place].append(measure())
        return results

    def unary(self):
        sizes = [10_000, self.million] if self.args.quick else [10_000, 100_000, 1_000_000]
        with contextlib.ExitStack() as stack:
            floor = stack.enter_context(self.floor("constant"))
            empty = stack.enter_context(self.floor("empty"))
            ours = {size: stack.enter_context(self.sidecar()) for size in sizes}
            for size, server in ours.items():
                self.fill(server, size)
            goals = {
                (100_000, 1): ("T1", "0.92", 0.92), (1_000_000, 1): ("T1", "0.86–0.94", 0.90),
                (10_000, 32): ("T2", "0.94", 0.94), (100_000, 32): ("T2", "0.89", 0.90),
                (1_000_000, 32): ("T2", "0.81–0.86", 0.85),
            }
            cpu_goals = {10_000: ("0.7–1.1 µs", 0.8), 1_000_000: ("1.2–2.2 µs", 1.6)}
            added = []
            for streams in (1, 32):
                for size in sizes:
                    if (streams, size) == (1, 10_000) and not self.args.quick:
                        continue
                    target, prototype, goal = goals.get((size, streams), ("T1" if streams == 1 else "T2", "–", None))
                    a, b = self.compare([
                        lambda: self.touch(floor, size, 10, streams),
                        lambda: self.touch(ours[size], size, 10, streams),
                    ])
                    rates = [[run["per_second"] for run in runs] for runs in (a, b)]
                    ratio = median_ratio(*rates)
                    what = f"unary Touch, 10 connections × {streams}, {size:,} random ids"
                    self.row(target, what, f"{median(rates[0]):,.0f}/s", f"{median(rates[1]):,.0f}/s", f"{ratio:.2f}",
                             prototype, f"≥ {goal:.2f}" if goal else "–", goal and ratio >= goal)
                    if streams == 32:
                        cpu = [[run["cpu_us"] for run in runs] for runs in (a, b)]
                        added.append((size, cpu))
            for size, cpu in added:
                prototype, goal = cpu_goals.get(size, ("–", None))
                more = statistics.median(y - x for x, y in zip(*cpu))
                self.row("T3", f"CPU of the server per touch, 10 × 32, {size:,} random ids", f"{median(cpu[0]):.2f} µs",
                         f"{median(cpu[1]):.2f} µs", f"+{more:.2f} µs", prototype, f"≤ {goal} µs" if goal else "–",
                         goal and more <= goal)
            size = sizes[-1]
            a, b = self.compare([
                lambda: self.touch(empty, size, 10, 32)["cpu_us"], lambda: self.touch(ours[size], size, 10, 32)["cpu_us"],
            ])
            more = statistics.median(y - x for x, y in zip(a, b))
            self.row("T3", f"the same, {size:,} ids, over a handler whose answer is an empty message",
                     f"{median(a):.2f} µs", f"{median(b):.2f} µs", f"+{more:.2f} µs", "–", "–", None)
            # The cache-hot case, by another load generator.
            self.create_hot(ours[sizes[0]])

            def hot(server):
                told = run(self.h2load(server, 10, 32, self.seconds))
                if " 0 failed, 0 errored" not in told:
                    sys.exit(f"h2load failed:\n{told}")
                return float(re.search(r"finished in .*?, ([\d.]+) req/s", told)[1])

            a, b = self.compare([lambda: hot(floor), lambda: hot(ours[sizes[0]])])
            self.row("T2", "the same, one fixed id (cache-hot), by h2load 10 × 32", f"{median(a):,.0f}/s",
                     f"{median(b):,.0f}/s", f"{median_ratio(a, b):.2f}", "–", "–", None)

    def authority(self):
        """What it costs that an invalid `:authority` is repaired: good clients with and without it, and those that need it."""
        size, strict = 10_000, f"127.0.0.1:{free_port()}"
        with self.sidecar(120, "--listen", f"tcp://{strict}?authority=strict") as server:
            self.fill(server, size)
            invalid = ("--authority", "%2Frun%2Fsession-sidecar%2Fapi.sock")
            off, good, bad = self.compare([
                lambda: self.touch(server, size, 10, 32, target=strict), lambda: self.touch(server, size, 10, 32),
                lambda: self.touch(server, size, 10, 32, more=invalid),
            ])
        for what, runs, goal in [("of good clients", good, 0.98), ("of clients that need the repair", bad, None)]:
            ratio = median_ratio(*([run["per_second"] for run in each] for each in (off, runs)))
            cpu = [median([run["cpu_us"] for run in each]) for each in (off, runs)]
            self.row("authority", f"unary Touch, 10 × 32, {size:,} ids, {what}, with the repair / `authority=strict`; CPU of the server per touch",
                     f"{median([run['per_second'] for run in off]):,.0f}/s; {cpu[0]:.2f} µs",
                     f"{median([run['per_second'] for run in runs]):,.0f}/s; {cpu[1]:.2f} µs", f"{ratio:.2f}", "–",
                     f"≥ {goal}" if goal else "–", goal and ratio >= goal)

    def redis_peer(self):
        keys = self.million
        count = 200_000 if self.args.quick else 1_500_000
        with self.redis() as redis, self.sidecar() as ours:
            self.fill(ours, keys)
            value = "012345678901234567890123"
            run(["redis-benchmark", "-p", redis.port, "-r", keys, "-n", 3 * keys, "-c", 50, "-P", 16, "-q", "SET",
                 "s:__rand_int__", value, "EX", 3600])

            def getex(count, *more, pipeline=1):
                told = run(["redis-benchmark", *more, "-r", keys, "-n", count, "-c", 50, "-P", pipeline, "-q", "GETEX",
                            "s:__rand_int__", "EX", 1800])
                return float(re.findall(r"([\d.]+) requests per second", told)[-1])

            def core(threads):
                return self.tool("core", "--sessions", keys, "--threads", threads, "--seconds", self.seconds)["per_second"]

            if self.wants("T4", "T5"):
                piped, batch, one, two = self.compare([
                    lambda: getex(count, "-p", redis.port, pipeline=16),
                    lambda: self.touch(ours, keys, 4, 4, batch=100)["per_second"],
                    lambda: core(1),
                    lambda: core(2),
                ])
                peer = f"{median(piped):,.0f}/s"
                for target, what, runs, prototype, goal in [
                    ("T4", f"BatchTouch of 100, {keys:,} random ids / Redis GETEX -c 50 -P 16", batch, "1.34", 2.0),
                    ("T5", f"core touch without gRPC, {keys:,} random ids, 1 thread / the same", one, "1.06 (huge pages 1.38)", 1.4),
                    ("T5", "the same, 2 threads", two, "2.0 (huge pages 2.48)", 2.5),
                ]:
                    ratio = median_ratio(piped, runs)
                    self.row(target, what, peer, f"{median(runs):,.0f}/s", f"{ratio:.2f}", prototype, f"≥ {goal}", ratio >= goal)
            if self.wants("T6"):
                for name, prototype, goal, peer, target in [
                    ("TCP", "0.66", 0.70, ["-p", redis.port], ours.target),
                    ("UDS", "0.74", 0.80, ["-s", redis.unix], ours.unix),
                ]:
                    a, b = self.compare([
                        lambda: getex(count // 3, *peer),
                        lambda: self.touch(ours, keys, 50, 1, target=target)["per_second"],
                    ])
                    ratio = median_ratio(a, b)
                    self.row("T6", f"unary Touch, 50 connections, {name}, {keys:,} random ids / Redis GETEX -c 50",
                             f"{median(a):,.0f}/s", f"{median(b):,.0f}/s", f"{ratio:.2f}", prototype, f"≥ {goal:.2f}", ratio >= goal)

    def memory(self):
        counts = [self.million]
        if self.args.full_memory:
            available = int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024
            if available > 8e9:
                counts.append(10_000_000)
            else:
                say("  10 million sessions need 8 GB of free memory: left out")
        for count in counts:
            for subjects, prototype, goal in [(False, "431, 427 B", 430), (True, "–", 560)]:
                with self.sidecar() as ours:
                    time.sleep(1)
                    before = resident_bytes(ours.pid)
                    self.fill(ours, count, *(["--subjects"] if subjects else []))
                    time.sleep(3)
                    each = (resident_bytes(ours.pid) - before) / count
                    what = "a subject of 36 bytes, indexed" if subjects else "no subject"
                    self.row("T7", f"resident memory per session, {count:,} sessions, {what} (the real program, filled over gRPC)",
                             "a bare Redis key: ~180 B", f"{each:.0f} B", "–", prototype, f"≤ {goal} B",
                             None if self.args.quick else each <= goal)
                    if not subjects and count == self.million and not self.args.quick and self.wants("T11"):
                        # One round of the wheel: each session is looked at once.
                        part = self.driver_load(ours, 69)
                        self.row("T11", f"CPU of the timer's thread, {count:,} sessions, no ends", "–", f"{part:.1%} of a core",
                                 "–", "1.8 %", "≤ 2 %", part <= 0.02)

    def driver_load(self, server, seconds):
        before = cpu_seconds(server.pid, "driver")
        time.sleep(seconds)
        return (cpu_seconds(server.pid, "driver") - before) / seconds

    def lateness(self):
        quick = self.args.quick
        sessions = 50_000 if quick else 1_000_000
        spread, lead = sessions / (1_000_000 / 60), (4 if quick else 30)
        measured = {}
        for saturated in (False, True):
            name = "gRPC saturated by h2load 10 × 32" if saturated else "idle"
            say(f"  {name}")
            with self.sidecar(lead, "--watch-queue", 262_144) as ours:
                self.create_hot(ours)
                first_end = time.time() + sessions / 25_000 + lead + 2
                self.fill(ours, sessions, "--idle-timeout", 3600, "--first-end", first_end, "--spread", spread)
                if time.time() > first_end - lead - 0.5:
                    say("  the sessions were created too slowly: some were late from the start")
                with contextlib.ExitStack() as stack:
                    command = [self.tools, "lateness", "--target", ours.target, "--sessions", sessions, "--at-most", 240]
                    watcher = stack.enter_context(self.process(command, stdout=subprocess.PIPE, text=True))
                    if saturated:
                        seconds = int(first_end + spread - time.time()) + 1
                        load = stack.enter_context(self.process(self.h2load(ours, 10, 32, seconds), stdout=subprocess.PIPE, text=True))
                    # While sessions end and none is warned.
                    time.sleep(max(0, first_end + (spread if quick else spread - lead) / 2 + (0 if quick else lead / 2) - time.time()))
                    window = min(10, max(1, first_end + spread - time.time() - 1))
                    driver = self.driver_load(ours, window)
                    told = json.loads(watcher.communicate(timeout=300)[0])
                    if saturated:
                        rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", load.communicate(timeout=60)[0])[1])
                        name += f" ({rate:,.0f}/s)"
                told["warnings_logged"] = histogram(ours.admin, "warning_lateness")
                say(f"  {json.dumps(told)} driver {driver:.1%}")
                self.raw[f"lateness {name}"] = told
                if told["timed_out"]:
                    say("  not all sessions ended in time")
                warnings, ends, logged = told["warnings"], told["ends"], told["ends_logged"]
                for target, what, late, prototype, p99, most in [
                    ("T8", "Warning, at a watcher's client", warnings, "10.7; 12.5 ms (in process)", 12, 50),
                    ("T9", "Ended, at a watcher's client", ends, "12.5; 30 ms (in process)", 20, 100),
                ]:
                    self.row(target, f"{what}, {sessions:,} sessions over {spread:.0f} s, {name}: p50; p99; max", "–",
                             f"{late['p50']:.1f}; {late['p99']:.1f}; {late['max']:.1f} ms", "–", prototype,
                             f"p99 ≤ {p99}; max ≤ {most} ms", late["p99"] <= p99 and late["max"] <= most)
                self.row("T8", f"Warning, at the log, {name}: p99 is in the bucket up to", "–",
                         f"{told['warnings_logged'] * 1e3:.0f} ms", "–", "10.7 ms", "≤ 12 ms", None)
                self.row("T9", f"Ended, at the log, {name}: p50; p99; max", "–",
                         f"{logged['p50']:.1f}; {logged['p99']:.1f}; {logged['max']:.1f} ms", "–", "12.5; 30 ms", "–", None)
                if not saturated:
                    self.row("T11", "CPU of the timer's thread at 16,700 ends/s", "–", f"{driver:.1%} of a core", "–", "14.5 %",
                             "≤ 15 %", driver <= 0.15)
                measured[saturated] = ends["p99"]
        if self.wants("T10"):
            keys = 50_000 if quick else 1_000_000
            with self.redis("--notify-keyspace-events", "Ex") as redis:
                spread = keys / (1_000_000 / 60)
                told = self.tool("redis", "--port", redis.port, "--keys", keys, "--first-end", time.time() + keys / 100_000 + 3,
                                 "--spread", spread, "--patience", 5 if quick else 60)["ends"]
                say(f"  {json.dumps(told)}")
                ratio = told["p99"] / measured[False]
                self.row("T10", f"Ended p99 at the client / Redis `expired` events, {keys:,} keys over {spread:.0f} s "
                         f"(Redis p50 {told['p50'] / 1e3:.1f} s)", f"{told['p99']:,.0f} ms", f"{measured[False]:.1f} ms",
                         f"1/{ratio:,.0f}", "1/1,700", "≤ 1/1,000", None if quick else ratio >= 1000)

    def fan_out(self):
        watchers, events = 5000, (5 if self.args.quick else 20)
        with self.sidecar() as ours:
            def measure(stuck):
                arguments = ["--watchers", watchers - stuck, "--stuck", stuck, "--events", events]
                return self.tool("fan-out", "--target", ours.target, *arguments)["first_to_last_ms"]["p50"]

            a, b = self.compare([lambda: measure(0), lambda: measure(watchers // 100)])
            core = self.tool("audience", "--watchers", watchers, "--events", events)["first_to_last_ms"]["p50"]
            self.row("T12", f"{watchers:,} watchers on one event, without gRPC: last delivery after the first, median event", "–",
                     f"{core:.1f} ms", "–", "~4 ms", "≤ 10 ms", core <= 10)
            self.row("T12", f"the same over gRPC, at the clients (8 connections)", "–",
                     f"{median(a):.1f} ms", "–", "–", "≤ 10 ms", median(a) <= 10)
            more = statistics.median(y - x for x, y in zip(a, b))
            self.row("T12", "the same, with 1 % of the streams never reading", f"{median(a):.1f} ms", f"{median(b):.1f} ms",
                     f"{more:+.1f} ms", "0", "0 (±1 ms)", more <= 1)

    # Envoy and pages.

    @contextlib.contextmanager
    def envoy(self, server, application):
        """The Envoy of docs/envoy.md, but for its ports, and it waits longer for the sidecar: on a busy machine no request is lost."""
        port = free_port()
        at = "127.0.0.1, port_value: {} }}".format
        changes = {"0.0.0.0, port_value: 80 }": at(port), at(50151): at(server.target.split(":")[1]), at(8000): at(application),
                   "timeout: 0.25s": "timeout: 10s"}
        conf = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/envoy.md").read_text(), re.DOTALL)[1]
        for theirs, ours in changes.items():
            if theirs not in conf:
                sys.exit(f"docs/envoy.md has no {theirs}")
            conf = conf.replace(theirs, ours)
        file = self.folder / f"envoy-{port}.yaml"
        file.write_text(conf)
        command = [ENVOY, "-c", file, "--use-dynamic-base-id", "--concurrency", WORKERS, "--log-level", "error"]
        with self.process(command) as process:
            wait_for(port)
            process.target = f"127.0.0.1:{port}"
            yield process

    def ext_authz(self):
        sizes = [1, 100_000]
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(self.floor("empty"))]
            for size in sizes:
                servers.append(stack.enter_context(self.sidecar(policy=POLICY + DOOR)))
                self.fill(servers[-1], size)

            def beside(what, ask, with_cpu=False):
                """Compares what is asked of the empty server with what is asked of ours, each with as many sessions as it has."""
                asked = zip(servers, [sizes[-1], *sizes])
                floor, *runs = self.compare([lambda server=server, size=size: ask(server, size) for server, size in asked])
                for size, ours in zip(sizes, runs):
                    self.beside(f"{what}, {size:,} session{'s' if size > 1 else ''}", floor, ours, with_cpu)

            def load(server, size, connections):
                return ["--pid", server.pid, "--ids", size, "--connections", connections, "--seconds", self.seconds]

            for streams in (1, 32):
                beside(f"ext_authz Check, 2 connections × {streams}", lambda server, size: self.tool(
                    "check", "--target", server.target, "--streams", streams, *load(server, size, 2)), streams == 32)
            if not ENVOY.exists():
                say("  there is no Envoy: tests/setup.sh installs it")
                return
            application = free_port()
            gateways = {server.pid: stack.enter_context(self.envoy(server, application)) for server in servers}
            for browsers in (2, 32):
                beside(f"a page through Envoy, {browsers} connections", lambda server, size: self.tool(
                    "site", "--target", gateways[server.pid].target, "--application", f"127.0.0.1:{application}",
                    *load(server, size, browsers)))

    def beside(self, what, floor, ours, with_cpu):
        """The rows of requests that were asked of the empty ext_authz server and of ours in the same rounds."""
        def both(number):
            a, b = ([number(told) for told in runs] for runs in (floor, ours))
            return median(a), median(b), median_ratio(a, b)

        a, b, ratio = both(lambda told: told["per_second"])
        self.row("ext-authz", what, f"{a:,.0f}/s", f"{b:,.0f}/s", f"{ratio:.2f}", "–", "–", None)
        p50, p99 = (both(lambda told: told["took_us"][part]) for part in ("p50", "p99"))
        self.row("ext-authz", "the same: p50; p99", f"{p50[0]:,.0f}; {p99[0]:,.0f} µs", f"{p50[1]:,.0f}; {p99[1]:,.0f} µs",
                 f"{p50[2]:.2f}; {p99[2]:.2f}", "–", "–", None)
        if with_cpu:
            a, b = ([told["cpu_us"] for told in runs] for runs in (floor, ours))
            more = statistics.median(y - x for x, y in zip(a, b))
            self.row("ext-authz", "the same: CPU of the server per call", f"{median(a):.2f} µs", f"{median(b):.2f} µs",
                     f"+{more:.2f} µs", "–", "–", None)

    def door_sse(self):
        quick = self.args.quick
        streams, samples, settle = (2_000, 5, 2) if quick else (10_000, 50, 20)
        # Each is a socket of the sidecar's and one of the load's.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most != resource.RLIM_INFINITY and most < streams + 1_000:
            say(f"  {streams:,} streams need as many open files, and {most:,} are allowed: left out")
            return
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for presence in ["on"] if quick else ["off", "on"]:
            door = free_port()
            more = ["--door-listen", f"127.0.0.1:{door}", "--max-connections", 2 * streams, "--max-watchers", 2 * streams]
            with self.sidecar(1, *more, policy=f'{POLICY}presence = "{presence}"\n{DOOR}') as ours:
                self.fill(ours, streams - 1)
                time.sleep(3)
                told = self.tool("events", "--target", ours.target, "--door", f"127.0.0.1:{door}", "--pid", ours.pid, "--streams", streams,
                                 "--samples", samples, "--lead", 1, "--settle", settle)
            say(f"  {json.dumps(told)}")
            late = told["warnings"]
            self.row("door-sse", f"{streams:,} open streams of events, presence {presence}: resident memory each", "–",
                     f"{told['bytes_each'] / 1e3:.1f} kB", "–", "–", "–", None)
            self.row("door-sse", f"the same: a warning at its one browser, after the warning point, {samples} times: p50; max", "–",
                     f"{late['p50']:.1f}; {late['max']:.1f} ms", "–", "–", "–", None)

    # A shared store.

    @contextlib.contextmanager
    def pods(self, redis, count, lead, *more):
        """Sidecars that share a store."""
        key = self.folder / "store-key"
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
        store = ["--store", f"redis://127.0.0.1:{redis.port}", "--store-key-file", key, *more]
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self.sidecar(lead, *store)) for _ in range(count)]

    def store_writes(self):
        quick = self.args.quick
        for sidecars, touches, held in [(1, 20, False), (3, 20, False)] if quick else [
            (1, 2, False), (1, 20, False), (1, 200, False), (3, 20, False), (1, 4, True),
        ]:
            with self.redis() as redis:
                told = self.tool("store-writes", "--port", redis.port, "--sidecars", sidecars, "--touches", touches,
                                 "--window", 0.5, "--windows", 4 if quick else 20, *(["--held"] if held else []))
            say(f"  {json.dumps(told)}")
            if held:
                self.row("T15", f"the same, sessions that somebody holds, {touches} touches a window: calls", "–",
                         f"{told['calls']:.2f}", "–", "–", "–", None)
                continue
            where = "at one sidecar" if sidecars == 1 else f"at {sidecars} sidecars in turn"
            self.row("T15", f"writes of activity for each session and window, {touches} touches {where}; calls of all kinds", "–",
                     f"{told['writes']:.2f}; {told['calls']:.2f}", "–", "~1", "≤ 1.1", told["writes"] <= 1.1)

    def warm_leases(self):
        # A session is written every ten seconds: of a few thousand sessions that is next to no touch.
        quick = self.args.quick
        for sessions in [1_000] if quick else [1_000, 10_000]:
            with self.redis() as redis, self.sidecar() as embedded, self.pods(redis, 1, 120) as (ours,):
                self.fill(embedded, sessions)
                self.fill(ours, sessions)
                self.touch(ours, sessions, 10, 32)
                for streams in [32] if quick else [1, 32]:
                    a, b = self.compare([
                        lambda: self.touch(embedded, sessions, 10, streams)["per_second"],
                        lambda: self.touch(ours, sessions, 10, streams)["per_second"],
                    ])
                    ratio = median_ratio(a, b)
                    what = f"unary Touch, shared store, leases of 10 s, 10 connections × {streams}, {sessions:,} random ids / memory mode"
                    self.row("T15", what, f"{median(a):,.0f}/s", f"{median(b):,.0f}/s", f"{ratio:.2f}", "–", "≥ 0.95", ratio >= 0.95)

    def elsewhere(self):
        quick = self.args.quick
        # From the last touch at one sidecar to what another one's watcher is told.
        sessions, idle, lead, window = (500, 3, 1, 0.25) if quick else (5_000, 16, 6, 1)
        with self.redis() as redis:
            told = self.tool("elsewhere", "--port", redis.port, "--sidecars", 3, "--sessions", sessions, "--idle-timeout", idle,
                             "--lead", lead, "--window", window)
        say(f"  {json.dumps(told)}")
        bound = 1e3 * window + 250
        for name, late in [("Warning", told["warnings"]), ("Ended", told["ends"])]:
            beyond = late["p99"] - bound
            self.row("T16", f"{name}, at another sidecar's watcher, after the last touch and its time, {sessions:,} sessions: p50; p99; max",
                     f"window {1e3 * window:.0f} + 250 ms", f"{late['p50']:.0f}; {late['p99']:.0f}; {late['max']:.0f} ms",
                     f"{beyond:+.0f} ms", "–", "p99 ≤ +20 ms", beyond <= 20 and late["min"] >= 0)
        # From the deadline that is written to a client of another pod.
        sessions, spread, lead = (400, 2, 1) if quick else (4_000, 20, 3)
        with self.redis() as redis, self.pods(redis, 2, lead, "--watch-queue", 262_144) as (near, far):
            first_end = time.time() + sessions / 1_500 + lead + 1
            self.fill(near, sessions, "--idle-timeout", 3600, "--first-end", first_end, "--spread", spread)
            if time.time() > first_end - lead - 0.5:
                say("  the sessions were created too slowly: some were late from the start")
            told = self.tool("lateness", "--target", far.target, "--sessions", sessions, "--at-most", 240)
        say(f"  {json.dumps(told)}")
        for name, late in [("Warning", told["warnings"]), ("Ended", told["ends"])]:
            beyond = late["p99"] - 250
            self.row("T16", f"{name}, at a client of another pod, after the deadline in the store, {sessions:,} sessions over {spread} s: "
                     "p50; p99; max", "250 ms", f"{late['p50']:.1f}; {late['p99']:.1f}; {late['max']:.1f} ms", f"{beyond:+.0f} ms",
                     "< 1; 13 ms", "p99 ≤ +20 ms", beyond <= 20)

    def fleet(self):
        seconds, sizes = (1, (1, 20)) if self.args.quick else (10, (1, 20, 100))
        for sidecars in sizes:
            with self.redis() as redis:
                told = self.tool("store-cost", "--port", redis.port, "--pid", redis.pid, "--sidecars", sidecars, "--seconds", seconds)
            say(f"  {json.dumps(told)}")
            if told["failed_calls"]:
                say("  calls failed: the machine is too busy for this")
            idle, busy = told["idle"], told["busy"]
            self.row("Fleet", f"{sidecars} sidecar{'s' if sidecars > 1 else ''}: CPU of Redis, idle; with 50 ends a second", "–",
                     f"{idle['cpu']:.1%}; {busy['cpu']:.1%} of a core",
                     f"{idle['looks']:.0f} looks, {idle['beats']:.0f} heartbeats a second", "–", "looks stay constant", None)

    def idle(self):
        port = free_port()
        serve = ["serve", "--listen", f"tcp://127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{free_port()}", "--log", "warn"]
        with self.process([self.program, *serve]) as process:
            wait_for(port)
            time.sleep(2)
            seconds = 4 if self.args.quick else 10
            before = cpu_seconds(process.pid)
            time.sleep(seconds)
            part = (cpu_seconds(process.pid) - before) / seconds
            resident = resident_bytes(process.pid) / 1e6
        self.row("T13", "idle sidecar: resident memory; CPU", "–", f"{resident:.1f} MB; {part:.2%} of a core", "–", "–",
                 "≤ 12 MB; ≤ 0.1 %", resident <= 12 and part <= 0.001)
        times = []
        for _ in range(3 if self.args.quick else 9):
            told = self.tool("start", "--program", self.program, "--target", f"127.0.0.1:{port}", "--", *serve)
            times.append(told["ms"])
        self.row("T14", "process start to first answered RPC, empty: median", "–", f"{median(times):.1f} ms", "–", "–", "≤ 50 ms",
                 median(times) <= 50)

    def measure(self):
        for targets, measure in [
            (("T13", "T14"), self.idle),
            (("T1", "T2", "T3"), self.unary),
            (("authority",), self.authority),
            (("T4", "T5", "T6"), self.redis_peer),
            (("T7", "T11"), self.memory),
            (("T12",), self.fan_out),
            (("ext-authz",), self.ext_authz),
            (("door-sse",), self.door_sse),
            (("T8", "T9", "T10", "T11"), self.lateness),
            (("T15",), self.store_writes),
            (("T15",), self.warm_leases),
            (("T16",), self.elsewhere),
            (("Fleet",), self.fleet),
        ]:
            if self.wants(*targets):
                begin = time.time()
                say(", ".join(targets))
                measure()
                say(f"  ({time.time() - begin:.0f} s)")

    def table(self):
        head = ("Target", "What", "Floor or peer", "Ours", "Ratio", "Prototype", "Goal", "Verdict")
        lines = [head, ("---",) * len(head), *sorted(self.rows, key=lambda row: int(row[0][1:]) if row[0][1:].isdigit() else 99)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def median(values):
    return statistics.median(values)


def median_ratio(a, b):
    return statistics.median(y / x for x, y in zip(a, b))


def wait_for(port):
    end = time.time() + 10
    while time.time() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    sys.exit(f"nobody listens on port {port}")


def histogram(port, name):
    """The upper bound, in seconds, of the bucket in which the 99th percentile of one of the sidecar's histograms is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    buckets = re.findall(rf'{name}_seconds_bucket{{le="([^"]+)"}} (\d+)', text)
    total = int(buckets[-1][1])
    return next(float(bound) for bound, count in buckets if int(count) >= 0.99 * total)


def machine():
    """What was measured, where and when."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    lock = (ROOT / "Cargo.lock").read_text()
    crates = {name: re.search(rf'name = "{name}"\nversion = "([^"]+)"', lock)[1] for name in ("tonic", "moka")}
    redis = re.search(r"v=(\S+)", run(["redis-server", "--version"]))[1]
    h2load = run(["h2load", "--version"]).split("/")[-1].strip()
    rustc = run(["rustc", "--version"], cwd=ROOT).split()[1]
    return (f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}; {os.cpu_count()} × {model[1] if model else platform.machine()}, "
            f"Linux {platform.release().split('-')[0]}; tonic {crates['tonic']}, moka {crates['moka']}, Redis {redis}, "
            f"h2load {h2load}, rustc {rustc}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller counts, one round")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 3; 1 with --quick)")
    parser.add_argument("--full-memory", action="store_true", help="measure memory at 10 million sessions too")
    parser.add_argument("--only", type=lambda text: text.split(","), help="only these targets, such as T1,T7")
    parser.add_argument("--program", help="measure this session-sidecar instead of the one that is built")
    parser.add_argument("--tools", help="with these tools instead of those that are built")
    args = parser.parse_args()
    install_peers()
    program, tools = (args.program, args.tools) if args.program and args.tools else build()
    begin = time.time()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(args, args.program or program, tools, folder)
        bench.measure()
    rounds = "one small round: a look, not a measurement" if args.quick else f"medians of {bench.rounds} interleaved rounds"
    print(f"{machine()}; {rounds}; took {time.time() - begin:.0f} s\n\n{bench.table()}")


if __name__ == "__main__":
    main()
