"""G12: the store or the endpoint is away, under load, and what that costs."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from apivideo_auth.emulator import Emulator, Fault
from tests.fleet.conftest import Outcomes
from tests.fleet.fleet import UNHURRIED, Fleet, auth_calls, eventually
from tests.support.redis_server import RedisServer

TTL = 2
ATTEMPT_TIMEOUT = 1.5
WORKERS = 8
RETRY_AFTER = 2
CALLS = 4
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda record: record[: len(record) // 2],
    "empty": lambda _record: b"",
    "foreign": lambda _record: b"This is no record.\n",
    "foreign JSON": lambda _record: b'{"version": 7, "access": ["no", "record"]}',
}


async def degraded(fleet: Fleet, times: int) -> None:
    """Return when every worker has lost its store so often."""
    await eventually(lambda: all(len(worker.heard("StoreDegraded")) >= times for worker in fleet.workers))


async def recovered(fleet: Fleet, times: int) -> None:
    """Return when every worker has its store back, and all are served one token again."""
    await eventually(lambda: all(len(worker.heard("StoreRecovered")) >= times for worker in fleet.workers))
    await fleet.agree()


async def redis_is_lost(redis: RedisServer) -> Fleet:
    """Flush, stop, kill and restart the Redis of some workers."""
    async with Emulator(ttl=TTL) as server, Fleet(server, redis.url) as fleet:
        await fleet.add(WORKERS, attempt_timeout=ATTEMPT_TIMEOUT)
        fleet.order("go")
        await fleet.agree()
        redis.flush()
        await eventually(lambda: len(auth_calls(server)) == 2)
        await fleet.agree()
        redis.pause()
        await degraded(fleet, 1)
        await asyncio.sleep(TTL)
        redis.resume()
        await recovered(fleet, 1)
        redis.kill()
        await degraded(fleet, 2)
        await asyncio.sleep(TTL)
        redis.start()
        await recovered(fleet, 2)
        await fleet.end()
    return fleet


def replace_record(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    """Put something else in the place of the account's record."""
    (record,) = folder.glob("*.json")
    other = record.with_suffix(".other")
    other.touch(0o600)
    other.write_bytes(damage(record.read_bytes()))
    other.replace(record)


async def files_are_damaged(folder: Path) -> Fleet:
    """Put other things in the record's place, and take the disk away."""
    async with Emulator(ttl=TTL) as server, Fleet(server, f"file://{folder}") as fleet:
        await fleet.add(WORKERS, attempt_timeout=ATTEMPT_TIMEOUT)
        fleet.order("go")
        await fleet.agree()
        for damage in DAMAGE.values():
            before = fleet.count("StoreDegraded")
            replace_record(folder, damage)
            await eventually(lambda before=before: fleet.count("StoreDegraded") > before)
            await fleet.agree()
        for how in ("full", "read-only"):
            times = {worker: len(worker.heard("StoreDegraded")) for worker in fleet.workers}
            fleet.order("disk", how=how)
            await eventually(
                lambda times=times: all(len(worker.heard("StoreDegraded")) > times[worker] for worker in fleet.workers)
            )
            fleet.order("disk", how=None)
            await eventually(
                lambda: all(
                    len(worker.heard("StoreRecovered")) == len(worker.heard("StoreDegraded"))
                    for worker in fleet.workers
                )
            )
            await fleet.agree()
        await fleet.end()
    return fleet


async def endpoint_is_dead(store: str) -> Fleet:
    """Let many processes call an endpoint that is away for some calls."""
    async with Emulator() as server, Fleet(server, store) as fleet:
        server.inject(Fault(status=503, headers={"Retry-After": str(RETRY_AFTER)}, times=None))
        await fleet.add(16, deadline=0, budget=UNHURRIED)
        fleet.order("go")
        await eventually(lambda: len(auth_calls(server)) == CALLS)
        server.clear_faults()
        await fleet.agree()
        await fleet.end()
    return fleet


@pytest.fixture(scope="module")
def runs(module_redis: RedisServer, own_redis_of_module: RedisServer, module_folder: Path) -> Outcomes:
    """All the outages, with a server each for the one that loses it and for the one that does not."""
    return Outcomes(
        {
            "redis": lambda: redis_is_lost(own_redis_of_module),
            "files": lambda: files_are_damaged(module_folder),
            "endpoint": lambda: endpoint_is_dead(module_redis.url),
        }
    )


def judge(fleet: Fleet) -> None:
    """Assert what holds of any store that is lost and comes back."""
    assert fleet.failures == []
    assert len(fleet.refresh_tokens) == len(set(fleet.refresh_tokens))
    assert "refused" not in {call.outcome for call in fleet.server.calls}


def test_g12_a_redis_that_is_flushed_stopped_killed_and_restarted(runs: Outcomes) -> None:
    """Whatever happens to the Redis of eight processes, no token is missed and no request fails; a refresh token never
    goes out twice; and when it is over the workers are served one token again. An emptied Redis costs one call.
    """
    fleet = runs["redis"]
    fleet.show("a Redis that is flushed, stopped, killed, and restarted empty")
    judge(fleet)
    assert [call.path for call in auth_calls(fleet.server)[:2]] == ["/auth/api-key", "/auth/api-key"]


def test_g12_files_that_are_damaged_and_disks_that_are_full(runs: Outcomes) -> None:
    """The record of eight processes is cut short, emptied, replaced by something else; the disk is full, the folder
    read-only: no token is missed, no request fails, and afterwards the workers are served one token again.
    """
    fleet = runs["files"]
    fleet.show("a record that is damaged, a disk that is full")
    judge(fleet)


def test_g12_an_endpoint_that_is_dead_from_the_start(runs: Outcomes) -> None:
    """Sixteen processes call a dead endpoint as often as one does: the failures in a row are the account's, and each
    call keeps the pause that the one before it left. One call after its return serves them all.
    """
    fleet = runs["endpoint"]
    fleet.show("an endpoint that is dead from the start")
    failures = [told for worker in fleet.workers for told in worker.heard("RenewalFailed")]
    assert sorted(told["failures"] for told in failures) == [*range(1, CALLS + 1)]
    calls = auth_calls(fleet.server)
    assert [call.outcome for call in calls] == ["faulted"] * CALLS + ["authenticated"]
    # Redis dates the pauses by another clock than the server the calls.
    assert min(later.at - earlier.at for earlier, later in pairwise(calls)) > RETRY_AFTER - 0.05
    assert {why for figures in fleet.figures for why in figures["no_token"]} == {"AuthResponseError"}
    assert [why for figures in fleet.figures for why in figures["failed"]] == []
