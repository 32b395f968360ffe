"""A store in files, for the processes of one user on one machine."""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, cast

from apivideo_auth import _record
from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Claim, ClaimAnswer, Commit, Done, EndAnswer, Granted, Release, SharedToken
from apivideo_auth._secrets import fingerprint
from apivideo_auth.stores._base import Waiters, require_packages
from apivideo_auth.stores._file_record import RecordFile, Stamp

LOCK_TIMEOUT: Final = 0.35
"""Seconds that an operation waits for its turn and for the lock. The rest of its 0.5 seconds is for the disk."""
POLL_INTERVAL: Final = 0.02
MAX_POLL_INTERVAL: Final = 0.25
"""`changed` polls at growing intervals (seconds): a renewal takes a moment, a dead holder's lease much longer."""

_FILE_NAME: Final = re.compile(r"[0-9a-z_-]{1,100}")

_Answer = TypeVar("_Answer")


class FileStore:
    """Keeps records in files, for several managers and processes of one user on one machine.

    - `directory`: by default the user's own directory for the state of programs. It is created when needed, with mode
      0700. A directory that others can enter, or that belongs to another user, is refused with `TokenStoreError`.

    Records are dated by the wall clock, which the processes of a machine share. The directory must be on a local disk:
    the locks and clocks of network file systems are not reliable enough.

    Nothing is opened before the first use. When the last manager has closed, no thread and no open file is left; the
    next use opens them again, also in another event loop. Managers in event loops that run at the same time share the
    store in the same way as processes do.

    Raises `TypeError` or `ValueError` if the directory is invalid, and `ImportError` if a package of the extra
    `apivideo-auth[file]` is missing.
    """

    needs_encryption = True

    def __init__(self, directory: "str | os.PathLike[str] | None" = None) -> None:
        require_packages("a FileStore", "file", "filelock", "platformdirs", "cryptography")
        self._directory = _absolute(directory)
        self._files: dict[str, RecordFile] = {}
        self._thread = FileThread()
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"<FileStore {str(self._directory)!r}>"

    @property
    def directory(self) -> Path:
        """The directory of the records."""
        return self._directory

    def open(
        self,
        account: str,
        *,
        clock: Clock,
        on_commit: Callable[[], None],
        on_damage: Callable[[str], None],  # noqa: ARG002
    ) -> "FileSlot":
        """Return the slot of an account. `clock.utc` dates its records."""
        if os.getpid() != self._process:
            # A fork copies the slots of the parent process, but not its thread.
            self._thread = FileThread()
            self._process = os.getpid()
        name = account if _FILE_NAME.fullmatch(account) else fingerprint(account)
        file = self._files.setdefault(name, RecordFile(self._directory, name))
        return FileSlot(file, self._thread, clock=clock, on_commit=on_commit)


def _absolute(directory: object) -> Path:
    """Return the directory as an absolute path, so that it stays the same when the process changes its own."""
    if directory is None:
        from platformdirs import user_state_path  # noqa: PLC0415  an optional package

        return user_state_path("apivideo-auth", appauthor=False)
    path = os.fspath(cast("os.PathLike[str]", directory)) if isinstance(directory, os.PathLike) else directory
    if not isinstance(path, str):
        raise TypeError(f"a FileStore's directory must be a path, not {type(path).__name__}")
    if not path or "\0" in path:
        raise ValueError("a FileStore's directory must not be empty or contain NUL; omit it for the default directory")
    return Path(path).expanduser().absolute()


class FileThread:
    """The thread that does a store's blocking work, one job after another in order, and the slots that use it.

    It is not the event loop's thread pool: the program may have filled that one with slow work, and its jobs have no
    order, so that a job could not undo a cancelled one. One thread is enough: a job takes about a millisecond, and jobs
    on one file exclude each other anyway.
    """

    def __init__(self) -> None:
        self.slots: set[FileSlot] = set()
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, job: Callable[[], _Answer]) -> "Future[_Answer]":
        """Queue a job. The first one starts the thread."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="apivideo-auth-files")
        return self._executor.submit(job)

    async def drain(self) -> None:
        """Wait until all jobs are done, then end the thread if no slot is left. Cancelling skips only the waiting."""
        executor = self._executor
        if executor is None:
            return
        last = not self.slots
        if last:
            self._executor = None
        idle = False
        try:
            await asyncio.wrap_future(executor.submit(lambda: None))
            idle = True
        finally:
            if last:
                # Joining an idle thread takes no time; afterwards it is really gone.
                executor.shutdown(wait=idle)


class FileSlot:
    """One manager's view of an account in a `FileStore`. The event loop never waits for the disk.

    A cancelled operation has either not begun or is completed; a cancelled claim is given back.
    """

    def __init__(self, file: RecordFile, thread: FileThread, *, clock: Clock, on_commit: Callable[[], None]) -> None:
        self._file = file
        self._thread = thread
        self._utc = clock.utc
        self._on_commit = on_commit
        self._waiters = Waiters()
        # The file's stamp at the last operation of this slot.
        self._stamp: Stamp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        thread.slots.add(self)

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it has not expired."""
        return await self._result(self._submit(lambda lock_by: self._file.read(self._utc, lock_by)))

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew."""
        job = self._submit(lambda lock_by: self._file.change(_record.claim, event, self._utc, lock_by))
        try:
            return await self._result(job)
        except asyncio.CancelledError:
            if not job.cancel():
                with suppress(TokenStoreError):
                    self._submit(lambda lock_by: self._give_back(event, job, lock_by))
            raise

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        answer = await self._result(
            self._submit(lambda lock_by: self._file.change(_record.commit, event, self._utc, lock_by))
        )
        if isinstance(answer, Done):
            for slot in self._neighbours():
                slot.wake()
                if slot is not self:
                    slot.on_committed()
        return answer

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        answer = await self._result(
            self._submit(lambda lock_by: self._file.change(_record.release, event, self._utc, lock_by))
        )
        for slot in self._neighbours():
            slot.wake()
        return answer

    async def changed(self, timeout: float) -> None:
        """Return when the record has changed since this slot's last operation, or after `timeout` seconds.

        Changes made in this process and event loop are seen at once, others when the file is next polled.
        """
        await self._waiters.poll(timeout, self._has_changed, interval=POLL_INTERVAL, max_interval=MAX_POLL_INTERVAL)

    async def forget(self) -> None:
        """Delete the record. An empty lock file stays."""
        await self._result(self._submit(self._file.delete))

    async def close(self) -> None:
        """Wait for the operations that have begun, and release the slot. The last slot to close ends the thread."""
        if self in self._thread.slots:
            self._thread.slots.discard(self)
            self.wake()
            await self._thread.drain()

    def wake(self) -> None:
        """End every `changed` of this slot."""
        self._waiters.wake()

    def on_committed(self) -> None:
        """Tell the manager of this slot about another one's commit."""
        self._on_commit()

    def _neighbours(self) -> "list[FileSlot]":
        """Return the slots of this record in this event loop. Those in other loops have to poll."""
        slots = tuple(self._thread.slots)
        return [slot for slot in slots if (slot._file, slot._loop) == (self._file, self._loop)]  # noqa: SLF001

    def _submit(self, job: Callable[[float], _Answer]) -> "Future[_Answer]":
        """Queue a job. Its argument is the time by which it has to have the lock, on the system's monotonic clock."""
        if self not in self._thread.slots:
            raise TokenStoreError("this manager has closed its token store")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        # Real time, whatever clock dates the record: other processes hold the lock in real time.
        lock_by = SYSTEM_CLOCK.monotonic() + LOCK_TIMEOUT
        return self._thread.submit(lambda: job(lock_by))

    async def _result(self, job: "Future[tuple[_Answer, Stamp]]") -> _Answer:
        answer, stamp = await asyncio.wrap_future(job)
        self._stamp = stamp
        return answer

    def _give_back(self, event: Claim, job: "Future[tuple[ClaimAnswer, Stamp]]", lock_by: float) -> None:
        """Undo a claim whose answer nobody received: its refresh token is unused, and its lease would block others."""
        with suppress(TokenStoreError):
            answer, _ = job.result()
            if isinstance(answer, Granted):
                unused = Release(id=event.id, refresh=answer.refresh)
                self._file.change(_record.release, unused, self._utc, lock_by)

    async def _has_changed(self) -> bool:
        before = self._stamp
        self._stamp = await asyncio.wrap_future(self._submit(lambda _lock_by: self._file.stamp()))
        return before is not None and before != self._stamp
