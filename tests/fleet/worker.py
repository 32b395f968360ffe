"""A worker process of a fleet: it gets tokens, calls GET /videos with them, and reports what happens.

The environment names the account and the store (`TokenManager.from_env`); the one argument is a `Plan` as JSON. Orders
are JSON lines of standard input: the worker starts at "go", and ends at "end" or when standard input ends. Reports are
JSON lines of standard output: "ready", the manager's events by their class, the fingerprint of each refresh token
before it is sent, and the answers to orders.
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
from apivideo_auth.stores import store_from_url
from apivideo_auth.stores._file_record import RecordFile
from tests.support.time_limits import set_operation_timeout


@frozen
class Plan:
    """What a worker does.

    - `trap`: where it stops when it first gets there with a refresh token: "claimed", after the claim and before the
      call, or "answered", after the call and before the commit. It continues when a byte arrives on the file descriptor
      `release`.
    - `operation_timeout`: seconds for an operation of the store, instead of half a second, so that a slow machine does
      not look like a store that is down.
    """

    attempt_timeout: float = 10.0
    deadline: float = 20.0
    callers: int = 2
    pause: float = 0.1
    trap: str | None = None
    release: int | None = None
    operation_timeout: float | None = None


def report(word: str, **more: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps({"kind": word, **more}) + "\n")
    sys.stdout.flush()


def fingerprint(token: str) -> str:
    """Return a text that identifies a token and does not show it."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


@define
class Trap:
    """A point at which this process stops once, including its event loop."""

    point: str | None
    release: int | None

    def reach(self, point: str) -> None:
        """Stop if this is the point."""
        if self.point == point and self.release is not None:
            self.point = None
            report("trapped", point=point)
            os.read(self.release, 1)


class Api(AuthenticationApi):
    """The real endpoints; each refresh token is reported before it is sent."""

    trap: Trap

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        report("refresh", token=fingerprint(payload.refresh_token))
        answer = await super().refresh(payload)
        self.trap.reach("answered")
        return answer


@define(eq=False)
class Store:
    """A real store; the worker may stop after an operation."""

    _store: Any
    _trap: Trap
    needs_encryption: bool = True

    def open(self, account: str, **kwargs: Any) -> "Slot":
        return Slot(self._store.open(account, **kwargs), self._trap)


@define
class Slot:
    """A real slot; the worker may stop after a claim that was granted a refresh token."""

    _slot: Any
    _trap: Trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slot, name)

    async def claim(self, event: Claim) -> ClaimAnswer:
        before = asyncio.get_running_loop().time()
        answer: ClaimAnswer = await self._slot.claim(event)
        if isinstance(answer, Granted) and answer.refresh is not None:
            report("granted", not_before=before)
            self._trap.reach("claimed")
        return answer


@define
class Figures:
    """What the callers of this process saw. `longest_wait` in seconds; `token`: the fingerprint of the last token."""

    get_token_calls: int = 0
    requests: int = 0
    longest_wait: float = 0.0
    no_token: list[str] = field(factory=list)
    failed: list[str] = field(factory=list)
    token: str | None = None


async def call(tokens: TokenManager, plan: Plan, figures: Figures) -> None:
    """Get a token and list videos, until the worker ends."""
    async with tokens.session() as session:
        while True:
            figures.get_token_calls += 1
            token = await ask(tokens, figures)
            if token is not None:
                figures.token = fingerprint(token.access_token)
                await request(session, figures)
            await asyncio.sleep(plan.pause)


async def ask(tokens: TokenManager, figures: Figures) -> Token | None:
    """Get a token once."""
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


def break_disk(how: str | None) -> None:
    """Let writing a record fail as on a full disk or in a read-only folder; `None` ends that.

    The error of the full disk is the real one, from /dev/full. The read-only folder is made up, since root may write.
    """

    def full(_file: RecordFile) -> int:
        return os.open("/dev/full", os.O_WRONLY)

    def read_only(file: RecordFile) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file._new_path))

    RecordFile._create = {"full": full, "read-only": read_only, None: CREATE}[how]


CREATE = RecordFile._create


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


def report_event(event: Any) -> None:
    """Report an event of the manager."""
    report(type(event).__name__, **asdict(event, filter=lambda attribute, _value: attribute.name != "expires_at"))


async def execute_orders(reader: asyncio.StreamReader, tokens: TokenManager, plan: Plan, figures: Figures) -> None:
    """Execute orders until the end; the callers run meanwhile."""
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
                    break_disk(order["how"])
                    report("disk")
                case "report":
                    report("report", **asdict(figures))
                case "end":
                    break
        for task in tasks:
            task.cancel()


async def main() -> None:
    """Run one worker."""
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.operation_timeout is not None:
        set_operation_timeout(plan.operation_timeout)
    trap, figures = Trap(plan.trap, plan.release), Figures()
    api = Api(os.environ["APIVIDEO_BASE_URL"], attempt_timeout=plan.attempt_timeout)
    api.trap = trap
    store = Store(store_from_url(os.environ["APIVIDEO_TOKEN_STORE"]), trap)
    policy = RefreshPolicy(attempt_timeout=plan.attempt_timeout, deadline=plan.deadline)
    async with api, TokenManager.from_env(api=api, store=store, policy=policy, on_event=report_event) as tokens:
        async with orders() as reader:
            report("ready", pid=os.getpid())
            await execute_orders(reader, tokens, plan, figures)
    report("ended", **asdict(figures))


if __name__ == "__main__":
    asyncio.run(main())
