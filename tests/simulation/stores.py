"""The stores that simulated workers share: one that works, and one that fails at random."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from attrs import define, frozen

from apivideo_auth import MemoryStore, TokenStoreError
from apivideo_auth._clock import Clock
from apivideo_auth._record import EMPTY, Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken
from apivideo_auth.stores._memory import MemorySlot

T = TypeVar("T")

FAULTY_FRACTION = 0.25
"""The fraction of scenarios whose shared stores fail; 0 turns it off."""


@frozen(kw_only=True)
class StoreFaults:
    """Probabilities, per operation.

    - `down`, `lost`: it raises before, or after it was done.
    - `slow`: it takes up to `max_delay` seconds longer.
    - `emptied`, `set_back`: the record is gone, or is an earlier copy.
    """

    down: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    max_delay: float = 3.0
    emptied: float = 0.0
    set_back: float = 0.0


class SharedStore(MemoryStore):
    """A `MemoryStore` that, without `pushes`, never calls `on_commit`."""

    def __init__(self, *, pushes: bool = True) -> None:
        super().__init__()
        self.pushes = pushes

    def open(self, account: str, *, on_commit: Callable[[], None], **options: Any) -> MemorySlot:
        return super().open(account, on_commit=on_commit if self.pushes else _ignore_commit, **options)


def _ignore_commit() -> None:
    """Stand in for `on_commit` where a store cannot push."""


class Process:
    """A store as one process sees it. Managers with the same `Process` are managers of one process."""

    needs_encryption = False

    def __init__(self, store: "SharedStore | FaultyStore") -> None:
        self.open = store.open


class FaultyStore:
    """A store that is down, slow, emptied, or set back to an earlier copy, at random.

    `set_back_at`: when it was last set back; before that it kept, or lost, what it confirmed.
    """

    needs_encryption = False

    def __init__(self, inner: SharedStore, rng: random.Random, faults: StoreFaults, log: Callable[[str], None]) -> None:
        self.faults = faults
        self.log = log
        self.set_back_at = float("-inf")
        self._inner = inner
        self._rng = rng

    def open(self, account: str, *, clock: Clock, **options: Any) -> "FaultySlot":
        return FaultySlot(self, self._inner.open(account, clock=clock, **options), self._rng, clock)


@define(eq=False)
class FaultySlot:
    """One worker's view of a `FaultyStore`."""

    store: FaultyStore
    inner: MemorySlot
    rng: random.Random
    clock: Clock
    earlier_record: Any = EMPTY

    async def read(self) -> SharedToken | None:
        return await self._perform(self.inner.read)

    async def claim(self, event: Claim) -> ClaimAnswer:
        return await self._perform(lambda: self.inner.claim(event))

    async def commit(self, event: Commit) -> EndAnswer:
        return await self._perform(lambda: self.inner.commit(event))

    async def release(self, event: Release) -> EndAnswer:
        return await self._perform(lambda: self.inner.release(event))

    async def changed(self, timeout: float) -> None:
        await self.inner.changed(timeout * self.rng.random() if self._happens(self.store.faults.down) else timeout)

    async def forget(self) -> None:
        await self._perform(self.inner.forget)

    async def close(self) -> None:
        await self.inner.close()

    async def _perform(self, operation: Callable[[], Awaitable[T]]) -> T:
        faults, entry = self.store.faults, self.inner._shared
        if self._happens(faults.slow):
            await asyncio.sleep(self.rng.random() * faults.max_delay)
        if self._happens(faults.down):
            self.store.log("down")
            raise TokenStoreError("the store is down")
        if self._happens(faults.emptied):
            self.store.log("emptied")
            entry.record = EMPTY
        elif self._happens(faults.set_back):
            self.store.log("set back to an earlier record")
            self.store.set_back_at = self.clock.monotonic()
            entry.record = self.earlier_record
        elif self._happens(0.1):
            self.earlier_record = entry.record
        answer = await operation()
        if self._happens(faults.lost):
            self.store.log("loses an answer")
            raise TokenStoreError("the store lost the connection")
        return answer

    def _happens(self, probability: float) -> bool:
        return self.store.faults != StoreFaults() and self.rng.random() < probability


def shared_store(
    rng: random.Random, *, faulty: bool, pushes: bool, log: Callable[[str], None]
) -> SharedStore | FaultyStore:
    """Return the store that the workers of an account share."""
    store = SharedStore(pushes=pushes)
    if not faulty:
        return store
    faults = StoreFaults(
        down=rng.choice([0.0, 0.05, 0.5]),
        lost=rng.choice([0.0, 0.05]),
        slow=rng.choice([0.0, 0.1]),
        emptied=rng.choice([0.0, 0.02]),
        set_back=rng.choice([0.0, 0.02]),
    )
    return FaultyStore(store, rng, faults, log)
