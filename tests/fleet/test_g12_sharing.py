"""G12: many processes that share a store are, to the endpoints, one."""

import asyncio
from pathlib import Path

import pytest

from apivideo_auth.emulator import Emulator
from tests.fleet.conftest import Outcomes
from tests.fleet.fleet import UNHURRIED, Fleet, auth_calls
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

TTL = 3
LIFETIMES = 10
MOST_CALLS = 15
"""One to begin with, and one for each 75 % of a lifetime: the earliest moment that a worker may draw."""


async def run(workers: int, store: str) -> Fleet:
    """Let workers call for ten lifetimes."""
    async with Emulator(ttl=TTL) as server, Fleet(server, store) as fleet:
        await fleet.add(workers, budget=UNHURRIED)
        fleet.order("go")
        await asyncio.sleep(LIFETIMES * TTL)
        await fleet.end()
    return fleet


@pytest.fixture(scope="module")
def runs(module_redis: RedisServer, module_folder: Path) -> Outcomes:
    """Ten lifetimes of sixteen processes on a Redis, and of eight on files."""
    return Outcomes({"redis": lambda: run(16, module_redis.url), "files": lambda: run(8, f"file://{module_folder}")})


def judge(fleet: Fleet) -> None:
    """Assert what holds of any store."""
    calls = auth_calls(fleet.server)
    assert fleet.failures == []
    assert [call.path for call in calls].count("/auth/api-key") == 1
    assert LIFETIMES < len(calls) <= MOST_CALLS
    assert {call.outcome for call in calls} == {"authenticated", "refreshed"}
    assert len(fleet.refresh_tokens) == len(set(fleet.refresh_tokens)) == len(calls) - 1
    assert fleet.count("TokenRenewed") == len(calls)
    assert all(worker.heard("TokenAdopted") for worker in fleet.workers)
    assert fleet.count("StoreDegraded") == 0


def test_g12_sixteen_processes_on_a_redis(runs: Outcomes) -> None:
    """Sixteen processes share a Redis over ten lifetimes: the API key is sent once, at most fifteen calls are made, no
    refresh token goes out twice, and no request fails.
    """
    fleet = runs["redis"]
    fleet.show("sixteen processes on a Redis, ten lifetimes")
    judge(fleet)


def test_g12_eight_processes_on_files(runs: Outcomes) -> None:
    """Eight processes that share a folder do the same."""
    fleet = runs["files"]
    fleet.show("eight processes on files, ten lifetimes")
    judge(fleet)
