"""The record of one account in a file: read and replaced as a whole, under a lock. Blocking, without an event loop."""

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

from attrs import frozen

from apivideo_auth import _record
from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Record, SharedToken
from apivideo_auth._secrets import SecretBytes, fingerprint
from apivideo_auth.stores._json import MAX_SIZE, record_from_json, record_to_json

LOCK_FRACTION: Final = 0.7
"""The part of its time that an operation waits for the lock. The rest is for the disk."""
LOCK_POLL_INTERVAL: Final = 0.005
"""Seconds between attempts to get the lock. It is held for about a millisecond at a time."""

Stamp: TypeAlias = tuple[int, int, int]
"""The file's modification time in ns, inode and size. It changes with every replacement."""
NO_FILE: Final[Stamp] = (0, 0, 0)

_Event = TypeVar("_Event")
_Answer = TypeVar("_Answer")

# Windows has neither POSIX modes nor owners. There the directory inherits the access list of the user's profile, which
# keeps other users out, and the mode bits of `os.stat` are made up, so nothing is checked.
_POSIX: Final = os.name == "posix"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# O_NONBLOCK: opening a pipe in the file's place returns at once, and the pipe is refused.
_READ: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@frozen
class FileAnswer(Generic[_Answer]):
    """The answer of an operation, the file's stamp after it, and a message about a record that cannot be read."""

    answer: _Answer
    stamp: Stamp
    damage: str | None = None


class RecordFile:
    """The record in `directory` under `name`, its lock file, and a temporary file while the record is replaced.

    An operation may take `timeout` seconds.

    The directory is created by the first write, with mode 0700; the files have mode 0600. A directory that others can
    access, or that belongs to another user, is refused and not changed. Every failure is a `TokenStoreError`.

    A record that cannot be read (empty, truncated, of another version) or that others could have changed counts as
    empty, and the next claim replaces it: nobody has to delete a file by hand. It is reported once for each content.
    No copy is kept, since it may contain secrets.
    """

    def __init__(self, directory: Path, name: str, *, timeout: float) -> None:
        self._directory = directory
        self._lock_timeout = LOCK_FRACTION * timeout
        self._path = directory / f"{name}.json"
        self._lock_path = directory / f"{name}.lock"
        # All writers use one name: a writer that holds the lock and finds this file knows that its writer has died.
        self._new_path = directory / f"{name}.new"
        # The content that was reported last.
        self._reported: str | None = None

    def stamp(self) -> Stamp:
        """Return the file's stamp; takes no lock."""
        with self._errors():
            return _stamp(self._path)

    def read(self, utc: Callable[[], float]) -> FileAnswer[SharedToken | None]:
        """Return the record's token, if it still lives. Creates no directory."""
        with self._errors():
            if not self._directory.exists():
                return FileAnswer(None, NO_FILE)
            self._check_directory()
            with self._locked():
                record, damage = self._load()
                return FileAnswer(_record.shared_token(record, utc()), _stamp(self._path), damage)

    def change(
        self,
        transition: Callable[[Record, _Event, float], tuple[Record, _Answer]],
        event: _Event,
        utc: Callable[[], float],
    ) -> FileAnswer[_Answer]:
        """Apply a transition of `_record`, and return its answer."""
        with self._errors():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_directory()
            with self._locked():
                before, damage = self._load()
                # The time is read under the lock: no transition has an earlier time than the one before it.
                after, answer = transition(before, event, utc())
                if after != before:
                    self._replace(record_to_json(after))
                return FileAnswer(answer, _stamp(self._path), damage)

    def delete(self) -> FileAnswer[None]:
        """Delete the record. The lock file stays: other processes may be waiting for that very file."""
        with self._errors():
            if self._directory.exists():
                self._check_directory()
                with self._locked():
                    self._path.unlink(missing_ok=True)
                    self._new_path.unlink(missing_ok=True)
        return FileAnswer(None, NO_FILE)

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except (OSError, NotImplementedError) as error:
            # filelock raises `NotImplementedError` on a file system without locks.
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise TokenStoreError(f"the token store in {self._directory} failed: {reason}") from error

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Keep all other processes and threads away from the record."""
        from filelock import FileLock, Timeout  # noqa: PLC0415  an optional package

        # Without `flock`, newer versions of filelock take a lock that stays behind when its process is killed.
        has_fallback = "fallback_to_soft" in signature(FileLock.__init__).parameters
        options: dict[str, Any] = {"fallback_to_soft": False} if has_fallback else {}
        # A new lock each time: a FileLock can be taken again by its owner, and belongs to the process that made it.
        lock = FileLock(self._lock_path, mode=0o600, **options)
        try:
            lock.acquire(timeout=self._lock_timeout, poll_interval=LOCK_POLL_INTERVAL)
        except Timeout:
            raise TokenStoreError(
                f"the token store in {self._directory} is busy: another process holds its lock"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _check_directory(self) -> None:
        found = self._directory.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise TokenStoreError(f"the token store {self._directory} is not a directory")
        problem = _access_problem(found)
        if problem is not None:
            raise TokenStoreError(f"{self._directory} {problem}: chmod it to 0700, or use another directory for tokens")

    def _load(self) -> tuple[Record, str | None]:
        """Return the record, or an empty one if it cannot be read, and a message about new damage."""
        found = self._content()
        if found is None:
            return _record.EMPTY, None
        data, problem = found
        record = record_from_json(data) if problem is None else None
        if record is not None:
            self._reported = None
            return record, None
        problem = problem or "cannot be read (it is damaged, or another program or version wrote it)"
        content = fingerprint(data.hex(), problem)
        if content == self._reported:
            return _record.EMPTY, None
        self._reported = content
        return _record.EMPTY, f"the record {self._path} {problem}, so it counts as empty"

    def _content(self) -> tuple[SecretBytes, str | None] | None:
        """Return the content of the file, and the reason if it must not be used."""
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
            return SecretBytes(file.read(MAX_SIZE + 1)), _access_problem(found)

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
                self._new_path.unlink()
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


def _access_problem(found: os.stat_result) -> str | None:
    """Return why others can enter, read or change this file or directory, or `None` if they cannot."""
    if not _POSIX:
        return None
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if found.st_mode & _OTHERS:
        return f"has mode {stat.S_IMODE(found.st_mode):04o}, so others have access to it"
    return None


def _stamp(path: Path) -> Stamp:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return NO_FILE
    return found.st_mtime_ns, found.st_ino, found.st_size
