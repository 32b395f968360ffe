"""An event loop in virtual time whose order of callbacks follows a seed, and a clock over it."""

import asyncio
import heapq
import random
import weakref
from collections.abc import Callable
from typing import Any, Literal

from attrs import frozen

START_OF_2026 = 1_767_225_600.0
BUSY = 20_000
"""So many callbacks within `BUSY_SPAN` virtual seconds are a busy loop."""
BUSY_SPAN = 0.5


class BusyLoopError(BaseException):
    """Callbacks follow each other and time does not advance. No `Exception`, so that nothing swallows it."""


class DeadlockError(BaseException):
    """Nothing is ready and no timer is set, although something is still waited for."""


@frozen(kw_only=True)
class Manners:
    """How the loop behaves.

    - `order` of callbacks that are ready together: as they came, shuffled, or shuffled and some of them a round later.
      The callbacks of one future keep their order, which asyncio promises.
    - `late`: the probability that a timer is late, by up to `latest` seconds.
    - `tick`: the most that one callback takes, in seconds.
    """

    order: Literal["as they came", "shuffled", "deferred"] = "as they came"
    late: float = 0.0
    latest: float = 0.0
    tick: float = 0.0


CALM = Manners()


class NumberedFuture(asyncio.Future[Any]):
    """A future whose hash is its number, so that a set of them has the same order in every run."""

    number: int = 0

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without I/O. Time jumps to the next timer when nothing is ready."""

    def __init__(self, rng: random.Random, manners: Manners = CALM) -> None:
        super().__init__()
        self.manners = manners
        self.steps = 0
        self._rng = rng
        self._now = 1000.0
        self._busy_since = self._now
        self._busy_steps = 0
        self._numbers = 0
        self._futures: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()

    def time(self) -> float:
        """Return the virtual time."""
        return self._now

    def block(self, seconds: float) -> None:
        """Let time pass inside of a callback, as if it had computed for so long."""
        self._now += seconds

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future that is known to `pending_futures`."""
        future = NumberedFuture(loop=self)
        self._numbers += 1
        future.number = self._numbers
        self._futures.add(future)
        return future

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Set a timer, which may come late."""
        manners = self.manners
        if manners.late and self._rng.random() < manners.late:
            when += self._rng.random() * manners.latest
        return super().call_at(when, callback, *args, context=context)

    def pending_futures(self) -> list[asyncio.Future[Any]]:
        """Return the futures that somebody still holds and that are not done."""
        return [future for future in self._futures if not future.done()]

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are set."""
        return [handle for handle in self._scheduled if not handle.cancelled()]

    def _run_once(self) -> None:
        self._take_due_timers()
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise DeadlockError("nothing is ready and no timer is set")
            self._now = max(self._now, self._scheduled[0].when())
            self._take_due_timers()
        for handle in self._next_batch():
            if handle.cancelled():
                continue
            self._look_out()
            handle._run()
            if self.manners.tick:
                self._now += self._rng.random() * self.manners.tick

    def _take_due_timers(self) -> None:
        scheduled = self._scheduled
        while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= self._now):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if handle.cancelled():
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(handle)

    def _next_batch(self) -> list[asyncio.Handle]:
        batch = [*self._ready]
        self._ready.clear()
        if len(batch) < 2 or self.manners.order == "as they came":
            return batch
        batch = self._shuffled(batch)
        if self.manners.order == "deferred" and self._rng.random() < 0.5:
            cut = self._rng.randint(1, len(batch))
            self._ready.extend(batch[cut:])
            batch = batch[:cut]
        return batch

    def _shuffled(self, batch: list[asyncio.Handle]) -> list[asyncio.Handle]:
        """Return the handles in another order, but those of one future in their own."""
        places = list(range(len(batch)))
        self._rng.shuffle(places)
        of_future: dict[int, list[int]] = {}
        for place in places:
            args = batch[place]._args
            if args and isinstance(args[0], asyncio.Future):
                of_future.setdefault(id(args[0]), []).append(place)
        in_order = {key: iter(sorted(group)) for key, group in of_future.items()}
        shuffled = []
        for place in places:
            args = batch[place]._args
            group = in_order.get(id(args[0])) if args else None
            shuffled.append(batch[place if group is None else next(group)])
        return shuffled

    def _look_out(self) -> None:
        self.steps += 1
        if self._now - self._busy_since > BUSY_SPAN:
            self._busy_since, self._busy_steps = self._now, 0
        self._busy_steps += 1
        if self._busy_steps > BUSY:
            raise BusyLoopError(f"{BUSY} callbacks within {BUSY_SPAN} seconds, at {self._now:.3f}")


class SimulatedClock:
    """The clock of a machine that runs the loop. Its wall clock is set, and the machine sleeps."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._step = -1
        self._reads = 0
        self._asleep = 0.0
        self._wall = 0.0
        self.last_sleep_at = self.last_block_at = float("-inf")

    def monotonic(self) -> float:
        """Return the loop's time and that of all sleep; raise `BusyLoopError` if one callback asks for ever."""
        if self._step != self._loop.steps:
            self._step, self._reads = self._loop.steps, 0
        self._reads += 1
        if self._reads > BUSY:
            raise BusyLoopError(f"one callback reads the clock {BUSY} times, at {self._loop.time():.3f}")
        return self._loop.time() + self._asleep

    def utc(self) -> float:
        """Return the wall clock's time."""
        return START_OF_2026 + self.monotonic() + self._wall

    def sleep(self, seconds: float) -> None:
        """Leap ahead of the loop's time, as a machine that has slept."""
        self._asleep += seconds
        self.last_sleep_at = self.monotonic()

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forth, or back."""
        self._wall += seconds
