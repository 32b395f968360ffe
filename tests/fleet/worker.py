"""A worker of a fleet, as a process: asks for tokens, calls GET /videos with them, and tells what happened.

The environment says which account and which store (`TokenManager.from_env`). The one argument is a JSON object, see
`Plan`. It says "ready", begins at the order "go", and ends at the order "end" or when standard input ends. Orders are
lines of standard input, what it tells are JSON lines of standard output: the manager's events by their class, each
refresh token by its fingerprint before it is sent, and the answers to orders.
"""

import asyncio
import errno
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from attrs import asdict, define, field, frozen

from apivideo_auth import AccessToken, AuthenticationApi, AuthError, RefreshPolicy, Token, TokenManager
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._models import RefreshTokenPayload
from apivideo_auth._record import Claim, ClaimAnswer, Granted
from apivideo_auth.stores import _file_record, store_from_url
from apivideo_auth.stores._account import FailoverAccount
from apivideo_auth.stores._file_record import RecordFile
from apivideo_auth.stores.redis import _client, _connection, _subscription


@frozen
class Plan:
    """What is wanted of a worker. `trap`: where it stands still when it first gets there with a refresh token:

    "claimed", with a claim and before the call; "answered", with the call's answer and before the commit. It goes on
    when a byte comes on the descriptor `release`. `budget`: seconds for an operation of the store, in place of half
    a second, where a machine that is short of breath must not pass for a store that is down.
    """

    attempt_timeout: float = 10.0
    deadline: float = 20.0
    callers: int = 2
    pause: float = 0.1
    trap: str | None = None
    release: int | None = None
    budget: float | None = None


def tell(word: str, **more: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps({"told": word, **more}) + "\n")
    sys.stdout.flush()


def mark(token: str) -> str:
    """Return what tells one token from another and shows none."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


@define
class Trap:
    """A point at which this process stands still, once: all of it, its event loop too."""

    point: str | None
    release: int | None

    def reach(self, point: str) -> None:
        """Stand still if this is the point."""
        if self.point == point and self.release is not None:
            self.point = None
            tell("trapped", point=point)
            os.read(self.release, 1)


class Api(AuthenticationApi):
    """The endpoints, called for real; each refresh token is told before it goes out."""

    trap: Trap

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        tell("refresh", token=mark(payload.refresh_token))
        answer = await super().refresh(payload)
        self.trap.reach("answered")
        return answer


@define(eq=False)
class Store:
    """A real store, in front of which the worker may stand still."""

    _store: Any
    _trap: Trap
    needs_encryption: bool = True

    def open(self, account: str, **kwargs: Any) -> "Slot":
        return Slot(self._store.open(account, **kwargs), self._trap)


@define
class Slot:
    """A real slot; a claim that was granted a refresh token is a point to stand still."""

    _slot: Any
    _trap: Trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slot, name)

    async def claim(self, event: Claim) -> ClaimAnswer:
        before = asyncio.get_running_loop().time()
        answer: ClaimAnswer = await self._slot.claim(event)
        if isinstance(answer, Granted) and answer.refresh is not None:
            tell("granted", not_before=before)
            self._trap.reach("claimed")
        return answer


@define
class Figures:
    """What the callers of this process saw. Waits in seconds; `token` is the mark of the last one served."""

    asked: int = 0
    requests: int = 0
    longest_wait: float = 0.0
    no_token: list[str] = field(factory=list)
    failed: list[str] = field(factory=list)
    token: str | None = None


async def call(tokens: TokenManager, plan: Plan, figures: Figures) -> None:
    """Ask for a token and list videos, until the worker ends. Only those who hold a token make requests."""
    async with tokens.session() as session:
        while True:
            figures.asked += 1
            token = await ask(tokens, figures)
            if token is not None:
                figures.token = mark(token.access_token)
                await request(session, figures)
            await asyncio.sleep(plan.pause)


async def ask(tokens: TokenManager, figures: Figures) -> Token | None:
    """Ask for a token once."""
    before = SYSTEM_CLOCK.monotonic()
    try:
        return await tokens.get_token()
    except AuthError as error:
        figures.no_token.append(type(error).__name__)
        return None
    finally:
        figures.longest_wait = max(figures.longest_wait, SYSTEM_CLOCK.monotonic() - before)


async def request(session: aiohttp.ClientSession, figures: Figures) -> None:
    """List videos once."""
    figures.requests += 1
    try:
        async with session.get("/videos") as response:
            if response.status != 200:
                figures.failed.append(f"status {response.status}")
            await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        figures.failed.append(f"{type(error).__name__}: {error}")


def spoil_disk(how: str | None) -> None:
    """Let writing a record fail as on a disk that is full, or in a folder that is read-only; None mends it.

    The error of the full disk is the real one, from /dev/full. The read-only folder is made up, since root may write.
    """

    def full(_file: RecordFile) -> int:
        return os.open("/dev/full", os.O_WRONLY)

    def read_only(file: RecordFile) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file._new_path))

    RecordFile._create = {"full": full, "read-only": read_only, None: CREATE}[how]


CREATE = RecordFile._create


def be_patient(budget: float) -> None:
    """Give the operations of stores so many seconds."""
    FailoverAccount._ask.__kwdefaults__["limit"] = budget
    _client.BUDGET = _connection.BUDGET = _subscription.BUDGET = _file_record.LOCK_TIMEOUT = budget


@asynccontextmanager
async def orders() -> AsyncIterator[asyncio.StreamReader]:
    """Give standard input."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    try:
        yield reader
    finally:
        transport.close()


def tell_event(event: Any) -> None:
    """Tell of an event of the manager."""
    tell(type(event).__name__, **asdict(event, filter=lambda attribute, _value: attribute.name != "expires_at"))


async def obey(reader: asyncio.StreamReader, tokens: TokenManager, plan: Plan, figures: Figures) -> None:
    """Do as told until the end, with the callers of "go" beside."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        while line := await reader.readline():
            order = json.loads(line)
            match order["do"]:
                case "go":
                    tasks += [group.create_task(call(tokens, plan, figures)) for _ in range(plan.callers)]
                case "renew":
                    tasks.append(group.create_task(tokens.get_token(min_ttl=order["min_ttl"])))
                case "disk":
                    spoil_disk(order["how"])
                    tell("disk")
                case "report":
                    tell("report", **asdict(figures))
                case "end":
                    break
        for task in tasks:
            task.cancel()


async def main() -> None:
    """Run one worker."""
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.budget is not None:
        be_patient(plan.budget)
    trap, figures = Trap(plan.trap, plan.release), Figures()
    api = Api(os.environ["APIVIDEO_BASE_URL"], attempt_timeout=plan.attempt_timeout)
    api.trap = trap
    store = Store(store_from_url(os.environ["APIVIDEO_TOKEN_STORE"]), trap)
    policy = RefreshPolicy(attempt_timeout=plan.attempt_timeout, deadline=plan.deadline)
    async with api, TokenManager.from_env(api=api, store=store, policy=policy, on_event=tell_event) as tokens:
        async with orders() as reader:
            tell("ready", pid=os.getpid())
            await obey(reader, tokens, plan, figures)
    tell("ended", **asdict(figures))


if __name__ == "__main__":
    asyncio.run(main())
