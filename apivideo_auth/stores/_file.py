"""A store in files, for the processes of one user on one machine."""

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final, TypeVar, cast

from apivideo_auth import _record
from apivideo_auth._clock import Clock
from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken
from apivideo_auth._secrets import fingerprint
from apivideo_auth.stores._base import Waiters, require_packages
from apivideo_auth.stores._file_record import FileAnswer, RecordFile, Stamp

POLL_INTERVAL: Final = 0.02
MAX_POLL_INTERVAL: Final = 0.25
"""`changed` polls at growing intervals (seconds): a renewal takes a moment, a dead holder's lease much longer."""

_FILE_NAME: Final = re.compile(r"[0-9a-z_-]{1,100}")

_T = TypeVar("_T")


class FileStore:
    """Keeps records in files, for several managers and processes of one user on one machine.

    - `directory`: by default the user's state directory, as platformdirs names it. It is created when needed, with mode
      0700. A directory that others can enter, or that belongs to another user, is refused with `TokenStoreError`.

    Records are dated by the wall clock, which the processes of a machine share. The directory must be on a local disk:
    the locks and clocks of network file systems are not reliable enough.

    Nothing is opened before the first use, and nothing stays open after an operation. The store can be used in several
    event loops, one after another or at the same time; managers in different loops share it as processes do.

    A record that cannot be read (empty, truncated, of another version), or that others can access, counts as empty at
    once, and the next claim replaces it.

    Raises `TypeError` or `ValueError` if the directory is invalid or a home directory is unknown, and `ImportError` if
    a package of the extra `apivideo-auth[file]` is missing.
    """

    needs_encryption = True
    max_concurrent = 1
    """The store has one thread."""
    operation_timeout = 0.5
    """Seconds that an operation may take before the store counts as down: 0.5, or more for a slow disk.

    It is read when a manager opens the store.
    """

    def __init__(self, directory: "str | os.PathLike[str] | None" = None) -> None:
        require_packages("a FileStore", "file", "filelock", "platformdirs", "cryptography")
        self._directory = _absolute(directory)
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
        on_commit: Callable[[], None],  # noqa: ARG002  files cannot push
        on_damage: Callable[[str], None],
    ) -> "FileSlot":
        """Return the slot of an account. `clock.utc` dates its records."""
        if os.getpid() != self._process:
            # A fork copies the queue of the parent process, but not its thread.
            self._thread, self._process = FileThread(), os.getpid()
        name = account if _FILE_NAME.fullmatch(account) else fingerprint(account)
        file = RecordFile(self._directory, name, timeout=self.operation_timeout)
        return FileSlot(file, self._thread, clock=clock, on_damage=on_damage)


def _absolute(directory: object) -> Path:
    """Return the directory as an absolute path, so that it stays the same when the process changes its own."""
    if directory is None:
        return _default_directory()
    path = os.fspath(cast("os.PathLike[str]", directory)) if isinstance(directory, os.PathLike) else directory
    if not isinstance(path, str):
        raise TypeError(f"a FileStore's directory must be a path, not {type(path).__name__}")
    if not path or "\0" in path:
        raise ValueError("a FileStore's directory must not be empty or contain NUL; omit it for the default directory")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ValueError(
            f"the home directory in {path!r} is unknown: pass an absolute directory to the FileStore"
        ) from None


def _default_directory() -> Path:
    from platformdirs import user_state_path  # noqa: PLC0415  an optional package

    directory = None
    with suppress(RuntimeError):
        directory = user_state_path("apivideo-auth", appauthor=False)
    # Without a home directory, some versions of platformdirs return a path that begins with a literal tilde.
    if directory is None or not directory.is_absolute():
        raise ValueError("the home directory of this user is unknown: pass a directory to the FileStore, or set HOME")
    return directory


class FileThread:
    """Runs a store's blocking jobs in order, in a thread that ends when the queue is empty.

    It is not the event loop's thread pool: the program may have filled that one with slow work, and its jobs have no
    order, so that an abandoned operation could run after the next one. One thread is enough: a job takes about
    a millisecond. It does not stay alive, because nothing would end it if the event loop were closed before the slots.
    """

    def __init__(self) -> None:
        # Guards the other attributes.
        self._lock = Lock()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._is_working = False
        self._thread: Thread | None = None

    def submit(self, job: Callable[[], _T]) -> "Future[_T]":
        """Queue a job, and start the thread if it is not running."""
        future: Future[_T] = Future()
        with self._lock:
            if not self._is_working:
                thread = Thread(target=self._work, name="apivideo-auth-files")
                thread.start()
                self._thread, self._is_working = thread, True
            self._jobs.append((job, future))
        return future

    async def drain(self) -> None:
        """Wait until the jobs that were queued before are done."""
        if self._is_working:
            await asyncio.wrap_future(self.submit(lambda: None))
        with self._lock:
            thread = None if self._is_working else self._thread
        if thread is not None:
            # It is about to end, so this does not block.
            thread.join()

    def _work(self) -> None:
        is_last = False
        while not is_last:
            with self._lock:
                job, future = self._jobs.popleft()
            answer, error = None, None
            is_wanted = future.set_running_or_notify_cancel()
            if is_wanted:
                try:
                    answer = job()
                except BaseException as raised:  # noqa: BLE001  raised again where the result is awaited
                    error = raised
            with self._lock:
                is_last = not self._jobs
                self._is_working = not is_last
            # Resolved last: whoever gets the last result knows that the thread ends.
            if error is not None:
                future.set_exception(error)
            elif is_wanted:
                future.set_result(answer)


class FileSlot:
    """One worker's view of an account in a `FileStore`. The event loop never waits for the disk.

    An operation that is cancelled has either not begun or will be completed. It can be repeated: each event has the
    same effect once or twice.
    """

    def __init__(self, file: RecordFile, thread: FileThread, *, clock: Clock, on_damage: Callable[[str], None]) -> None:
        self._file = file
        self._thread = thread
        self._utc = clock.utc
        self._on_damage = on_damage
        self._closed = False
        self._waiters = Waiters()
        # The file's stamp at the last operation of this slot.
        self._stamp: Stamp | None = None

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        return await self._run(lambda: self._file.read(self._utc))

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask for the right to renew."""
        return await self._run(lambda: self._file.change(_record.claim, event, self._utc))

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token."""
        return await self._run(lambda: self._file.change(_record.commit, event, self._utc))

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        return await self._run(lambda: self._file.change(_record.release, event, self._utc))

    async def changed(self, timeout: float) -> None:
        """Return when the record has changed since this slot's last operation, or after `timeout` seconds."""
        await self._waiters.poll(timeout, self._has_changed, interval=POLL_INTERVAL, max_interval=MAX_POLL_INTERVAL)

    async def forget(self) -> None:
        """Delete the record. An empty lock file stays."""
        await self._run(self._file.delete)

    async def close(self) -> None:
        """Wait for the operations that have begun."""
        if not self._closed:
            self._closed = True
            self._waiters.wake()
            await self._thread.drain()

    async def _run(self, job: Callable[[], FileAnswer[_T]]) -> _T:
        result = await self._result(job)
        self._stamp = result.stamp
        if result.damage is not None:
            self._on_damage(result.damage)
        return result.answer

    async def _has_changed(self) -> bool:
        before, self._stamp = self._stamp, await self._result(self._file.stamp)
        return before is not None and before != self._stamp

    async def _result(self, job: Callable[[], _T]) -> _T:
        if self._closed:
            raise TokenStoreError("this manager has closed its token store")
        return await asyncio.wrap_future(self._thread.submit(job))
