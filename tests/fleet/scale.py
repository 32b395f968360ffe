"""How the cost of sharing grows with the fleet: a day of virtual time, for 1, 10, 100 and 1,000 workers.

    python -m tests.fleet.scale [WORKERS…]

The managers are real. The endpoints are simulated, with tokens of an hour, and so is the store: a `MemoryStore` behind
the protocol of a `RedisStore`. Each operation is one command. A commit is pushed to every worker by a subscription; an
outage cuts it, and it is made again. A worker that waits for a renewal polls at growing intervals. Not counted are
PUBLISH, which the script of a commit does itself, and the cost of a subscription: SUBSCRIBE, and a PING after five
quiet minutes.

Each fleet runs twice. The second time its store fails six times for five minutes, in turn: it is down, it hangs, it is
down and comes back empty. The last outage is at the worst moment, from before the first worker is to renew until after
the last one is. Every worker asks for a token every ten minutes.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import looptime
from attrs import define, field, frozen

from apivideo_auth import AuthError, MemoryStore, TokenManager, TokenStoreError
from apivideo_auth._clock import Clock
from apivideo_auth._record import EMPTY, Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken
from apivideo_auth.stores._base import POLL_GROWTH
from apivideo_auth.stores.redis._slot import MAX_POLL_INTERVAL, POLL_INTERVAL
from apivideo_auth.stores.redis._subscription import MAX_RECONNECT_DELAY
from tests.support.doubles import LoopClock, Service

FLEETS = (1, 10, 100, 1000)
HOUR = 3600.0
DAY = 24 * HOUR
OUTAGE = 300.0
FAULTS = ("down", "hangs", "emptied")
FIRST_OUTAGE = 2.5 * HOUR
BETWEEN_OUTAGES = 3.3 * HOUR
OUTAGES_ANYWHERE = 5
WORST_AFTER = 20 * HOUR
WORST_FROM = 0.745
"""The part of a lifetime after which the last outage begins; renewals come from 0.75 to 0.8 of it."""
COMMAND_TAKES = 0.001
CALL_TAKES = 0.2
ASK_EVERY = 600.0

T = TypeVar("T")


@define(eq=False)
class Server:
    """A store in memory that is counted and that fails, like the server of a Redis.

    `subscribers` are called after a commit, and when their subscriptions are made again after an outage.
    """

    commands: Counter[str] = field(factory=Counter)
    fault: str | None = None
    inner: MemoryStore = field(factory=MemoryStore)
    subscribers: list[Callable[[], None]] = field(factory=list)

    @property
    def committed_at(self) -> float:
        """When the record's token was committed."""
        (account,) = self.inner._accounts.values()
        return account.record.committed_at or 0.0

    async def fail(self, fault: str) -> None:
        """Be lost for a while."""
        self.fault = fault
        await asyncio.sleep(OUTAGE)
        self.fault = None
        if fault == "emptied":
            for account in self.inner._accounts.values():
                account.record = EMPTY
        loop = asyncio.get_running_loop()
        for on_commit in self.subscribers:
            # A subscription is made again after a pause, and then its worker looks at the record.
            loop.call_later(MAX_RECONNECT_DELAY * random.uniform(0.0, 1.0), on_commit)


@define(eq=False)
class Store:
    """The store object of one worker. Each worker has its own, because the managers that share one are one worker."""

    server: Server
    needs_encryption: bool = False

    def open(
        self, account: str, *, clock: Clock, on_commit: Callable[[], None], on_damage: Callable[[str], None]
    ) -> "Slot":
        # An outage cuts the subscription as well.
        def push() -> None:
            if self.server.fault is None:
                on_commit()

        self.server.subscribers.append(on_commit)
        return Slot(self.server, self.server.inner.open(account, clock=clock, on_commit=push, on_damage=on_damage))


@define(eq=False)
class Slot:
    """One worker's view of the record."""

    server: Server
    inner: Any

    async def read(self) -> SharedToken | None:
        return await self._command("read", self.inner.read)

    async def claim(self, event: Claim) -> ClaimAnswer:
        return await self._command("claim", lambda: self.inner.claim(event))

    async def commit(self, event: Commit) -> EndAnswer:
        return await self._command("commit", lambda: self.inner.commit(event))

    async def release(self, event: Release) -> EndAnswer:
        return await self._command("release", lambda: self.inner.release(event))

    async def changed(self, wait: float) -> None:
        """Wait for a commit, and poll meanwhile, as a `RedisSlot` does."""
        pause, waiting = POLL_INTERVAL, asyncio.create_task(self.inner.changed(wait))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=pause * random.uniform(0.75, 1.25))
                await self._command("look", self.inner.read)
                pause = min(pause * POLL_GROWTH, MAX_POLL_INTERVAL)
        finally:
            waiting.cancel()

    async def close(self) -> None:
        await self.inner.close()

    async def _command(self, name: str, operation: Callable[[], Awaitable[T]]) -> T:
        self.server.commands[name] += 1
        await asyncio.sleep(COMMAND_TAKES)
        if self.server.fault == "hangs":
            await asyncio.sleep(OUTAGE)
        if self.server.fault is not None:
            raise TokenStoreError("the store is away")
        return await operation()


@frozen
class Day:
    """What one fleet did in a day.

    `calls` by the hour in which they came; `commands` of all workers; refresh tokens that were `repeated`.
    """

    workers: int
    calls: Counter[int]
    api_key_calls: int
    commands: Counter[str]
    repeated: int
    asked: int
    no_token: int
    waited: int

    @property
    def calls_an_hour(self) -> float:
        """Calls to the two endpoints, by all workers."""
        return self.calls.total() / 24

    @property
    def commands_an_hour(self) -> float:
        """Commands of one worker."""
        return self.commands.total() / 24 / self.workers


@define(eq=False)
class _Callers:
    asked: int = 0
    no_token: int = 0
    waited: int = 0

    async def call(self, manager: TokenManager) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(random.uniform(0, 1))
        while True:
            before = loop.time()
            self.asked += 1
            try:
                await manager.get_token()
            except AuthError:
                self.no_token += 1
            # The first token has to be waited for, by anybody who comes before it is there.
            self.waited += loop.time() > before > ASK_EVERY
            await asyncio.sleep(ASK_EVERY)


async def _outages(server: Server) -> None:
    """Let the store be lost now and then."""
    loop = asyncio.get_running_loop()
    for number in range(OUTAGES_ANYWHERE):
        await asyncio.sleep(max(0.0, FIRST_OUTAGE + number * BETWEEN_OUTAGES - loop.time()))
        await server.fail(FAULTS[number % len(FAULTS)])
    await asyncio.sleep(WORST_AFTER - loop.time())
    # Polled, because nothing announces that a record was renewed.
    while not 0 < server.committed_at + WORST_FROM * HOUR - loop.time() < ASK_EVERY:  # noqa: ASYNC110  as above
        await asyncio.sleep(60)
    await asyncio.sleep(server.committed_at + WORST_FROM * HOUR - loop.time())
    await server.fail("down")


async def _day(workers: int, *, faults: bool) -> Day:
    clock = LoopClock()
    service, server, callers = Service(clock, latency=CALL_TAKES), Server(), _Callers()
    managers = [TokenManager("made-up-api-key", api=service, store=Store(server), clock=clock) for _ in range(workers)]
    tasks = [asyncio.create_task(callers.call(manager)) for manager in managers]
    if faults:
        tasks.append(asyncio.create_task(_outages(server)))
    await asyncio.sleep(DAY)
    assert not faults or tasks[-1].done()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    commands = server.commands.copy()
    for manager in managers:
        await manager.close()
    used = service.used_refresh_tokens
    return Day(
        workers=workers,
        calls=Counter(int(call.at // HOUR) for call in service.calls),
        api_key_calls=service.count("api-key"),
        commands=commands,
        repeated=len(used) - len(set(used)),
        asked=callers.asked,
        no_token=callers.no_token,
        waited=callers.waited,
    )


def simulate(workers: int, *, faults: bool) -> Day:
    """Run a fleet for a day."""
    random.seed(workers)
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(_day(workers, faults=faults))


def row(workers: int) -> str:
    """Return a row of the table."""
    calm, faulty = simulate(workers, faults=False), simulate(workers, faults=True)
    return (
        f"| {workers:,} | {calm.calls_an_hour:.2f} | {calm.commands_an_hour:.1f} | "
        f"{faulty.calls_an_hour:.2f} | {max(faulty.calls.values()):,} | {faulty.commands_an_hour:.1f} | "
        f"{calm.no_token + faulty.no_token} | {calm.waited + faulty.waited} |\n"
    )


def main() -> None:
    """Print the table for fleets of these sizes."""
    sys.stdout.write(
        "| workers | calls an hour | commands per worker and hour | calls an hour, with outages | most in one hour | "
        "commands per worker and hour, with outages | no token | waited |\n|" + " --: |" * 8 + "\n"
    )
    for workers in [int(argument) for argument in sys.argv[1:]] or FLEETS:
        print(row(workers), end="", flush=True)  # noqa: T201  this is what the program is for


if __name__ == "__main__":
    main()
