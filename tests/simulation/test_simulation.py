"""The guarantees hold in simulated lives of many managers, and the simulation itself is to be trusted."""

import asyncio
import random
import subprocess
import sys

import pytest

from apivideo_auth import ManagerClosedError, RefreshPolicy
from tests.simulation.callers import Plan
from tests.simulation.calls import Modes
from tests.simulation.endings import judge_leftovers
from tests.simulation.loop import BusyLoopError, DeadlockError, Manners, SimulatedClock, VirtualLoop
from tests.simulation.mutations import MUTATIONS, ROOT
from tests.simulation.scenario import run
from tests.simulation.world import World

BLOCKS, SIZE = 12, 25


@pytest.mark.parametrize("block", range(BLOCKS))
def test_all_guarantees_hold_in_every_seed(block: int) -> None:
    """Whatever the seed draws of faults, cancellations, closes, jumps and orders, no guarantee is violated."""
    for seed in range(block * SIZE, (block + 1) * SIZE):
        report = run(seed)
        hint = f"replay: python -m tests.simulation --seed {seed} --trace"
        assert not report.violations, [hint, *report.violations[:5]]


@pytest.mark.parametrize("seed", [0, 5, 49, 212])
def test_a_seed_replays_exactly(seed: int) -> None:
    """The same seed does the same, to the last callback."""
    assert run(seed).lines == run(seed).lines


def test_a_seed_replays_exactly_in_another_process() -> None:
    """The command prints the very trace that the tests see, whatever the hashes and addresses of a process are."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", "17", "--trace"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:-1] == run(17).lines


def test_another_seed_does_something_else() -> None:
    """Seeds differ."""
    assert run(1).lines != run(2).lines


def test_a_run_leaves_the_random_numbers_of_others_alone() -> None:
    """A simulation seeds the managers' jitter, and puts the generator back."""
    random.seed(7)
    expected = random.random()
    random.seed(7)
    run(3)
    assert random.random() == expected


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_applies(name: str) -> None:
    """The code that a mutation changes is there, once, and what comes of it is still Python."""
    mutation = MUTATIONS[name]
    source = (ROOT / "apivideo_auth" / mutation.file).read_text()
    changed = mutation.apply(source)
    assert changed != source
    compile(changed, mutation.file, "exec")


# The loop.


def run_in(loop: VirtualLoop, main: object) -> object:
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def test_time_jumps_to_the_next_timer() -> None:
    """A day of sleep takes no time, and the loop's time is exact."""
    loop = VirtualLoop(random.Random(0))

    async def main() -> float:
        begun = loop.time()
        await asyncio.sleep(86_400)
        return loop.time() - begun

    assert run_in(loop, main()) == 86_400


def test_late_timers_are_late_and_never_early() -> None:
    """A timer that is late comes up to `latest` seconds after its time."""
    loop = VirtualLoop(random.Random(0), Manners(late=1.0, latest=5.0))

    async def main() -> list[float]:
        waits = []
        for _ in range(50):
            begun = loop.time()
            await asyncio.sleep(1)
            waits.append(loop.time() - begun - 1)
        return waits

    waits = run_in(loop, main())
    assert all(0 <= wait <= 5 for wait in waits)
    assert max(waits) > 4


@pytest.mark.parametrize("order", ["shuffled", "deferred"])
def test_callbacks_that_are_ready_together_run_in_many_orders(order: str) -> None:
    """Three callbacks come in each of their six orders."""
    seen = set()
    for seed in range(100):
        loop = VirtualLoop(random.Random(seed), Manners(order=order))
        ran: list[int] = []

        async def main(loop: VirtualLoop = loop, ran: list[int] = ran) -> None:
            for number in range(3):
                loop.call_soon(ran.append, number)
            await asyncio.sleep(1)

        run_in(loop, main())
        seen.add(tuple(ran))
    assert len(seen) == 6


def test_callbacks_of_one_future_keep_their_order() -> None:
    """Asyncio promises that they run as they were added."""
    for seed in range(50):
        loop = VirtualLoop(random.Random(seed), Manners(order="deferred"))
        ran: list[int] = []

        async def main(loop: VirtualLoop = loop, ran: list[int] = ran) -> None:
            future = loop.create_future()
            for number in range(5):
                future.add_done_callback(lambda _future, number=number: ran.append(number))
            future.set_result(None)
            await asyncio.sleep(1)

        run_in(loop, main())
        assert ran == [0, 1, 2, 3, 4]


def test_a_busy_loop_is_an_error() -> None:
    """Callbacks that follow each other while no time passes are found."""
    loop = VirtualLoop(random.Random(0))

    async def main() -> None:
        for _ in range(10**9):
            await asyncio.sleep(0)

    with pytest.raises(BusyLoopError):
        run_in(loop, main())


def test_a_callback_that_asks_for_the_time_for_ever_is_an_error() -> None:
    """A loop inside of one callback is found by its readings of the clock."""
    loop = VirtualLoop(random.Random(0))
    clock = SimulatedClock(loop)

    async def main() -> None:
        while True:
            clock.monotonic()

    with pytest.raises(BusyLoopError):
        run_in(loop, main())


def test_waiting_for_what_never_comes_is_an_error() -> None:
    """When nothing is ready and no timer is set, whoever waits has been forgotten."""
    loop = VirtualLoop(random.Random(0))

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(DeadlockError):
        run_in(loop, main())


def test_the_clock_counts_sleep_and_the_wall_clock_is_set_apart() -> None:
    """`monotonic` leaps ahead of the loop by what the machine slept; setting the wall clock moves `utc` alone."""
    loop = VirtualLoop(random.Random(0))
    clock = SimulatedClock(loop)
    monotonic, utc = clock.monotonic(), clock.utc()
    clock.sleep(100)
    clock.set_wall(-3600)
    assert clock.monotonic() == monotonic + 100
    assert clock.utc() == utc + 100 - 3600
    loop.close()


# The checks.


def test_the_checks_find_what_is_left_behind() -> None:
    """A timer, a task and a future that nobody ends are violations."""
    loop = VirtualLoop(random.Random(0))
    world = World(loop=loop, clock=SimulatedClock(loop), rng=random.Random(0), modes=Modes(), policy=RefreshPolicy())

    async def main() -> None:
        loop.call_later(1000, print)
        waiting = loop.create_future()
        task = loop.create_task(asyncio.wait([waiting]))
        await asyncio.sleep(1)
        judge_leftovers(world)
        waiting.set_result(None)
        await task

    run_in(loop, main())
    assert len(world.checks.violations) >= 3


def test_a_calm_life_has_one_call_with_the_key() -> None:
    """Without faults a day takes one call with the API key, a refresh for each token, and nothing is violated."""
    loop = VirtualLoop(random.Random(0))
    world = World(loop=loop, clock=SimulatedClock(loop), rng=random.Random(0), modes=Modes(), policy=RefreshPolicy())

    async def main() -> None:
        worker = world.open("account", None)
        for _ in range(24):
            world.send(worker, Plan(requests=3))
            await asyncio.sleep(3600)
        await world.close(worker)
        with pytest.raises(ManagerClosedError):
            await worker.manager.get_token()
        await asyncio.sleep(120)
        judge_leftovers(world)

    run_in(loop, main())
    endpoints = [call.endpoint for call in world.service.calls]
    assert endpoints[0] == "authenticate"
    assert set(endpoints[1:]) == {"refresh"}
    assert 30 <= len(endpoints) <= 33
    assert world.checks.violations == []
