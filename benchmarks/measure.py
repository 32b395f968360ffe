"""What the measurements share: figures with their spread, timing, the clock that is moved, and the lag of a loop."""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

Figure = dict[str, Any]
"""A median with its spread: `median`, `least`, `most`, `rounds`, `unit`."""


def figure(values: Iterable[float], unit: str) -> Figure:
    """Return the median of the rounds, with the least and the most."""
    rounds = [*values]
    return {
        "median": _short(statistics.median(rounds)),
        "least": _short(min(rounds)),
        "most": _short(max(rounds)),
        "rounds": len(rounds),
        "unit": unit,
    }


def _short(value: float) -> float:
    """Round to four digits: more of them are noise."""
    return float(f"{value:.4g}")


Loop = Callable[[int], Awaitable[None]]
"""Makes so many calls, one after another."""


def repeated(call: Callable[[], Awaitable[object]]) -> Loop:
    """Return a loop of calls without arguments."""

    async def loop(times: int) -> None:
        for _ in range(times):
            await call()

    return loop


async def seconds_of(loop: Loop, times: int) -> float:
    """Return the seconds that a loop takes."""
    before = time.perf_counter()
    await loop(times)
    return time.perf_counter() - before


async def times_in(loop: Loop, seconds: float) -> int:
    """Return how many calls take about so long, at least ten."""
    times = 10
    while True:
        # The least of three: a first one that was interrupted would make the number far too small.
        took = min([await seconds_of(loop, times) for _ in range(3)])
        if took > seconds / 4:
            return max(10, int(times * seconds / took))
        times *= 4


class Lag:
    """Measures the longest time for which the event loop ran nothing else. Used as a context manager.

    A task looks at the time in each iteration of the loop. `longest` is in seconds.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self.longest = 0.0
        self._pause = pause

    async def _watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(self._pause)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - self._pause)
            last = now

    async def __aenter__(self) -> Self:
        # A collection of all garbage takes milliseconds, and may come at any moment.
        gc.collect()
        gc.disable()
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        gc.enable()


class MovedClock:
    """A clock that is moved forward, for everything in the process: the wall clock, the event loop and a manager.

    `run` runs a coroutine in an event loop whose timers follow this clock. The wall clock is moved by time-machine. A
    `TokenManager` gets the object as its `clock`.
    """

    def __init__(self) -> None:
        self.offset = 0.0

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start."""
        return time.perf_counter() + self.offset

    def utc(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def forward(self, seconds: float) -> None:
        """Move all clocks."""
        self.offset += seconds
        self._travelled.shift(seconds)

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function under this clock."""
        import time_machine  # noqa: PLC0415  the other measurements do not need it

        clock = self

        class Loop(asyncio.SelectorEventLoop):
            def time(self) -> float:
                return super().time() + clock.offset

        async def under_the_clock() -> None:
            await main()

        with (
            time_machine.travel(datetime.now(UTC), tick=True) as self._travelled,
            asyncio.Runner(loop_factory=Loop) as runner,
        ):
            runner.run(under_the_clock())

    async def step(self, seconds: float, quiet: int) -> None:
        """Move the clock, and wait until no more than `quiet` tasks are running: timers have fired, calls are over."""
        self.forward(seconds)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(5000):
            if len(asyncio.all_tasks()) <= quiet:
                break
            await asyncio.sleep(0.001)
