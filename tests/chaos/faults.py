"""What can go wrong, and for how long. Each fault breaks something, waits, mends it, and says what it was."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .fleet import Sidecar
from .history import Fault
from .proxy import Proxy, Way
from .resp import Refused
from .servers import Cluster, Sentinels, Server, Single


@dataclass
class World:
    """Everything that a fault may touch."""

    store: Single | Sentinels | Cluster | None
    sidecars: list[Sidecar]
    proxies: list[Proxy]
    order: Callable[[str, dict], Awaitable[None]]  # to the process of `people` or `watchers`
    rng: random.Random
    # Servers and sidecars that a fault has its hands on.
    locks: dict[int, asyncio.Lock] = field(default_factory=dict)

    def lock(self, thing: object) -> asyncio.Lock:
        """One fault at a time for each process."""
        return self.locks.setdefault(id(thing), asyncio.Lock())

    async def primary(self) -> Server:
        """A server that takes writes."""
        return self.rng.choice(await asyncio.to_thread(lambda: self.store.primaries))

    async def command(self, server: Server, *words: str | int) -> bool:
        """A command of the operator. False if the server would not, or could not."""
        try:
            await asyncio.to_thread(server.call, *words, patience=2)
        except (OSError, Refused):
            return False
        return True


Broken = Callable[[World], Awaitable[Fault | None]]


def _since(kind: str, what: str, began: float, **fields) -> Fault:
    return Fault(kind, what, began, time.monotonic(), **fields)


async def store_pause(world: World) -> Fault:
    """the store stands still"""
    server, seconds = await world.primary(), world.rng.uniform(0.5, 4)
    async with world.lock(server):
        began = time.monotonic()
        server.pause()
        await asyncio.sleep(seconds)
        server.resume()
        # A pause that is long enough makes the others choose another primary.
        over = len(world.store.servers) > 1
        return _since("store-pause", f"for {seconds:.1f} s", began, rollback=over, epoch=over)


async def store_kill(world: World) -> Fault:
    """kill -9 of the store, and a start with what its file has"""
    server, seconds = await world.primary(), world.rng.uniform(0, 2)
    async with world.lock(server):
        began = time.monotonic()
        server.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)
        return _since("store-kill", f"back after {seconds:.1f} s", began, epoch=True)


async def clients_normal(world: World) -> Fault:
    """the store closes the connections that commands go through"""
    server, began = await world.primary(), time.monotonic()
    await world.command(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return _since("client-kill", "normal", began)


async def clients_pubsub(world: World) -> Fault:
    """the store closes the connections that messages go through"""
    server, began = await world.primary(), time.monotonic()
    await world.command(server, "CLIENT", "KILL", "TYPE", "pubsub")
    return _since("client-kill", "pubsub", began)


async def script_flush(world: World) -> Fault:
    """the store forgets all scripts"""
    server, began = await world.primary(), time.monotonic()
    await world.command(server, "SCRIPT", "FLUSH")
    return _since("script-flush", "", began)


async def full(world: World) -> Fault:
    """the store has no memory left"""
    server, began = await world.primary(), time.monotonic()
    async with world.lock(server):
        await world.command(server, "CONFIG", "SET", "maxmemory", "1mb")
        await asyncio.sleep(2)
        while not await world.command(server, "CONFIG", "SET", "maxmemory", "0"):
            await asyncio.sleep(0.1)
        return _since("full", "1 MB for 2 s", began)


async def clock(world: World) -> Fault:
    """the store's clock is set"""
    server, began = await world.primary(), time.monotonic()
    seconds = world.rng.choice([-1, 1]) * world.rng.uniform(2, 60)
    server.step_clock(seconds)
    return _since("clock", f"{seconds:+.1f} s", began)


async def sidecar_pause(world: World) -> Fault:
    """a sidecar stands still"""
    sidecar, seconds = world.rng.choice(world.sidecars), world.rng.uniform(0.5, 4)
    async with world.lock(sidecar):
        began = time.monotonic()
        sidecar.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        sidecar.send(signal.SIGCONT)
        return _since("sidecar-pause", f"{sidecar.told_as()} for {seconds:.1f} s", began)


async def sidecar_kill(world: World) -> Fault:
    """kill -9 of a sidecar"""
    sidecar, seconds = world.rng.choice(world.sidecars), world.rng.uniform(0, 2)
    async with world.lock(sidecar):
        return await _kill(sidecar, seconds, "sidecar-kill")


async def kill_in_rotate(world: World) -> Fault:
    """kill -9 of a sidecar in the middle of many Rotates and Creates"""
    sidecar, after = world.rng.choice(world.sidecars), world.rng.choice([0, 0.001, 0.002, 0.005, 0.01, 0.03])
    async with world.lock(sidecar):
        await world.order("people", {"do": "burst", "sidecar": sidecar.number, "count": 20})
        await asyncio.sleep(after)
        return await _kill(sidecar, world.rng.uniform(0, 1), "kill-in-rotate")


async def _kill(sidecar: Sidecar, seconds: float, kind: str) -> Fault:
    began, before = time.monotonic(), sidecar.told_as()
    sidecar.kill()
    await asyncio.sleep(seconds)
    sidecar.start()
    await asyncio.to_thread(sidecar.wait_until_ready)
    return _since(kind, f"{before}, started after {seconds:.1f} s as {sidecar.told_as()}", began, sidecar=sidecar.number)


async def sidecar_stop(world: World) -> Fault:
    """a sidecar drains and stops, as in a rollout"""
    sidecar = world.rng.choice(world.sidecars)
    async with world.lock(sidecar):
        began, before = time.monotonic(), sidecar.told_as()
        sidecar.send(signal.SIGTERM)
        await asyncio.to_thread(sidecar.process.wait, 30)
        sidecar.start()
        await asyncio.to_thread(sidecar.wait_until_ready)
        return _since("sidecar-stop", f"{before}, started as {sidecar.told_as()}", began, sidecar=sidecar.number)


async def watcher_away(world: World) -> Fault:
    """a watcher goes away and comes back"""
    watch, seconds, began = world.rng.randrange(len(world.sidecars)), world.rng.uniform(0.5, 6), time.monotonic()
    await world.order("watchers", {"do": "away", "watch": watch, "seconds": seconds})
    return _since("watcher-away", f"all-{watch} for {seconds:.1f} s", began)


def _on_the_way(kind: str, spoil: Callable[[Proxy, random.Random], str], lasts: tuple[float, float]) -> Broken:
    async def fault(world: World) -> Fault:
        number = world.rng.randrange(len(world.proxies))
        proxy = world.proxies[number]
        async with world.lock(proxy):
            began = time.monotonic()
            what = spoil(proxy, world.rng)
            await asyncio.sleep(world.rng.uniform(*lasts))
            proxy.heal()
            return _since(kind, f"between sidecar {number} and the store: {what}", began)

    return fault


def _ways(proxy: Proxy, rng: random.Random, way: Callable[[], Way]) -> str:
    which = rng.choice(["up", "down", "both"])
    for name in ("up", "down"):
        if which in (name, "both"):
            setattr(proxy, name, way())
    return which


def _cut(proxy: Proxy, rng: random.Random) -> str:
    proxy.cut()
    proxy.refusing = rng.random() < 0.5
    return "refused for a while" if proxy.refusing else "once"


def _half_open(proxy: Proxy, _: random.Random) -> str:
    proxy.half_open()
    return "the store's side is closed"


async def sentinel_kill(world: World) -> Fault:
    """kill -9 of the primary; a replica takes its place"""
    await asyncio.to_thread(world.store.wait_until_whole)
    before = await asyncio.to_thread(lambda: world.store.primaries)
    async with world.lock(before[0]):
        began = time.monotonic()
        before[0].kill()
        await asyncio.to_thread(world.store.wait_for_another, before)
        await asyncio.to_thread(before[0].start)
        return _since("failover", "the primary was killed", began, epoch=True, rollback=True)


async def sentinel_failover(world: World) -> Fault | None:
    """an operator asks for another primary"""
    await asyncio.to_thread(world.store.wait_until_whole)
    began = time.monotonic()
    try:
        await asyncio.to_thread(world.store.fail_over)
    except Refused:  # one is under way, or no replica is good enough
        return None
    return _since("failover", "on request", began, epoch=True, rollback=True)


async def cluster_kill(world: World) -> Fault:
    """kill -9 of a primary of the cluster; its replica takes its place"""
    await asyncio.to_thread(world.store.wait_until_whole)
    server = await world.primary()
    async with world.lock(server):
        began = time.monotonic()
        server.kill()
        await asyncio.to_thread(world.store.wait_for_another, server)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(world.store.wait_until_whole)
        return _since("failover", "a primary was killed", began, epoch=True, rollback=True)


async def cluster_failover(world: World) -> Fault:
    """a replica takes over from a primary that lives"""
    await asyncio.to_thread(world.store.wait_until_whole)
    server = await world.primary()
    async with world.lock(server):
        began = time.monotonic()
        await asyncio.to_thread(world.store.fail_over, server)
        return _since("failover", "a replica took over", began, epoch=True, rollback=True)


async def migration(world: World) -> Fault:
    """slots with sessions in them move to another primary"""
    began = time.monotonic()
    moved = await asyncio.to_thread(_migrate, world)
    return _since("migration", f"of {moved} slots", began)


def _migrate(world: World) -> int:
    source, target = world.rng.sample(world.store.primaries, 2)
    # Of any keys: thousands of questions, one for each slot, would take longer than all else.
    full = {source.call("CLUSTER", "KEYSLOT", key) for _ in range(60) if (key := source.call("RANDOMKEY"))}
    chosen = world.rng.sample(sorted(full), min(8, len(full)))
    for slot in chosen:
        world.store.migrate(slot, source, target)
    return len(chosen)


SIDECARS: dict[str, Broken] = {"sidecar-pause": sidecar_pause, "watcher-away": watcher_away}
KILLS: dict[str, Broken] = {"sidecar-kill": sidecar_kill, "sidecar-stop": sidecar_stop, "kill-in-rotate": kill_in_rotate}
STORE: dict[str, Broken] = {"clients-normal": clients_normal, "clients-pubsub": clients_pubsub, "script-flush": script_flush}
NET: dict[str, Broken] = {
    "net-delay": _on_the_way("net-delay", lambda proxy, rng: _ways(proxy, rng, lambda: Way(delay=rng.uniform(0.02, 0.4))), (1, 4)),
    "net-hold": _on_the_way("net-hold", lambda proxy, rng: _ways(proxy, rng, lambda: Way(held=True)), (0.3, 6)),
    "net-drop": _on_the_way("net-drop", lambda proxy, rng: _ways(proxy, rng, lambda: Way(dropped=True)), (0.3, 4)),
    "net-slow": _on_the_way("net-slow", lambda proxy, rng: _ways(proxy, rng, lambda: Way(rate=rng.uniform(5e3, 2e5))), (1, 4)),
    "net-cut": _on_the_way("net-cut", _cut, (0.1, 2)),
    "net-half-open": _on_the_way("net-half-open", _half_open, (1, 5)),
}
# What each mode may break.
FAULTS: dict[str, dict[str, Broken]] = {
    "memory": SIDECARS,
    "mixed": SIDECARS | KILLS | STORE | NET | {"store-pause": store_pause, "store-kill": store_kill, "full": full, "clock": clock},
    "sentinel": SIDECARS | KILLS | STORE | {"failover": sentinel_failover, "primary-kill": sentinel_kill, "store-pause": store_pause},
    "cluster": SIDECARS | KILLS | STORE | {"failover": cluster_failover, "primary-kill": cluster_kill, "migration": migration, "store-pause": store_pause},
}
# Those that choose another primary take turns: the store needs all its members for it.
ALONE = {"failover", "primary-kill", "migration"}
