"""The guarantees hold in simulations of many managers, and the simulation itself can be trusted."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

from apivideo_auth import ManagerClosedError, RefreshPolicy
from tests.simulation.loop import BusyLoopError, DeadlockError, LoopBehavior, SimulatedClock, VirtualLoop
from tests.simulation.mutations import MUTATIONS, ROOT
from tests.simulation.scenario import run
from tests.simulation.service import ServiceSettings
from tests.simulation.world import CallerPlan, World

BLOCKS, BLOCK_SIZE = 8, 25


@pytest.mark.parametrize("block", range(BLOCKS))
def test_all_guarantees_hold_in_every_seed(block: int) -> None:
    """Whatever faults, cancellations, closes, clock jumps and orders a seed chooses, no guarantee is violated."""
    for seed in range(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE):
        report = run(seed)
        hint = f"replay: python -m tests.simulation --seed {seed} --trace"
        assert not report.violations, [hint, *report.violations[:5]]


@pytest.mark.parametrize("seed", [0, 5, 49, 212])
def test_a_seed_replays_exactly(seed: int) -> None:
    """The same seed does the same, to the last callback."""
    assert run(seed).lines == run(seed).lines


def test_a_seed_replays_exactly_in_another_process() -> None:
    """The command prints the trace that the tests see, whatever hashes and addresses the process has."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", "17", "--trace"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = run(17).lines
    assert done.stdout.splitlines()[: len(lines)] == lines


def test_seeds_differ() -> None:
    """Another seed does something else."""
    assert run(1).lines != run(2).lines


def test_a_run_restores_the_global_random_generator() -> None:
    """A simulation seeds the managers' jitter, and restores the generator's state."""
    random.seed(7)
    expected = random.random()
    random.seed(7)
    run(3)
    assert random.random() == expected


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_applies(name: str) -> None:
    """The code that a mutation changes exists exactly once, and the result is valid Python."""
    mutation = MUTATIONS[name]
    source = (ROOT / "apivideo_auth" / mutation.file).read_text()
    changed = mutation.apply(source)
    assert changed != source
    compile(changed, mutation.file, "exec")


# The loop.


def run_in(loop: VirtualLoop, main: Coroutine[Any, Any, Any]) -> Any:
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def test_time_jumps_to_the_next_timer() -> None:
    """A sleep of a day takes no real time, and the loop's time is exact."""
    loop = VirtualLoop(random.Random(0))

    async def main() -> float:
        before = loop.time()
        await asyncio.sleep(86_400)
        return loop.time() - before

    assert run_in(loop, main()) == 86_400


def test_late_timers_are_late_and_never_early() -> None:
    """A late timer fires up to `max_delay` seconds after its time."""
    loop = VirtualLoop(random.Random(0), LoopBehavior(late=1.0, max_delay=5.0))

    async def main() -> list[float]:
        delays = []
        for _ in range(50):
            before = loop.time()
            await asyncio.sleep(1)
            delays.append(loop.time() - before - 1)
        return delays

    delays = run_in(loop, main())
    assert all(0 <= delay <= 5 for delay in delays)
    assert max(delays) > 4


@pytest.mark.parametrize("order", ["shuffled", "deferred"])
def test_callbacks_that_are_ready_together_run_in_many_orders(order: Any) -> None:
    """Three callbacks run in each of their six orders."""
    seen = set()
    for seed in range(100):
        loop = VirtualLoop(random.Random(seed), LoopBehavior(order=order))
        ran: list[int] = []

        async def main(loop: VirtualLoop = loop, ran: list[int] = ran) -> None:
            for number in range(3):
                loop.call_soon(ran.append, number)
            await asyncio.sleep(1)

        run_in(loop, main())
        seen.add(tuple(ran))
    assert len(seen) == 6


def test_callbacks_of_one_future_keep_their_order() -> None:
    """Asyncio promises that they run in the order in which they were added."""
    for seed in range(50):
        loop = VirtualLoop(random.Random(seed), LoopBehavior(order="deferred"))
        ran: list[int] = []

        async def main(loop: VirtualLoop = loop, ran: list[int] = ran) -> None:
            future = loop.create_future()
            for number in range(5):
                future.add_done_callback(lambda _future, number=number: ran.append(number))
            future.set_result(None)
            await asyncio.sleep(1)

        run_in(loop, main())
        assert ran == [0, 1, 2, 3, 4]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_run_at_once() -> None:
    """Where the behavior says so, a new task runs before `create_task` returns."""
    loop = VirtualLoop(random.Random(0), LoopBehavior(eager_tasks=True))
    ran: list[str] = []

    async def note() -> None:
        ran.append("task")

    async def main() -> None:
        task = asyncio.create_task(note())
        ran.append("caller")
        await task

    run_in(loop, main())
    assert ran == ["task", "caller"]


def test_a_busy_loop_is_an_error() -> None:
    """Callbacks that follow each other while no time passes raise `BusyLoopError`."""
    loop = VirtualLoop(random.Random(0))

    async def main() -> None:
        for _ in range(10**9):
            await asyncio.sleep(0)

    with pytest.raises(BusyLoopError):
        run_in(loop, main())


def test_a_callback_that_reads_the_clock_for_ever_is_an_error() -> None:
    """A loop inside one callback is detected when it reads the clock."""
    loop = VirtualLoop(random.Random(0))
    clock = SimulatedClock(loop)

    async def main() -> None:
        while True:
            clock.monotonic()

    with pytest.raises(BusyLoopError):
        run_in(loop, main())


def test_a_deadlock_is_an_error() -> None:
    """If nothing is ready and no timer is set while a task waits, nobody will wake it: `DeadlockError`."""
    loop = VirtualLoop(random.Random(0))

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(DeadlockError):
        run_in(loop, main())


def test_sleep_advances_the_clock_and_setting_the_wall_clock_moves_only_utc() -> None:
    """`monotonic` is ahead of the loop by the time that the machine slept; a set wall clock changes `utc` alone."""
    loop = VirtualLoop(random.Random(0))
    clock = SimulatedClock(loop)
    monotonic, utc = clock.monotonic(), clock.utc()
    clock.sleep(100)
    clock.wall_jump -= 3600
    assert clock.monotonic() == monotonic + 100
    assert clock.utc() == utc + 100 - 3600
    loop.close()


# The checks.


def quiet_world() -> World:
    """Return a world without faults and without workers."""
    loop = VirtualLoop(random.Random(0))
    return World(
        loop=loop,
        clock=SimulatedClock(loop),
        rng=random.Random(0),
        settings=ServiceSettings(),
        policy=RefreshPolicy(),
    )


def test_the_checks_find_what_is_left_behind() -> None:
    """A timer, a task and a future that nobody ends are violations."""
    world = quiet_world()
    loop = world.loop

    async def main() -> None:
        loop.call_later(1000, print)
        waiting = loop.create_future()
        task = loop.create_task(asyncio.wait([waiting]))
        await asyncio.sleep(1)
        world.checks.check_leftovers()
        waiting.set_result(None)
        await task

    run_in(loop, main())
    kinds = [violation.split("left behind: ")[1].split(" ")[0] for violation in world.checks.violations]
    assert {kind.strip("<") for kind in kinds} >= {"TimerHandle", "Task", "_NumberedFuture"}


def test_an_undisturbed_day_has_one_call_with_the_api_key() -> None:
    """Without faults a day takes one call with the API key and a refresh per token, and nothing is violated."""
    world = quiet_world()

    async def main() -> None:
        worker = world.open("account", None)
        for _ in range(24):
            world.start_caller(worker, CallerPlan(requests=3))
            await asyncio.sleep(3600)
        await world.close(worker)
        world.checks.check_leftovers()
        with pytest.raises(ManagerClosedError):
            await worker.manager.get_token()

    run_in(world.loop, main())
    endpoints = [call.endpoint for call in world.service.calls]
    assert endpoints[0] == "authenticate"
    assert set(endpoints[1:]) == {"refresh"}
    assert 30 <= len(endpoints) <= 33
    assert world.checks.violations == []
