"""A store in the memory of this process."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock

from attrs import define, field

from apivideo_auth import _record
from apivideo_auth._clock import Clock
from apivideo_auth._record import Claim, ClaimAnswer, Commit, Done, EndAnswer, Record, Release, SharedToken
from apivideo_auth.stores._base import Waiters


@define(eq=False)
class _Shared:
    """The record of one account, and the slots that share it."""

    record: Record = field(default=_record.EMPTY, repr=False)
    slots: "list[MemorySlot]" = field(factory=list["MemorySlot"], repr=False)
    # Guards the other attributes: event loops may run in several threads.
    lock: Lock = field(factory=Lock, repr=False)


class MemoryStore:
    """Keeps records in memory, for the managers of one process.

    It keeps its records when its last manager closes.
    """

    needs_encryption = False

    def __init__(self) -> None:
        self._accounts: dict[str, _Shared] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore accounts={len(self._accounts)}>"

    def open(
        self,
        account: str,
        *,
        clock: Clock,
        on_commit: Callable[[], None],
        on_damage: Callable[[str], None],  # noqa: ARG002  memory is not damaged
    ) -> "MemorySlot":
        """Return the slot of an account."""
        shared = self._accounts.setdefault(account, _Shared())
        slot = MemorySlot(shared, clock, on_commit)
        with shared.lock:
            # Without slots whose event loop was closed before their manager.
            others = [other for other in shared.slots if not other.loop.is_closed()]
            shared.slots = [*others, slot]
        return slot


class MemorySlot:
    """One manager's view of an account in a `MemoryStore`. Others may be in event loops of other threads."""

    def __init__(self, shared: _Shared, clock: Clock, on_commit: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._on_commit = on_commit
        self._waiters = Waiters()
        self._shared = shared
        self._now = clock.monotonic
        # So that `changed` does not miss a change between the last answer and its own call.
        self._wakes_seen = 0

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        self._wakes_seen = self._waiters.wakes
        return _record.shared_token(self._shared.record, self._now())

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask for the right to renew."""
        self._wakes_seen = self._waiters.wakes
        with self._shared.lock:
            self._shared.record, answer = _record.claim(self._shared.record, event, self._now())
        return answer

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        with self._shared.lock:
            self._shared.record, answer = _record.commit(self._shared.record, event, self._now())
        self._notify(committed=isinstance(answer, Done))
        return answer

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        with self._shared.lock:
            self._shared.record, answer = _record.release(self._shared.record, event, self._now())
        self._notify(committed=False)
        return answer

    async def changed(self, timeout: float) -> None:
        """Return after a commit or release, or after `timeout` seconds."""
        await self._waiters.wait(timeout, since=self._wakes_seen)

    async def forget(self) -> None:
        """Delete the record."""
        with self._shared.lock:
            self._shared.record = _record.EMPTY

    async def close(self) -> None:
        """Leave the record; the store keeps it."""
        with self._shared.lock:
            self._shared.slots = [slot for slot in self._shared.slots if slot is not self]
        self._waiters.wake()

    def on_change(self, *, committed: bool) -> None:
        """Take note of another slot's commit or release, in this slot's event loop."""
        self._waiters.wake()
        if committed:
            self._on_commit()

    def _notify(self, *, committed: bool) -> None:
        for slot in self._shared.slots:
            if slot.loop is self.loop:
                slot.on_change(committed=committed and slot is not self)
            else:
                # A loop that is closed has nobody to notify.
                with suppress(RuntimeError):
                    slot.loop.call_soon_threadsafe(partial(slot.on_change, committed=committed))
