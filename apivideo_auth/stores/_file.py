"""A store in files, for the processes of one machine and one user."""

import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from apivideo_auth._clock import Clock
from apivideo_auth._secrets import fingerprint
from apivideo_auth.stores._file_record import RecordFile
from apivideo_auth.stores._file_slot import FileAccount, FileSlot
from apivideo_auth.stores._worker import Worker

_PACKAGES: Final = ("filelock", "platformdirs", "cryptography")
_FILE_NAME: Final = re.compile(r"[0-9a-z_-]{1,100}")


class FileStore:
    """Keeps records in files, for several managers and processes of one user on one machine.

    - `directory`: where; by default the user's own place for the state of programs. It is made when needed, with
      mode 0700. A folder that others can enter, or that is another user's, is refused with `TokenStoreError`.

    Records are dated by the wall clock, which the processes of a machine share. The folder has to be on a local disk:
    locks and clocks of network file systems are not relied on. Nothing is opened before the first use, and nothing is
    left when the last manager has closed: no thread, no open file. It serves again when it is used again, in another
    event loop too; managers in event loops that run at the same time share it as processes do.

    Raises `TypeError` or `ValueError` for a directory that is none, and `ImportError` where the parts of
    `apivideo-auth[file]` are missing.
    """

    needs_encryption = True

    def __init__(self, directory: "str | os.PathLike[str] | None" = None) -> None:
        for package in _PACKAGES:
            try:
                import_module(package)
            except ImportError:
                raise ImportError(
                    f"a FileStore needs the package {package}: pip install 'apivideo-auth[file]'", name=package
                ) from None
        self._directory = _folder(directory)
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._accounts: dict[str, FileAccount] = {}
        self._worker = Worker()

    def __repr__(self) -> str:
        return f"<FileStore {str(self._directory)!r}>"

    @property
    def directory(self) -> Path:
        """Where the records are."""
        return self._directory

    def open(self, account: str, *, clock: Clock, on_commit: Callable[[], None]) -> FileSlot:
        """Return the slot of an account. `clock.utc` dates its records."""
        if os.getpid() != self._process:
            # A fork copies the slots of the other process, but not its thread.
            self._start()
        entry = self._accounts.get(account)
        if entry is None:
            name = account if _FILE_NAME.fullmatch(account) else fingerprint(account)
            entry = self._accounts[account] = FileAccount(RecordFile(self._directory, name))
        return FileSlot(entry, self._worker, clock=clock, on_commit=on_commit, let_go=self._let_go)

    async def _let_go(self) -> None:
        """Wait for what was begun; end the thread if no slot is left."""
        if any(entry.slots for entry in self._accounts.values()):
            await self._worker.drain()
        else:
            await self._worker.stop()


def _folder(directory: object) -> Path:
    """Return the folder, absolute, so that it stays the same wherever the process moves."""
    if directory is None:
        from platformdirs import user_state_path  # noqa: PLC0415  an optional part

        return user_state_path("apivideo-auth", appauthor=False)
    path = directory
    if isinstance(directory, os.PathLike):
        path = os.fspath(cast("os.PathLike[str]", directory))
    if not isinstance(path, str):
        raise TypeError(f"a FileStore's directory must be a path, not {type(path).__name__}")
    if not path or "\0" in path:
        raise ValueError("a FileStore's directory must name a folder; leave it out for the default one")
    return Path(path).expanduser().absolute()
