"""Whether a store may be asked now: after failures, by a circuit breaker, and beside other operations, by a limiter."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from attrs import define

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._policy import INITIAL_STORE_BACKOFF, store_backoff
from apivideo_auth._record import NEVER
from apivideo_auth._tasks import within

TURN_TIMEOUT: Final = 4.0
"""Seconds that an operation waits for its turn. A claim that waited longer could not be used before its lease ends."""
HANGING_FRACTION: Final = 0.8
"""An operation that fails after this fraction of its time has met a store that hangs."""

_T = TypeVar("_T")


@define
class _Count:
    failures: int = 0
    retry_at: float = NEVER


class CircuitBreaker:
    """After a failure a store is not asked before its backoff is over.

    Reading may work while writing fails (no memory, a replica, a read-only file system), so the two are counted
    separately. An outage is one `StoreDegraded` and one `StoreRecovered`, which `emit` takes. `jitter` returns a random
    number in [0, 1).
    """

    def __init__(
        self, *, clock: Clock, emit: Callable[[events.Event], None], jitter: Callable[[], float] = random.random
    ) -> None:
        self._now = clock.monotonic
        self._emit = emit
        self._jitter = jitter
        self._reads, self._writes = _Count(), _Count()
        self._down_since: float | None = None
        self._damaged_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the store has failed and not recovered."""
        return self._down_since is not None

    @property
    def can_read(self) -> bool:
        """Whether the last read has worked."""
        return not self._reads.failures

    def allows(self, *, write: bool) -> bool:
        """Return whether the store may be asked now."""
        return not self.wait(write=write)

    def wait(self, *, write: bool) -> float:
        """Return the seconds until the store may be asked."""
        count = self._writes if write else self._reads
        return max(0.0, count.retry_at - self._now())

    def allow_now(self) -> None:
        """End the backoff: another worker's commit shows that the store works, or the backoff is over."""
        self._reads.retry_at = self._writes.retry_at = self._now()

    def on_failure(self, cause: str, *, write: bool) -> float:
        """Count a failure; return the seconds to wait before the next try."""
        count = self._writes if write else self._reads
        count.failures += 1
        wait = store_backoff(count.failures, jitter=self._jitter())
        count.retry_at = self._now() + wait
        if self._down_since is None:
            self._down_since = self._now()
            self._emit(events.StoreDegraded(cause=cause, next_try_in=wait))
        return wait

    def on_success(self, *, write: bool) -> None:
        """Count a success. A store that can be written can be read as well."""
        self._reads = _Count()
        if write:
            self._writes = _Count()
        if self._down_since is not None and not self._writes.failures:
            seconds, self._down_since = self._now() - self._down_since, None
            self._emit(events.StoreRecovered(seconds=seconds))

    def on_damage(self, cause: str) -> None:
        """Report a record that cannot be read. It counts as empty, and the next commit replaces it."""
        if self._damaged_since is None:
            self._damaged_since = self._now()
            self._emit(events.StoreDegraded(cause=cause, next_try_in=0.0))

    def on_repair(self) -> None:
        """Report that the record can be read again, because a commit has replaced it."""
        if self._damaged_since is not None:
            seconds, self._damaged_since = self._now() - self._damaged_since, None
            self._emit(events.StoreRecovered(seconds=seconds))


class Limiter:
    """Limits the operations that one store gets at a time. The others wait for their turn, which is not its fault.

    `max_concurrent` is how many the store works on at a time. If it got more, they would wait inside of the store, and
    their time would run.

    A store that is too slow for all its accounts counts as down for those who wait longer than `TURN_TIMEOUT`. If the
    store does not answer, those who wait for their turn are not let in for a moment: it hangs for all accounts.
    """

    def __init__(self, max_concurrent: int) -> None:
        self._turns = asyncio.Semaphore(max_concurrent)
        self._hangs_until = NEVER

    async def run(self, seconds: float, operation: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return the result of an operation that may take `seconds`."""
        clock = asyncio.get_running_loop().time
        async with self._turn():
            began_at = clock()
            if began_at < self._hangs_until:
                raise TimeoutError("no answer to another account")
            try:
                return await within(seconds, operation())
            except Exception:
                if clock() - began_at >= HANGING_FRACTION * seconds:
                    self._hangs_until = clock() + INITIAL_STORE_BACKOFF
                raise

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(TURN_TIMEOUT):
                await self._turns.acquire()
        except TimeoutError:
            raise TimeoutError(f"too slow for all its accounts: no turn within {TURN_TIMEOUT:g} seconds") from None
        try:
            yield
        finally:
            self._turns.release()
