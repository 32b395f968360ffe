"""How the cost of this package grows, and what its stores and its emulator cost.

    python -m benchmarks.growth NAME [--quick]

Each measurement runs in a process of its own, and prints its figures as JSON: by a name, or by a size and a name.
"""

import asyncio
import gc
import json
import logging
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from apivideo_auth import AccessToken, MemoryStore, TokenManager
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._record import Claim, Commit, Granted
from apivideo_auth.stores import FileStore, RedisStore
from apivideo_auth.stores._base import Slot, TokenStore
from apivideo_auth.stores._encrypted import open_slot
from benchmarks import endpoint
from benchmarks.measure import Lag, figure, repeated
from benchmarks.scenarios import Figures, Size, ratios_to_floor

API_KEY = "made-up-key"
BASE_URL = "https://made-up.example"
TOKEN = "made-up-" + 600 * "t"
REFRESH_TOKEN = "made-up-" + 700 * "r"
"""As long as those of api.video are."""


class Endpoints:
    """Answers tokens without I/O, once `gate` is open."""

    def __init__(self, lifetime: int = 3600) -> None:
        self.calls = 0
        self.lifetime = lifetime
        self.gate: asyncio.Future[None] | None = None

    async def authenticate(self, _payload: object) -> AccessToken:
        """Answer a token."""
        self.calls += 1
        if self.gate is not None:
            await self.gate
        return AccessToken(f"{TOKEN}-{self.calls}", "bearer", self.lifetime, f"{REFRESH_TOKEN}-{self.calls}")

    async def refresh(self, payload: object) -> AccessToken:
        """Answer a token."""
        return await self.authenticate(payload)


def _powers(least: int, most: int) -> list[int]:
    sizes = [least]
    while sizes[-1] * 10 <= most:
        sizes.append(sizes[-1] * 10)
    return sizes


async def waiters(size: Size) -> dict[str, Figures]:
    """Callers that wait for one renewal: the time of each, and its ratio to waiting for one shielded future."""
    found = {}
    for number in _powers(10, 1000 if size.quick else 100_000):
        own, ratios = [], []
        for _ in range(max(size.few_rounds, min(size.rounds, 50_000 // number))):
            floor = await _of_shielded_future(number)
            took = await _of_manager(number)
            own.append(took / number * 1e6)
            ratios.append(took / floor)
        found[str(number)] = {"time": figure(own, "µs"), "ratio": figure(ratios, "×")}
    return found


async def _of_manager(number: int) -> float:
    endpoints = Endpoints()
    endpoints.gate = asyncio.get_running_loop().create_future()
    async with TokenManager(API_KEY, api=endpoints) as tokens:
        took = await _released(tokens.get_token, number, endpoints.gate)
    if endpoints.calls != 1:
        raise RuntimeError(f"{endpoints.calls} calls for {number} callers")
    return took


async def _of_shielded_future(number: int) -> float:
    gate = asyncio.get_running_loop().create_future()

    async def wait_for(gate: "asyncio.Future[None]") -> None:
        await gate

    shared = asyncio.create_task(wait_for(gate))

    async def get() -> None:
        await asyncio.shield(shared)

    return await _released(get, number, gate)


async def _released(get: Callable[[], Awaitable[object]], number: int, gate: "asyncio.Future[None]") -> float:
    """Return the seconds that callers take to begin to wait, and to return after the gate was opened."""
    gc.collect()
    before = time.perf_counter()
    callers = [asyncio.create_task(_awaited(get)) for _ in range(number)]
    for _ in range(3):
        await asyncio.sleep(0)
    gate.set_result(None)
    await asyncio.gather(*callers)
    return time.perf_counter() - before


async def _awaited(get: Callable[[], Awaitable[object]]) -> None:
    await get()


async def managers(size: Size) -> dict[str, Figures]:
    """Managers in one process, each with a token: the time and the memory of one, and the time to close it."""
    found = {}
    for number in _powers(1, 100 if size.quick else 10_000):
        opened, closed, memory = [], [], []
        for _ in range(max(size.few_rounds, min(size.rounds, 10_000 // number))):
            gc.collect()
            before = time.perf_counter()
            crowd = await _crowd(number)
            opened.append((time.perf_counter() - before) / number * 1e6)
            before = time.perf_counter()
            for tokens in crowd:
                await tokens.close()
            closed.append((time.perf_counter() - before) / number * 1e6)
        gc.collect()
        tracemalloc.start()
        crowd = await _crowd(number)
        gc.collect()
        memory.append(tracemalloc.get_traced_memory()[0] / number / 1024)
        tracemalloc.stop()
        for tokens in crowd:
            await tokens.close()
        found[str(number)] = {
            "open": figure(opened, "µs"),
            "close": figure(closed, "µs"),
            "memory": figure(memory, "KiB"),
        }
    return found


async def _crowd(number: int) -> list[TokenManager]:
    endpoints = Endpoints()
    crowd = [TokenManager(f"{API_KEY}-{index}", api=endpoints) for index in range(number)]
    for tokens in crowd:
        await tokens.get_token()
    return crowd


async def workers(size: Size) -> dict[str, Figures]:
    """Workers that share a Redis, during the life of a token: calls of all, and script calls of each.

    Each worker is a manager with a store and connections of its own. Tokens live for seconds, so that a run is short.
    """
    found = {}
    with redis_server() as url:
        for number in _powers(1, 10 if size.quick else 1000):
            endpoints = Endpoints(lifetime=4 if size.quick else max(8, number // 40))
            crowd = [TokenManager(API_KEY, api=endpoints, store=RedisStore(url)) for _ in range(number)]
            for first in range(0, number, 50):
                await asyncio.gather(*(tokens.get_token() for tokens in crowd[first : first + 50]))
            async with _client(url) as client:
                before, commands = endpoints.calls, await _script_calls(client)
                # Polled, because a store tells each manager, but nobody else.
                while any(tokens.status().generation < 2 for tokens in crowd):  # noqa: ASYNC110  as above
                    await asyncio.sleep(0.2)
                calls, commands = endpoints.calls - before, await _script_calls(client) - commands
            found[str(number)] = {
                "calls": figure([calls], "calls"),
                "commands": figure([commands / number], "commands"),
            }
            for tokens in crowd:
                await tokens.close()
            async with _client(url) as client:
                await client.flushall()
    return found


async def _script_calls(client: Any) -> int:  # noqa: ANN401  a client of redis.asyncio
    statistics = await client.info("commandstats")
    return sum(statistics.get(name, {}).get("calls", 0) for name in ("cmdstat_evalsha", "cmdstat_eval"))


@asynccontextmanager
async def _client(url: str) -> AsyncGenerator[Any]:
    import redis.asyncio  # noqa: PLC0415

    client = redis.asyncio.Redis.from_url(url)
    try:
        yield client
    finally:
        await client.aclose()


async def record(size: Size) -> dict[str, Figures]:
    """The size of a record after so many renewals, in a file and in Redis."""
    most = 10 if size.quick else 1000
    found: dict[str, Figures] = {str(number): {} for number in _powers(1, most)}
    with tempfile.TemporaryDirectory() as directory:
        async for number in _renewals(FileStore(Path(directory, "tokens")), most):
            (file,) = Path(directory, "tokens").glob("*.json")  # noqa: ASYNC240  nothing else runs
            if str(number) in found:
                found[str(number)]["file"] = figure([file.stat().st_size], "bytes")
    with redis_server() as url:
        async with _client(url) as client:
            async for number in _renewals(RedisStore(url), most):
                if str(number) in found:
                    (key,) = await client.keys("*")
                    found[str(number)]["redis"] = figure([await client.memory_usage(key, samples=0)], "bytes")
    return found


async def _renewals(store: TokenStore, most: int) -> AsyncGenerator[int]:
    slot = _slot(store)
    for number in range(1, most + 1):
        await _claim_and_commit(slot)
        yield number
    await slot.close()


def _slot(store: TokenStore) -> Slot:
    return open_slot(
        store,
        base_url=BASE_URL,
        api_key=API_KEY,
        clock=SYSTEM_CLOCK,
        on_commit=lambda: None,
        on_damage=lambda _: None,
    )


_versions: dict[int, str] = {}


async def _claim(slot: Slot) -> str:
    claim = Claim(id=secrets.token_hex(16), seen=_versions.get(id(slot)), lease=15.0)
    answer = await slot.claim(claim)
    if not isinstance(answer, Granted):
        raise RuntimeError(f"the claim is answered {answer}")  # noqa: TRY004  not an argument
    return claim.id


async def _commit(slot: Slot, claim_id: str) -> None:
    await slot.commit(
        Commit(id=claim_id, access=TOKEN.encode(), refresh=REFRESH_TOKEN.encode(), lifetime=3600.0, remaining=3600.0)
    )
    _versions[id(slot)] = claim_id


async def _claim_and_commit(slot: Slot) -> None:
    await _commit(slot, await _claim(slot))


@asynccontextmanager
async def _store(kind: str) -> AsyncGenerator[TokenStore]:
    if kind == "redis":
        with redis_server() as url:
            yield RedisStore(url)
    elif kind == "file":
        with tempfile.TemporaryDirectory() as directory:
            yield FileStore(Path(directory, "tokens"))
    else:
        yield MemoryStore()


async def store_hot_path(size: Size) -> dict[str, Figures]:
    """A valid token is there: a call with each store, as a ratio to a coroutine that returns an attribute."""
    found = {}
    for kind in available_stores():
        async with _store(kind) as store, TokenManager(API_KEY, api=Endpoints(), store=store) as tokens:
            await tokens.get_token()
            found[kind] = await ratios_to_floor({"hot": repeated(tokens.get_token)}, size)
    return found


async def store_lag(size: Size) -> dict[str, Figures]:
    """The longest block of the event loop during one operation of each store, and the time that the operation takes.

    The row `nothing` is an event loop that waits for a millisecond: the noise of the machine.
    """
    times = 5 if size.quick else 100
    found: dict[str, Figures] = {"nothing": {}}
    blocks = [await _lag(asyncio.sleep(0.001)) for _ in range(times)]
    found["nothing"]["claim lag"] = figure((1000 * lag for lag, _ in blocks), "ms")
    for kind in available_stores():
        async with _store(kind) as store:
            slot = _slot(store)
            measured: dict[str, list[tuple[float, float]]] = {"claim": [], "commit": []}
            first = await _lag(_claim_and_commit(slot))
            for _ in range(times):
                claim_id = ""

                async def claim(slot: Slot = slot) -> None:
                    nonlocal claim_id
                    claim_id = await _claim(slot)

                measured["claim"].append(await _lag(claim()))
                measured["commit"].append(await _lag(_commit(slot, claim_id)))
            await slot.close()
        found[kind] = {"first lag": figure([first[0] * 1000], "ms")}
        for operation, rounds in measured.items():
            found[kind] |= {
                f"{operation} lag": figure((1000 * lag for lag, _ in rounds), "ms"),
                f"{operation} time": figure((1000 * took for _, took in rounds), "ms"),
            }
    return found


async def _lag(operation: Awaitable[object]) -> tuple[float, float]:
    async with Lag() as lag:
        before = time.perf_counter()
        await operation
        took = time.perf_counter() - before
    return lag.longest, took


async def emulator(size: Size) -> dict[str, Figures]:
    """Requests per second of the emulator's list of videos, as a ratio to a bare handler that answers the same JSON.

    Both servers have a process of their own. The client writes prepared bytes on a few connections, so that the server
    is what limits the rate.
    """
    requests = 50 if size.quick else 800
    rates: dict[str, list[float]] = {"--emulator": [], "--bare": []}
    with endpoint.running("--emulator") as own, endpoint.running("--bare") as bare:
        urls = {"--emulator": own, "--bare": bare}
        async with TokenManager(_emulator_key(), base_url=own) as tokens:
            authorization = str((await tokens.get_token()).authorization)
        for _ in range(1 + size.rounds):
            for name, url in urls.items():
                rates[name].append(await _rate(url, authorization, requests))
    ratios = [own / bare for own, bare in zip(*rates.values(), strict=True)]
    return {
        "GET /videos": {
            "emulator": figure(rates["--emulator"][1:], "1/s"),
            "bare": figure(rates["--bare"][1:], "1/s"),
            "ratio": figure((100 * ratio for ratio in ratios[1:]), "%"),
        }
    }


def _emulator_key() -> str:
    from apivideo_auth.emulator import Emulator  # noqa: PLC0415

    return Emulator().api_key


async def _rate(url: str, authorization: str, requests: int, connections: int = 8) -> float:
    host, port = url.removeprefix("http://").split(":")
    head = f"GET /videos HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: {authorization}\r\n\r\n".encode()
    each = requests // connections

    async def work() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(each):
            writer.write(head)
            header = await reader.readuntil(b"\r\n\r\n")
            if not header.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"unexpected response: {header[:40]!r}")
            length = int(header.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()

    before = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    return each * connections / (time.perf_counter() - before)


def available_stores() -> list[str]:
    """Return the stores that can be measured on this machine."""
    return ["memory", "file", *(["redis"] if redis_program() else [])]


def redis_program() -> str | None:
    """Return the path of a Redis server, if the machine has one."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis in memory on a free port; yield its URL."""
    program = redis_program()
    if program is None:
        raise RuntimeError("there is no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", directory, "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            for _ in range(500):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


GROWTH: dict[str, Callable[[Size], Coroutine[Any, Any, dict[str, Figures]]]] = {
    "waiters": waiters,
    "managers": managers,
    "workers": workers,
    "record": record,
    "store hot": store_hot_path,
    "store lag": store_lag,
    "emulator": emulator,
}
NEEDS_REDIS = {"workers", "record"}


def main() -> None:
    """Run what the argument names."""
    name, *options = sys.argv[1:]
    logging.disable()
    if name in NEEDS_REDIS and redis_program() is None:
        print(json.dumps({"missing": "there was no redis-server on the machine"}))
        return
    print(json.dumps(asyncio.run(GROWTH[name](Size(quick="--quick" in options)))))


if __name__ == "__main__":
    main()
