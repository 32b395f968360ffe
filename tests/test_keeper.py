"""The keeper at the edges of time and of its one task."""

import asyncio

import pytest

from apivideo_auth import AuthConnectionError, RefreshPolicy, TokenManager
from tests.conftest import API_KEY
from tests.doubles import LoopClock, Service

pytestmark = pytest.mark.virtual_time


class SlowClock(LoopClock):
    """A clock that goes slower than the event loop's time, by less than the loop can tell."""

    def monotonic(self) -> float:
        return super().monotonic() * (1 - 1e-13)


async def test_a_timer_that_fires_a_hair_early_is_set_again(service: Service) -> None:
    """An event loop may fire a timer a nanosecond early; the renewal comes, and the loop does not spin."""
    clock = service.clock = SlowClock()
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(86_400)
    assert 30 <= len(service.calls) <= 33


async def test_a_pause_that_ends_a_hair_early_is_waited_out(service: Service) -> None:
    """A caller that wakes a nanosecond before a pause is over waits on, and the loop does not spin."""
    clock = service.clock = SlowClock()
    service.answers.extend([AuthConnectionError("made-up outage", sent=False, retry_after=5)] * 3)
    await asyncio.sleep(100_000)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        assert (await tokens.get_token()).generation == 1
    assert len(service.calls) == 4


async def test_a_caller_between_the_end_of_a_renewal_and_its_callback(clock: LoopClock, service: Service) -> None:
    """A caller that runs when the renewal's task is done, but has not been heard of, neither spins nor fails."""
    loop = asyncio.get_running_loop()
    service.answers.extend([AuthConnectionError("made-up outage", sent=False)])
    async with TokenManager(API_KEY, api=service, clock=clock, policy=RefreshPolicy(deadline=5)) as tokens:
        late: list[asyncio.Task] = []

        # Called in the last step of the renewal's task, so that the new task's first step comes before the callback.
        def ask(_event: object) -> None:
            late.append(loop.create_task(tokens.get_token()))

        tokens.subscribe(ask)
        first = await tokens.get_token()
        given = await asyncio.gather(*late)
    assert {token.generation for token in given} == {first.generation}
    assert len(service.calls) == 2
