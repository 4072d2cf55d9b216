"""The proxy's faults, against an echo."""

import asyncio
import contextlib
import time

import pytest

from chaos.proxy import Proxy, Way


@contextlib.asynccontextmanager
async def echo():
    async def answer(reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = await Proxy(server.sockets[0].getsockname()[1]).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield proxy, reader, writer
    writer.transport.abort()
    await proxy.close()
    server.close()


def played(scene):
    async def main():
        async with echo() as (proxy, reader, writer):
            await asyncio.wait_for(scene(proxy, reader, writer), 20)

    asyncio.run(main())


async def silent(reader):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)


def test_it_forwards_delays_and_slows():
    async def scene(proxy, reader, writer):
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        proxy.up = Way(delay=0.2)
        began = time.monotonic()
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
        assert time.monotonic() - began >= 0.2
        proxy.heal()
        proxy.down = Way(rate=100)
        began = time.monotonic()
        writer.write(bytes(30))
        assert await reader.readexactly(30)
        assert time.monotonic() - began >= 0.3

    played(scene)


def test_what_is_held_arrives_late_and_what_is_dropped_costs_the_connection():
    async def scene(proxy, reader, writer):
        proxy.up = Way(held=True)
        writer.write(b"late")
        await silent(reader)
        proxy.heal()
        assert await reader.readexactly(4) == b"late"
        proxy.down = Way(dropped=True)
        writer.write(b"lost")
        await silent(reader)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(4)

    played(scene)


def test_a_half_open_connection_stays_silent_until_it_is_healed():
    async def scene(proxy, reader, writer):
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        proxy.half_open()
        writer.write(b"two")
        await silent(reader)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)

    played(scene)


def test_a_cut_resets_and_a_refusal_lets_nobody_in():
    async def scene(proxy, reader, writer):
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        proxy.refusing = True
        again, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await again.readexactly(1)

    played(scene)
