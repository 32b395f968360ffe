"""G3: while the current token is usable, get_token returns it at once."""

import asyncio

import pytest

from apivideo_auth import TokenManager
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service

pytestmark = pytest.mark.virtual_time


async def test_g03_a_stale_token_is_served_during_its_renewal(clock: LoopClock, service: Service) -> None:
    """A caller gets a stale token without waiting, and the renewal runs in the background."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.gate = asyncio.Event()
        clock.asleep = 3000
        coroutine = tokens.get_token()
        with pytest.raises(StopIteration) as returned:
            coroutine.send(None)
        assert returned.value.value.generation == 1
        await asyncio.sleep(0)
        assert tokens.status().phase == "stale"
        service.gate.set()
        await asyncio.sleep(1)
        assert (await tokens.get_token()).generation == 2


async def test_g03_an_idle_manager_renews(clock: LoopClock, service: Service) -> None:
    """A manager without callers renews early, so that the next caller does not wait."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(10 * 3600)
        calls = len(service.calls)
        coroutine = tokens.get_token()
        with pytest.raises(StopIteration):
            coroutine.send(None)
        assert len(service.calls) == calls


async def test_g03_nobody_waits_in_hours_of_traffic(clock: LoopClock, service: Service) -> None:
    """With a caller every ten seconds for four hours, only the first waits, however slow the endpoint is."""
    service.latency = 9.0
    loop = asyncio.get_running_loop()
    waits = []
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        for _ in range(1440):
            before = loop.time()
            await tokens.get_token()
            waits.append(loop.time() - before)
            await asyncio.sleep(10)
    assert waits[0] == pytest.approx(9.0)
    assert max(waits[1:]) == 0


async def test_g03_after_the_machine_slept_the_timer_catches_up(clock: LoopClock, service: Service) -> None:
    """A sleep of the machine, which the event loop's time does not count, delays the renewal by a minute at most."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(60)
        clock.asleep = 2850
        await asyncio.sleep(61)
        assert tokens.status().generation == 2
