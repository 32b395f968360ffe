"""A store in memory that a test can take away, slow down, empty, or set back to an older copy."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from apivideo_auth import MemoryStore, TokenStoreError
from apivideo_auth._record import EMPTY, Record


class FaultyStore:
    """A `MemoryStore` with a switch: `fault` is None, "down", "slow", "lost" (done, but no answer) or "garbage".

    Without `pushes` it never calls `on_commit`.
    """

    needs_encryption = False

    def __init__(self, *, pushes: bool = True) -> None:
        self.inner = MemoryStore()
        self.pushes = pushes
        self.fault: str | None = None
        self.operations: list[str] = []
        self.before: Callable[[str], None] = lambda _operation: None

    def open(self, account: str, **kwargs: Any) -> "FaultySlot":
        if not self.pushes:
            kwargs["on_commit"] = _ignore
        return FaultySlot(self, self.inner.open(account, **kwargs))

    def process(self) -> "FaultyStore":
        """Return the same store as another process sees it, with a switch of its own."""
        other = FaultyStore(pushes=self.pushes)
        other.inner = self.inner
        return other

    @property
    def record(self) -> Record:
        (account,) = self.inner._accounts.values()
        return account.record

    @record.setter
    def record(self, record: Record) -> None:
        (account,) = self.inner._accounts.values()
        account.record = record

    def empty(self) -> None:
        """Lose everything."""
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
            self._store.before(name)
            self._store.operations.append(name)
            fault = self._store.fault
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
