"""A TCP proxy that misbehaves on request. It lives in the event loop that calls it."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

PIECE = 65536


@dataclass
class Way:
    """What befalls the bytes of one direction."""

    delay: float = 0.0  # seconds; order is kept
    rate: float = 0.0  # bytes a second; 0 is as fast as it goes
    held: bool = False  # nothing passes; it arrives late, when the hold is lifted, as retransmitted packets do
    dropped: bool = False  # what is sent is lost, and with it the connection, when the fault is over


class Proxy:
    """Forwards connections to a port on loopback. `up` is towards the server, `down` is from it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.up = Way()
        self.down = Way()
        self.refusing = False
        self.port = 0
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> "Proxy":
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Stops listening and cuts what is open."""
        self._server.close()
        self.cut()

    def count(self) -> int:
        """How many connections are open."""
        return len(self._pairs)

    def heal(self) -> None:
        """Ends all faults. Connections that lost bytes are cut: a stream can't go on with a hole."""
        self.up, self.down, self.refusing = Way(), Way(), False
        for pair in list(self._pairs):
            if pair.holed:
                pair.reset()

    def cut(self) -> None:
        """Resets every connection, on both sides."""
        for pair in list(self._pairs):
            pair.reset()

    def half_open(self) -> None:
        """Closes every connection on the server's side only: the client's stays open, and nobody answers on it."""
        for pair in list(self._pairs):
            pair.forget_server()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            _reset(writer)
            return
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(self, writer, server[1])
        self._pairs.add(pair)
        # Cancelled is what it is when the run is over.
        with contextlib.suppress(asyncio.CancelledError):
            await self._carry(pair, reader, writer, server)

    async def _carry(self, pair: "_Pair", reader, writer, server) -> None:
        try:
            await asyncio.gather(pair.pump("up", reader, server[1]), pair.pump("down", server[0], writer))
        finally:
            pair.reset()
            self._pairs.discard(pair)


class _Pair:
    """The two connections of one client."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.holed = False
        self.halved = False
        for writer in (client, server):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)

    def forget_server(self) -> None:
        self.halved = True
        self.holed = True
        _reset(self.server)

    async def pump(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one direction. A queue is between reading and writing, so that a delay keeps no later bytes from starting theirs."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(name, queue, writer))
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if getattr(self.proxy, name).dropped or self.halved:
                    self.holed = True
                else:
                    queue.put_nowait((clock(), piece))
        if self.halved and name == "down":
            # The server is gone and the client must not notice: this direction just falls silent.
            sender.cancel()
            return
        queue.put_nowait((clock(), b""))
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await sender

    async def _send(self, name: str, queue: asyncio.Queue, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            arrived, piece = await queue.get()
            while (way := getattr(self.proxy, name)).held:
                await asyncio.sleep(0.01)
            if (wait := arrived + way.delay - clock()) > 0:
                await asyncio.sleep(wait)
            if way.rate:
                await asyncio.sleep(len(piece) / way.rate)
            if not piece:
                with contextlib.suppress(OSError):
                    if not self.halved:
                        self.reset()
                return
            writer.write(piece)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes at once, with a RST rather than a FIN."""
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
