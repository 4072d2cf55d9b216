"""What the machine does to all that run on it. Nobody drew it, so it is noticed, recorded as the fault `starved`, and waited for."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .history import Fault

# Sidecars give up a call to the store after 250 ms. If the director is woken so much too late, or waits so long for the disk, calls may fail.
STARVED = 0.12
# So may they if one thread waits this long for a processor within the time of a call. It is looked so often, for a wait begins at any time.
WAITED = 0.16
LOOK = 0.05
LOOKS = 5


class Machine:
    """Watches it while a round lasts; its disk too if there is a file to try it with."""

    def __init__(self, record: Callable[[Fault], None], probe: Path | None, processes: Callable[[], dict[str, int]]) -> None:
        self.last = float("-inf")  # when it was last noticed
        self._record = record
        self._probe = probe
        self._processes = processes
        self._tasks: list[asyncio.Task] = []

    def __enter__(self) -> "Machine":
        notices = [self._everything(), self._each(), *([self._disk(self._probe)] if self._probe else [])]
        self._tasks = [asyncio.create_task(notice) for notice in notices]
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()

    def _starved(self, what: str, began: float) -> None:
        self.last = time.monotonic()
        self._record(Fault("starved", what, began, self.last))

    async def _everything(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            if (late := time.monotonic() - began - 0.05) > STARVED:
                self._starved(f"the machine was busy for {late:.2f} s", began)

    async def _disk(self, probe: Path) -> None:
        """The store answers when what it wrote is on the disk."""

        def write() -> None:
            with probe.open("wb") as file:
                file.write(b"x" * 4096)
                os.fsync(file.fileno())

        while True:
            began = time.monotonic()
            await asyncio.to_thread(write)
            if (late := time.monotonic() - began) > STARVED:
                self._starved(f"the disk was busy for {late:.2f} s", began)
            await asyncio.sleep(0.1)

    async def _each(self) -> None:
        before: deque[tuple[float, dict[int, float]]] = deque(maxlen=LOOKS)
        while True:
            now = {name: waited(process) for name, process in self._processes().items()}
            began, then = before[0] if before else (time.monotonic(), {})
            before.append((time.monotonic(), {thread: waits for threads in now.values() for thread, waits in threads.items()}))
            for name, threads in now.items():
                longest = max((waits - then.get(thread, waits) for thread, waits in threads.items()), default=0.0)
                if longest > WAITED:
                    self._starved(f"{name} waited {longest:.2f} s for a processor", began)
                    before.clear()
                    break
            await asyncio.sleep(LOOK)


def waited(process: int) -> dict[int, float]:
    """How long each thread of a process has waited for a processor so far, in seconds; nothing where the kernel does not say."""
    found = {}
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # it has ended
            continue
    return found
