"""Several processes that share one token, and the calls that the token endpoints get.

    python examples/fleet.py                                # a temporary folder, a local api.video
    python examples/fleet.py --redis redis://127.0.0.1:6379/0 --workers 16
    APIVIDEO_API_KEY=… python examples/fleet.py --redis …   # production, or APIVIDEO_BASE_URL

Each worker is a process that lists videos through its own session. All it needs is its environment:
`TokenManager.from_env()` reads the API key, the base URL and the token store. Ctrl-C stops everything cleanly.
"""

import argparse
import asyncio
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator
from apivideo_auth.events import Event, TokenRenewed

OK = 200
LOCAL_PAUSE = 0.1
REMOTE_PAUSE = 5.0
"""Seconds between two requests of a worker. api.video limits the requests of an account."""


@dataclass
class Counts:
    """What a worker has done so far."""

    requests: int = 0
    failures: int = 0
    api_key_calls: int = 0
    refresh_calls: int = 0

    def on_event(self, event: Event) -> None:
        """Count the calls that returned a token."""
        if isinstance(event, TokenRenewed):
            self.api_key_calls += event.endpoint == "/auth/api-key"
            self.refresh_calls += event.endpoint == "/auth/refresh"


# A worker.


def work(parent: Connection, pause: float) -> None:
    """Run one worker until the parent stops it or has ended."""
    # Ctrl-C reaches every process of the terminal. Only the parent acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_work(parent, pause))


async def _work(parent: Connection, pause: float) -> None:
    counts = Counts()
    async with TokenManager.from_env(on_event=counts.on_event) as tokens, tokens.session() as session:
        tasks = [
            asyncio.create_task(_list_videos(session, counts, pause)),
            asyncio.create_task(_report(parent, counts)),
        ]
        await asyncio.to_thread(_wait_for_stop, parent)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    with suppress(OSError):
        parent.send(counts)


def _wait_for_stop(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv()


async def _list_videos(session: aiohttp.ClientSession, counts: Counts, pause: float) -> None:
    while True:
        try:
            async with session.get("/videos") as response:
                await response.read()
                counts.failures += response.status != OK
        except aiohttp.ClientError:  # an AuthError, if no token is available, is one too
            counts.failures += 1
        counts.requests += 1
        await asyncio.sleep(pause)


async def _report(parent: Connection, counts: Counts) -> None:
    while True:
        parent.send(counts)
        await asyncio.sleep(0.2)


# The parent.


class Fleet:
    """The worker processes and their latest counts."""

    def __init__(self, number: int, pause: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._counts: dict[Connection, Counts] = {}
        self._reported: set[Connection] = set()
        for _ in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, pause), daemon=True)
            with _ignored(signal.SIGINT):
                process.start()
            theirs.close()
            self._workers[ours], self._counts[ours] = process, Counts()

    def counts(self) -> list[Counts]:
        """Return the latest counts of every worker."""
        for connection in self._counts:
            with suppress(EOFError, OSError):
                while connection.poll():
                    self._counts[connection] = connection.recv()
                    self._reported.add(connection)
        return [*self._counts.values()]

    def up(self) -> bool:
        """Return whether every worker has started."""
        return len(self._reported) == len(self._workers)

    def dead(self) -> int:
        """Return how many workers have ended."""
        return sum(process.exitcode is not None for process in self._workers.values())

    async def stop(self) -> list[Counts]:
        """Stop all workers; return their last counts."""
        for connection in self._workers:
            with suppress(OSError):
                connection.send("stop")
        for process in self._workers.values():
            await asyncio.to_thread(process.join, 10)
            if process.exitcode is None:
                process.kill()
                process.join()
        last = self.counts()
        for connection in self._workers:
            connection.close()
        return last


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal, also in processes that are started meanwhile."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@asynccontextmanager
async def environment(options: argparse.Namespace) -> AsyncIterator[Emulator | None]:
    """Put the settings of the workers into the environment; yield the local server, if there is one."""
    async with AsyncExitStack() as stack:
        server = None
        if not os.environ.get("APIVIDEO_API_KEY"):
            server = await stack.enter_async_context(Emulator(ttl=options.ttl))
            os.environ |= {"APIVIDEO_API_KEY": server.api_key, "APIVIDEO_BASE_URL": server.url}
        os.environ["APIVIDEO_TOKEN_STORE"] = options.redis or stack.enter_context(folder_url(options.files))
        yield server


@contextmanager
def folder_url(folder: str | None) -> Iterator[str]:
    """Yield the URL of this folder, or of a temporary one."""
    with tempfile.TemporaryDirectory(prefix="apivideo-fleet-") as temporary:
        yield (Path(folder).absolute() if folder else Path(temporary)).as_uri()


def endpoint_calls(server: Emulator | None, counts: list[Counts]) -> Counter[str]:
    """Return the calls to each endpoint: as the local server counted them, or as the workers of a remote one did."""
    if server is not None:
        return Counter(call.path for call in server.calls if call.path.startswith("/auth"))
    return Counter(
        {
            "/auth/api-key": sum(count.api_key_calls for count in counts),
            "/auth/refresh": sum(count.refresh_calls for count in counts),
        }
    )


def line(server: Emulator | None, counts: list[Counts]) -> str:
    """Return the sum of the counts as one line."""
    calls = endpoint_calls(server, counts)
    requests, failures = sum(count.requests for count in counts), sum(count.failures for count in counts)
    return (
        f"{len(counts)} workers: {requests} requests, {failures} failed; "
        f"the endpoint saw {calls['/auth/api-key']} api-key and {calls['/auth/refresh']} refresh calls"
    )


async def watch(fleet: Fleet, server: Emulator | None, seconds: float) -> None:
    """Show the counts once a second, on a terminal always in the same line. The time starts when all workers are up."""
    end = "\r" if sys.stderr.isatty() else "\n"
    left = seconds
    while left > 0 and not fleet.dead():
        print(line(server, fleet.counts()), end=end, file=sys.stderr, flush=True)
        nap = min(1.0, left)
        await asyncio.sleep(nap)
        left -= nap if fleet.up() else 0.0


async def main() -> int:
    """Run the fleet; return 0 if requests were made and none failed."""
    options = parse()
    async with environment(options) as server:
        fleet = Fleet(options.workers, REMOTE_PAUSE if server is None else LOCAL_PAUSE)
        try:
            await watch(fleet, server, options.seconds)
        except asyncio.CancelledError:
            # Ctrl-C cancels this task, which now stops the workers and prints the summary.
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        finally:
            dead = fleet.dead()
            counts = await fleet.stop()
        print(line(server, counts))
    passed = not dead and any(count.requests for count in counts) and not any(count.failures for count in counts)
    return 0 if passed else 1


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    store = parser.add_mutually_exclusive_group()
    store.add_argument("--redis", metavar="URL", help="share the token in this Redis")
    store.add_argument("--files", metavar="FOLDER", help="share the token in this folder (default: a temporary one)")
    parser.add_argument("--workers", type=int, default=8, help="processes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to run (default: %(default)g)")
    parser.add_argument(
        "--ttl", type=float, default=5.0, help="lifetime of local tokens in seconds (default: %(default)g)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:  # a second Ctrl-C stops at once
        sys.exit(130)
