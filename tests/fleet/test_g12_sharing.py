"""G12: for the endpoints, many processes that share a store are like one."""

import asyncio
from pathlib import Path

import pytest

from apivideo_auth.emulator import Emulator
from tests.fleet.fleet import LONG_OPERATION_TIMEOUT, Fleet, auth_calls
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

TTL = 3


async def run(workers: int, store: str, lifetimes: int) -> Fleet:
    """Run workers for so many lifetimes of a token."""
    async with Emulator(ttl=TTL) as server, Fleet(server, store) as fleet:
        await fleet.add(workers, operation_timeout=LONG_OPERATION_TIMEOUT)
        fleet.order("go")
        await asyncio.sleep(lifetimes * TTL)
        await fleet.end()
    return fleet


async def check(workers: int, store: str, lifetimes: int) -> None:
    """Run workers, and assert what holds for any store."""
    fleet = await run(workers, store, lifetimes)
    fleet.show(f"{workers} processes on {store.partition(':')[0]}, {lifetimes} lifetimes")
    calls = auth_calls(fleet.server)
    assert fleet.failures == []
    assert [call.path for call in calls].count("/auth/api-key") == 1
    # The first call, and one per 75 to 80 % of a lifetime; the workers start and end at a moment of their own.
    assert lifetimes < len(calls) <= lifetimes / 0.75 + 2
    assert {call.outcome for call in calls} == {"authenticated", "refreshed"}
    assert len(fleet.refresh_tokens) == len(set(fleet.refresh_tokens)) == len(calls) - 1
    assert fleet.count("TokenRenewed") == len(calls)
    assert all(worker.reported("TokenAdopted") for worker in fleet.workers)
    assert fleet.count("StoreDegraded") == 0


async def test_g12_three_processes_on_files(tmp_path: Path) -> None:
    """Three processes share a folder over three lifetimes: the API key is sent once, a call is made per renewal period,
    no refresh token is sent twice, and no request fails.
    """
    await check(3, f"file://{tmp_path}/tokens", 3)


@pytest.mark.slow
async def test_g12_sixteen_processes_on_a_redis(module_redis: RedisServer) -> None:
    """Sixteen processes share a Redis over ten lifetimes, with the same result."""
    await check(16, module_redis.url, 10)


@pytest.mark.slow
async def test_g12_eight_processes_on_files(tmp_path: Path) -> None:
    """Eight processes share a folder over ten lifetimes, with the same result."""
    await check(8, f"file://{tmp_path}/tokens", 10)
