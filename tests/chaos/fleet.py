"""The sidecars of a run, each with a proxy of its own before the store."""

import signal
import subprocess
import urllib.request
from pathlib import Path

from support.process import clean_environment, eventually, free_port

VERBS = "use,issue,end,watch-own,watch-all,admin"


class Sidecar:
    """One `session-sidecar serve`. It keeps its ports through restarts."""

    def __init__(self, number: int, binary: Path, home: Path, arguments: list[str]) -> None:
        self.number = number
        self.port = free_port()
        self.admin_port = free_port()
        self.log = home / f"sidecar-{number}.log"
        self.process: subprocess.Popen | None = None
        self._command = [str(binary), "serve", *arguments, "--log-format", "human", "--admin-listen", f"127.0.0.1:{self.admin_port}"]
        self._command += ["--listen", f"tcp://127.0.0.1:{self.port}?verbs={VERBS}"]

    @property
    def target(self) -> str:
        """What a client dials."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it; does not wait for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment())

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
