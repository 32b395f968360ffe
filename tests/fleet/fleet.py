"""Workers that are processes, an api.video in the test's own, and what they tell."""

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
PATIENCE = 60.0
"""Seconds that a test waits for what has to come; only a defect makes it wait so long."""
UNHURRIED = 4.0
"""Seconds for an operation of the store, where a machine that is short of breath must not pass for a lost store."""


class Worker:
    """One worker process; see `worker.py`."""

    def __init__(self, process: asyncio.subprocess.Process, release: int) -> None:
        self._process = process
        self._release = release
        self._news = asyncio.Event()
        self._hearing = asyncio.create_task(self._hear())
        self.told: list[dict[str, Any]] = []

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

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.told.append(json.loads(line))
            self._news.set()

    def heard(self, word: str) -> list[dict[str, Any]]:
        """Return what it told under this word."""
        return [told for told in self.told if told["told"] == word]

    async def hears(self, word: str, number: int = 1) -> dict[str, Any]:
        """Return what it tells under this word for the so-manieth time, when it has."""
        async with asyncio.timeout(PATIENCE):
            while len(self.heard(word)) < number:
                self._news.clear()
                if self._hearing.done():
                    assert self._process.stderr is not None
                    raise AssertionError(f"the worker ended: {(await self._process.stderr.read()).decode()}")
                news = asyncio.create_task(self._news.wait())
                await asyncio.wait({news, self._hearing}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        return self.heard(word)[number - 1]

    def order(self, do: str, **more: Any) -> None:
        """Tell it what to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")

    async def report(self) -> dict[str, Any]:
        """Return what its callers saw so far."""
        number = len(self.heard("report")) + 1
        self.order("report")
        return await self.hears("report", number)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def release(self) -> None:
        """Let it go on from its trap."""
        os.write(self._release, b".")

    async def kill(self) -> None:
        """Kill it, and return when it is gone."""
        self._process.kill()
        assert await self._process.wait() == -signal.SIGKILL
        await self._hearing

    async def end(self) -> dict[str, Any] | None:
        """Let it end, and return what its callers saw; None if it was killed."""
        os.close(self._release)
        if self._process.returncode is not None:
            return None
        self.order("end")
        ended = await self.hears("ended")
        assert self._process.stderr is not None
        errors = await self._process.stderr.read()
        assert (await self._process.wait(), errors.decode()) == (0, "")
        await self._hearing
        return ended

    async def destroy(self) -> None:
        """Leave nothing of it."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._hearing
        # The transport closes in the next round of the loop; a test must not end before it.
        await asyncio.sleep(0)


class Fleet:
    """Some workers of one account."""

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
        """Start workers, and return them when they are ready."""
        added = [await Worker.start(self.server, self.store, plan) for _ in range(number)]
        self.workers += added
        for worker in added:
            await worker.hears("ready")
        return added

    def order(self, do: str, **more: Any) -> None:
        """Tell all what to do."""
        for worker in self.workers:
            worker.order(do, **more)

    async def end(self) -> None:
        """Let all end."""
        ended = await asyncio.gather(*(worker.end() for worker in self.workers))
        self.figures = [figures for figures in ended if figures is not None]

    async def agree(self) -> None:
        """Return when the callers of all workers are served the same token."""
        async with asyncio.timeout(PATIENCE):
            served: set[str | None] = {None}
            while None in served or len(served) > 1:
                await asyncio.sleep(0.1)
                served = {(await worker.report())["token"] for worker in self.workers}

    # What is asserted of them.

    @property
    def refresh_tokens(self) -> list[str]:
        """The refresh tokens that went out, of workers that were killed too."""
        return [told["token"] for worker in self.workers for told in worker.heard("refresh")]

    @property
    def failures(self) -> list[str]:
        """What callers saw go wrong."""
        return [why for figures in self.figures for why in figures["failed"] + figures["no_token"]]

    @property
    def longest_wait(self) -> float:
        """Seconds that a call of `get_token` took, at the most."""
        return max(figures["longest_wait"] for figures in self.figures)

    @property
    def requests(self) -> int:
        """How many requests the workers made that were not killed."""
        return sum(figures["requests"] for figures in self.figures)

    def count(self, word: str) -> int:
        """Return how often the workers told something."""
        return sum(len(worker.heard(word)) for worker in self.workers)

    def show(self, what: str) -> None:
        """Write down the figures of a run, for those who read the tests' output (pytest -rA, or -s)."""
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
    """Return when this has become true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  the other side is a process
            await asyncio.sleep(0.01)
