"""The sidecars of a run, each with a proxy of its own before the store: of one build that writes two formats by turns, or of two builds
that both know the older format only."""

import hashlib
import random
import signal
import subprocess
import urllib.request
from pathlib import Path

from support.process import clean_environment, eventually, free_port

FORMATS = ["1", "2"]
VERBS = "use,issue,end,watch-own,watch-all,admin"


class Build:
    """A session-sidecar that takes part. Two builds of one version are told apart by what is in their files."""

    def __init__(self, letter: str, binary: Path) -> None:
        self.letter = letter
        self.binary = binary.resolve()
        asked = subprocess.run([str(self.binary), "--version"], capture_output=True, text=True, check=True)
        self.name = f"{asked.stdout.strip()} ({hashlib.sha256(self.binary.read_bytes()).hexdigest()[:12]})"


class Sidecar:
    """One `session-sidecar serve`. It keeps its ports through restarts, but a restart may bring it another build or format."""

    def __init__(self, number: int, builds: list[Build], home: Path, arguments: list[str], formats: list[str], rng: random.Random) -> None:
        self.number = number
        # As in a rollout that is half done: both builds, or formats, are there from the start.
        self.build = builds[number % len(builds)]
        self.format = formats[number % len(formats)] if formats else ""
        self.port = free_port()
        self.admin_port = free_port()
        self.log = home / f"sidecar-{number}.log"
        self.process: subprocess.Popen | None = None
        self._builds = builds
        self._formats = formats
        self._rng = rng
        self._arguments = ["serve", *arguments, "--log-format", "human", "--admin-listen", f"127.0.0.1:{self.admin_port}"]
        self._arguments += ["--listen", f"tcp://127.0.0.1:{self.port}?verbs={VERBS}"]

    @property
    def target(self) -> str:
        """What a client dials."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it; does not wait for it."""
        if self.process is not None:
            self.build = self._rng.choice(self._builds)
            self.format = self._rng.choice(self._formats) if self._formats else ""
        command = [str(self.build.binary), *self._arguments]
        if self.format:
            command += ["--store-format", self.format]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment())

    def told_as(self) -> str:
        """What faults call it: with its build, if there are two, or its format, if there are two."""
        return f"{self.number}{self.build.letter if len(self._builds) > 1 else ''}{self.format and 'f' + self.format}"

    def wait_until_ready(self) -> None:
        """Waits until it says that it is ready."""
        eventually(self._ready, f"sidecar {self.number} is ready")

    def _ready(self) -> bool:
        assert self.alive(), f"sidecar {self.number} ended at start:\n{self.log.read_text()[-2000:]}"
        return self.get("/readyz") is not None

    def get(self, path: str) -> str | None:
        """A page of its admin port; None if it does not answer with one."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def alive(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """A signal to its process."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills it without a word."""
        self.process.kill()
        self.process.wait()
