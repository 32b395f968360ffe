"""Those who ask for tokens: they wait, lose patience, are cancelled, and come back with a token that was refused."""

import asyncio
from typing import TYPE_CHECKING

from attrs import define, frozen

from apivideo_auth import AuthError, Token

if TYPE_CHECKING:
    from tests.simulation.world import Worker, World


@define(eq=False)
class Ask:
    """One call of `get_token`, and what came of it. `started` and `ended` are the machine's monotonic clock."""

    number: int
    worker: "Worker"
    rejected: Token | None
    min_ttl: float | None
    started: float
    started_at_loop: float
    started_step: int
    serveable: bool
    hopeless: bool
    ended: float | None = None
    token: Token | None = None
    error: BaseException | None = None

    @property
    def rejected_access(self) -> str | None:
        """Return the access token that was refused."""
        return None if self.rejected is None else str(self.rejected.access_token)

    @property
    def plain(self) -> bool:
        """Say whether any token will do."""
        return self.rejected is None and self.min_ttl is None

    def __str__(self) -> str:
        what = "" if self.rejected is None else f" rejected={self.rejected.generation}"
        what += "" if self.min_ttl is None else f" min_ttl={self.min_ttl:.3f}"
        return f"ask {self.number} of {self.worker.name}{what}"


@frozen(kw_only=True)
class Plan:
    """What a caller does.

    - `patience`: seconds until its own timeout; `cancel_after`: seconds, or `cancel_steps` rounds of the loop, until
      it is cancelled.
    - `requests`: how many requests it makes with the token, `pause` seconds apart; after a 401 it asks again.
    """

    min_ttl: float | None = None
    patience: float | None = None
    cancel_after: float | None = None
    cancel_steps: int | None = None
    requests: int = 0
    pause: float = 0.1


async def ask(world: "World", worker: "Worker", rejected: Token | None, min_ttl: float | None) -> Token:
    """Call `get_token`, and have the answer judged."""
    this = world.checks.asked(worker, rejected, min_ttl)
    try:
        # As most callers do, and as the fast path is meant for.
        plain = this.plain
        token = await (
            worker.manager.get_token() if plain else worker.manager.get_token(rejected=rejected, min_ttl=min_ttl)
        )
        this.token = token
    except BaseException as error:
        this.error = error
        raise
    finally:
        world.checks.answered(this)
    return token


async def visit(world: "World", worker: "Worker", plan: Plan) -> None:
    """Be a caller."""
    try:
        async with asyncio.timeout(plan.patience):
            token = await ask(world, worker, None, plan.min_ttl)
            for _ in range(plan.requests):
                await asyncio.sleep(plan.pause)
                if not world.service.accepts(str(token.access_token)):
                    token = await ask(world, worker, token, None)
                elif token.remaining() <= 0 or plan.pause > 1:
                    token = await ask(world, worker, None, plan.min_ttl)
    except (AuthError, ValueError, TimeoutError):
        return


def send(world: "World", worker: "Worker", plan: Plan) -> asyncio.Task[None]:
    """Start a caller, and see to it that it is cancelled as planned."""
    loop = world.loop
    task = loop.create_task(visit(world, worker, plan), name=f"caller of {worker.name}")
    world.callers[task] = None
    task.add_done_callback(lambda done: world.callers.pop(done, None))

    def cancel() -> None:
        if task.cancel():
            asked_at = loop.time(), world.clock.monotonic()
            task.add_done_callback(lambda done: world.checks.cancelled(worker, done, asked_at))

    def step(left: int) -> None:
        if left:
            loop.call_soon(step, left - 1)
        else:
            cancel()

    if plan.cancel_after is not None:
        loop.call_later(plan.cancel_after, cancel)
    if plan.cancel_steps is not None:
        loop.call_soon(step, plan.cancel_steps)
    return task
