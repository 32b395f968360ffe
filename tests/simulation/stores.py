"""The store that simulated workers share, which fails at random."""

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


class SharedStore:
    """A store in memory that the workers of an account share, each process through a `ProcessStore`.

    - `pushes`: whether it calls `on_commit`; a `FileStore`, for example, does not.
    - `faults`: what goes wrong. `set_backs`: when it was set back to an earlier record. Until the first time it kept,
      or lost, what it confirmed. `losses`: when it was emptied.
    """

    def __init__(self, rng: random.Random, faults: StoreFaults, *, pushes: bool, log: Callable[[str], None]) -> None:
        self.rng = rng
        self.faults = faults
        self.pushes = pushes
        self.log = log
        self.records = MemoryStore()
        self.set_backs: list[float] = []
        self.losses: list[float] = []

    @property
    def is_faulty(self) -> bool:
        """Return whether it has faults at this moment."""
        return self.faults != StoreFaults()


class ProcessStore:
    """A `SharedStore` as one process sees it: the managers that are given the same object are in one process."""

    needs_encryption = False

    def __init__(self, shared: SharedStore) -> None:
        self.shared = shared

    def open(
        self, account: str, *, clock: Clock, on_commit: Callable[[], None], on_damage: Callable[[str], None]
    ) -> "FaultySlot":
        on_commit = on_commit if self.shared.pushes else _ignore_commit
        inner = self.shared.records.open(account, clock=clock, on_commit=on_commit, on_damage=on_damage)
        return FaultySlot(self.shared, inner, clock)


def _ignore_commit() -> None:
    """Stand in for `on_commit` where a store cannot push."""


@define(eq=False)
class FaultySlot:
    """One process's view of an account in a `SharedStore`."""

    store: SharedStore
    inner: MemorySlot
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
        early = self._happens(self.store.faults.down)
        await self.inner.changed(timeout * self.store.rng.random() if early else timeout)

    async def forget(self) -> None:
        await self._perform(self.inner.forget)

    async def close(self) -> None:
        await self.inner.close()

    async def _perform(self, operation: Callable[[], Awaitable[T]]) -> T:
        store, faults, shared = self.store, self.store.faults, self.inner._shared
        if self._happens(faults.slow):
            await asyncio.sleep(store.rng.random() * faults.max_delay)
        if self._happens(faults.down):
            store.log("down")
            raise TokenStoreError("the store is down")
        if self._happens(faults.emptied):
            store.log("emptied")
            store.losses.append(self.clock.monotonic())
            shared.record = EMPTY
        elif self._happens(faults.set_back):
            store.log("set back to an earlier record")
            store.set_backs.append(self.clock.monotonic())
            shared.record = self.earlier_record
        elif self._happens(0.1):
            self.earlier_record = shared.record
        answer = await operation()
        if self._happens(faults.lost):
            store.log("loses an answer")
            raise TokenStoreError("the store lost the connection")
        return answer

    def _happens(self, probability: float) -> bool:
        return self.store.is_faulty and self.store.rng.random() < probability


def random_faults(rng: random.Random) -> StoreFaults:
    """Return the faults of a store that fails."""
    return StoreFaults(
        down=rng.choice([0.0, 0.05, 0.5]),
        lost=rng.choice([0.0, 0.05]),
        slow=rng.choice([0.0, 0.1]),
        emptied=rng.choice([0.0, 0.02]),
        set_back=rng.choice([0.0, 0.02]),
    )
