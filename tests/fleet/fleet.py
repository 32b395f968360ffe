"""Worker processes on an emulator in the test's process, and what they report."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from apivideo_auth.emulator import Emulator
from apivideo_auth.emulator._calls import Call

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")
TIMEOUT = 60.0
"""Seconds that a test waits for an event; only a defect makes it wait so long."""
LONG_OPERATION_TIMEOUT = 4.0
"""Seconds for an operation of the store, so that a slow machine does not look like a store that is down."""


class Worker:
    """One worker process; see `worker.py`."""

    def __init__(self, process: asyncio.subprocess.Process, release: int) -> None:
        self._process = process
        self._release = release
        self._report_arrived = asyncio.Event()
        self._reading = asyncio.create_task(self._read_reports())
        self.reports: list[dict[str, Any]] = []

    @classmethod
    async def start(cls, server: Emulator, store: str, plan: dict[str, Any]) -> Self:
        """Start a worker of the server's account on a store."""
        waits, release = os.pipe()
        # Without measuring coverage, which is slow: the package is covered by other tests, and workers are killed.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("APIVIDEO_", "COVERAGE_"))
        }
        environment |= {
            "PYTHONPATH": str(ROOT),
            "APIVIDEO_API_KEY": server.api_key,
            "APIVIDEO_BASE_URL": server.url,
            "APIVIDEO_TOKEN_STORE": store,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", WORKER, json.dumps(plan | {"release": waits})),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(waits,),
            env=environment,
        )
        os.close(waits)
        return cls(process, release)

    async def _read_reports(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.reports.append(json.loads(line))
            self._report_arrived.set()

    def reported(self, kind: str) -> list[dict[str, Any]]:
        """Return its reports of a kind."""
        return [report for report in self.reports if report["kind"] == kind]

    async def wait_for(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for its report of a kind, or for the `number`-th one, and return it."""
        async with asyncio.timeout(TIMEOUT):
            while len(self.reported(kind)) < number:
                self._report_arrived.clear()
                if self._reading.done():
                    assert self._process.stderr is not None
                    raise AssertionError(f"the worker ended: {(await self._process.stderr.read()).decode()}")
                arrived = asyncio.create_task(self._report_arrived.wait())
                await asyncio.wait({arrived, self._reading}, return_when=asyncio.FIRST_COMPLETED)
                arrived.cancel()
        return self.reported(kind)[number - 1]

    def order(self, do: str, **more: Any) -> None:
        """Send it an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")

    async def report(self) -> dict[str, Any]:
        """Return what its callers have seen so far."""
        number = len(self.reported("report")) + 1
        self.order("report")
        return await self.wait_for("report", number)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def release(self) -> None:
        """Let it continue from its trap."""
        os.write(self._release, b".")

    async def kill(self) -> None:
        """Kill it, and wait until it has ended."""
        self._process.kill()
        assert await self._process.wait() == -signal.SIGKILL
        await self._reading

    async def end(self) -> dict[str, Any] | None:
        """End it, and return what its callers saw; `None` if it was killed."""
        os.close(self._release)
        if self._process.returncode is not None:
            return None
        self.order("end")
        ended = await self.wait_for("ended")
        assert self._process.stderr is not None
        errors = await self._process.stderr.read()
        assert (await self._process.wait(), errors.decode()) == (0, "")
        await self._reading
        return ended

    async def destroy(self) -> None:
        """Kill it if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._reading
        # The transport closes in the next iteration of the loop, and the test must not end before that.
        await asyncio.sleep(0)


class Fleet:
    """Workers of one account."""

    def __init__(self, server: Emulator, store: str) -> None:
        self.server = server
        self.store = store
        self.workers: list[Worker] = []
        self.figures: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            await worker.destroy()

    async def add(self, number: int = 1, **plan: Any) -> list[Worker]:
        """Start workers, and wait until they are ready."""
        added = [await Worker.start(self.server, self.store, plan) for _ in range(number)]
        self.workers += added
        for worker in added:
            await worker.wait_for("ready")
        return added

    def order(self, do: str, **more: Any) -> None:
        """Send all an order."""
        for worker in self.workers:
            worker.order(do, **more)

    async def end(self) -> None:
        """End all."""
        ended = await asyncio.gather(*(worker.end() for worker in self.workers))
        self.figures = [figures for figures in ended if figures is not None]

    async def agree(self) -> None:
        """Wait until the callers of all workers get the same token."""
        async with asyncio.timeout(TIMEOUT):
            served: set[str | None] = {None}
            while None in served or len(served) > 1:
                await asyncio.sleep(0.1)
                served = {(await worker.report())["token"] for worker in self.workers}

    # What tests assert.

    @property
    def refresh_tokens(self) -> list[str]:
        """The fingerprints of the refresh tokens that were sent, also by workers that were killed."""
        return [report["token"] for worker in self.workers for report in worker.reported("refresh")]

    @property
    def failures(self) -> list[str]:
        """The failures that callers saw."""
        return [why for figures in self.figures for why in figures["failed"] + figures["no_token"]]

    @property
    def longest_wait(self) -> float:
        """The longest time that a call of `get_token` took, in seconds."""
        return max(figures["longest_wait"] for figures in self.figures)

    @property
    def requests(self) -> int:
        """The number of requests of the workers that were not killed."""
        return sum(figures["requests"] for figures in self.figures)

    def count(self, kind: str) -> int:
        """Return the number of reports of a kind."""
        return sum(len(worker.reported(kind)) for worker in self.workers)

    def show(self, what: str) -> None:
        """Print the figures of a run; pytest shows them with -rA or -s."""
        outcomes = Counter(call.outcome for call in self.server.calls if call.path == "/videos")
        paths = Counter(call.path for call in auth_calls(self.server))
        sys.stdout.write(
            f"{what}: {len(self.workers)} workers, {paths['/auth/api-key']} + {paths['/auth/refresh']} calls, "
            f"{self.requests} requests ({outcomes['unauthorized']} answers 401), {len(self.failures)} failures, "
            f"longest wait {self.longest_wait * 1000:.0f} ms\n"
        )


def auth_calls(server: Emulator) -> list[Call]:
    """Return the calls to the two endpoints."""
    return [call for call in server.calls if call.path.startswith("/auth")]


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  the other side is a process
            await asyncio.sleep(0.01)
