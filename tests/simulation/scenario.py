"""A scenario: minutes to days of a few managers, chosen at random from a seed."""

import asyncio
import gc
import logging
import random
import warnings
from functools import partial

from attrs import field, frozen

from apivideo_auth import AuthError, RefreshPolicy
from tests.simulation.loop import BusyLoopError, DeadlockError, LoopBehavior, SimulatedClock, VirtualLoop
from tests.simulation.service import FAULTS, Call, FaultPeriod, ServiceSettings
from tests.simulation.stores import FAULTY_FRACTION, SharedStore, StoreFaults, random_faults
from tests.simulation.world import CallerPlan, Worker, World

LIFETIMES = (1, 2, 5, 11, 30, 60, 300, 3600, 3600, 86_400)
MAX_MANAGERS = 12


@frozen(kw_only=True)
class Report:
    """The outcome of one seed."""

    seed: int
    violations: list[str]
    lines: list[str] = field(repr=False)
    calls: int
    requests: int
    seconds: float


def run(seed: int) -> Report:
    """Run the scenario of a seed. The same seed does the same, to the last callback."""
    rng = random.Random(seed)
    before = random.getstate()
    random.seed(rng.random())  # the managers' own jitter
    options = random.Random(f"options of {seed}")
    loop = VirtualLoop(random.Random(rng.random()), random_loop_behavior(rng, options))
    world = random_world(rng, options, loop)
    log_handler = _LogHandler(world)
    loop.set_exception_handler(lambda _loop, context: world.checks.violation(f"the loop reports: {context}"))
    logging.getLogger("apivideo_auth").addHandler(log_handler)
    gc.disable()
    if seed % 16 == 0:
        gc.collect()  # what earlier seeds left behind, and what no later collection of a run looks at
    gc.freeze()  # so that the collection at the end looks at this run alone
    start = loop.time()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _run_in(loop, world)
            gc.collect()  # by now abandoned tasks and futures have complained
        for warning in caught:
            world.checks.violation(f"a warning: {warning.message}")
    finally:
        gc.unfreeze()
        gc.enable()
        logging.getLogger("apivideo_auth").removeHandler(log_handler)
        random.setstate(before)
    return Report(
        seed=seed,
        violations=world.checks.violations,
        lines=world.lines(),
        calls=len(world.service.calls),
        requests=world.checks.requests,
        seconds=loop.time() - start,
    )


def _run_in(loop: VirtualLoop, world: World) -> None:
    try:
        loop.run_until_complete(run_scenario(world))
    except (BusyLoopError, DeadlockError) as error:
        world.checks.violation(f"{type(error).__name__}: {error}")
        loop.set_exception_handler(lambda _loop, _context: None)  # that tasks are left behind is known by now
    loop.close()


class _LogHandler(logging.Handler):
    """Reports what the package logs at ERROR: an event handler that failed."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.checks.violation(f"logged: {self.format(record)}")


async def run_scenario(world: World) -> None:
    """Run the scenario to its end: trouble, recovery, and the close of everything."""
    await asyncio.sleep(schedule(world))
    await recover(world)
    for worker in world.open_workers():
        await world.close(worker)
    while world.tasks:
        await asyncio.wait([*world.tasks])
    world.check_what_managers_show()
    await asyncio.sleep(0)  # timers and tasks that were cancelled in this iteration go
    world.checks.check_leftovers()
    await asyncio.sleep(120)  # by then, whatever is left has done something
    world.checks.check_leftovers()


async def recover(world: World) -> None:
    """End all trouble, and check that every manager serves tokens again."""
    world.log("world", "recovers")
    world.service.end_faults()
    world.loop.behavior = LoopBehavior(order=world.loop.behavior.order)
    world.on_call = None
    for worker in world.open_workers():
        if worker.store is not None:
            worker.store.shared.faults = StoreFaults()
    await asyncio.sleep(2 * world.policy.lease + 61)
    for worker in world.open_workers():
        world.log("world", f"{worker.name} has to serve a token")
        try:
            await asyncio.wait_for(world.get_token(worker, None, None), 2 * world.policy.lease)
        except (AuthError, TimeoutError) as error:
            world.checks.violation(f"recovery: {worker.name} raises {type(error).__name__}: {error}")


# What a seed decides. `options` is a generator of its own for what most scenarios do not have, so that adding an option
# leaves the scenarios without it as they are.


def random_world(rng: random.Random, options: random.Random, loop: VirtualLoop) -> World:
    """Return a world with one or two accounts, and up to three managers for each."""
    lifetime = rng.choice(LIFETIMES)
    policy = random_policy(rng, lifetime)
    world = World(
        loop=loop,
        clock=SimulatedClock(loop),
        rng=rng,
        settings=random_settings(rng, lifetime, policy.attempt_timeout),
        policy=policy,
        stores_fail=rng.random() < FAULTY_FRACTION,
        on_call=disturb_call if rng.random() < 0.7 else None,
        callers_move=options.random() < 0.5,
        options=options,
        same_process=options.choice([0.0, 0.0, 0.5]),
    )
    world.service.fault_rates = random_fault_rates(rng, rng.choice([0.0, 0.0, 0.05, 0.3]))
    if options.random() < 0.2:
        world.service.fault_rates["mistyped error"] = options.choice([0.05, 0.3])
    pushes = options.random() < 0.6
    for account in range(rng.choice([1, 1, 2])):
        size = rng.choice([1, 1, 2, 3])
        shared = size > 1 or rng.random() < 0.3
        store = None
        if shared:
            faults = random_faults(rng) if world.stores_fail else StoreFaults()
            store = SharedStore(rng, faults, pushes=pushes, log=partial(world.log, f"store {account}"))
        for _ in range(size):
            world.open(f"account{account}", store)
    return world


def random_loop_behavior(rng: random.Random, options: random.Random) -> LoopBehavior:
    """Return how the loop behaves."""
    late = rng.choice([0.0, 0.0, 0.05, 0.5])
    return LoopBehavior(
        order=rng.choice(["fifo", "shuffled", "deferred"]),
        late=late,
        max_delay=rng.choice([0.01, 0.5, 5.0]) if late else 0.0,
        callback_time=rng.choice([0.0, 0.0, 20e-6]),
        eager_tasks=options.random() < 0.3,
    )


def random_policy(rng: random.Random, lifetime: int) -> RefreshPolicy:
    """Return the default policy, or another one."""
    if rng.random() < 0.6:
        return RefreshPolicy()
    return RefreshPolicy(
        refresh_at=rng.choice([0.2, 0.5, 0.8, 0.95]),
        leeway=rng.choice([None, 0.0, 1.0, 10.0, lifetime / 10]),
        attempt_timeout=rng.choice([1.0, 10.0, 30.0]),
        deadline=rng.choice([0.0, 5.0, 20.0, 90.0]),
        close_timeout=rng.choice([0.0, 0.5, 5.0]),
    )


def random_settings(rng: random.Random, lifetime: int, attempt_timeout: float) -> ServiceSettings:
    """Return how the service behaves."""
    return ServiceSettings(
        refresh_revokes=rng.random() < 0.3,
        authenticate_invalidates=rng.random() < 0.3,
        suspends=rng.random() < 0.5,
        lifetime=lifetime,
        attempt_timeout=attempt_timeout,
        latency=rng.choice([0.0, 0.1, 0.4]),
        late_by=rng.choice([0.7, 0.85, 0.97, 1.02]),
    )


def random_fault_rates(rng: random.Random, total: float) -> dict[str, float]:
    """Return the probabilities of a few faults, which add up to `total`."""
    faults = rng.sample(FAULTS, rng.randint(1, 4))
    return {fault: total / len(faults) for fault in faults}


def random_plan(world: World) -> CallerPlan:
    """Return what a caller does."""
    rng, lifetime = world.rng, world.settings.lifetime
    kind = rng.random()
    min_ttl = lifetime * rng.choice([0.1, 0.5, 0.7, 0.85, 0.9, 0.95]) if kind < 0.1 else None
    ending = rng.random()
    return CallerPlan(
        min_ttl=min_ttl,
        timeout=rng.choice([0.0, 0.05, 1.0, 15.0]) if ending < 0.2 else None,
        cancel_after=rng.random() * rng.choice([0.0, 0.2, 12.0]) if 0.2 < ending < 0.35 else None,
        cancel_after_iterations=rng.randint(0, 12) if 0.35 < ending < 0.5 else None,
        requests=rng.choice([0, 0, 1, 5]) if kind < 0.6 else 0,
        interval=rng.choice([0.05, 0.9, 5.0, 30.0]),
        moves=world.callers_move,
    )


def schedule(world: World) -> float:
    """Set the timers of everything that will happen; return how long it takes."""
    rng, loop, lifetime = world.rng, world.loop, world.settings.lifetime
    duration = min(max(90.0, lifetime * rng.uniform(1.5, 8.0)), 3 * 86_400.0)
    for _ in range(rng.choice([0, 1, 1, 2])):
        begins = world.clock.monotonic() + duration * rng.random()
        lasts = rng.choice([2.0, 30.0, 120.0, lifetime * 0.3, lifetime * 1.5])
        rates = random_fault_rates(rng, rng.choice([0.6, 1.0]))
        world.service.fault_periods.append(FaultPeriod(begins, begins + lasts, rates))
        for _ in range(rng.randint(0, 10)):
            loop.call_later(min(begins - loop.time() + lasts * rng.random(), duration), start_callers, world)
    for _ in range(rng.randint(5, 40)):
        loop.call_later(duration * rng.random(), start_callers, world)
    for _ in range(rng.choice([0, 0, 1, 4])):
        loop.call_later(duration * rng.random(), disturb, world)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        loop.call_later(duration * rng.random(), replace_random_manager, world)
    for _ in range(rng.choice([0, 0, 1, 3])):
        begins = duration * rng.random()
        plan = CallerPlan(requests=60, interval=rng.choice([0.3, 4.0, 17.0, 61.0]), moves=world.callers_move)
        loop.call_later(begins, world.start_caller, rng.choice(world.open_workers()), plan)
    if rng.random() < 0.25:
        begins = world.clock.monotonic() + duration * rng.random()
        world.service.key_rejected_between = begins, begins + rng.choice([5.0, 100.0, lifetime * 0.5])
    return duration


# What happens in it.


def start_callers(world: World) -> None:
    """Start one caller, or many at once."""
    rng, workers = world.rng, world.open_workers()
    for _ in range(rng.choice([1, 1, 1, 3, 15])):
        world.start_caller(rng.choice(workers), random_plan(world))


def replace_random_manager(world: World) -> None:
    """Close one of the managers, and open another."""
    replace_manager(world, world.rng.choice(world.open_workers()))


def replace_manager(world: World, worker: Worker) -> None:
    """Close a manager, perhaps twice, perhaps by a close that is cancelled, and open another."""
    rng = world.rng
    if worker.closing or len(world.workers) > MAX_MANAGERS:
        return
    for _ in range(rng.choice([1, 1, 2])):
        world.start_close(worker, cancel_after=rng.choice([None, None, 0.0, 0.01, 1.0]))
    account = f"private{len(world.workers) + 1}" if worker.store is None else worker.ledger.account
    world.open(account, None if worker.store is None else worker.store.shared)


def disturb(world: World) -> None:
    """Set the wall clock, let the machine sleep, block the loop, or revoke or reject tokens."""
    rng, lifetime = world.rng, world.settings.lifetime
    kind = rng.choice(["wall clock", "sleep", "block", "revoke", "revoke refresh tokens", "reject tokens"])
    seconds = rng.choice([0.1, 3.0, 20.0, 70.0, lifetime * rng.random(), lifetime * 2.0])
    if kind == "block":
        world.block_loop(min(seconds, 60.0))
        return
    world.log("world", f"{kind} {seconds:.3f}")
    match kind:
        case "wall clock":
            world.clock.wall_jump += rng.choice([-1, 1]) * rng.choice([60.0, 3600.0, 36_000.0])
        case "sleep":
            world.clock.sleep(seconds)
        case "reject tokens":
            world.service.rejects_tokens_until = world.clock.monotonic() + min(seconds * 20, 1200.0)
        case _:
            world.service.revoke_all(refresh=kind == "revoke refresh tokens")


def disturb_call(world: World, call: Call) -> None:
    """Do something while a call is in flight: start callers, close the manager, or have the holder lose its claim."""
    rng, worker = world.rng, world.workers[call.worker]
    number = rng.random()
    if number < 0.3:
        for _ in range(rng.randint(1, 6)):
            world.loop.call_later(rng.random() * 0.5, world.start_caller, worker, random_plan(world))
    elif number < 0.33:
        world.loop.call_later(rng.random() * 0.5, replace_manager, world, worker)
    elif number < 0.36:
        world.loop.call_later(rng.random() * 0.3, disturb, world)
    elif number < 0.39:
        call.fault = "slow call"
        world.loop.call_later(rng.random() * 0.3, sleep_past_the_lease, world, worker)


def sleep_past_the_lease(world: World, worker: Worker) -> None:
    """Let the machine sleep until the lease of a call in flight is over, and other workers renew before it ends."""
    world.log("world", "sleeps past a lease")
    world.clock.sleep(world.policy.lease + world.rng.random())
    for other in world.open_workers():
        if other.ledger is worker.ledger and other is not worker:
            world.loop.call_later(world.rng.random(), world.start_caller, other, CallerPlan(requests=3))
