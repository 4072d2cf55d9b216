"""What the client's tests share."""

import asyncio
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

# For calls that are not about deadlines: only a failing test waits as long.
PATIENT = timedelta(seconds=20)
NEVER_ISSUED = "an-id-that-was-never-issued"


def seconds(number: float) -> timedelta:
    """A duration."""
    return timedelta(seconds=number)


@contextmanager
def black_hole() -> Iterator[str]:
    """A target that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def shown(thing):
    """Every way in which a thing is shown by accident. An exception with all that it came from."""
    if isinstance(thing, BaseException):
        return "".join(traceback.format_exception(thing)) + repr(thing) + repr(thing.args) + repr(vars(thing))
    return f"{thing!r} {thing}"


class Blocking:
    """An asyncio client with the face of a synchronous one."""

    def __init__(self, client) -> None:
        self._runner = asyncio.Runner()
        self._client = client

    def __getattr__(self, verb):
        def call(*arguments, **named):
            answer = getattr(self._client, verb)(*arguments, **named)
            return self._each(answer) if hasattr(answer, "__anext__") else self._runner.run(answer)

        return call

    def __repr__(self) -> str:
        return repr(self._client)

    def _each(self, answers):
        async def following():
            return await anext(answers, None)

        while (answer := self._runner.run(following())) is not None:
            yield answer

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()
