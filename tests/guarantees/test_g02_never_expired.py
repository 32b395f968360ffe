"""G2: no token is handed out that has less than the leeway to live."""

import asyncio

import pytest

from apivideo_auth import AccessToken, InvalidResponseError, TokenManager
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("jump", [-7200.0, -1e9, 7200.0, 1e9])
async def test_g02_the_wall_clock_may_jump(clock: LoopClock, service: Service, jump: float) -> None:
    """When the wall clock jumps either way, a fresh token stays in use and an expired one does not."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        first = await tokens.get_token()
        clock.wall_jump = jump
        assert await tokens.get_token() is first
        await asyncio.sleep(3600)
        later = await tokens.get_token()
        assert later.generation == 2
        assert later.remaining() > 30
    assert len(service.calls) == 2


async def test_g02_the_machine_may_sleep(clock: LoopClock, service: Service) -> None:
    """After the machine slept past the token's end, and the loop's time stood still, callers get a new token."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        clock.asleep = 3571
        token = await tokens.get_token()
    assert token.generation == 2


@pytest.mark.parametrize(("age", "generation"), [(3569.9, 1), (3570.0, 2)])
async def test_g02_the_leeway_is_kept_to_the_second(
    clock: LoopClock, service: Service, age: float, generation: int
) -> None:
    """A token is served until 30 seconds before its end, and not from then on."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        clock.asleep = age
        token = await tokens.get_token()
    assert token.generation == generation


async def test_g02_lifetime_counts_from_when_the_request_was_sent(clock: LoopClock, service: Service) -> None:
    """The time that the answer took is subtracted from the token's life."""
    service.latency = 5.0
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
    assert token.remaining() == pytest.approx(3595.0)


@pytest.mark.parametrize("lifetime", [1, 2, 5, 11, 30, 60, 3599, 3600, 20_000])
async def test_g02_every_lifetime_works(clock: LoopClock, service: Service, lifetime: int) -> None:
    """Whatever the lifetime, each token handed out over ten lifetimes has its leeway left, and renewals stay few."""
    service.lifetime = lifetime
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        for _ in range(1000):
            token = await tokens.get_token()
            assert token.remaining() >= min(30, lifetime * 0.05) - 1e-5
            await asyncio.sleep(lifetime / 100)
    assert 12 <= len(service.calls) <= 15


async def test_g02_a_blocked_loop_serves_no_expired_token(clock: LoopClock, service: Service) -> None:
    """If the loop was blocked past the token's end, so that the timer fires late, callers get a new token."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(2600)
        clock.asleep = 1000
        token = await tokens.get_token()
    assert token.generation == 2


async def test_g02_a_token_that_is_expired_on_arrival_is_a_failure(clock: LoopClock, service: Service) -> None:
    """An answer that took longer than its token lives is not served; its refresh token is used next."""
    service.lifetime, service.latency = 3, 4.0
    asyncio.get_running_loop().call_later(2.0, setattr, service, "latency", 0.0)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        assert token.remaining() > 2.5
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]


async def test_g02_at_most_a_day_is_believed(clock: LoopClock, service: Service) -> None:
    """A token that claims to live for years is renewed within a day."""
    service.answers.append(AccessToken("made-up-access", "bearer", 10**9, "made-up-refresh"))
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        assert token.remaining() == pytest.approx(86_400)


async def test_g02_a_token_that_arrives_within_its_leeway_is_a_failure(clock: LoopClock, service: Service) -> None:
    """Where each token is nearly over when it arrives, callers get the cause by the deadline."""
    service.lifetime, service.latency = 2, 1.95
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        with pytest.raises(InvalidResponseError, match="nearly or fully expired"):
            await tokens.get_token()
        assert clock.monotonic() <= 25
    assert service.used_refresh_tokens


async def test_g02_a_token_that_has_ended_has_no_life_left(clock: LoopClock, service: Service) -> None:
    """The remaining life of a token that a caller kept is 0 after its end, never less."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(3599)
        assert token.remaining() == pytest.approx(1.0)
        await asyncio.sleep(100)
        assert token.remaining() == 0
