"""G12: the store or the endpoint is down, under load."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.emulator import Emulator, Fault
from apivideo_auth.stores._json import record_from_json
from tests.fleet.conftest import Outcomes
from tests.fleet.fleet import LONG_OPERATION_TIMEOUT, Fleet, auth_calls, eventually
from tests.support.redis_server import RedisServer, own_server

pytestmark = pytest.mark.slow

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


STORE_EVENTS = ("StoreDegraded", "StoreRecovered")
FRESH = 0.5 * TTL
"""Seconds after a commit in which no worker renews."""


def authentications(fleet: Fleet) -> int:
    """Return how often the API key was sent."""
    return [call.path for call in auth_calls(fleet.server)].count("/auth/api-key")


async def degraded(fleet: Fleet, times: int) -> None:
    """Return when every worker has lost its store so often."""
    await eventually(lambda: all(len(worker.reported("StoreDegraded")) >= times for worker in fleet.workers))


async def recovered(fleet: Fleet, times: int) -> None:
    """Return when every worker has its store back, and all are served one token again."""
    await eventually(lambda: all(len(worker.reported("StoreRecovered")) >= times for worker in fleet.workers))
    await fleet.agree()


async def redis_is_emptied(redis: RedisServer) -> Fleet:
    """Empty the Redis of some workers."""
    async with Emulator(ttl=TTL) as server, Fleet(server, redis.url) as fleet:
        await fleet.add(WORKERS, attempt_timeout=ATTEMPT_TIMEOUT, operation_timeout=LONG_OPERATION_TIMEOUT)
        fleet.order("go")
        await fleet.agree()
        redis.flush()
        await eventually(lambda: authentications(fleet) > 1)
        await fleet.agree()
        await fleet.end()
    return fleet


async def redis_is_lost(redis: RedisServer) -> Fleet:
    """Stop, kill and restart the Redis of some workers."""
    async with Emulator(ttl=TTL) as server, Fleet(server, redis.url) as fleet:
        await fleet.add(WORKERS, attempt_timeout=ATTEMPT_TIMEOUT)
        fleet.order("go")
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


def replace_fresh_record(folder: Path, damage: Callable[[bytes], bytes]) -> bool:
    """Damage the account's record while no worker claims it; return whether that was so."""
    (path,) = folder.glob("*.json")
    content = path.read_bytes()
    record = record_from_json(content)
    assert record is not None
    assert record.committed_at is not None
    if record.claim_id is not None or SYSTEM_CLOCK.utc() - record.committed_at > FRESH:
        return False
    other = path.with_suffix(".other")
    other.touch(0o600)
    other.write_bytes(damage(content))
    other.replace(path)
    return True


async def files_are_damaged(folder: Path) -> tuple[Fleet, dict[str, list[str]]]:
    """Put other things in the record's place. Return also the events of the store after each of them."""
    reports: dict[str, list[str]] = {}
    async with Emulator(ttl=TTL) as server, Fleet(server, f"file://{folder}") as fleet:
        await fleet.add(WORKERS, attempt_timeout=ATTEMPT_TIMEOUT, operation_timeout=LONG_OPERATION_TIMEOUT)
        fleet.order("go")
        await fleet.agree()
        for name, damage in DAMAGE.items():
            before = {kind: fleet.count(kind) for kind in STORE_EVENTS}
            await eventually(lambda damage=damage: replace_fresh_record(folder, damage))
            await eventually(lambda before=before: fleet.count("StoreRecovered") > before["StoreRecovered"])
            await fleet.agree()
            reports[name] = [kind for kind in STORE_EVENTS for _ in range(fleet.count(kind) - before[kind])]
        await fleet.end()
    return fleet, reports


async def disk_fails(folder: Path) -> Fleet:
    """Let writing fail on the disk of some workers, and work again."""
    async with Emulator(ttl=TTL) as server, Fleet(server, f"file://{folder}") as fleet:
        await fleet.add(WORKERS, attempt_timeout=ATTEMPT_TIMEOUT, operation_timeout=LONG_OPERATION_TIMEOUT)
        fleet.order("go")
        await fleet.agree()
        for times, how in enumerate(("full", "read-only"), 1):
            fleet.order("disk", how=how)
            await degraded(fleet, times)
            fleet.order("disk", how=None)
            await recovered(fleet, times)
        await fleet.end()
    return fleet


async def endpoint_is_dead(store: str) -> Fleet:
    """Let many processes call an endpoint that is away for some calls."""
    async with Emulator() as server, Fleet(server, store) as fleet:
        server.inject(Fault(status=503, headers={"Retry-After": str(RETRY_AFTER)}, times=None))
        await fleet.add(16, deadline=0, operation_timeout=LONG_OPERATION_TIMEOUT)
        fleet.order("go")
        await eventually(lambda: len(auth_calls(server)) == CALLS)
        server.clear_faults()
        await fleet.agree()
        await fleet.end()
    return fleet


@pytest.fixture(scope="module")
def redis_to_empty() -> Iterator[RedisServer]:
    """A server for the test that empties it."""
    with own_server() as server:
        yield server


@pytest.fixture(scope="module")
def runs(
    module_redis: RedisServer, redis_to_empty: RedisServer, own_redis_of_module: RedisServer, module_folder: Path
) -> Outcomes:
    """All the outages at the same time, each with an account of its own."""
    return Outcomes(
        {
            "emptied": lambda: redis_is_emptied(redis_to_empty),
            "redis": lambda: redis_is_lost(own_redis_of_module),
            "damage": lambda: files_are_damaged(module_folder / "damage"),
            "disk": lambda: disk_fails(module_folder / "disk"),
            "endpoint": lambda: endpoint_is_dead(module_redis.url),
        }
    )


def judge(fleet: Fleet) -> None:
    """Assert what holds of any store that is lost and comes back."""
    assert fleet.failures == []
    assert len(fleet.refresh_tokens) == len(set(fleet.refresh_tokens))
    assert "rejected" not in {call.outcome for call in fleet.server.calls}


def test_g12_a_redis_that_is_emptied(runs: Outcomes) -> None:
    """When the Redis of eight processes loses the record, one of them authenticates for all: no token is missed."""
    fleet = runs["emptied"]
    fleet.show("a Redis that is emptied")
    judge(fleet)
    assert authentications(fleet) == 2
    assert fleet.count("StoreDegraded") == 0


def test_g12_a_redis_that_is_stopped_killed_and_restarted(runs: Outcomes) -> None:
    """Whatever happens to the Redis of eight processes, no token is missed and no request fails; a refresh token never
    goes out twice; and when it is over the workers are served one token again.
    """
    fleet = runs["redis"]
    fleet.show("a Redis that is stopped, killed, and restarted empty")
    judge(fleet)


def test_g12_files_that_are_damaged(runs: Outcomes) -> None:
    """The record of eight processes is cut short, emptied, or replaced by something else. It counts as empty at once:
    the first worker that looks says so and replaces it with a new token; the others see nothing of it.
    """
    fleet, reports = runs["damage"]
    fleet.show("a record that is damaged")
    judge(fleet)
    assert reports == {name: ["StoreDegraded", "StoreRecovered"] for name in DAMAGE}
    causes = [event["cause"] for worker in fleet.workers for event in worker.reported("StoreDegraded")]
    assert all("counts as empty" in cause for cause in causes)
    assert authentications(fleet) == 1 + len(DAMAGE)


def test_g12_a_disk_that_is_full_or_read_only(runs: Outcomes) -> None:
    """While eight processes cannot write their files, no token is missed and no request fails; afterwards the workers
    are served one token again.
    """
    fleet = runs["disk"]
    fleet.show("a disk that is full, then read-only")
    judge(fleet)


def test_g12_an_endpoint_that_is_dead_from_the_start(runs: Outcomes) -> None:
    """Sixteen processes call a dead endpoint as often as one does: the failures in a row are the account's, and each
    call comes after the backoff of the one before. One call after the outage serves them all.
    """
    fleet = runs["endpoint"]
    fleet.show("an endpoint that is dead from the start")
    failures = [report for worker in fleet.workers for report in worker.reported("RenewalFailed")]
    assert sorted(report["failures"] for report in failures) == [*range(1, CALLS + 1)]
    calls = auth_calls(fleet.server)
    assert [call.outcome for call in calls] == ["faulted"] * CALLS + ["authenticated"]
    # Redis dates the backoff by another clock than the server dates the calls.
    assert min(later.at - earlier.at for earlier, later in pairwise(calls)) > RETRY_AFTER - 0.05
    assert {why for figures in fleet.figures for why in figures["no_token"]} == {"AuthResponseError"}
    assert [why for figures in fleet.figures for why in figures["failed"]] == []
