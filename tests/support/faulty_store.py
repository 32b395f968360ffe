"""A store in memory that a test can take down, slow down, empty, or set back to an earlier record."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from apivideo_auth import MemoryStore, TokenStoreError
from apivideo_auth._record import EMPTY, Record


class FaultyStore:
    """A `MemoryStore` with a switch.

    - `fault`: `None`, "down", "slow" (no answer for an hour), "lost" (executed, without an answer), or "garbage" (it
      raises an exception that stores do not raise).
    - `pushes`: whether it calls `on_commit`.
    - `operations`: the names of the operations so far; `before` is called with the name before each.
    """

    needs_encryption = False

    def __init__(self, *, pushes: bool = True, parent: "FaultyStore | None" = None) -> None:
        self.inner = MemoryStore() if parent is None else parent.inner
        self.pushes = pushes
        self.parent = parent
        self.fault: str | None = None
        self.operations: list[str] = []
        self.before: Callable[[str], None] = lambda _operation: None

    def open(self, account: str, **kwargs: Any) -> "FaultySlot":
        if not self.pushes:
            kwargs["on_commit"] = _ignore
        return FaultySlot(self, self.inner.open(account, **kwargs))

    def process(self) -> "FaultyStore":
        """Return the same store as another process sees it. What is set there concerns that process only."""
        return FaultyStore(pushes=self.pushes, parent=self)

    def begin(self, operation: str) -> str | None:
        """Note an operation, and return the fault that it meets."""
        self.before(operation)
        self.operations.append(operation)
        parent_fault = None if self.parent is None else self.parent.begin(operation)
        return self.fault or parent_fault

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


def _ignore() -> None:
    """Stand in for `on_commit` in a store that does not push."""


class FaultySlot:
    """A slot of a `FaultyStore`."""

    def __init__(self, store: FaultyStore, inner: Any) -> None:
        self._store = store
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def operation(*args: Any) -> Any:
            fault = self._store.begin(name)
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
