"""The record of one account as a file: read and replaced as a whole, under a lock. Blocking; knows no event loop."""

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from apivideo_auth import _record
from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Record
from apivideo_auth._secrets import SecretBytes, fingerprint
from apivideo_auth.stores._json import MAX_SIZE, record_from_json, record_to_json

POLL_LOCK: Final = 0.005
"""Seconds between tries to get the lock. It is held for about a millisecond at a time."""

Stamp: TypeAlias = tuple[int, int, int]
"""What tells one state of the file from the next: its time of change in ns, inode and size."""
NO_FILE: Final[Stamp] = (0, 0, 0)

_Answer = TypeVar("_Answer")

# Windows has neither POSIX modes nor owners: there the folder inherits the access list of the user's profile, which
# keeps others out, and `os.stat` makes up the mode bits. So nothing is checked there.
_POSIX: Final = os.name == "posix"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# O_NONBLOCK: a pipe in the file's place is refused, and not waited for.
_READ: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class RecordFile:
    """The record in `folder` under `name`, with its lock file, and a temporary one while it is replaced.

    The folder is made on the first write, with mode 0700; the files have mode 0600. What is there already and open
    to others, or another user's, is refused and left as it is. Every failure is a `TokenStoreError`.

    A record that cannot be read (empty, cut short, foreign) is reported once: the first time that this very content
    is met, `TokenStoreError` is raised, so that somebody hears of it. From then on it counts as an empty record, and
    the next claim replaces it: all that is lost is a token and a refresh token that nobody can read any more, and
    nobody has to come and delete a file. It is not kept aside, since no use can be made of it and it may hold secrets.
    A later format of the record has to take another file name; otherwise old and new workers would, in turn, replace
    each other's.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / f"{name}.json"
        self._lock_path = folder / f"{name}.lock"
        # One name, and not one for each writer: whoever has the lock and finds it knows that its writer is dead.
        self._new_path = folder / f"{name}.new"
        self._reported: str | None = None

    def stamp(self) -> Stamp:
        """Return the file's stamp; takes no lock."""
        with self._errors():
            return _stamp(self._path)

    def read(self, question: Callable[[Record], _Answer], patience: float) -> tuple[_Answer, Stamp]:
        """Return what `question` finds in the record, and the file's stamp. Makes no folder."""
        with self._errors():
            if not self._folder.exists():
                return question(_record.EMPTY), NO_FILE
            self._check_folder()
            with self._locked(patience):
                return question(self._load()), _stamp(self._path)

    def change(self, transition: Callable[[Record], tuple[Record, _Answer]], patience: float) -> tuple[_Answer, Stamp]:
        """Put the record through `transition`; return its answer and the file's stamp.

        `transition` runs under the lock. Waits up to `patience` seconds for the lock.
        """
        with self._errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_folder()
            with self._locked(patience):
                before = self._load()
                after, answer = transition(before)
                if after != before:
                    self._replace(record_to_json(after))
                return answer, _stamp(self._path)

    def delete(self, patience: float) -> tuple[None, Stamp]:
        """Delete the record. The lock file stays: others may be waiting for that very file."""
        with self._errors():
            if self._folder.exists():
                self._check_folder()
                with self._locked(patience):
                    self._path.unlink(missing_ok=True)
                    self._new_path.unlink(missing_ok=True)
        return None, NO_FILE

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except (OSError, NotImplementedError) as error:
            # The latter is filelock's word for a file system without locks.
            why = getattr(error, "strerror", None) or type(error).__name__
            raise TokenStoreError(f"the token store in {self._folder} failed: {why}") from error

    @contextmanager
    def _locked(self, patience: float) -> Generator[None]:
        """Keep all other processes and threads away from the record."""
        from filelock import FileLock, Timeout  # noqa: PLC0415  an optional part; FileStore has checked that it is there

        # A new one each time: a FileLock lets in whoever has it already, and belongs to the process that made it.
        lock = FileLock(self._lock_path, mode=0o600)
        try:
            lock.acquire(timeout=patience, poll_interval=POLL_LOCK)
        except Timeout:
            raise TokenStoreError(
                f"the token store in {self._folder} is busy: another process has held its lock for {patience:.1f} s"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _check_folder(self) -> None:
        found = self._folder.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise TokenStoreError(f"the token store {self._folder} is no folder")
        _check_access(found, self._folder, "0700")

    def _load(self) -> Record:
        """Return the record; an empty one for no file, and for one whose content was reported before."""
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
                raise TokenStoreError(f"{self._path} is no regular file")
            _check_access(found, self._path, "0600")
            return SecretBytes(file.read(MAX_SIZE + 1))

    def _replace(self, data: bytes) -> None:
        """Put the new content in the old one's place: whoever looks, or dies, sees one of them and nothing between."""
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
            # After a power cut the old name could lead to the old content, and so to a refresh token that was used.
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _create(self) -> int:
        try:
            return os.open(self._new_path, _WRITE, 0o600)
        except FileExistsError:
            self._new_path.unlink()
            return os.open(self._new_path, _WRITE, 0o600)


def _check_access(found: os.stat_result, path: Path, wanted: str) -> None:
    """Raise `TokenStoreError` for what others may enter, read or change."""
    if not _POSIX:
        return
    if found.st_uid != os.geteuid():
        raise TokenStoreError(f"{path} belongs to another user, so it is not used for tokens")
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise TokenStoreError(f"{path} has mode {mode:04o}: others have access to it; make it {wanted} to use it")


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return NO_FILE
    return found.st_mtime_ns, found.st_ino, found.st_size
