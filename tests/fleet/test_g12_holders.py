"""G12: a process that holds the claim dies, or stops until its lease is over, at every point of a renewal."""

import asyncio
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from apivideo_auth.emulator import Emulator, Fault
from tests.fleet.conftest import Outcomes
from tests.fleet.fleet import LONG_OPERATION_TIMEOUT, Fleet, Worker, auth_calls, eventually
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

TTL = 4
MIN_TTL = 0.9 * TTL
"""More than is left of a token after a tenth of its life: a caller with it causes a renewal."""
ATTEMPT_TIMEOUT = 3
LEASE = ATTEMPT_TIMEOUT + 5
OTHERS = 2
STORES = ["redis", "files"]


@frozen
class Outcome:
    """A run in which the holder was lost. `returned`: its reports after it continued."""

    fleet: Fleet
    returned: list[dict[str, Any]]


async def begin(fleet: Fleet, trap: str | None) -> Worker:
    """Return a worker that has authenticated and shares its token with the others, and is to renew."""
    (holder,) = await fleet.add(trap=trap, attempt_timeout=ATTEMPT_TIMEOUT, operation_timeout=LONG_OPERATION_TIMEOUT)
    others = await fleet.add(OTHERS, attempt_timeout=ATTEMPT_TIMEOUT, operation_timeout=LONG_OPERATION_TIMEOUT)
    holder.order("go")
    await holder.wait_for("TokenRenewed")
    for worker in others:
        worker.order("go")
        await worker.wait_for("TokenAdopted")
    # So that `min_ttl` is more than what is left.
    await asyncio.sleep(0.2 * TTL)
    holder.order("renew", min_ttl=MIN_TTL)
    return holder


async def replaced(fleet: Fleet) -> None:
    """Return when one of the others has renewed, and all of them have that token."""
    others = fleet.workers[1:]
    await eventually(
        lambda: all(len(worker.reported("TokenRenewed") + worker.reported("TokenAdopted")) > 1 for worker in others)
    )
    assert any(worker.reported("TokenRenewed") for worker in others)


async def kill(store: str, point: str) -> Outcome:
    """Kill the holder at a point of its renewal."""
    async with Emulator(ttl=TTL) as server, Fleet(server, store) as fleet:
        if point == "in flight":
            server.inject(Fault(on="/auth/refresh", hang=True))
        holder = await begin(fleet, None if point == "in flight" else point)
        if point == "in flight":
            await eventually(lambda: len(auth_calls(server)) == 2)
        else:
            await holder.wait_for("trapped")
        await holder.kill()
        await replaced(fleet)
        await fleet.end()
    return Outcome(fleet, [])


async def stop(store: str, point: str) -> Outcome:
    """Stop the holder at a point of its renewal, and let it go on when another has renewed."""
    async with Emulator(ttl=TTL) as server, Fleet(server, store) as fleet:
        holder = await begin(fleet, point)
        await holder.wait_for("trapped")
        holder.signal(signal.SIGSTOP)
        await replaced(fleet)
        before = len(holder.reports)
        holder.signal(signal.SIGCONT)
        holder.release()
        await holder.wait_for("TokenAdopted")
        await fleet.agree()
        reports = holder.reports[before:]
        await fleet.end()
    return Outcome(fleet, reports)


SCENARIOS = {
    "killed before the call": partial(kill, point="claimed"),
    "killed in the call": partial(kill, point="in flight"),
    "killed after the answer": partial(kill, point="answered"),
    "stopped before the call": partial(stop, point="claimed"),
    "stopped after the answer": partial(stop, point="answered"),
}


@pytest.fixture(scope="module")
def runs(module_redis: RedisServer, module_folder: Path) -> Outcomes:
    """Holders that are lost at every point, each with an account of its own, on a Redis and on files."""
    stores = {"redis": module_redis.url, "files": f"file://{module_folder}"}
    return Outcomes(
        {
            f"{name} on {kind}": partial(scenario, store)
            for kind, store in stores.items()
            for name, scenario in SCENARIOS.items()
        }
    )


def judge(outcome: Outcome, paths: list[str]) -> None:
    """Assert what holds wherever the holder was lost; `paths` are the calls up to that of its successor."""
    fleet, calls = outcome.fleet, auth_calls(outcome.fleet.server)
    assert fleet.failures == []
    assert [call.path for call in calls][: len(paths)] == paths
    assert "rejected" not in {call.outcome for call in calls}
    assert len(fleet.refresh_tokens) == len(set(fleet.refresh_tokens))
    # Processes of a machine have one monotonic clock; Redis and the files go by the wall clock.
    claimed_at = fleet.workers[0].reported("granted")[0]["not_before"]
    assert calls[len(paths) - 1].at - claimed_at > LEASE - 0.05
    assert fleet.count("StoreDegraded") == 0


def served(outcome: Outcome) -> set[int | None]:
    """Return the tokens that requests were made with, by their numbers."""
    return {call.generation for call in outcome.fleet.server.calls if call.path == "/videos"}


@pytest.mark.parametrize("store", STORES)
def test_g12_a_holder_that_is_killed_before_the_call(runs: Outcomes, store: str) -> None:
    """When its lease is over another authenticates: the refresh token went with the holder, and is not sent at all."""
    outcome = runs[f"killed before the call on {store}"]
    outcome.fleet.show(f"killed before the call, on {store}")
    judge(outcome, ["/auth/api-key", "/auth/api-key"])


@pytest.mark.parametrize("store", STORES)
def test_g12_a_holder_that_is_killed_in_the_call(runs: Outcomes, store: str) -> None:
    """When its lease is over another authenticates: nobody knows what became of the refresh token."""
    outcome = runs[f"killed in the call on {store}"]
    outcome.fleet.show(f"killed in the call, on {store}")
    judge(outcome, ["/auth/api-key", "/auth/refresh", "/auth/api-key"])


@pytest.mark.parametrize("store", STORES)
def test_g12_a_holder_that_is_killed_after_the_answer(runs: Outcomes, store: str) -> None:
    """When its lease is over another authenticates: the new refresh token died with the holder."""
    outcome = runs[f"killed after the answer on {store}"]
    outcome.fleet.show(f"killed after the answer, on {store}")
    judge(outcome, ["/auth/api-key", "/auth/refresh", "/auth/api-key"])
    assert 2 not in served(outcome)


@pytest.mark.parametrize("store", STORES)
def test_g12_a_holder_that_is_stopped_before_the_call(runs: Outcomes, store: str) -> None:
    """A holder that goes on after its lease sends nothing, and adopts what came meanwhile."""
    outcome = runs[f"stopped before the call on {store}"]
    outcome.fleet.show(f"stopped before the call, on {store}")
    judge(outcome, ["/auth/api-key", "/auth/api-key"])
    kinds = [report["kind"] for report in outcome.returned]
    assert not {"refresh", "TokenRenewed"} & set(kinds[: kinds.index("TokenAdopted")])


@pytest.mark.parametrize("store", STORES)
def test_g12_a_holder_that_is_stopped_after_the_answer(runs: Outcomes, store: str) -> None:
    """A holder that goes on after its lease overwrites nothing: its commit is dropped; it adopts the newer token."""
    outcome = runs[f"stopped after the answer on {store}"]
    outcome.fleet.show(f"stopped after the answer, on {store}")
    judge(outcome, ["/auth/api-key", "/auth/refresh", "/auth/api-key"])
    kinds = [report["kind"] for report in outcome.returned]
    assert not {"refresh", "TokenRenewed"} & set(kinds[: kinds.index("TokenAdopted")])
    assert 2 not in served(outcome)
