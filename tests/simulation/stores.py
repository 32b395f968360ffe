"""Shared stores: one whose order is the same in every run, and a wrapper that makes it fail."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from attrs import define, frozen

from apivideo_auth import MemoryStore, TokenStoreError
from apivideo_auth._clock import Clock
from apivideo_auth._record import EMPTY, Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken
from apivideo_auth.stores._memory import MemorySlot

T = TypeVar("T")

FAULTY_PART = 0.25
"""The part of the scenarios whose shared stores fail; 0 turns it off."""


@frozen(kw_only=True)
class StoreFaults:
    """Probabilities, per operation: it raises before or after it is done, is slow, and finds an earlier record."""

    down: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    slowest: float = 3.0
    emptied: float = 0.0
    older: float = 0.0


class _InOrder(set[Any]):
    """A set that is iterated in the order of its addresses' arrival."""

    def __init__(self) -> None:
        super().__init__()
        self._order: dict[Any, None] = {}

    def add(self, element: Any) -> None:
        super().add(element)
        self._order[element] = None

    def discard(self, element: Any) -> None:
        super().discard(element)
        self._order.pop(element, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)


class OrderedStore(MemoryStore):
    """A `MemoryStore` that wakes its workers in the same order in every run."""

    def open(self, account: str, *, clock: Clock, on_commit: Callable[[], None]) -> MemorySlot:
        """Return the slot of an account."""
        slot = super().open(account, clock=clock, on_commit=on_commit)
        entry = slot._account
        if type(entry.slots) is set:
            ordered = _InOrder()
            for other in entry.slots:
                ordered.add(other)
            entry.slots = ordered
        return slot


class FaultyStore:
    """A store that is down, slow, emptied, or put back to an earlier copy, as the seed wants it."""

    needs_encryption = False

    def __init__(self, inner: OrderedStore, rng: random.Random, faults: StoreFaults) -> None:
        self.faults = faults
        self._inner = inner
        self._rng = rng

    def open(self, account: str, *, clock: Clock, on_commit: Callable[[], None]) -> "FaultySlot":
        """Return the slot of an account."""
        return FaultySlot(self, self._inner.open(account, clock=clock, on_commit=on_commit), self._rng)


@define(eq=False)
class FaultySlot:
    """One worker's view of a `FaultyStore`."""

    store: FaultyStore
    inner: MemorySlot
    rng: random.Random
    copy: Any = EMPTY

    async def read(self) -> SharedToken | None:
        """Read, or fail."""
        return await self._do(self.inner.read)

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Claim, or fail."""
        return await self._do(lambda: self.inner.claim(event))

    async def commit(self, event: Commit) -> EndAnswer:
        """Commit, or fail."""
        return await self._do(lambda: self.inner.commit(event))

    async def release(self, event: Release) -> EndAnswer:
        """End a claim, or fail."""
        return await self._do(lambda: self.inner.release(event))

    async def changed(self, wait: float) -> None:
        """Wait; early in a while."""
        await self.inner.changed(wait * self.rng.random() if self._hit(self.store.faults.down) else wait)

    async def forget(self) -> None:
        """Forget, or fail."""
        await self._do(self.inner.forget)

    async def close(self) -> None:
        """Let go."""
        await self.inner.close()

    async def _do(self, operation: Callable[[], Awaitable[T]]) -> T:
        faults, entry = self.store.faults, self.inner._account
        if self._hit(faults.slow):
            await asyncio.sleep(self.rng.random() * faults.slowest)
        if self._hit(faults.down):
            raise TokenStoreError("the store is down")
        if self._hit(faults.emptied):
            entry.record = EMPTY
        elif self._hit(faults.older):
            entry.record = self.copy
        elif self._hit(0.1):
            self.copy = entry.record
        answer = await operation()
        if self._hit(faults.lost):
            raise TokenStoreError("the store broke off")
        return answer

    def _hit(self, probability: float) -> bool:
        return self.store.faults != StoreFaults() and self.rng.random() < probability


def shared_store(rng: random.Random, *, faulty: bool) -> OrderedStore | FaultyStore:
    """Return the store that the workers of an account share."""
    store = OrderedStore()
    if not faulty:
        return store
    faults = StoreFaults(
        down=rng.choice([0.0, 0.05, 0.5]),
        lost=rng.choice([0.0, 0.05]),
        slow=rng.choice([0.0, 0.1]),
        emptied=rng.choice([0.0, 0.02]),
        older=rng.choice([0.0, 0.02]),
    )
    return FaultyStore(store, rng, faults)
