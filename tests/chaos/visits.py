"""People: each visit is one session, from its login to after its end, with calls to whichever sidecar comes up."""

import asyncio
import random
from collections.abc import Callable

from support.api import v1

from .history import Call
from .policies import LONGEST_EXTENSION, LONGEST_HOLD, POLICIES, SHARES
from .wire import ask, span

OVER = ("FAILED_PRECONDITION", "NOT_FOUND")
RETRIES = 4


class Visit:
    """One session and its successors."""

    def __init__(self, number: int, run: str, sidecars: list, rng: random.Random, record: Callable) -> None:
        self.number = number
        self.policy = rng.choices(list(SHARES), list(SHARES.values()))[0]
        self.session_id = ""
        self.rotations = 0
        self.over = False
        self.lock = asyncio.Lock()  # one call at a time, but for those that a burst makes
        self._run = run
        self._sidecars = sidecars
        self._rng = rng
        self._record = record
        self._holds = 0
        self._former: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """What the history calls its present id."""
        return f"{self.number}.{self.rotations}"

    def _own_id(self, rotation: int) -> str:
        return f"chaos-{self._run}-{self.number}-{rotation}-id"

    async def _ask(self, verb: str, request, *, sidecar: int | None = None, name: str | None = None, **fields) -> tuple[Call, object | None]:
        chosen = self._rng.randrange(len(self._sidecars)) if sidecar is None else sidecar
        call = Call(verb, chosen, name or self.name, 0, 0, **fields)
        answer = await ask(self._sidecars, call, request, self._record)
        if call.code in OVER and not call.alias and name is None:
            self.over = True
        return call, answer

    async def create(self, sidecar: int | None = None) -> bool:
        """Logs in; tries again until it knows what came of it."""
        own = self._rng.random() < 0.7
        subject = f"p{self.number // 3}" if self.policy == "capped" else f"s{self.number}"
        request = v1.CreateRequest(subject=subject, policy=self.policy, labels={"n": str(self.number)})
        request.request_id = f"{self._run}-create-{self.number}-0123456789"
        if own:
            request.session_id = self._own_id(0)
        for _ in range(RETRIES):
            call, answer = await self._ask("Create", request, sidecar=sidecar, policy=self.policy)
            sidecar = None
            if answer is not None:
                self.session_id = answer.session_id
                return True
            if not (call.uncertain or call.code == "RESOURCE_EXHAUSTED"):
                break
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))
        self.over = True
        return False

    async def rotate(self, sidecar: int | None = None, authenticated: bool = False) -> None:
        """Takes another id; tries again until it knows what came of it."""
        request = v1.RotateRequest(session_id=self.session_id, request_id=f"{self._run}-rotate-{self.number}-{self.rotations}-0123456789")
        if self._rng.random() < 0.5:
            request.new_session_id = self._own_id(self.rotations + 1)
        if authenticated:
            request.authenticated_ago.SetInParent()
        new_name = f"{self.number}.{self.rotations + 1}"
        for _ in range(RETRIES):
            call, answer = await self._ask("Rotate", request, sidecar=sidecar, new_name=new_name, authenticated=authenticated)
            sidecar = None
            if answer is not None:
                self._former = (self.name, self.session_id)
                self.session_id = answer.session_id
                self.rotations += 1
                return
            if not call.uncertain:
                break
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        # It may have another id now that nobody was told.
        self.over = True

    async def touch(self, activity: int = v1.ACTIVITY_USER) -> Call:
        """Does something."""
        return (await self._ask("Touch", v1.TouchRequest(session_id=self.session_id, activity=activity)))[0]

    async def check(self) -> None:
        """Asks how it stands."""
        await self._ask("Check", v1.CheckRequest(session_id=self.session_id))

    async def extend(self) -> None:
        """Presses "stay"."""
        wanted = self._rng.uniform(1.0, LONGEST_EXTENSION)
        request = v1.ExtendRequest(session_id=self.session_id, wanted_duration=span(wanted))
        await self._ask("Extend", request, seconds=wanted)

    async def hold(self, kind: str) -> None:
        """Holds for a few pulses, and then releases it or lets it lapse. A hold's id is used once, so that its end is certain."""
        self._holds += 1
        hold = f"hold-{self._holds}"
        ttl = self._rng.uniform(1.0, LONGEST_HOLD)
        request = v1.HoldRequest(session_id=self.session_id, hold_id=hold, kind=v1.HoldKind.Value(f"HOLD_KIND_{kind}"), ttl=span(ttl))
        for _ in range(self._rng.randint(1, 4)):
            request.session_id = self.session_id
            call, _ = await self._ask("Hold", request, kind=kind, hold=hold, seconds=ttl)
            if self.over or call.code != "OK":
                return
            await asyncio.sleep(self._rng.uniform(0.3, 0.8) * ttl)
        if self._rng.random() < 0.6:
            await self._ask("Release", v1.ReleaseRequest(session_id=self.session_id, hold_id=hold), hold=hold)

    async def end(self) -> None:
        """Logs out."""
        reason = self._rng.choice(["LOGOUT", "REVOKED"])
        request = v1.EndRequest(session_id=self.session_id, reason=v1.EndReason.Value(f"END_REASON_{reason}"))
        call, _ = await self._ask("End", request, kind=reason)
        self.over = self.over or call.code == "OK"

    async def old_id(self) -> None:
        """Uses the id that it had before, as a page does that was open already."""
        if self._former is None:
            return
        name, session_id = self._former
        await self._ask("Touch", v1.TouchRequest(session_id=session_id, activity=v1.ACTIVITY_USER), name=name)

    async def run(self, stopping: asyncio.Event) -> None:
        """The whole visit, after its creation."""
        rng, policy = self._rng, POLICIES[self.policy]
        if self.policy == "kiosk":
            async with self.lock:
                await self.hold("PRESENCE")
        for _ in range(rng.randint(2, 12)):
            # Mostly well before the deadline; sometimes when it is warned of, or about to pass.
            near = rng.random() < 0.2
            pause = rng.uniform(policy.idle - policy.leads[0] - 0.3, policy.idle + 0.2) if near else rng.uniform(0.1, 0.55 * policy.idle)
            await asyncio.sleep(pause)
            if self.over or stopping.is_set():
                break
            async with self.lock:
                await self._act()
        if not stopping.is_set():
            await self._afterwards(stopping)

    async def _act(self) -> None:
        actions = {
            self.touch: 55,
            lambda: self.touch(v1.ACTIVITY_BACKGROUND): 6,
            self.check: 12,
            self.extend: 6,
            lambda: self.hold("WORK"): 6,
            self.rotate: 4,
            lambda: self.rotate(authenticated=True): 2,
            self.old_id: 4,
            self.end: 3,
            lambda: self.hold("PRESENCE") if self.policy == "kiosk" else self.touch(): 3,
        }
        await self._rng.choices(list(actions), list(actions.values()))[0]()

    async def _afterwards(self, stopping: asyncio.Event) -> None:
        """Comes back when it is over, or ought to be."""
        rng = self._rng
        if not self.session_id:
            return
        await asyncio.sleep(rng.uniform(0, POLICIES[self.policy].idle + 3))
        for _ in range(rng.randint(0, 3)):
            if stopping.is_set():
                return
            async with self.lock:
                match rng.randrange(4):
                    case 0:
                        await self.check()
                    case 1 if self.over:
                        request = v1.CreateRequest(session_id=self.session_id, policy="default", labels={"n": str(self.number)})
                        await self._ask("Create", request, policy=self.policy)
                        self.over = True
                    case _ if self.over:
                        await self.touch()
            await asyncio.sleep(rng.uniform(0.1, 2))
