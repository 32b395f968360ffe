"""A scenario: minutes to days in the life of a few managers, drawn from a seed."""

import asyncio
import gc
import logging
import random
import warnings

from attrs import evolve, field, frozen

from apivideo_auth import AuthError
from tests.simulation import stores
from tests.simulation.callers import ask
from tests.simulation.draw import draw_manners, draw_modes, draw_policy, draw_weather
from tests.simulation.endings import judge_leftovers
from tests.simulation.happenings import plan_life, react
from tests.simulation.loop import CALM, BusyLoopError, DeadlockError, SimulatedClock, VirtualLoop
from tests.simulation.world import World

LIFETIMES = (1, 2, 5, 11, 30, 60, 300, 3600, 3600, 86_400)


@frozen(kw_only=True)
class Report:
    """What came of one seed."""

    seed: int
    violations: list[str]
    lines: list[str] = field(repr=False)
    calls: int
    asks: int
    seconds: float


def run(seed: int) -> Report:
    """Run the scenario of a seed. The same seed does the same."""
    rng = random.Random(seed)
    before = random.getstate()
    random.seed(rng.random())  # the managers' own jitter
    loop = VirtualLoop(random.Random(rng.random()), draw_manners(rng))
    world = make_world(rng, loop)
    logs = _Logs(world)
    loop.set_exception_handler(lambda _loop, context: world.checks.complain(f"the loop reports: {context}"))
    logging.getLogger("apivideo_auth").addHandler(logs)
    gc.disable()
    gc.freeze()  # so that the collection at the end looks at this run alone
    start = loop.time()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run_in(loop, world)
            gc.collect()  # tasks and futures that nobody waited for complain by then
        for warning in caught:
            world.checks.complain(f"a warning: {warning.message}")
    finally:
        gc.unfreeze()
        gc.enable()
        logging.getLogger("apivideo_auth").removeHandler(logs)
        random.setstate(before)
    return Report(
        seed=seed,
        violations=world.checks.violations,
        lines=world.lines(),
        calls=len(world.service.calls),
        asks=world.checks.asks,
        seconds=loop.time() - start,
    )


def run_in(loop: VirtualLoop, world: World) -> None:
    """Live in the loop, and close it."""
    try:
        loop.run_until_complete(live(world))
    except (BusyLoopError, DeadlockError) as error:
        world.checks.complain(f"{type(error).__name__}: {error}")
        loop.set_exception_handler(lambda _loop, _context: None)  # what is left behind is no news
    loop.close()


class _Logs(logging.Handler):
    """Takes what the package logs: a receiver that failed."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.checks.complain(f"logged: {self.format(record)}")


def make_world(rng: random.Random, loop: VirtualLoop) -> World:
    """Return a world with one or two accounts, and up to three managers for each."""
    lifetime = rng.choice(LIFETIMES)
    policy = draw_policy(rng, lifetime)
    world = World(
        loop=loop,
        clock=SimulatedClock(loop),
        rng=rng,
        modes=draw_modes(rng, lifetime, policy.attempt_timeout),
        policy=policy,
        store_faults=rng.random() < stores.FAULTY_PART,
        reaction=react if rng.random() < 0.7 else None,
    )
    world.service.weather = draw_weather(rng, rng.choice([0.0, 0.0, 0.05, 0.3]))
    for account in range(rng.choice([1, 1, 2])):
        size = rng.choice([1, 1, 2, 3])
        shared = size > 1 or rng.random() < 0.3
        store = stores.shared_store(rng, faulty=world.store_faults) if shared else None
        for _ in range(size):
            world.open(f"account{account}", store)
    return world


async def live(world: World) -> None:
    """Live through it, get well, and end."""
    await asyncio.sleep(plan_life(world))
    await get_well(world)
    for worker in world.open_workers():
        await world.close(worker)
    while world.callers:
        await asyncio.wait([*world.callers])
    world.shown_by_managers()
    await asyncio.sleep(120)  # whoever is left behind stirs by then
    judge_leftovers(world)


async def get_well(world: World) -> None:
    """Have no more trouble, and see that every manager gives tokens again."""
    world.note("world", "gets well")
    world.service.heal()
    world.loop.manners = evolve(CALM, order=world.loop.manners.order)
    world.reaction = None
    for worker in world.open_workers():
        if isinstance(worker.store, stores.FaultyStore):
            worker.store.faults = stores.StoreFaults()
    await asyncio.sleep(2 * world.policy.lease + 61)
    for worker in world.open_workers():
        world.note("world", f"{worker.name} has to serve")
        try:
            await asyncio.wait_for(ask(world, worker, None, None), 2 * world.policy.lease)
        except (AuthError, TimeoutError) as error:
            world.checks.complain(f"recovery: {worker.name} gives {type(error).__name__}: {error}")
