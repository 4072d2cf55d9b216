"""What is noticed of the machine."""

import asyncio
import os
import time

from chaos.machine import Machine, waited


def test_a_standstill_of_the_director_is_noticed(tmp_path):
    found = []

    async def stand_still():
        with Machine(found.append, tmp_path / "disk", lambda: {"this one": os.getpid()}) as machine:
            await asyncio.sleep(0)
            time.sleep(0.3)  # on purpose: nothing else runs meanwhile
            while not found:
                await asyncio.sleep(0)
            return machine.last

    last = asyncio.run(stand_still())
    assert found[0].kind == "starved" and "busy" in found[0].what
    assert found[0].ended == last >= found[0].began + 0.3


def test_the_kernel_says_how_long_each_thread_has_waited():
    waits = waited(os.getpid())
    assert waits.get(os.getpid(), 0.0) >= 0.0
    assert waited(0) == {}
