"""As much of the Redis protocol as an operator needs: one command, one answer, over a connection of its own."""

import socket

Answer = str | int | None | list


class Refused(Exception):
    """The server answered with an error."""


def call(port: int, *words: str | int, patience: float = 5.0) -> Answer:
    """Sends one command to a server on loopback. Raises `Refused`, or an OSError if there is no answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as link, link.makefile("rb") as answers:
        encoded = [str(word).encode() for word in words]
        link.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
        return _read(answers)


def fields(text: Answer) -> dict[str, str]:
    """The lines `name:value` of an INFO or CLUSTER INFO answer."""
    pairs = (line.partition(":") for line in str(text).splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def _read(answers) -> Answer:
    line = answers.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest.decode()
        case b"-":
            raise Refused(rest.decode())
        case b":":
            return int(rest)
        case b"$":
            return None if rest == b"-1" else answers.read(int(rest) + 2)[:-2].decode(errors="replace")
        case b"*":
            return None if rest == b"-1" else [_read(answers) for _ in range(int(rest))]
    raise ConnectionError(f"not an answer: {kind!r}")
