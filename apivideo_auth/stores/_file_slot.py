"""A manager's view of a record in a file: asynchronous outside, one thread's work inside."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from attrs import define, field

from apivideo_auth import _record
from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Claim, ClaimAnswer, Commit, Done, EndAnswer, Granted, Record, Release, SharedToken
from apivideo_auth.stores._file_record import RecordFile, Stamp
from apivideo_auth.stores._worker import Worker

if TYPE_CHECKING:
    from concurrent.futures import Future

PATIENCE: Final = 0.35
"""Seconds that an operation waits for its turn and the lock. What is left of an operation's 0.5 is for the disk."""
INITIAL_POLL_INTERVAL: Final = 0.02
POLL_GROWTH: Final = 1.5
MAX_POLL_INTERVAL: Final = 0.25
"""`changed` looks at the file at growing intervals: a renewal takes a moment, and a dead holder's lease long."""

_Answer = TypeVar("_Answer")
_Transition: TypeAlias = Callable[[Record, float], tuple[Record, _Answer]]


class FileSlot:
    """One manager's view of an account in a `FileStore`. No file is touched in the event loop.

    A cancelled operation is either not begun or completed; a claim that nobody waits for any more is given back.
    """

    def __init__(
        self,
        account: "FileAccount",
        worker: Worker,
        *,
        clock: Clock,
        on_commit: Callable[[], None],
        let_go: Callable[[], Awaitable[None]],
    ) -> None:
        self._account = account
        self._file = account.file
        self._worker = worker
        self._utc = clock.utc
        self._on_commit = on_commit
        self._let_go = let_go
        self._loop = _running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._seen: Stamp | None = None
        account.slots.add(self)

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""

        def job(patience: float) -> tuple[SharedToken | None, Stamp]:
            return self._file.read(lambda record: _record.shared_token(record, self._utc()), patience)

        return await self._answer(self._begin(job))

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew."""
        job = self._begin_change(lambda record, now: _record.claim(record, event, now))
        try:
            return await self._answer(job)
        except asyncio.CancelledError:
            if not job.cancel():
                with suppress(TokenStoreError):
                    self._begin(lambda patience: self._give_back(event, job, patience))
            raise

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        answer = await self._answer(self._begin_change(lambda record, now: _record.commit(record, event, now)))
        if isinstance(answer, Done):
            for slot in self._neighbours():
                slot.wake()
                if slot is not self:
                    slot.tell()
        return answer

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        answer = await self._answer(self._begin_change(lambda record, now: _record.release(record, event, now)))
        for slot in self._neighbours():
            slot.wake()
        return answer

    async def changed(self, wait: float) -> None:
        """Return when the record is another than at this slot's last look, or when `wait` seconds are over.

        Commits and failures of this process and event loop are seen at once, those of others at the next look.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        pause = INITIAL_POLL_INTERVAL
        try:
            async with asyncio.timeout(wait):
                while not (future.done() or await self._differs()):
                    await asyncio.wait({future}, timeout=pause)
                    pause = min(pause * POLL_GROWTH, MAX_POLL_INTERVAL)
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
        """Delete the record. An empty lock file stays."""
        await self._answer(self._begin(self._file.delete))

    async def close(self) -> None:
        """Let go of the record, after what was begun. The last one to do so ends the store's thread."""
        if self in self._account.slots:
            self._account.slots.discard(self)
            self.wake()
            await self._let_go()

    def _neighbours(self) -> "list[FileSlot]":
        """Return the slots that can be reached from here. Those of other event loops find out by polling."""
        return [slot for slot in self._account.slots if slot._loop is self._loop]  # noqa: SLF001  of the same class

    def _begin(self, job: Callable[[float], _Answer]) -> "Future[_Answer]":
        """Hand in a job, which is told how long it may wait for the lock: less by what it waited for its turn."""
        if self not in self._account.slots:
            raise TokenStoreError("this manager has let go of its token store")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        # Real time, whatever clock dates the record: other processes hold the lock in real time.
        patient_until = SYSTEM_CLOCK.monotonic() + PATIENCE
        return self._worker.submit(lambda: job(max(0.0, patient_until - SYSTEM_CLOCK.monotonic())))

    def _begin_change(self, transition: _Transition[_Answer]) -> "Future[tuple[_Answer, Stamp]]":
        # The time is read under the lock: no transition is dated earlier than the one before it.
        return self._begin(lambda patience: self._file.change(lambda record: transition(record, self._utc()), patience))

    async def _answer(self, job: "Future[tuple[_Answer, Stamp]]") -> _Answer:
        answered = await asyncio.wrap_future(job)
        self._seen = answered[1]
        return answered[0]

    def _give_back(self, event: Claim, job: "Future[tuple[ClaimAnswer, Stamp]]", patience: float) -> None:
        """Undo a claim whose answer reached nobody: its refresh token is unused, and others need not wait for it."""
        with suppress(TokenStoreError):
            answer, _ = job.result()
            if isinstance(answer, Granted):
                unused = Release(id=event.id, refresh=answer.refresh)
                self._file.change(lambda record: _record.release(record, unused, self._utc()), patience)

    async def _differs(self) -> bool:
        """Say whether the file has changed since this slot's last look, and take this for the last look."""
        now = await asyncio.wrap_future(self._begin(lambda _patience: self._file.stamp()))
        before, self._seen = self._seen, now
        return before is not None and before != now


@define(eq=False)
class FileAccount:
    """One account's file and those of this process who share it."""

    file: RecordFile = field(repr=False)
    slots: set[FileSlot] = field(factory=set[FileSlot], repr=False)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
