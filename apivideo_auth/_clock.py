"""The clock. No other module reads the time.

Decisions inside a process use `monotonic()`, which never jumps and counts the time that the machine sleeps. `utc()` is
for what people read and for what processes share through files.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol


class Clock(Protocol):
    """A source of time. Tests pass a virtual one."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start. They never go back and count the time that the machine sleeps."""
        ...

    def utc(self) -> float:
        """Return seconds since the Unix epoch, by the wall clock."""
        ...


def _sleep_counting_clock() -> Callable[[], float]:
    """Return the fastest function that reads a monotonic clock which counts sleep.

    On Linux that is CLOCK_BOOTTIME. On macOS it is CLOCK_MONOTONIC, unlike `time.monotonic()`. On Windows
    `time.monotonic()` counts sleep.
    """
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        clock_id = getattr(time, name, None)
        if clock_id is not None:
            return partial(time.clock_gettime, clock_id)
    return time.monotonic


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self.monotonic = _sleep_counting_clock()
        self.utc: Callable[[], float] = time.time


SYSTEM_CLOCK: Final[Clock] = SystemClock()
