"""What the refresher makes of each outcome of a renewal: the token that it serves, its state, and the events."""

import asyncio
import logging
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import InvalidResponseError, RateLimitedError, TokenRejectedError
from apivideo_auth._record import Busy, RenewalRequest, Throttled
from apivideo_auth._renewal import Adopted, ClaimLapsed, RefreshRejected
from apivideo_auth.events import RefreshTokenRejected, RenewalFailed, TokenAdopted, TokenRenewed
from tests.support.refresher_bench import BACKOFF, FAILED, LIMIT, NEXT, RENEWED, SHARED, Bench

pytestmark = pytest.mark.virtual_time


async def test_a_renewed_token_is_served_and_told(bench: Bench) -> None:
    """Its life counts from when it was asked for, and the event says all about it."""
    bench.script.latency = 2.0
    bench.plan(RENEWED)
    token = await bench.get()
    assert (token.access_token, token.generation, token.remaining()) == ("made-up-access-1", 1, 3598.0)
    assert bench.state.renewals == 1
    assert bench.state.best_ttl == 3598.0
    assert bench.script.requests == [RenewalRequest(policy=bench.state.policy)]
    assert bench.emitted == [
        TokenRenewed(
            endpoint="/auth/api-key",
            reason="first",
            seconds=0.25,
            generation=1,
            expires_at=token.expires_at,
            lifetime=3600.0,
            lifetime_assumed=True,
        )
    ]
    assert token.expires_at.timestamp() == pytest.approx(bench.clock.utc() + 3598)


async def test_an_adopted_token_counts_from_the_question(bench: Bench) -> None:
    """Its life is that of the record at the moment when the store was asked."""
    bench.plan(Adopted(token=SHARED, asked_at=bench.clock.monotonic() - 5))
    token = await bench.get()
    assert (token.access_token, token.generation, token.remaining()) == ("made-up-shared", 1, 2995.0)
    assert bench.state.renewals == 0
    assert bench.emitted == [TokenAdopted(generation=1, expires_at=token.expires_at, remaining=3000.0)]
    assert bench.state.phase(bench.clock.monotonic() + 2279) == "stale"


async def test_a_token_that_is_found_by_a_look_counts_from_the_question(bench: Bench) -> None:
    """A look that takes long does not lengthen the life of the token that it finds."""
    bench.plan(RENEWED)
    old = await bench.get()
    bench.state.back_off(BACKOFF, bench.clock.monotonic())
    bench.script.shared, bench.script.look_takes = SHARED, 4.0
    token = await bench.get(rejected=old)
    assert (token.access_token, token.remaining()) == ("made-up-shared", 2996.0)
    assert bench.script.looks == 1


async def test_a_token_that_is_pushed_counts_from_the_question(bench: Bench) -> None:
    """The store says when it was asked for the token that another worker has committed."""
    bench.plan(RENEWED)
    await bench.get()
    longer = evolve(SHARED, remaining=3601.0, lifetime=7200.0)
    await asyncio.sleep(10)
    bench.refresher.on_commit(longer, bench.clock.monotonic() - 5)
    token = await bench.get()
    assert (token.access_token, token.remaining()) == ("made-up-shared", 3596.0)


async def test_a_version_that_is_known_is_not_adopted_again(bench: Bench) -> None:
    """Whether it is pushed, found by a look or answered to a claim: the token that is served stays."""
    bench.plan(RENEWED)
    token = await bench.get()
    same = evolve(SHARED, version="version-1", access=b"made-up-access-1b", remaining=3600.0)
    await asyncio.sleep(10)
    bench.state.back_off(BACKOFF, bench.clock.monotonic())
    backoff = bench.state.backoff
    bench.refresher.on_commit(same, bench.clock.monotonic())
    assert bench.state.backoff is backoff
    bench.script.shared = same
    with pytest.raises(RateLimitedError):
        await bench.get(rejected=token)
    assert bench.script.looks == 1
    bench.state.clear_backoff()
    bench.plan(Adopted(token=same, asked_at=bench.clock.monotonic()), NEXT)
    await bench.get(min_ttl=3000)
    assert await bench.get() is token
    assert [type(event) for event in bench.emitted] == [TokenRenewed]


async def test_anothers_success_ends_the_backoff(bench: Bench) -> None:
    """A token that another worker commits shows that the endpoints work, even if it is not adopted."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.state.back_off(BACKOFF, bench.clock.monotonic())
    bench.refresher.on_commit(evolve(SHARED, remaining=1.0), bench.clock.monotonic())
    assert (bench.state.backoff, bench.state.last_error) == (None, None)
    assert await bench.get() is token


@pytest.mark.parametrize("outcome", [RefreshRejected(failure=LIMIT), ClaimLapsed()], ids=["rejected", "lapsed"])
async def test_a_renewal_goes_on_without_a_second_permission(bench: Bench, outcome: Any) -> None:
    """After a rejected refresh token or a late claim the same renewal claims again, and cannot be throttled."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.plan(outcome, NEXT)
    assert (await bench.get(rejected=token)).access_token == "made-up-access-2"
    _, first, second = bench.script.requests
    assert first.may_be_throttled
    assert second == evolve(first, may_be_throttled=False)
    assert [event for event in bench.emitted if isinstance(event, RefreshTokenRejected)] == (
        [RefreshTokenRejected(cause="made-up limit")] if isinstance(outcome, RefreshRejected) else []
    )


async def test_a_renewal_that_outlives_its_token_cannot_be_throttled(bench: Bench) -> None:
    """While it waits for another worker the token may expire; the next claim is one of a worker without a token."""
    bench.plan(evolve(RENEWED, lifetime=20.0))
    token = await bench.get()
    bench.plan(Busy(retry_after=19.9), evolve(NEXT, lifetime=20.0))
    await bench.get(rejected=token)
    assert bench.script.requests[1].may_be_throttled
    assert bench.script.requests[2] == RenewalRequest(policy=bench.state.policy, version="version-1")


async def test_eight_claims_are_the_most_of_one_renewal(bench: Bench) -> None:
    """Then it is a failure of its own, whose backoff is one lease."""
    bench.plan(*[Busy(retry_after=1.0)] * 8)
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(8.5)
    assert len(bench.script.requests) == 8
    backoff = bench.state.backoff
    assert backoff is not None
    assert (backoff.failures, backoff.failing_since, backoff.not_before) == (1, 8.0, 8.0 + 15.0)
    assert "other workers held the claim" in backoff.failure.message
    bench.plan(RENEWED)
    await caller
    assert bench.clock.monotonic() == pytest.approx(23.0, abs=0.1)


async def test_three_renewals_are_the_most_for_one_caller(bench: Bench) -> None:
    """A caller that gets no suitable token, because the program is blocked again and again, is told so."""
    bench.plan(*(evolve(RENEWED, access=f"made-up-{n}", version=f"made-up-{n}") for n in range(9)))

    def block(event: object) -> None:
        bench.emitted.append(event)
        bench.clock.asleep += 700

    bench.refresher._emit = block
    with pytest.raises(InvalidResponseError, match=r"min_ttl left: the endpoint is too slow$") as caught:
        await bench.get(min_ttl=3000)
    assert len(bench.script.requests) == 1 + 3
    assert caught.value.retry_after == 1.0
    assert [event.reason for event in bench.emitted] == ["first", "min_ttl", "min_ttl", "min_ttl"]


async def test_min_ttl_is_measured_to_the_end_of_the_token(bench: Bench) -> None:
    """Not to the moment when it counts as expired; exactly enough life is enough."""
    bench.plan(RENEWED)
    token = await bench.get()
    await asyncio.sleep(600)
    assert await bench.get(min_ttl=3000) is token
    bench.plan(NEXT)
    assert (await bench.get(min_ttl=3000.5)).access_token == "made-up-access-2"
    assert bench.script.requests[1] == RenewalRequest(
        policy=bench.state.policy, version="version-1", access="made-up-access-1", remaining=3000.0
    )


async def test_a_failed_renewal_is_remembered_and_told(bench: Bench) -> None:
    """The event says what happened and what comes next; the caller gets the failure and the rest of the backoff."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.plan(FAILED)
    with pytest.raises(RateLimitedError) as caught:
        await bench.get(rejected=token)
    assert caught.value.retry_after == 30.0
    assert bench.emitted[1:] == [
        RenewalFailed(
            endpoint="/auth/refresh",
            error_class="RateLimitedError",
            cause="made-up limit",
            failures=3,
            still_serving=True,
            next_try_in=30.0,
            reason="rejected",
            seconds=0.5,
        )
    ]
    backoff = bench.state.backoff
    assert backoff is not None
    assert (backoff.not_before, backoff.failing_since, backoff.failures) == (30.0, -7.0, 3)
    assert (bench.state.failures, bench.state.last_error) == (1, "made-up limit")
    await asyncio.sleep(10)
    with pytest.raises(RateLimitedError) as caught:
        await bench.get(rejected=token)
    assert caught.value.retry_after == 20.0


async def test_a_backoff_of_the_record_is_kept_and_not_told(bench: Bench) -> None:
    """Another worker's failure is no event of this one; a caller without a token fails with it."""
    bench.plan(BACKOFF)
    with pytest.raises(RateLimitedError) as caught:
        await bench.get()
    assert caught.value.retry_after == 30.0
    assert bench.emitted == []
    assert bench.script.looks == 0
    assert bench.state.failures == 0


async def test_a_throttled_renewal_says_when_to_come_back(bench: Bench) -> None:
    """The caller gets the seconds, with a token or without one."""
    bench.plan(Throttled(retry_after=7.0))
    with pytest.raises(TokenRejectedError, match=r"try again in 7\.0 seconds") as caught:
        await bench.get()
    assert caught.value.retry_after == 7.0
    bench.plan(RENEWED, Throttled(retry_after=8.0), Throttled(retry_after=9.0))
    token = await bench.get()
    with pytest.raises(TokenRejectedError) as caught:
        await bench.get(rejected=token)
    assert caught.value.retry_after == 8.0
    await asyncio.sleep(700)
    with pytest.raises(InvalidResponseError, match="the endpoint is too slow") as slow:
        await bench.get(min_ttl=3000)
    assert slow.value.retry_after == 9.0


async def test_a_renewal_that_breaks_is_backed_off(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Each unexpected exception counts as one failure more, is logged, and gives its callers an error."""
    bench.refresher._jitter = lambda: 1.0
    bench.plan(KeyError("made-up"), KeyError("made-up"), RENEWED)
    with caplog.at_level(logging.WARNING, "apivideo_auth"):
        await bench.get()
    assert bench.clock.monotonic() == pytest.approx(0.5 + 1.0, abs=0.1)
    assert [request.failures for request in bench.script.requests] == [0, 1, 2]
    assert "KeyError" in caplog.text


async def test_renewals_and_failures_are_counted(bench: Bench) -> None:
    """Each token has the next generation, and its life does not depend on the wall clock."""
    for number in range(1, 4):
        bench.plan(evolve(RENEWED, access=f"made-up-{number}", version=f"made-up-{number}"))
        token = await bench.get(min_ttl=3000)
        assert (token.generation, bench.state.renewals) == (number, number)
        bench.clock.wall_jump += 1000.0
        assert token.remaining() == 3600.0
        bench.plan(evolve(FAILED, last_commit_at=50.0, backoff=evolve(BACKOFF, retry_after=0.5)))
        with pytest.raises(RateLimitedError) as caught:
            await bench.get(rejected=token)
        assert (bench.state.failures, caught.value.retry_after) == (number, 0.5)
        assert bench.state.backoff is not None
        assert bench.state.backoff.last_commit_at == 50.0
        await asyncio.sleep(1000)


async def test_a_min_ttl_beyond_a_lifetime_says_how_long_tokens_live(bench: Bench) -> None:
    """The message names the lifetime and the most that can be asked for, and no renewal is made for it."""
    bench.plan(RENEWED)
    expected = "tokens live for 3600 seconds, and min_ttl is at most 90 % of that, 3240 seconds"
    with pytest.raises(ValueError, match=expected):
        await bench.get(min_ttl=3240.5)
    assert (await bench.get(min_ttl=3240)).generation == 1
    assert len(bench.script.requests) == 1


async def test_rejections_are_counted(bench: Bench) -> None:
    """Each call that names a rejected token counts, whether it is the current one or not."""
    bench.plan(RENEWED, NEXT)
    token = await bench.get()
    assert bench.state.rejections == 0
    await bench.get(rejected=token)
    await bench.get(rejected=token)
    assert bench.state.rejections == 2


async def test_a_min_ttl_that_no_new_token_meets_can_be_throttled(bench: Bench) -> None:
    """A renewal that may help nobody needs the throttle's permission; one that helps does not."""
    bench.script.latency = 400.0
    bench.plan(RENEWED, NEXT, Throttled(retry_after=5.0))
    await bench.get()
    await asyncio.sleep(500)
    await bench.get(min_ttl=3100)
    with pytest.raises(InvalidResponseError):
        await bench.get(min_ttl=3201)
    assert [request.may_be_throttled for request in bench.script.requests] == [False, False, True]
