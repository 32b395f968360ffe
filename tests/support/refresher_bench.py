"""A refresher on a scripted renewer: the test says what each renewal returns."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, evolve, field

from apivideo_auth import RefreshPolicy, Token
from apivideo_auth._failure import Failure
from apivideo_auth._record import NEVER, Backoff, RenewalRequest, SharedToken
from apivideo_auth._refresher import Refresher
from apivideo_auth._renewal import Failed, Renewed
from apivideo_auth._state import State
from tests.support.doubles import LoopClock

RENEWED = Renewed(
    access="made-up-access-1",
    lifetime=3600.0,
    lifetime_assumed=True,
    sent_at=0.0,
    seconds=0.25,
    endpoint="/auth/api-key",
    version="version-1",
)
NEXT = evolve(RENEWED, access="made-up-access-2", endpoint="/auth/refresh", version="version-2")
SHARED = SharedToken(version="version-9", access=b"made-up-shared", lifetime=3600.0, remaining=3000.0, committed_at=0.0)
LIMIT = Failure(kind="rate_limited", message="made-up limit", status=429)
BACKOFF = Backoff(retry_after=30.0, failure=LIMIT, failures=3, failing_for=7.0)
FAILED = Failed(endpoint="/auth/refresh", seconds=0.5, last_commit_at=NEVER, backoff=BACKOFF)


@define
class Script:
    """Stands in for a `Renewer` and its slot.

    - `outcomes`: of the next renewals: values, or exceptions to raise. `requests`: what was asked for.
    - `shared`: the token that the record holds; a look takes `look_takes` seconds after the record was read.
    - `renews`: makes a renewal instead.
    - `waits`: the timeouts of the waits for a change, which end at once if `ends_early`.
    """

    clock: LoopClock
    outcomes: deque[Any] = field(factory=deque)
    requests: list[RenewalRequest] = field(factory=list)
    latency: float = 0.0
    shared: SharedToken | None = None
    look_takes: float = 0.0
    looks: int = 0
    waits: list[float] = field(factory=list)
    ends_early: bool = False
    is_closed: bool = False
    renews: Callable[[RenewalRequest], Awaitable[Any]] | None = None

    @property
    def slot(self) -> "Script":
        return self

    async def renew(self, request: RenewalRequest) -> Any:
        self.requests.append(request)
        if self.renews is not None:
            return await self.renews(request)
        outcome = self.outcomes.popleft()
        sent_at = self.clock.monotonic()
        await asyncio.sleep(self.latency)
        if isinstance(outcome, BaseException):
            raise outcome
        return evolve(outcome, sent_at=sent_at) if isinstance(outcome, Renewed) else outcome

    async def read(self) -> SharedToken | None:
        self.looks += 1
        shared = self.shared
        await asyncio.sleep(self.look_takes)
        return shared

    async def changed(self, timeout: float) -> None:
        self.waits.append(timeout)
        await asyncio.sleep(0 if self.ends_early else timeout)

    async def close(self) -> None:
        self.is_closed = True


@define
class Bench:
    """A refresher on a scripted renewer, its state, and the events that it emitted."""

    clock: LoopClock
    script: Script
    state: State
    emitted: list[Any]
    refresher: Refresher

    async def get(self, rejected: Token | None = None, min_ttl: float | None = None) -> Token:
        return await self.refresher.get(rejected, min_ttl)

    def plan(self, *outcomes: Any) -> None:
        self.script.outcomes.extend(outcomes)


def make_bench(clock: LoopClock, *, is_shared: bool = True) -> Bench:
    script, emitted = Script(clock), []
    state = State(policy=RefreshPolicy())
    refresher = Refresher(state, clock=clock, open_renewer=lambda: script, emit=emitted.append, is_shared=is_shared)
    refresher._jitter = lambda: 0.0
    return Bench(clock, script, state, emitted, refresher)
