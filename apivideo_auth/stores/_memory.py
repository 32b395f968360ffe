"""A store in the memory of this process."""

import asyncio
from collections.abc import Callable

from attrs import define, field

from apivideo_auth import _record
from apivideo_auth._clock import Clock
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Record, Release, SharedToken


def _no_slots() -> "set[MemorySlot]":
    return set()


@define(eq=False)
class _Account:
    """One account's record and those who share it."""

    record: Record = field(default=_record.EMPTY, repr=False)
    # Guards `record`: no transition starts before the one before it has been stored.
    lock: asyncio.Lock = field(factory=asyncio.Lock)
    slots: "set[MemorySlot]" = field(factory=_no_slots, repr=False)


class MemoryStore:
    """Keeps records in memory, for several managers of one process and one event loop at a time.

    It keeps what it holds when its last manager closes, and serves again when it is used again.
    """

    needs_encryption = False

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore accounts={len(self._accounts)}>"

    def open(self, account: str, *, clock: Clock, on_commit: Callable[[], None]) -> "MemorySlot":
        """Return the slot of an account."""
        entry = self._accounts.setdefault(account, _Account())
        if not entry.slots:
            # A lock belongs to the event loop that waited for it, and nobody is left from the last one.
            entry.lock = asyncio.Lock()
        return MemorySlot(entry, clock, on_commit)


class MemorySlot:
    """One manager's view of an account in a `MemoryStore`."""

    def __init__(self, account: _Account, clock: Clock, on_commit: Callable[[], None]) -> None:
        self._account = account
        self._now = clock.monotonic
        self._on_commit = on_commit
        self._waiting: set[asyncio.Future[None]] = set()
        account.slots.add(self)

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        async with self._account.lock:
            return _record.shared_token(self._account.record, self._now())

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew."""
        async with self._account.lock:
            self._account.record, answer = _record.claim(self._account.record, event, self._now())
        return answer

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        async with self._account.lock:
            self._account.record, answer = _record.commit(self._account.record, event, self._now())
        if isinstance(answer, _record.Done):
            for slot in [*self._account.slots]:
                slot.wake()
                if slot is not self:
                    slot.tell()
        return answer

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        async with self._account.lock:
            self._account.record, answer = _record.release(self._account.record, event, self._now())
        for slot in [*self._account.slots]:
            slot.wake()
        return answer

    async def changed(self, wait: float) -> None:
        """Return when somebody has committed or failed, or when `wait` seconds are over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout(wait):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(future)

    def wake(self) -> None:
        """End every `changed` of this slot."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def tell(self) -> None:
        """Tell the manager of this slot of a commit."""
        self._on_commit()

    async def forget(self) -> None:
        """Delete the record."""
        async with self._account.lock:
            self._account.record = _record.EMPTY

    async def close(self) -> None:
        """Let go of the record; the store keeps it."""
        self._account.slots.discard(self)
        self.wake()
