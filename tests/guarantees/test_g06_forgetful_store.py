"""G6 when the store is down, forgets, or is set back: a worker never sends a refresh token that it has sent before."""

import asyncio
from collections.abc import Callable

import pytest
from attrs import evolve

from apivideo_auth import AuthConnectionError, AuthResponseError, TokenManager
from apivideo_auth._record import EMPTY
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


def manager(service: Service, clock: LoopClock, store: FaultyStore) -> TokenManager:
    """Return a manager that uses a store."""
    return TokenManager(API_KEY, api=service, clock=clock, store=store)


async def until(happened: Callable[[], bool]) -> None:
    """Return in the second in which something happens, within two hours."""
    for _ in range(7200):
        if happened():
            return
        await asyncio.sleep(1)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("fault", ["down", "slow", "lost"])
async def test_g06_a_private_refresh_token_of_unknown_fate_is_not_offered(
    clock: LoopClock, service: Service, fault: str
) -> None:
    """If the private refresh token went out and its fate is unknown, the store that is back does not get it."""
    store = FaultyStore()
    store.fault = fault
    async with manager(service, clock, store) as tokens:
        await tokens.get_token()
        # The work is done, and the answer is an error: the refresh token is used up.
        service.loses = lambda number: number == 2
        await asyncio.sleep(2900)
        assert len(service.used_refresh_tokens) == 1
        store.fault = None
        await asyncio.sleep(7200)
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))
    assert len(service.used_refresh_tokens) >= 2


async def test_g06_an_unused_private_refresh_token_is_offered(clock: LoopClock, service: Service) -> None:
    """A refresh token of the outage that was not used serves all workers when the store is back."""
    store = FaultyStore()
    store.fault = "down"
    async with manager(service, clock, store) as tokens:
        await tokens.get_token()
        store.fault = None
        await asyncio.sleep(3600)
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]


async def test_g06_a_store_that_is_set_back_between_claim_and_end(clock: LoopClock, service: Service) -> None:
    """If the record is set back while a worker renews, that worker does not send the same refresh token again."""
    store = FaultyStore()
    async with manager(service, clock, store) as tokens:
        await tokens.get_token()
        before = store.record
        service.latency = 1.0
        service.answers.append(AuthResponseError("made-up", status=503))
        await until(lambda: len(service.calls) > 1)
        store.record = before
        await asyncio.sleep(60)
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]


async def test_g06_an_older_record_is_recognised(clock: LoopClock, service: Service) -> None:
    """A worker that knows a newer commit than the record's does not send the record's refresh token."""
    store = FaultyStore()
    elsewhere = store.process()
    async with manager(service, clock, store) as one, manager(service, clock, elsewhere) as other:
        await one.get_token()
        old = store.record
        await other.get_token()
        await asyncio.sleep(3000)
        assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]
        # Each worker either sent the old refresh token itself, or knows of the commit that came of it.
        store.record = old
        await asyncio.sleep(3000)
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))
    assert [call.endpoint for call in service.calls][:3] == ["api-key", "refresh", "api-key"]


async def test_g06_a_newer_commit_with_a_shorter_life_keeps_its_refresh_token(
    clock: LoopClock, service: Service
) -> None:
    """With mixed lifetimes the refresh token of the newer commit is used, although its token lives shorter."""
    store = FaultyStore()
    elsewhere = store.process()
    async with manager(service, clock, store) as one, manager(service, clock, elsewhere) as other:
        token = await one.get_token()
        await other.get_token()
        await asyncio.sleep(2)
        service.lifetime = 60
        await one.get_token(rejected=token)
        # The other worker keeps its longer token, and uses the newer refresh token when it renews.
        await asyncio.sleep(1)
        await other.get_token(rejected=await other.get_token())
        await asyncio.sleep(5)
        assert service.count("api-key") == 1
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))


async def test_g06_a_lost_record_costs_one_authentication(clock: LoopClock, service: Service) -> None:
    """After the store was emptied, the next renewal authenticates, and those after it refresh again."""
    store = FaultyStore()
    async with manager(service, clock, store) as tokens:
        await tokens.get_token()
        store.record = EMPTY
        await asyncio.sleep(9000)
    assert [call.endpoint for call in service.calls] == ["api-key", "api-key", "refresh", "refresh"]


@pytest.mark.parametrize("operation", ["claim", "commit", "release"])
async def test_g06_whatever_answer_is_lost_no_refresh_token_goes_out_twice(
    clock: LoopClock, service: Service, operation: str
) -> None:
    """If the store's answer to a claim, commit or release is lost, it is repeated, and the record stays consistent."""
    store = FaultyStore()
    async with manager(service, clock, store) as tokens:
        await tokens.get_token()
        if operation == "release":
            service.answers.append(AuthConnectionError("made-up: not sent", sent=False, retry_after=10))
        store.before = lambda name: setattr(store, "fault", "lost" if name == operation else None)
        await until(lambda: len(service.calls) > 1)
        store.before = lambda _name: setattr(store, "fault", None)
        await asyncio.sleep(60)
        assert store.record.claim_id is None
        assert store.record.refresh is not None
        await asyncio.sleep(3600)
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))
    # A claim whose answer is lost costs one authentication, and nothing else does.
    assert service.count("api-key") == (2 if operation == "claim" else 1)


async def test_g06_a_claim_that_was_never_ended_loses_its_refresh_token(clock: LoopClock, service: Service) -> None:
    """The refresh token of a dead holder may have been used, so the next worker authenticates."""
    store = FaultyStore()
    async with manager(service, clock, store) as tokens:
        await tokens.get_token()
        store.record = evolve(store.record, claim_id="dead", claim_until=clock.monotonic() + 10)
        await asyncio.sleep(3000)
    assert [call.endpoint for call in service.calls] == ["api-key", "api-key"]


async def test_g06_a_record_older_than_ones_own_commit_is_recognised(clock: LoopClock, service: Service) -> None:
    """A worker that has committed since then does not send the refresh token of a record that was set back."""
    store = FaultyStore()
    elsewhere = store.process()
    async with manager(service, clock, store) as one, manager(service, clock, elsewhere) as other:
        token = await one.get_token()
        old = store.record
        await other.get_token()
        await asyncio.sleep(2)
        # The other worker sends the refresh token, and its fate is unknown.
        service.loses = lambda number: number == 2
        with pytest.raises(AuthConnectionError):
            await other.get_token(rejected=token)
        await asyncio.sleep(5)
        await one.get_token(rejected=token)
        assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]
        await other.close()
        await asyncio.sleep(2600)
        store.record = old
        await asyncio.sleep(400)
        assert len(service.calls) == 4
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))
