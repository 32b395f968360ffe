"""The record of one account in a file: read and replaced as a whole, under a lock. Blocking, without an event loop."""

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from apivideo_auth import _record
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Record, SharedToken
from apivideo_auth._secrets import SecretBytes, fingerprint
from apivideo_auth.stores._json import MAX_SIZE, record_from_json, record_to_json

LOCK_POLL_INTERVAL: Final = 0.005
"""Seconds between attempts to get the lock. It is held for about a millisecond at a time."""

Stamp: TypeAlias = tuple[int, int, int]
"""What changes with every replacement of the file: its modification time in ns, inode and size."""
NO_FILE: Final[Stamp] = (0, 0, 0)

_Event = TypeVar("_Event")
_Answer = TypeVar("_Answer")

# Windows has neither POSIX modes nor owners. There the directory inherits the access list of the user's profile, which
# keeps other users out, and the mode bits of `os.stat` are invented; so nothing is checked.
_POSIX: Final = os.name == "posix"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# O_NONBLOCK: opening a pipe in the file's place returns at once, and the pipe is refused.
_READ: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class RecordFile:
    """The record in `directory` under `name`, its lock file, and a temporary file while the record is replaced.

    The directory is created by the first write, with mode 0700; the files have mode 0600. An existing directory or file
    that others can access, or that belongs to another user, is refused and not changed. Every failure is a
    `TokenStoreError`. `lock_by` is a time on the system's monotonic clock: an operation that does not have the lock by
    then fails.

    A record that cannot be read (empty, truncated, foreign) is reported once: the first operation that meets this very
    content raises `TokenStoreError`. From then on it counts as empty, and the next claim replaces it: only tokens that
    nobody can read any more are lost, and nobody has to delete a file by hand. No copy is kept: it would be useless,
    and it may contain secrets. A later format of the record needs another file name; otherwise old and new workers
    would replace each other's records in turn.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._path = directory / f"{name}.json"
        self._lock_path = directory / f"{name}.lock"
        # One name for all writers: whoever holds the lock and finds this file knows that its writer is dead.
        self._new_path = directory / f"{name}.new"
        self._reported: str | None = None

    def stamp(self) -> Stamp:
        """Return the file's stamp; takes no lock."""
        with self._errors():
            return _stamp(self._path)

    def read(self, utc: Callable[[], float], lock_by: float) -> tuple[SharedToken | None, Stamp]:
        """Return the record's token, if it has not expired, and the file's stamp. Creates no directory."""
        with self._errors():
            if not self._directory.exists():
                return None, NO_FILE
            self._check_directory()
            with self._locked(lock_by):
                return _record.shared_token(self._load(), utc()), _stamp(self._path)

    def change(
        self,
        transition: Callable[[Record, _Event, float], tuple[Record, _Answer]],
        event: _Event,
        utc: Callable[[], float],
        lock_by: float,
    ) -> tuple[_Answer, Stamp]:
        """Apply a transition of `_record`; return its answer and the file's stamp."""
        with self._errors():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_directory()
            with self._locked(lock_by):
                before = self._load()
                # The time is read under the lock: no transition has an earlier time than the one before it.
                after, answer = transition(before, event, utc())
                if after != before:
                    self._replace(record_to_json(after))
                return answer, _stamp(self._path)

    def delete(self, lock_by: float) -> tuple[None, Stamp]:
        """Delete the record. The lock file stays: other processes may be waiting for that very file."""
        with self._errors():
            if self._directory.exists():
                self._check_directory()
                with self._locked(lock_by):
                    self._path.unlink(missing_ok=True)
                    self._new_path.unlink(missing_ok=True)
        return None, NO_FILE

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except (OSError, NotImplementedError) as error:
            # filelock raises `NotImplementedError` on a file system without locks.
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise TokenStoreError(f"the token store in {self._directory} failed: {reason}") from error

    @contextmanager
    def _locked(self, lock_by: float) -> Generator[None]:
        """Keep all other processes and threads away from the record."""
        from filelock import FileLock, Timeout  # noqa: PLC0415  an optional package

        timeout = max(0.0, lock_by - SYSTEM_CLOCK.monotonic())
        # A new lock each time: a FileLock can be taken again by its owner, and belongs to the process that made it.
        lock = FileLock(self._lock_path, mode=0o600)
        try:
            lock.acquire(timeout=timeout, poll_interval=LOCK_POLL_INTERVAL)
        except Timeout:
            raise TokenStoreError(
                f"the token store in {self._directory} is busy: another process holds its lock, waited {timeout:.1f} s"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _check_directory(self) -> None:
        found = self._directory.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise TokenStoreError(f"the token store {self._directory} is not a directory")
        _check_access(found, self._directory, "0700")

    def _load(self) -> Record:
        """Return the record; an empty one if there is no file, or if its content has been reported before."""
        data = self._content()
        if data is None:
            return _record.EMPTY
        try:
            return record_from_json(data)
        except TokenStoreError as error:
            content = fingerprint(data.hex())
            if content == self._reported:
                return _record.EMPTY
            self._reported = content
            raise TokenStoreError(f"{self._path}: {error}") from None

    def _content(self) -> SecretBytes | None:
        try:
            descriptor = os.open(self._path, _READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise TokenStoreError(f"{self._path} is a symbolic link, which a token store does not follow") from None
            raise
        with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor that was opened with care
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise TokenStoreError(f"{self._path} is not a regular file")
            _check_access(found, self._path, "0600")
            return SecretBytes(file.read(MAX_SIZE + 1))

    def _replace(self, data: bytes) -> None:
        """Replace the file atomically: even if this process dies, readers find the old record or the new one."""
        try:
            descriptor = self._create()
            with open(descriptor, "wb") as file:  # noqa: PTH123  as above
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(self._new_path, self._path)  # noqa: PTH105  as above
        except BaseException:
            with suppress(OSError):
                self._new_path.unlink(missing_ok=True)
            raise
        if _POSIX:
            # After a power failure the old record could be back otherwise, with a refresh token that has been used.
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _create(self) -> int:
        try:
            return os.open(self._new_path, _WRITE, 0o600)
        except FileExistsError:
            self._new_path.unlink()
            return os.open(self._new_path, _WRITE, 0o600)


def _check_access(found: os.stat_result, path: Path, mode: str) -> None:
    """Raise `TokenStoreError` if others can enter, read or change this file or directory."""
    if not _POSIX:
        return
    if found.st_uid != os.geteuid():
        raise TokenStoreError(f"{path} belongs to another user, so it is not used for tokens")
    if found.st_mode & _OTHERS:
        raise TokenStoreError(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, so others have access to it: chmod it to {mode}"
        )


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return NO_FILE
    return found.st_mtime_ns, found.st_ino, found.st_size
