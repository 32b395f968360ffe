"""A clock that follows the event loop, so that under virtual time tokens age virtually."""

from asyncio import get_running_loop

from apivideo_auth._clock import SYSTEM_CLOCK


class LoopClock:
    """The time of the running event loop. Made inside the loop that it follows.

    `utc()` is the wall clock as it was at the start, plus what the loop's time has moved on since.
    """

    def __init__(self) -> None:
        self.monotonic = get_running_loop().time
        self._offset = SYSTEM_CLOCK.utc() - self.monotonic()

    def utc(self) -> float:
        """Seconds since the epoch; never jumps."""
        return self._offset + self.monotonic()
