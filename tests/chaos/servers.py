"""Real stores on loopback, and what can befall them: a stop, a kill, a restart, a clock that is set, a failover."""

import atexit
import os
import re
import signal
import struct
import subprocess
import time
from datetime import datetime
from pathlib import Path

from support import TOOLS
from support.process import eventually, free_port, tool

from . import resp

# A killed primary is missed after this long.
FAILURE = 1000  # milliseconds
# How a server's log tells that it has become a primary, by its sentinels or by its cluster.
_PROMOTED = re.compile(r"^\d+:\w (\d+ \w+ \d+ [\d:.]+) .*(?:(?:MASTER|PRIMARY) MODE enabled|I'm the new (?:master|primary))", re.MULTILINE)


class Server:
    """One redis-server or valkey-server. It keeps its port and its files through restarts, and has a clock of its own."""

    def __init__(self, home: Path, *options: str | int, engine: str = "redis", durable: bool = True, kind: str = "server") -> None:
        self.port = free_port()
        self.home = home / f"{engine}-{self.port}"
        self.home.mkdir()
        self._clock = self.home / "clock"
        self._clock.write_bytes(bytes(8))
        self._program = tool(f"{engine}-{kind}")
        self._configuration = self.home / "server.conf"
        # With `always` whatever was acknowledged is in the file, so kill -9 loses nothing; with `everysec` it may.
        keep = ["appendonly yes", "appendfsync always"] if durable else []
        common = ["bind 127.0.0.1", "protected-mode no", "daemonize no", f"port {self.port}", f"dir {self.home}"]
        if kind == "server":
            common += ['save ""', "maxmemory-policy noeviction", "repl-diskless-sync-delay 0", "enable-debug-command yes", *keep]
            # What is in its files can be searched for session ids.
            common += ["rdbcompression no"]
        pairs = [f"{options[i]} {options[i + 1]}" for i in range(0, len(options), 2)]
        self._configuration.write_text("\n".join(common + pairs) + "\n")
        self.process: subprocess.Popen | None = None
        atexit.register(self.close)
        self.start()

    def start(self) -> None:
        """Starts it, and returns when it answers, with all its data."""
        environment = os.environ | {"LD_PRELOAD": str(TOOLS / "clock.so"), "CLOCK_FILE": str(self._clock), "TZ": "UTC"}
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, str(self._configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        eventually(self.answers, "the store answers")

    def answers(self) -> bool:
        """Whether it serves commands now."""
        assert self.process.poll() is None, f"the store ended:\n{(self.home / 'log').read_text()[-2000:]}"
        try:
            return self.call("PING", patience=1) == "PONG"
        except (OSError, resp.Refused):
            return False

    def call(self, *words: str | int, patience: float = 5.0) -> resp.Answer:
        """One command, sent past all proxies."""
        return resp.call(self.port, *words, patience=patience)

    def alive(self) -> bool:
        """Whether there is a process."""
        return self.process.poll() is None

    def pause(self) -> None:
        """Stops its process where it stands."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills it without a word."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Ends its process, if there is one."""
        if self.process is not None and self.alive():
            self.kill()

    def step_clock(self, seconds: float) -> None:
        """Sets its wall clock: so many seconds from where it is."""
        (now,) = struct.unpack("=q", self._clock.read_bytes())
        with self._clock.open("r+b") as file:  # in place: the server has this very file mapped
            file.write(struct.pack("=q", now + int(seconds * 1e9)))

    def promotions(self) -> list[float]:
        """When it became a primary, in the machine's monotonic time: also when nobody had asked for it."""
        told = (datetime.strptime(found + " +0000", "%d %b %Y %H:%M:%S.%f %z") for found in _PROMOTED.findall((self.home / "log").read_text(errors="replace")))
        return [moment.timestamp() - time.time() + time.monotonic() for moment in told]

    def clock(self) -> float:
        """What its wall clock shows, in seconds."""
        seconds, micros = self.call("TIME")
        return int(seconds) + int(micros) / 1e6


class Single:
    """One server."""

    def __init__(self, home: Path, engine: str = "redis") -> None:
        self.servers = [Server(home, engine=engine)]

    @property
    def primaries(self) -> list[Server]:
        """The servers that take writes."""
        return self.servers

    def url(self, port: int | None = None) -> str:
        """What a sidecar is told; `port` is of a proxy before it."""
        return f"redis://127.0.0.1:{port or self.servers[0].port}"

    def close(self) -> None:
        """Ends all processes."""
        for server in self.servers:
            server.close()


class Sentinels(Single):
    """A primary, two replicas and the three sentinels that watch them; set up as docs/one-pod-or-many.md demands of two replicas."""

    NAME = "sessions"
    # A primary that was replaced, and does not know it, takes no writes.
    FENCED = ("min-replicas-to-write", 1, "min-replicas-max-lag", 2)

    def __init__(self, home: Path, engine: str = "redis") -> None:
        self.servers = [Server(home, *self.FENCED, engine=engine)]
        first = self.servers[0]
        self.servers += [Server(home, "replicaof", f"127.0.0.1 {first.port}", *self.FENCED, engine=engine) for _ in range(2)]
        for replica in self.servers[1:]:
            eventually(lambda: resp.fields(replica.call("INFO", "replication")).get("master_link_status") == "up", "a replica follows")
        watch = [
            *("sentinel", f"monitor {self.NAME} 127.0.0.1 {first.port} 2"),
            *("sentinel", f"down-after-milliseconds {self.NAME} {FAILURE}"),
            *("sentinel", f"failover-timeout {self.NAME} 4000"),
        ]
        self.sentinels = [Server(home, *watch, engine=engine, kind="sentinel") for _ in range(3)]
        for sentinel in self.sentinels:
            eventually(lambda: self._known(sentinel) == (2, 2), "the sentinels know each other and the replicas")

    def _known(self, sentinel: Server) -> tuple[int, int]:
        told = sentinel.call("SENTINEL", "MASTER", self.NAME)
        about = dict(zip(told[::2], told[1::2], strict=True))
        return int(about["num-slaves"]), int(about["num-other-sentinels"])

    @property
    def primaries(self) -> list[Server]:
        """The server that the sentinels name."""
        port = int(self.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)[1])
        return [server for server in self.servers if server.port == port]

    def url(self, port: int | None = None) -> str:
        """What a sidecar is told."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in self.sentinels)}/{self.NAME}"

    def whole(self) -> bool:
        """Whether both replicas have all that the primary has: losing it then costs a moment's writes at most."""
        try:
            (primary,) = self.primaries
            told = resp.fields(primary.call("INFO", "replication", patience=1))
        except (OSError, ValueError, resp.Refused):
            return False
        followers = [told.get("slave0", ""), told.get("slave1", "")]
        return told["role"] == "master" and all("state=online" in follower for follower in followers)

    def wait_until_whole(self) -> None:
        """Waits until it could bear the loss of its primary."""
        eventually(self.whole, "both replicas follow the primary")

    def fail_over(self) -> None:
        """Asks for another primary, and waits until it serves."""
        before = self.primaries
        self.sentinels[0].call("SENTINEL", "FAILOVER", self.NAME)
        self.wait_for_another(before)

    def wait_for_another(self, before: list[Server]) -> None:
        """Waits until the sentinels name another primary and it takes writes."""
        eventually(lambda: self.primaries != before and self._writable(), "another primary")

    def _writable(self) -> bool:
        primaries = self.primaries
        try:
            return bool(primaries) and primaries[0].call("ROLE", patience=1)[0] == "master"
        except (OSError, resp.Refused):
            return False

    def close(self) -> None:
        """Ends all processes."""
        for sentinel in self.sentinels:
            sentinel.close()
        super().close()


class Cluster(Single):
    """Three primaries and a replica of each."""

    def __init__(self, home: Path, engine: str = "redis") -> None:
        # By default the cluster's own port is 10,000 higher, where outgoing connections have theirs.
        options = ["cluster-enabled", "yes", "cluster-node-timeout", FAILURE, "cluster-require-full-coverage", "no"]
        options += ["cluster-config-file", "nodes.conf", "cluster-allow-replica-migration", "no", "cluster-replica-validity-factor", 0]
        self.servers = [Server(home, *options, "cluster-port", free_port(), engine=engine) for _ in range(6)]
        self._cli(engine, "--cluster", "create", *[f"127.0.0.1:{server.port}" for server in self.servers], "--cluster-replicas", "1")
        self.wait_until_whole()

    @staticmethod
    def _cli(engine: str, *words: str) -> str:
        done = subprocess.run([tool(f"{engine}-cli"), *words, "--cluster-yes"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def whole(self) -> bool:
        """Whether every server finds every slot served and every replica in touch."""
        for server in self.servers:
            if not server.alive():
                continue
            try:
                state = resp.fields(server.call("CLUSTER", "INFO", patience=1))
                if state.get("cluster_state") != "ok" or state.get("cluster_slots_ok") != "16384":
                    return False
                replication = resp.fields(server.call("INFO", "replication", patience=1))
            except (OSError, resp.Refused):
                return False
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
        return len(self.primaries) == 3 and all(map(self.replicas_of, self.primaries))

    @property
    def primaries(self) -> list[Server]:
        """The servers that own slots."""
        return [server for server in self.servers if self._role(server) == "master" and self.slots(server)]

    @staticmethod
    def _role(server: Server) -> str | None:
        try:
            return server.call("ROLE", patience=1)[0] if server.alive() else None
        except (OSError, resp.Refused):
            return None

    def slots(self, server: Server) -> list[int]:
        """The slots that a server says it owns."""
        myself = next(line for line in server.call("CLUSTER", "NODES").splitlines() if "myself" in line)
        ranges = (part.partition("-") for part in myself.split()[8:] if not part.startswith("["))
        return [slot for first, _, last in ranges for slot in range(int(first), int(last or first) + 1)]

    def wait_until_whole(self) -> None:
        """Waits until it could bear the loss of any primary."""
        eventually(self.whole, "the cluster is whole")

    def replicas_of(self, primary: Server) -> list[Server]:
        """The servers that follow it and are in touch."""
        name = primary.call("CLUSTER", "MYID")
        following = [line.split() for line in primary.call("CLUSTER", "NODES").splitlines() if "slave" in line]
        ports = {int(parts[1].partition("@")[0].rpartition(":")[2]) for parts in following if parts[3] == name}
        return [server for server in self.servers if server.port in ports and server.alive()]

    def url(self, port: int | None = None) -> str:
        """What a sidecar is told."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers[:3])}"

    def fail_over(self, primary: Server) -> None:
        """A replica takes over from a primary that lives."""
        (replica, *_) = self.replicas_of(primary)
        replica.call("CLUSTER", "FAILOVER")
        self.wait_for_another(primary)

    def wait_for_another(self, primary: Server) -> None:
        """Waits until a replica serves in the place of `primary`."""
        eventually(lambda: primary not in self.primaries and len(self.primaries) == 3, "a replica takes over")

    def migrate(self, slot: int, source: Server, target: Server) -> None:
        """Moves one slot with its keys, the way an operator's tools do."""
        here, there = source.call("CLUSTER", "MYID"), target.call("CLUSTER", "MYID")
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys, patience=10)
        for server in (target, source, *self.primaries):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", there)


STORES = {"mixed": Single, "sentinel": Sentinels, "cluster": Cluster}
