"""An event loop in virtual time that runs callbacks in a seeded random order, and a clock that follows it."""

import asyncio
import heapq
import math
import random
import weakref
from collections.abc import Callable
from typing import Any, Literal

from attrs import frozen

from tests.support.doubles import LoopClock

MAX_CALLBACKS = {0.5: 20_000, 60.0: 100_000}
"""More callbacks within so many virtual seconds are reported as a busy loop."""
MAX_CLOCK_READS = 20_000
"""More readings of the clock within one callback are, too."""


class BusyLoopError(BaseException):
    """Callbacks run and time does not advance. A `BaseException`, so that the code under test does not swallow it."""


class DeadlockError(BaseException):
    """Nothing is ready and no timer is set, although a task is still waiting."""


@frozen(kw_only=True)
class LoopBehavior:
    """How the loop behaves.

    - `order` of callbacks that are ready together: first in, first out; shuffled; or shuffled, with some of them
      deferred to the next iteration. The callbacks of one future keep their order, which asyncio promises.
    - `late`: the probability that a timer is late, by up to `max_delay` seconds.
    - `callback_time`: the longest time that one callback takes, in seconds.
    - `eager_tasks`: new tasks run at once until they first wait, on Python 3.12 and later.
    """

    order: Literal["fifo", "shuffled", "deferred"] = "fifo"
    late: float = 0.0
    max_delay: float = 0.0
    callback_time: float = 0.0
    eager_tasks: bool = False


class _NumberedFuture(asyncio.Future[Any]):
    """A future whose hash is its number, so that a set of futures has the same order in every run."""

    number: int = 0

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without I/O. Time jumps to the next timer when nothing is ready."""

    def __init__(self, rng: random.Random, behavior: LoopBehavior | None = None) -> None:
        super().__init__()
        self.behavior = LoopBehavior() if behavior is None else behavior
        self.callbacks_run = 0
        self._rng = rng
        self._now = 1000.0
        self._windows = dict.fromkeys(MAX_CALLBACKS, (self._now, 0))
        self._future_count = 0
        self._futures: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        eager_task_factory = getattr(asyncio, "eager_task_factory", None)
        if self.behavior.eager_tasks and eager_task_factory is not None:
            self.set_task_factory(eager_task_factory)

    def time(self) -> float:
        """Return the virtual time."""
        return self._now

    def block(self, seconds: float) -> None:
        """Let time pass inside a callback, as if the callback had computed for so long."""
        self._now += seconds

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future that `pending_futures` finds."""
        future = _NumberedFuture(loop=self)
        self._future_count += 1
        future.number = self._future_count
        self._futures.add(future)
        return future

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Set a timer, which may be late."""
        behavior = self.behavior
        if not math.isfinite(when):
            raise ValueError(f"a timer is set for {when}")
        if behavior.late and self._rng.random() < behavior.late:
            when += self._rng.random() * behavior.max_delay
        return super().call_at(when, callback, *args, context=context)

    def pending_futures(self) -> list[asyncio.Future[Any]]:
        """Return the futures that still exist and are not done."""
        return [future for future in self._futures if not future.done()]

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are set and not cancelled."""
        return [handle for handle in self._scheduled if not handle.cancelled()]

    def _run_once(self) -> None:
        self._move_due_timers()
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise DeadlockError("nothing is ready and no timer is set")
            self._now = max(self._now, self._scheduled[0].when())
            self._move_due_timers()
        for handle in self._next_batch():
            if handle.cancelled():
                continue
            self._check_busy()
            handle._run()
            if self.behavior.callback_time:
                self._now += self._rng.random() * self.behavior.callback_time

    def _move_due_timers(self) -> None:
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
        if len(batch) < 2 or self.behavior.order == "fifo":
            return batch
        batch = self._shuffled(batch)
        if self.behavior.order == "deferred" and self._rng.random() < 0.5:
            cut = self._rng.randint(1, len(batch))
            self._ready.extend(batch[cut:])
            batch = batch[:cut]
        return batch

    def _shuffled(self, batch: list[asyncio.Handle]) -> list[asyncio.Handle]:
        """Return the handles in random order; the handles of one future keep their order."""
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

    def _check_busy(self) -> None:
        self.callbacks_run += 1
        for seconds, limit in MAX_CALLBACKS.items():
            begins, count = self._windows[seconds]
            if self._now - begins > seconds:
                begins, count = self._now, 0
            self._windows[seconds] = begins, count + 1
            if count >= limit:
                raise BusyLoopError(f"{limit} callbacks within {seconds} seconds, at {self._now:.3f}")


class SimulatedClock(LoopClock):
    """The clock of the machine that runs the loop. The machine sleeps, and its wall clock is set."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(loop)
        self._virtual_loop = loop
        self._callback = -1
        self._reads_in_callback = 0
        self.last_sleep_at = self.last_block_at = float("-inf")

    def monotonic(self) -> float:
        """Return the loop's time plus all sleep; raise `BusyLoopError` if one callback reads the clock for ever."""
        if self._callback != self._virtual_loop.callbacks_run:
            self._callback, self._reads_in_callback = self._virtual_loop.callbacks_run, 0
        self._reads_in_callback += 1
        if self._reads_in_callback > MAX_CLOCK_READS:
            raise BusyLoopError(f"one callback reads the clock {MAX_CLOCK_READS} times, at {self._loop.time():.3f}")
        return super().monotonic()

    def sleep(self, seconds: float) -> None:
        """Advance the clock and not the loop's time, as when the machine has slept."""
        self.asleep += seconds
        self.last_sleep_at = self.monotonic()
