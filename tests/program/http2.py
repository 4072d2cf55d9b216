"""Just enough HTTP/2 (RFC 9113) to be a bad client: frames by hand, no flow control, nothing is read unless asked."""

import socket
import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x7, 0x8
END_STREAM, END_HEADERS = 0x1, 0x4
SETTINGS_INITIAL_WINDOW_SIZE = 0x4
CANCEL = 0x8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; of the settings, only `window` is known here."""
    window = b"".join(struct.pack(">HI", SETTINGS_INITIAL_WINDOW_SIZE, size) for size in values.values())
    return frame(SETTINGS, 0, 0, window)


def reset(stream: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def header_block(method: str) -> bytes:
    """The headers of a gRPC call, as HPACK literals without indexing or Huffman coding (RFC 7541 section 6.2.2)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/sessionsidecar.v1.SessionService/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in headers.items()
    )


def call(method: str, stream: int, message: bytes) -> bytes:
    """The frames of a whole gRPC request."""
    prefixed = struct.pack(">BI", 0, len(message)) + message
    return frame(HEADERS, END_HEADERS, stream, header_block(method)) + frame(DATA, END_STREAM, stream, prefixed)


class RawConnection:
    """A TCP connection that has said `opening`."""

    def __init__(self, port: int, opening: bytes = b"", patience: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self.send(opening)

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> bool:
        """Sends as much as the server lets us; answers whether that was all."""
        try:
            self.socket.sendall(octets)
        except OSError:
            return False
        return True

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, stream and payload of each frame that comes, until the server closes the connection."""
        while header := self._read(9):
            yield header[3], int.from_bytes(header[5:9], "big"), self._read(int.from_bytes(header[:3], "big"))

    def was_closed(self) -> bool:
        """Waits for the server to say GOAWAY or to close the connection; false if it does neither in time."""
        try:
            return any(kind == GOAWAY for kind, _, _ in self.frames()) or True
        except TimeoutError:
            return False

    def _read(self, count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            try:
                more = self.socket.recv(count - len(octets))
            except TimeoutError:
                raise
            except OSError:
                return b""
            if not more:
                return b""
            octets += more
        return octets
