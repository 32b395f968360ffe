"""Helpers of the tests of the file store: events, workers, processes."""

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Self

from apivideo_auth._record import EMPTY, Claim, Commit, Record
from apivideo_auth._secrets import SecretBytes
from apivideo_auth.stores._file import FileSlot, FileStore
from apivideo_auth.stores._json import record_from_json
from tests.support.doubles import START_OF_2026, ManualClock

REPOSITORY = Path(__file__).parents[2]
ACCOUNT = "0123456789abcdef"
LEASE = 15.0
RECORD = Record(
    version="stored",
    access=b"stored access",
    refresh=b"stored refresh",
    lifetime=3600.0,
    committed_at=START_OF_2026 + 500.0,
    ends_at=START_OF_2026 + 4000.0,
)


def ignore() -> None:
    """Ignore a commit."""


def claim(name: str, seen: str | None = None) -> Claim:
    """Return a claim."""
    return Claim(id=name, seen=seen, lease=LEASE)


def commit(name: str) -> Commit:
    """Return a commit whose tokens are named after its claim."""
    return Commit(
        id=name,
        access=SecretBytes(f"access of {name}".encode()),
        refresh=SecretBytes(f"refresh of {name}".encode()),
        lifetime=3600.0,
        remaining=3600.0,
    )


class Workers:
    """Opens slots in one folder, and closes them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.store = FileStore(folder)
        self.slots: list[FileSlot] = []
        self.damages: list[str] = []
        self.processes: list[Process] = []

    @property
    def file(self) -> Path:
        """The account's file."""
        return self.folder / f"{ACCOUNT}.json"

    @property
    def record(self) -> Record:
        """The account's record as it is in the file."""
        if not self.file.exists():
            return EMPTY
        record = record_from_json(self.file.read_bytes())
        assert record is not None
        return record

    def put(self, content: bytes) -> None:
        """Put some content in the file's place."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.file.touch(0o600)
        self.file.write_bytes(content)

    def slot(self, store: FileStore | None = None, account: str = ACCOUNT) -> FileSlot:
        """Return a worker of this process; with a store of its own it shares nothing but the files."""
        slot = (store or self.store).open(account, clock=self.clock, on_commit=ignore, on_damage=self.damages.append)
        self.slots.append(slot)
        return slot

    async def process(self) -> "Process":
        """Return a worker that is a process."""
        process = await Process.start(self.folder)
        self.processes.append(process)
        return process

    async def close(self) -> None:
        """Close all slots and end all processes."""
        for slot in self.slots:
            await slot.close()
        for process in self.processes:
            await process.end()


class Process:
    """A process that carries out orders; see `file_worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, folder: Path) -> Self:
        """Start it, and return when it is ready."""
        worker = Path(__file__).with_name("file_worker.py")
        process = cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                worker,
                folder,
                ACCOUNT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
        )
        assert await process.answer() == {"answer": "ready"}
        return process

    def order(self, operation: str, **fields: Any) -> None:
        """Send an order without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": operation, **fields}).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        """Return its next answer."""
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer

    async def does(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Send an order and return the answer."""
        self.order(operation, **fields)
        return await self.answer()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def killed(self) -> None:
        """Kill it, and return when it is gone."""
        self._process.kill()
        await self.died()

    async def died(self) -> None:
        """Return when it has killed itself."""
        assert await self._process.wait() == -signal.SIGKILL

    async def end(self) -> None:
        """Let it end by itself, if it has not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        # The transport closes in the next round of the loop; a test must not end before it.
        await asyncio.sleep(0)


def running_threads() -> list[threading.Thread]:
    """Return the threads of file stores that are running."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("apivideo-auth-files")]


def threads() -> list[str]:
    """Return the names of these threads."""
    return [thread.name for thread in running_threads()]


async def ended() -> None:
    """Return when these threads have ended."""
    async with asyncio.timeout(60.0):
        while running_threads():  # noqa: ASYNC110  the other side is a thread
            await asyncio.sleep(0.001)
