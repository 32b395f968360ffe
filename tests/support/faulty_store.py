"""A store in memory that a test can take down, slow down, empty, or set back to an earlier record."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from apivideo_auth import MemoryStore, TokenStoreError
from apivideo_auth._record import EMPTY, Record


class FaultyStore:
    """A `MemoryStore` with a switch.

    - `fault`: `None`, "down", "slow" (no answer for an hour), "lost" (executed, but without an answer), or "garbage" (it
      raises an exception that stores do not raise).
    - `operations`: the names of the operations so far; `before` is called with the name before each.
    """

    needs_encryption = False

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.fault: str | None = None
        self.operations: list[str] = []
        self.before: Callable[[str], None] = lambda _operation: None

    def open(self, account: str, **kwargs: Any) -> "FaultySlot":
        return self.process().open(account, **kwargs)

    def process(self) -> "ProcessStore":
        """Return the same store as one more process sees it: managers share what they know within a process."""
        return ProcessStore(self)

    @property
    def record(self) -> Record:
        (account,) = self.inner._accounts.values()
        return account.record

    @record.setter
    def record(self, record: Record) -> None:
        (account,) = self.inner._accounts.values()
        account.record = record

    def empty(self) -> None:
        """Lose the record."""
        self.record = EMPTY


class ProcessStore:
    """A `FaultyStore` as one process sees it. `fault` concerns this process only."""

    needs_encryption = False

    def __init__(self, store: FaultyStore) -> None:
        self.store = store
        self.fault: str | None = None

    def open(self, account: str, **kwargs: Any) -> "FaultySlot":
        return FaultySlot(self, self.store.inner.open(account, **kwargs))


class FaultySlot:
    """A slot of a `FaultyStore`."""

    def __init__(self, process: ProcessStore, inner: Any) -> None:
        self._process = process
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def operation(*args: Any) -> Any:
            store = self._process.store
            store.before(name)
            store.operations.append(name)
            fault = self._process.fault or store.fault
            if fault == "down":
                raise TokenStoreError("made-up outage of the store")
            if fault == "garbage":
                raise KeyError("made-up bug of the store")
            if fault == "slow":
                await asyncio.sleep(3600)
            answer = await getattr(self._inner, name)(*args)
            if fault == "lost":
                raise TokenStoreError("made-up lost answer")
            return answer

        return operation
