"""What is measured of each peer.

    python -m benchmarks.scenarios SCENARIO PEER URL [--quick]

Each scenario runs in a process of its own, against an endpoint that is already running at URL, and prints its figures
as JSON. A scenario measures the peer and its floor in turn, so that a busy machine disturbs both alike.
"""

import asyncio
import gc
import json
import logging
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from multiprocessing import get_context
from typing import Any

import aiohttp

from benchmarks.endpoint import LIFETIME, Endpoint
from benchmarks.measure import Figure, Lag, Loop, MovedClock, figure, repeated, seconds_of, times_in
from benchmarks.peer import Peer
from benchmarks.peers import ApiVideoAuth

Figures = dict[str, Figure]
Kind = type[Peer]

STEP = 15
"""Seconds by which a clock is moved at once."""


class Size:
    """How much is measured; a quick run shows that everything works, and no more."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.rounds = 2 if quick else 31
        self.few_rounds = 1 if quick else 3
        self.slice = 0.001 if quick else 0.004
        self.callers = 200 if quick else 10_000
        self.failing_callers = 20 if quick else 200
        self.failing_seconds = 0.5 if quick else 5.0
        self.delay = 0.05 if quick else 0.5
        self.requests = 5 if quick else 50
        self.rejected_requests = 10 if quick else 100
        self.managers = 20 if quick else 1000
        self.patience = 1 if quick else 20
        """Seconds after which a slow scenario begins no further round."""


class Floor:
    """The least that an awaited call can cost."""

    def __init__(self) -> None:
        self.token = object()

    async def get_token(self) -> object:
        """Return an attribute."""
        return self.token


async def hot_path(kind: Kind, endpoint: Endpoint, size: Size) -> Figures:
    """A valid token is there: a call, as a ratio to a coroutine that returns an attribute."""
    peer = await _opened(kind, endpoint)
    token = await peer.get_token()
    loops = {"hot": repeated(peer.call)}
    loops |= {f"hot {name}": loop for name, loop in peer.variants(token).items()}
    found = await ratios_to_floor(loops, size)
    await peer.close()
    return found


async def ratios_to_floor(loops: dict[str, Loop], size: Size) -> Figures:
    """Return what a call of each loop costs as a ratio to a coroutine that returns an attribute.

    In each round all are measured three times, in turn, and the least time of each counts: the others were interrupted.
    """
    floor = ""
    loops = {floor: repeated(Floor().get_token), **loops}
    times = {name: await times_in(loop, size.slice) for name, loop in loops.items()}
    ratios: dict[str, list[float]] = {name: [] for name in loops}
    gc.disable()
    for _ in range(size.rounds):
        least = dict.fromkeys(loops, inf)
        for _ in range(3):
            for name, loop in loops.items():
                least[name] = min(least[name], await seconds_of(loop, times[name]) / times[name])
        for name in loops:
            ratios[name].append(least[name] / least[floor])
    gc.enable()
    del ratios[floor]
    return {name: figure(rounds, "×") for name, rounds in ratios.items()}


async def cold_callers(kind: Kind, endpoint: Endpoint, size: Size) -> Figures:
    """There is no token yet, and 10,000 callers ask at once."""
    calls: list[float] = []
    ratios: list[float] = []
    begun = time.perf_counter()
    while len(calls) < size.few_rounds + 2 and time.perf_counter() - begun < size.patience:
        floor = await _shielded_future(endpoint, size.callers)
        peer = await _opened(kind, endpoint)
        await endpoint.reset()
        gc.collect()
        before = time.perf_counter()
        answers = await asyncio.gather(*(peer.call() for _ in range(size.callers)), return_exceptions=True)
        took = time.perf_counter() - before
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if failed:
            raise failed[0]
        calls.append(await endpoint.calls())
        ratios.append(took / floor)
        await peer.close()
    return {"cold calls": figure(calls, "calls"), "cold time": figure(ratios, "×")}


async def _shielded_future(endpoint: Endpoint, callers: int) -> float:
    """Return the seconds for which callers wait for one shielded future, which a call to the endpoint resolves."""
    async with aiohttp.ClientSession() as session:

        async def call() -> str:
            async with session.post(f"{endpoint.url}/token") as response:
                return str((await response.json())["access_token"])

        gc.collect()
        before = time.perf_counter()
        shared = asyncio.create_task(call())

        async def wait() -> str:
            return await asyncio.shield(shared)

        await asyncio.gather(*(wait() for _ in range(callers)))
        return time.perf_counter() - before


async def failing_endpoint(kind: Kind, endpoint: Endpoint, size: Size) -> Figures:
    """The endpoint answers 503, and 200 callers ask, each again 0.1 s after an error: calls in five seconds.

    The callers are in a process of their own, which is killed at the end: some peers block their event loop between
    their attempts, and would not stop in time.
    """
    calls = []
    for _ in range(size.few_rounds):
        await endpoint.reset(status=503)
        process = get_context("spawn").Process(
            target=_ask_for_ever, args=(kind, endpoint.url, size.failing_callers), daemon=True
        )
        process.start()
        # Polled, because the endpoint is another process.
        while not await endpoint.calls():  # noqa: ASYNC110  as above
            await asyncio.sleep(0.002)
        await asyncio.sleep(size.failing_seconds)
        calls.append(await endpoint.calls())
        process.kill()
        process.join()
    return {"failing calls": figure(calls, "calls")}


def _ask_for_ever(kind: Kind, url: str, callers: int) -> None:
    logging.disable()

    async def main() -> None:
        peer = kind(url)
        await peer.open()

        async def ask() -> None:
            while True:
                with suppress(Exception):
                    await peer.get_token()
                await asyncio.sleep(0.1)

        await asyncio.gather(*(ask() for _ in range(callers)))

    asyncio.run(main())


async def renewal(kind: Kind, endpoint: Endpoint, size: Size, clock: MovedClock) -> Figures:
    """A token grows old while 20 callers keep asking: the longest wait of one of them when the token is renewed."""
    waits, lags = [], []
    for _ in range(size.few_rounds):
        await endpoint.reset()
        peer = await _opened(kind, endpoint)
        first = await peer.get_token()
        await endpoint.reset(delay=size.delay)
        longest = 0.0

        async def ask(peer: Peer = peer) -> str:
            nonlocal longest
            before = time.perf_counter()
            token = await peer.get_token()
            longest = max(longest, time.perf_counter() - before)
            return token

        async with Lag(pause=0.001) as lag:
            quiet, tokens = len(asyncio.all_tasks()), {first}
            while tokens == {first} and clock.offset < 2 * LIFETIME:
                clock.forward(STEP)
                tokens = {*await asyncio.gather(*(ask() for _ in range(20)))}
                # A renewal in the background goes on in real time, and callers keep coming.
                while len(asyncio.all_tasks()) > quiet:
                    await asyncio.sleep(0.005)
                    tokens = {*await asyncio.gather(*(ask() for _ in range(20)))}
        if tokens == {first}:
            raise RuntimeError("the token was never renewed")
        clock.offset = 0.0
        waits.append(longest * 1000)
        lags.append(lag.longest * 1000)
        await peer.close()
    return {"renewal wait": figure(waits, "ms"), "renewal lag": figure(lags, "ms")}


async def idle(kind: Kind, endpoint: Endpoint, size: Size, clock: MovedClock) -> Figures:
    """Nobody asks until a token is over: what the first call gets then, and how long it waits."""
    waits, calls, expired = [], [], []
    for _ in range(size.few_rounds):
        await endpoint.reset()
        peer = await _opened(kind, endpoint)
        first = await peer.get_token()
        await endpoint.reset()
        quiet = len(asyncio.all_tasks())
        for _ in range(LIFETIME // STEP + 2):
            await clock.step(STEP, quiet)
        before = time.perf_counter()
        token = await peer.get_token()
        waits.append((time.perf_counter() - before) * 1000)
        expired.append(float(token == first))
        calls.append(await endpoint.calls())
        await peer.close()
    return {
        "idle expired": figure(expired, "yes"),
        "idle calls": figure(calls, "calls"),
        "idle wait": figure(waits, "ms"),
    }


async def rejected(kind: Kind, endpoint: Endpoint, size: Size) -> Figures:
    """100 requests at once get a 401, because their token was revoked: renewals, and requests that succeed."""
    renewals, succeeded = [], []
    for _ in range(size.few_rounds):
        await endpoint.reset()
        peer = await _opened(kind, endpoint)
        await peer.open_clients()
        if await peer.get() != aiohttp.web.HTTPOk.status_code:
            raise RuntimeError("the token is not accepted")
        # A token that was issued a moment ago is not a usual case.
        await asyncio.sleep(1.2)
        await endpoint.revoke()
        await endpoint.reset()
        answers = await asyncio.gather(*(peer.get() for _ in range(size.rejected_requests)), return_exceptions=True)
        if failed := [answer for answer in answers if isinstance(answer, BaseException)]:
            raise failed[0]
        renewals.append(await endpoint.calls())
        succeeded.append(answers.count(200) / size.rejected_requests * 100)
        await peer.close()
    return {"rejected renewals": figure(renewals, "calls"), "rejected succeeded": figure(succeeded, "%")}


async def overhead(kind: Kind, endpoint: Endpoint, size: Size) -> Figures:
    """An authenticated request, as a ratio to one with a static header by the same HTTP client."""
    peer = await _opened(kind, endpoint)
    await peer.open_clients()
    for get in (peer.get, peer.get_static):
        for _ in range(size.requests // 2):
            if await get() != aiohttp.web.HTTPOk.status_code:
                raise RuntimeError("the token is not accepted")
    ratios = []
    for number in range(size.rounds):
        # Which of the two comes first alternates.
        pair = (peer.get, peer.get_static) if number % 2 else (peer.get_static, peer.get)
        took = {get: await seconds_of(repeated(get), size.requests) for get in pair}
        ratios.append(took[peer.get] / took[peer.get_static])
    await peer.close()
    return {"overhead": figure(ratios, "×")}


async def memory(kind: Kind, endpoint: Endpoint, size: Size) -> Figures:
    """1,000 sources in one process: the memory of one, new and with a token, as tracemalloc counts it."""
    warm = await _opened(kind, endpoint)
    await warm.get_token()
    await warm.close()
    peers: list[Peer] = [kind(endpoint.url, number) for number in range(size.managers)]
    gc.collect()
    tracemalloc.start()
    for peer in peers:
        await peer.open()
    new = _traced() / size.managers
    for peer in peers:
        await peer.get_token()
    # What the endpoint and the connections need for a moment is given back.
    await asyncio.sleep(0.1)
    with_token = _traced() / size.managers
    tracemalloc.stop()
    for peer in peers:
        await peer.close()
    return {"memory new": figure([new / 1024], "KiB"), "memory with token": figure([with_token / 1024], "KiB")}


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _opened(kind: Kind, endpoint: Endpoint) -> Peer:
    peer = kind(endpoint.url)
    await peer.open()
    return peer


SCENARIOS: dict[str, Callable[..., Awaitable[Figures]]] = {
    "hot": hot_path,
    "cold": cold_callers,
    "failing": failing_endpoint,
    "renewal": renewal,
    "idle": idle,
    "rejected": rejected,
    "overhead": overhead,
    "memory": memory,
}
MOVED = {"renewal", "idle"}
"""The scenarios whose clock is moved."""


def run(scenario: str, kind: Kind, url: str, size: Size) -> Figures:
    """Run a scenario."""
    found: Figures = {}
    clock = MovedClock() if scenario in MOVED else None

    async def main() -> None:
        extra: tuple[Any, ...] = () if clock is None else (clock,)
        async with Endpoint(url) as endpoint:
            found.update(await SCENARIOS[scenario](kind, endpoint, size, *extra))

    if clock is None:
        asyncio.run(main())
    else:
        ApiVideoAuth.clock = clock
        clock.run(main)
    return found


def main() -> None:
    """Run what the arguments name."""
    from benchmarks.peers import PEERS  # noqa: PLC0415

    scenario, name, url, *options = sys.argv[1:]
    logging.disable()
    found = run(scenario, PEERS[name], url, Size(quick="--quick" in options))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
