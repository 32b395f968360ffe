"""G7: calls to the endpoints are bounded by the policy, whatever the number of callers."""

import asyncio
from itertools import pairwise

import pytest

from apivideo_auth import (
    AuthConnectionError,
    AuthError,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshPolicy,
    TokenManager,
    TokenRejectedError,
)
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service, pending_timers
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


async def failed_waits(seconds: float, tokens: TokenManager, *, every: float = 1.0) -> list[float]:
    """Call `get_token` again and again; return how long each call took that failed."""
    loop = asyncio.get_running_loop()
    waits, end = [], loop.time() + seconds
    while loop.time() < end:
        before = loop.time()
        try:
            await tokens.get_token()
        except AuthError:
            waits.append(loop.time() - before)
        await asyncio.sleep(every)
    return waits


@pytest.mark.parametrize("callers", [1, 40])
async def test_g07_an_outage_of_an_hour_costs_the_backoff(clock: LoopClock, service: Service, callers: int) -> None:
    """However many callers there are, the endpoint is called as often as full-jitter backoff to 30 seconds allows."""
    service.always = AuthConnectionError("made-up outage")
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await asyncio.gather(*(failed_waits(3600, tokens, every=5) for _ in range(callers)))
        calls = [call.at for call in service.calls]
    # 15 seconds on average once the backoff has grown, and up to 5 s until the next caller.
    assert 120 <= len(calls) <= 330
    assert max(later - earlier for earlier, later in pairwise(calls)) <= 36


@pytest.mark.parametrize(
    ("retry_after", "backoff"), [(20.0, 20.0), (60.0, 60.0), (3600.0, 60.0), (0.0, None), (-5.0, None), (None, None)]
)
async def test_g07_retry_after_is_honoured_and_clamped(
    clock: LoopClock, service: Service, retry_after: float | None, backoff: float | None
) -> None:
    """Retry-After is honoured up to a minute, an hour is clamped to a minute, and an invalid value is ignored."""
    service.always = RateLimitedError("made-up limit", status=429, retry_after=retry_after)
    async with TokenManager(API_KEY, api=service, clock=clock, policy=RefreshPolicy(deadline=0)) as tokens:
        with pytest.raises(RateLimitedError) as caught:
            await tokens.get_token()
        assert caught.value.retry_after == pytest.approx(backoff) if backoff else caught.value.retry_after <= 0.5
        service.always = None
        if backoff:
            await asyncio.sleep(backoff - 0.1)
            with pytest.raises(RateLimitedError):
                await tokens.get_token()
            assert len(service.calls) == 1
        await asyncio.sleep(0.6)
        assert (await tokens.get_token()).generation == 1


async def test_g07_callers_wait_out_the_first_seconds_and_then_fail_at_once(clock: LoopClock, service: Service) -> None:
    """No caller waits longer than 20 seconds after the first failure; later callers get the cause at once."""
    service.always = AuthResponseError("made-up failure", status=503)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        waits = await failed_waits(600, tokens)
    assert waits[0] <= 20
    assert all(wait == 0 for wait in waits[1:])


async def test_g07_a_failure_is_remembered_with_its_cause(clock: LoopClock, service: Service) -> None:
    """Between two tries each caller gets its own error object, with the class and the fields of the cause."""
    service.always = RateLimitedError("made-up limit", status=429, title="Too many requests.", retry_after=50)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        errors = []
        for _ in range(3):
            with pytest.raises(RateLimitedError) as caught:
                await tokens.get_token()
            errors.append(caught.value)
            await asyncio.sleep(1)
    assert len({id(error) for error in errors}) == 3
    assert {(error.status, error.title) for error in errors} == {(429, "Too many requests.")}
    assert [round(error.retry_after) for error in errors] == [50, 49, 48]
    assert len(service.calls) == 1


async def test_g07_a_rejected_key_is_tried_once_a_minute(clock: LoopClock, service: Service) -> None:
    """A rejected key causes one call a minute while there are callers, and none without callers."""
    service.always = CredentialsRejectedError("made-up rejection", status=403)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        waits = await failed_waits(3600, tokens)
        assert 59 <= len(service.calls) <= 61
        assert max(waits) == 0
        await asyncio.sleep(3600)
        assert len(service.calls) <= 61


async def test_g07_the_timer_does_not_try_a_rejected_key(clock: LoopClock, service: Service) -> None:
    """While a token is still usable the timer does not try a rejected key; a caller does, after the backoff."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.live_refresh_tokens.clear()
        service.answers.extend([None, CredentialsRejectedError("made-up rejection", status=400)])
        await asyncio.sleep(3500)
        assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]
        assert (await tokens.get_token()).generation == 1
        await asyncio.sleep(1)
        assert tokens.status().generation == 2


async def test_g07_without_a_token_only_a_caller_tries_again(clock: LoopClock, service: Service) -> None:
    """When the last token has expired in an outage and there is no caller, nothing is called."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.always = AuthConnectionError("made-up outage")
        await asyncio.sleep(3601)
        calls = len(service.calls)
        await asyncio.sleep(7200)
        assert len(service.calls) == calls
        service.always = None
        assert (await tokens.get_token()).generation == 2


async def test_g07_without_callers_an_outage_causes_no_calls(clock: LoopClock, service: Service) -> None:
    """If all callers give up during an outage, the endpoint is not called any more."""
    service.always = AuthConnectionError("made-up outage", sent=False)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        callers = [asyncio.create_task(tokens.get_token()) for _ in range(20)]
        await asyncio.sleep(2)
        for caller in callers:
            caller.cancel()
        calls = len(service.calls)
        await asyncio.sleep(3600)
        assert len(service.calls) <= calls + 1


async def test_g07_remembered_failures_keep_their_class(clock: LoopClock, service: Service) -> None:
    """Each kind of failure raises its own class, also between two tries, when it is remembered."""
    for error in (
        AuthConnectionError("made-up", retry_after=40),
        AuthResponseError("made-up", status=500, retry_after=40),
        InvalidResponseError("made-up", status=200, retry_after=40),
        CredentialsRejectedError("made-up", status=400),
    ):
        service.always = error
        async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
            for _ in range(2):
                with pytest.raises(AuthError) as caught:
                    await tokens.get_token()
                assert type(caught.value) is type(error)


async def test_g07_two_hundred_callers_of_a_failing_endpoint(clock: LoopClock, service: Service) -> None:
    """Two hundred callers that wait through several failures cause one call per try, not one per caller."""
    service.latency = 0.2
    service.answers.extend([AuthConnectionError("made-up", sent=False)] * 5)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        given = await asyncio.gather(*(tokens.get_token() for _ in range(200)))
    assert {token.generation for token in given} == {1}
    assert len(service.calls) == 6


async def test_g07_a_throttled_401_says_when_to_retry(clock: LoopClock, service: Service) -> None:
    """The throttle of renewals because of 401s doubles, and each error says when the next renewal is possible."""
    gaps, last = [], None
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(1)
        while len(gaps) < 8:
            try:
                token = await tokens.get_token(rejected=token)
                if last is not None:
                    gaps.append(clock.monotonic() - last)
                last = clock.monotonic()
            except TokenRejectedError as error:
                await asyncio.sleep(error.retry_after)
    assert [round(gap) for gap in gaps] == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_g07_an_expired_token_leaves_the_timer_alone(clock: LoopClock, service: Service) -> None:
    """If the machine slept past the token's end and there is no caller, no timer fires again and again."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        clock.asleep = 3600
        await asyncio.sleep(61)
        assert pending_timers() == []
    assert len(service.calls) == 1


async def test_g07_failures_before_anothers_success_do_not_count(clock: LoopClock, service: Service) -> None:
    """Failures in a row begin anew after another worker's success, so that callers wait until the deadline again."""
    store = FaultyStore()
    first, second = (TokenManager(API_KEY, api=service, clock=clock, store=store.process()) for _ in range(2))
    async with first, second:
        service.always = AuthConnectionError("made-up outage", sent=False)
        with pytest.raises(AuthConnectionError):
            await first.get_token()
        service.always = None
        await asyncio.sleep(31)
        await second.get_token()
        clock.asleep = 3600
        service.answers.append(AuthConnectionError("made-up outage", sent=False))
        failed = []
        first.subscribe(failed.append)
        await first.get_token()
        assert failed[0].failures == 1


async def test_g07_an_outage_does_not_begin_before_anothers_success(clock: LoopClock, service: Service) -> None:
    """A worker that failed before another worker's success waits until the deadline when the next outage begins."""
    store = FaultyStore(pushes=False)
    policy = RefreshPolicy(deadline=20)
    first, second = (
        TokenManager(API_KEY, api=service, clock=clock, policy=policy, store=store.process()) for _ in range(2)
    )
    async with first, second:
        service.always = AuthConnectionError("made-up outage", sent=False)
        with pytest.raises(AuthConnectionError):
            await first.get_token()
        service.always = None
        await asyncio.sleep(31)
        await second.get_token()
        clock.asleep = 3600
        service.always = AuthConnectionError("made-up outage", sent=False, retry_after=5)
        waiting = asyncio.create_task(second.get_token())
        await asyncio.sleep(1)
        service.always = None
        assert await first.get_token() is not None
        await waiting
