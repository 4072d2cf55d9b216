"""EndedCloser, beside the fake: how a site tries its own sockets, and what an application meets that is not done when the session is."""

import asyncio
from datetime import timedelta

import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.test import Client
from support.process import PATIENCE

from django_session_sidecar import EndedCloser
from django_session_sidecar.backend import fake, install, of_fake
from session_sidecar import Activity

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cookie(session_sidecar) -> str:
    """Of somebody who is logged in."""
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    return client.cookies["sessionid"].value


class Socket(ApplicationCommunicator):
    """A client of a socket."""

    def __init__(self, application, cookie: str) -> None:
        headers = [(b"cookie", f"other=1; sessionid={cookie}".encode())] if cookie else []
        super().__init__(EndedCloser(application), {"type": "websocket", "path": "/", "headers": headers})

    async def connect(self) -> dict:
        """What comes of opening it."""
        await self.send_input({"type": "websocket.connect"})
        return await self.receive_output(PATIENCE)

    async def say(self, text: str) -> str:
        """What is answered."""
        await self.send_input({"type": "websocket.receive", "text": text})
        return (await self.receive_output(PATIENCE))["text"]

    async def leave(self) -> None:
        """Closes it."""
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(PATIENCE)


ACCEPTED = {"type": "websocket.accept"}


def refused(reason: str) -> dict:
    """How it does not open."""
    return {"type": "websocket.close", "code": 4401, "reason": reason}


async def talkative(scope, receive, send):
    """Accepts, and goes on sending whatever it hears, even that the client is gone."""
    heard = talkative.heard = []
    while True:
        message = await receive()
        heard.append(message["type"])
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": f"heard {message['type']}"})
        if message["type"] == "websocket.disconnect":
            heard.append(message["code"])
            return


def test_an_application_hears_of_the_end_as_of_any_disconnect_and_what_it_sends_then_goes_nowhere(session_sidecar, cookie):
    async def visit():
        client = Socket(talkative, cookie)
        assert await client.connect() == ACCEPTED
        assert await client.say("hello") == "heard websocket.receive"
        session_sidecar.end(cookie)
        assert await client.receive_output(PATIENCE) == refused("LOGOUT")
        await client.wait(PATIENCE)
        assert client.output_queue.empty()
        assert talkative.heard == ["websocket.connect", "websocket.receive", "websocket.disconnect", 4401]

    asyncio.run(visit())


def test_a_socket_is_no_activity(session_sidecar, cookie):
    async def visit():
        client = Socket(talkative, cookie)
        session_sidecar.advance(timedelta(minutes=14))
        assert await client.connect() == ACCEPTED
        await client.say("hello")
        session_sidecar.advance(timedelta(minutes=1))
        assert await client.receive_output(PATIENCE) == refused("IDLE_TIMEOUT")
        await client.wait(PATIENCE)

    asyncio.run(visit())


def test_an_end_before_the_socket_is_accepted_refuses_it(session_sidecar, cookie):
    async def hesitant(scope, receive, send):
        await receive()
        session_sidecar.end(cookie)
        assert (await receive())["type"] == "websocket.disconnect"
        await send({"type": "websocket.accept"})

    async def visit():
        client = Socket(hesitant, cookie)
        assert await client.connect() == refused("LOGOUT")
        await client.wait(PATIENCE)

    asyncio.run(visit())


@pytest.mark.parametrize("whose", ["", "x" * 300, "a" * 32, "ü"])
def test_a_strangers_socket_is_left_alone(session_sidecar, whose):
    async def visit():
        client = Socket(talkative, whose)
        assert await client.connect() == ACCEPTED
        await client.leave()

    asyncio.run(visit())


def test_a_socket_of_a_session_that_the_sidecar_does_not_know_adopts_it(session_sidecar, cookie, settings):
    empty = fake()
    install(of_fake(empty))

    async def visit():
        client = Socket(talkative, cookie)
        assert await client.connect() == ACCEPTED
        assert empty.touch(cookie, activity=Activity.BACKGROUND).allowed
        await client.leave()
        settings.SESSION_SIDECAR = settings.SESSION_SIDECAR | {"ON_UNKNOWN": "deny"}
        install(of_fake(fake()))
        assert await Socket(talkative, cookie).connect() == refused("UNKNOWN")

    asyncio.run(visit())


def test_an_application_that_is_done_leaves_nothing_behind(session_sidecar, cookie):
    async def brief(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def visit():
        client = Socket(brief, cookie)
        assert await client.connect() == ACCEPTED
        await client.wait(PATIENCE)
        await asyncio.sleep(0)
        assert {task.get_name() for task in asyncio.all_tasks()} & {"session-sidecar-watch", "session-sidecar-again"} == set()

    asyncio.run(visit())
