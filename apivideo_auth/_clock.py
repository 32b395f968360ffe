"""The clock, and the only place that reads it.

Decisions inside the process use `monotonic()`, which never jumps and goes on while the machine sleeps.
`utc()` serves what people read and what processes share through files.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol


class Clock(Protocol):
    """What tells the time. Tests put a virtual one in its place."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back, counts the time that the machine sleeps."""
        ...

    def utc(self) -> float:
        """Seconds since the Unix epoch, by the wall clock."""
        ...


def _sleep_counting_clock() -> Callable[[], float]:
    """Return the fastest reader of a monotonic clock that goes on while the machine sleeps.

    Linux has CLOCK_BOOTTIME. macOS has none, but its CLOCK_MONOTONIC counts sleep, which Python's
    `time.monotonic()` there does not. On Windows `time.monotonic()` counts it.
    """
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        clock_id = getattr(time, name, None)
        if clock_id is not None:
            return partial(time.clock_gettime, clock_id)
    return time.monotonic


class SystemClock:
    """The machine's own clocks, read by their fastest callables."""

    def __init__(self) -> None:
        self.monotonic = _sleep_counting_clock()
        self.utc: Callable[[], float] = time.time


SYSTEM_CLOCK: Final[Clock] = SystemClock()
