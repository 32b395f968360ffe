"""G5: cancelling or timing out a caller disturbs no other caller, and loses no rotated refresh token."""

import asyncio

import pytest

from apivideo_auth import TokenManager
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("victim", [0, 1, 9])
async def test_g05_a_cancelled_caller_disturbs_no_other_caller(clock: LoopClock, service: Service, victim: int) -> None:
    """Whichever waiting caller is cancelled, the first one included, the others get the token of the one call."""
    service.gate = asyncio.Event()
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        callers = [asyncio.create_task(tokens.get_token()) for _ in range(10)]
        await asyncio.sleep(0.1)
        callers[victim].cancel()
        await asyncio.sleep(0.1)
        assert callers[victim].cancelled()
        service.gate.set()
        others = await asyncio.gather(*(caller for caller in callers if not caller.cancelled()))
    assert {token.generation for token in others} == {1}
    assert len(service.calls) == 1


async def test_g05_a_renewal_outlives_all_its_callers(clock: LoopClock, service: Service) -> None:
    """If every caller gives up while the server rotates the refresh token, the new tokens are kept."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        clock.asleep = 3600
        service.latency = 5.0
        callers = [asyncio.create_task(tokens.get_token()) for _ in range(5)]
        await asyncio.sleep(1)
        for caller in callers:
            caller.cancel()
        await asyncio.sleep(5)
        assert tokens.status().generation == 2
        clock.asleep = 7200
        assert (await tokens.get_token()).generation == 3
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "refresh"]


async def test_g05_a_caller_that_times_out_disturbs_no_other_caller(clock: LoopClock, service: Service) -> None:
    """A caller's own timeout ends only this caller's wait."""
    service.latency = 5.0
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        patient = asyncio.create_task(tokens.get_token())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await tokens.get_token()
        assert (await patient).generation == 1
    assert len(service.calls) == 1


async def test_g05_a_cancelled_renewal_task_is_started_again(clock: LoopClock, service: Service) -> None:
    """If the program cancels every task except the callers, the callers still get a token."""
    service.latency = 1.0
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        callers = [asyncio.create_task(tokens.get_token()) for _ in range(3)]
        await asyncio.sleep(0.5)
        for task in asyncio.all_tasks() - {*callers, asyncio.current_task()}:
            task.cancel()
        given = await asyncio.gather(*callers)
    assert {token.generation for token in given} == {1}
    assert len(service.calls) == 2


async def test_g05_a_cancelled_caller_does_not_wait_for_the_store(clock: LoopClock, service: Service) -> None:
    """A rejected caller whose look at a slow store is under way ends at once, and close() leaves nothing behind."""
    store = FaultyStore()
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens,
        TokenManager(API_KEY, api=service, clock=clock, store=store.process()) as elsewhere,
    ):
        token = await tokens.get_token()
        await elsewhere.get_token()
        service.gate = asyncio.Event()
        renewing = asyncio.create_task(elsewhere.get_token(min_ttl=3240))
        await asyncio.sleep(400)
        renewing = asyncio.gather(renewing, elsewhere.get_token(min_ttl=3240))
        await asyncio.sleep(1)
        caller = asyncio.create_task(tokens.get_token(rejected=token))
        await asyncio.sleep(1)
        store.fault = "slow"
        other = asyncio.create_task(tokens.get_token(rejected=token))
        await asyncio.sleep(0.1)
        before = clock.monotonic()
        for cancelled in (caller, other):
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        assert clock.monotonic() == before
        store.fault = None
        service.gate.set()
        await renewing
    assert asyncio.all_tasks() == {asyncio.current_task()}
