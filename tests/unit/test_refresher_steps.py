"""The refresher by itself: what it makes of each outcome of a renewal, and when it looks at the record."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from attrs import define, evolve, field

from apivideo_auth import (
    AuthConnectionError,
    InvalidResponseError,
    ManagerClosedError,
    RateLimitedError,
    RefreshPolicy,
    Token,
    TokenRejectedError,
)
from apivideo_auth._failure import Failure
from apivideo_auth._record import NEVER, Backoff, Busy, RenewalRequest, SharedToken, Throttled
from apivideo_auth._refresher import Refresher
from apivideo_auth._renewal import Adopted, ClaimLapsed, Failed, RefreshRejected, Renewed
from apivideo_auth._state import State
from apivideo_auth.events import RefreshTokenRejected, RenewalFailed, TokenAdopted, TokenRenewed
from tests.support.doubles import LoopClock, pending_timers

pytestmark = pytest.mark.virtual_time

RENEWED = Renewed(
    access="made-up-access-1",
    lifetime=3600.0,
    lifetime_assumed=True,
    sent_at=0.0,
    seconds=0.25,
    endpoint="/auth/api-key",
    version="version-1",
)
NEXT = evolve(RENEWED, access="made-up-access-2", endpoint="/auth/refresh", version="version-2")
SHARED = SharedToken(version="version-9", access=b"made-up-shared", lifetime=3600.0, remaining=3000.0, committed_at=0.0)
LIMIT = Failure(kind="rate_limited", message="made-up limit", status=429)
BACKOFF = Backoff(retry_after=30.0, failure=LIMIT, failures=3, failing_for=7.0)
FAILED = Failed(endpoint="/auth/refresh", seconds=0.5, last_commit_at=NEVER, backoff=BACKOFF)


@define
class Script:
    """Stands in for a `Renewer` and its slot.

    - `outcomes`: of the next renewals: values, or exceptions to raise. `requests`: what was asked for.
    - `shared`: the token that the record holds; a look takes `look_takes` seconds after the record was read.
    - `renews`: makes a renewal instead.
    - `waits`: the timeouts of the waits for a change, which end at once if `ends_early`.
    """

    clock: LoopClock
    outcomes: deque[Any] = field(factory=deque)
    requests: list[RenewalRequest] = field(factory=list)
    latency: float = 0.0
    shared: SharedToken | None = None
    look_takes: float = 0.0
    looks: int = 0
    waits: list[float] = field(factory=list)
    ends_early: bool = False
    is_closed: bool = False
    renews: Callable[[RenewalRequest], Awaitable[Any]] | None = None

    @property
    def slot(self) -> "Script":
        return self

    async def renew(self, request: RenewalRequest) -> Any:
        self.requests.append(request)
        if self.renews is not None:
            return await self.renews(request)
        outcome = self.outcomes.popleft()
        sent_at = self.clock.monotonic()
        await asyncio.sleep(self.latency)
        if isinstance(outcome, BaseException):
            raise outcome
        return evolve(outcome, sent_at=sent_at) if isinstance(outcome, Renewed) else outcome

    async def read(self) -> SharedToken | None:
        self.looks += 1
        shared = self.shared
        await asyncio.sleep(self.look_takes)
        return shared

    async def changed(self, timeout: float) -> None:
        self.waits.append(timeout)
        await asyncio.sleep(0 if self.ends_early else timeout)

    async def close(self) -> None:
        self.is_closed = True


@define
class Bench:
    """A refresher on a scripted renewer, its state, and the events that it emitted."""

    clock: LoopClock
    script: Script
    state: State
    emitted: list[Any]
    refresher: Refresher

    async def get(self, rejected: Token | None = None, min_ttl: float | None = None) -> Token:
        return await self.refresher.get(rejected, min_ttl)

    def plan(self, *outcomes: Any) -> None:
        self.script.outcomes.extend(outcomes)


def make_bench(clock: LoopClock, *, is_shared: bool = True) -> Bench:
    script, emitted = Script(clock), []
    state = State(policy=RefreshPolicy())
    refresher = Refresher(state, clock=clock, open_renewer=lambda: script, emit=emitted.append, is_shared=is_shared)
    refresher._jitter = lambda: 0.0
    return Bench(clock, script, state, emitted, refresher)


@pytest.fixture
async def bench(clock: LoopClock) -> AsyncIterator[Bench]:
    made = make_bench(clock)
    yield made
    await made.refresher.close(timeout=0)
    assert made.script.is_closed


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


async def test_a_renewal_waits_for_anothers_claim(bench: Bench) -> None:
    """It waits for the rest of the lease, a millisecond at least, and then asks with the request of that moment."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.plan(Busy(retry_after=3.0), Busy(retry_after=0.0), NEXT)
    assert (await bench.get(rejected=token)).access_token == "made-up-access-2"
    assert bench.script.waits == [3.0, 0.001]
    first, second, third = bench.script.requests[1:]
    assert (first.remaining, second.remaining, third.remaining) == (3600.0, 3597.0, pytest.approx(3596.999))
    assert first.rejected
    assert first.may_be_throttled
    assert (second, third) == (evolve(first, remaining=second.remaining), evolve(first, remaining=third.remaining))


async def test_a_renewal_that_waits_ends_when_a_token_was_adopted(bench: Bench) -> None:
    """If the store pushes a token while the renewal waits for another worker, nothing more is claimed."""
    bench.plan(Busy(retry_after=3.0))
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    bench.refresher.on_commit(SHARED, bench.clock.monotonic())
    assert (await caller).access_token == "made-up-shared"
    await asyncio.sleep(10)
    assert len(bench.script.requests) == 1


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
    assert bench.script.looks == 1
    assert bench.state.failures == 0


async def test_a_private_record_is_not_looked_at(clock: LoopClock) -> None:
    """No other worker can have committed to it."""
    bench = make_bench(clock, is_shared=False)
    bench.plan(BACKOFF)
    with pytest.raises(RateLimitedError):
        await bench.get()
    assert bench.script.looks == 0
    await bench.refresher.close(timeout=0)


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


async def test_a_caller_waits_for_a_short_backoff(bench: Bench) -> None:
    """It waits for a change of the record until the backoff is over, looks, and renews."""
    short = evolve(BACKOFF, retry_after=5.0, failing_for=0.0)
    bench.plan(short, RENEWED)
    await bench.get()
    assert bench.script.waits == [5.0]
    assert bench.script.looks == 1
    assert bench.clock.monotonic() == pytest.approx(5.0, abs=0.01)


async def test_a_store_whose_waits_end_early_is_not_asked_without_end(bench: Bench) -> None:
    """Between two looks lie 0.05 seconds at least, and the wait ends with the backoff."""
    bench.script.ends_early = True
    bench.plan(evolve(BACKOFF, retry_after=1.0, failing_for=0.0), RENEWED)
    await bench.get()
    assert 19 <= bench.script.looks <= 22
    assert bench.clock.monotonic() == pytest.approx(1.0, abs=0.01)


async def test_a_stale_token_is_renewed_by_the_timer(bench: Bench) -> None:
    """At its moment, in the background, and once."""
    bench.refresher._jitter = lambda: 1.0
    bench.plan(RENEWED, NEXT)
    token = await bench.get()
    await asyncio.sleep(2699)
    assert len(bench.script.requests) == 1
    await asyncio.sleep(2)
    assert bench.emitted[-1].reason == "stale"
    assert len(bench.script.requests) == 2
    assert (await bench.get()) is not token
    assert len(pending_timers()) == 1


async def test_an_expired_token_is_renewed_by_callers_alone(bench: Bench) -> None:
    """If the machine slept through the end of the token, the timer calls nothing; the reason of the next is told."""
    bench.plan(RENEWED, NEXT)
    await bench.get()
    bench.clock.asleep = 3600
    await asyncio.sleep(120)
    assert len(bench.script.requests) == 1
    await bench.get()
    assert bench.emitted[-1].reason == "expired"


@pytest.mark.parametrize(("only_waits", "seconds"), [(True, 0.0), (False, 5.0)])
async def test_close_waits_for_a_call_and_not_for_others(clock: LoopClock, *, only_waits: bool, seconds: float) -> None:
    """A renewal that waits for another worker's claim is cancelled at once; one that may be in a call gets its time."""
    bench = make_bench(clock)
    bench.plan(*([Busy(retry_after=100.0)] if only_waits else [Busy(retry_after=1.0), RENEWED]))
    bench.script.latency = 0.0 if only_waits else 50.0
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(60)
    before = clock.monotonic()
    await bench.refresher.close(timeout=5)
    assert clock.monotonic() - before == seconds
    with pytest.raises(ManagerClosedError):
        await caller
    assert pending_timers() == []


async def test_close_does_not_wait_for_a_look(clock: LoopClock) -> None:
    """A look at the record brings nothing that close() would have to wait for; the next call does again."""
    bench = make_bench(clock)
    bench.plan(BACKOFF)
    with pytest.raises(RateLimitedError):
        await bench.get()
    bench.script.look_takes = 100.0
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    before = clock.monotonic()
    await bench.refresher.close(timeout=5)
    assert clock.monotonic() == before
    with pytest.raises((ManagerClosedError, AuthConnectionError)):
        await caller


async def test_close_waits_for_a_call_after_a_look(clock: LoopClock) -> None:
    """A renewal that follows a look at the record gets its time again."""
    bench = make_bench(clock)
    bench.plan(BACKOFF, RENEWED)
    with pytest.raises(RateLimitedError):
        await bench.get()
    bench.script.latency = 50.0
    await asyncio.sleep(30)
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    before = clock.monotonic()
    await bench.refresher.close(timeout=5)
    assert clock.monotonic() - before == 5.0
    with pytest.raises(ManagerClosedError):
        await caller


async def test_a_slow_look_brings_no_earlier_token_back(bench: Bench) -> None:
    """A look that began when the own token had expired does not replace a token that was adopted meanwhile, although
    the store's clock is behind and says that the own token is usable.
    """
    bench.plan(RENEWED)
    await bench.get()
    bench.clock.asleep = 3600
    bench.state.back_off(BACKOFF, bench.clock.monotonic())
    bench.script.shared = evolve(SHARED, version="version-1", access=b"made-up-access-1")
    bench.script.look_takes = 4.0
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    bench.refresher.on_commit(SHARED, bench.clock.monotonic())
    assert (await caller).access_token == "made-up-shared"
    await asyncio.sleep(10)
    assert bench.script.looks == 1
    assert (await bench.get()).access_token == "made-up-shared"


async def stale_and_waiting(bench: Bench) -> Token:
    """Let a token become stale, and its renewal wait for another worker for 100 seconds."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.plan(Busy(retry_after=100.0), NEXT)
    await asyncio.sleep(2890)
    await bench.get()
    await asyncio.sleep(1)
    assert bench.script.waits == [100.0]
    return token


async def test_a_rejected_caller_looks_while_the_renewal_waits(bench: Bench) -> None:
    """The record may have a token for it, although the renewal waits for another worker that renews for all."""
    token = await stale_and_waiting(bench)
    bench.script.shared = SHARED
    before = bench.clock.monotonic()
    assert (await bench.get(rejected=token)).access_token == "made-up-shared"
    assert (bench.clock.monotonic(), bench.script.looks) == (before, 1)


async def test_a_rejected_caller_waits_if_the_look_finds_nothing(bench: Bench) -> None:
    """It gets the token of the renewal that is under way."""
    token = await stale_and_waiting(bench)
    assert (await bench.get(rejected=token)).access_token == "made-up-access-2"
    assert bench.script.looks == 1
    assert len(bench.script.requests) == 3


async def test_a_rejected_caller_does_not_look_while_a_call_is_made(bench: Bench) -> None:
    """The token of the call is what it waits for."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.script.latency = 10.0
    bench.plan(NEXT)
    await asyncio.sleep(2890)
    await bench.get()
    await asyncio.sleep(1)
    assert (await bench.get(rejected=token)).access_token == "made-up-access-2"
    assert bench.script.looks == 0


async def test_a_stale_token_is_renewed_once_for_all_its_callers(bench: Bench) -> None:
    """While a renewal is under way, or its backoff lasts, callers are served and start nothing."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.script.latency = 1000.0
    bench.plan(FAILED)
    bench.clock.asleep = 2900
    assert [await bench.get() for _ in range(3)] == [token] * 3
    await asyncio.sleep(1)
    assert await bench.get() is token
    assert len(bench.script.requests) == 2
    bench.clock.asleep -= 1000
    await asyncio.sleep(1000)
    assert bench.state.backoff is not None
    assert await bench.get() is token
    assert len(bench.script.requests) == 2
    assert [event.reason for event in bench.emitted] == ["first", "stale"]


async def test_a_backoff_ends_with_a_token_of_another_worker(bench: Bench) -> None:
    """A caller that waits for a backoff to end looks at the record meanwhile, and adopts what it finds."""
    bench.plan(evolve(BACKOFF, retry_after=5.0, failing_for=0.0))
    bench.script.ends_early = True
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    bench.script.shared = SHARED
    assert (await caller).access_token == "made-up-shared"
    assert bench.clock.monotonic() == pytest.approx(1.0, abs=0.06)


async def test_a_backoff_is_waited_for_to_the_moment(bench: Bench) -> None:
    """Also by a caller whose token has expired, and with a store whose waits end early."""
    bench.plan(RENEWED)
    await bench.get()
    bench.clock.asleep = 3600
    bench.plan(evolve(BACKOFF, retry_after=1.02, failing_for=0.0), NEXT)
    bench.script.ends_early = True
    assert (await bench.get()).access_token == "made-up-access-2"
    assert bench.clock.monotonic() == pytest.approx(3601.02, abs=0.005)


async def test_close_does_not_wait_for_a_backoff(clock: LoopClock) -> None:
    """A caller that waits for a backoff to end makes no call, so close() cancels its wait at once."""
    bench = make_bench(clock)
    bench.plan(evolve(BACKOFF, retry_after=15.0, failing_for=0.0))
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    await bench.refresher.close(timeout=5)
    assert clock.monotonic() == 1.0
    with pytest.raises(ManagerClosedError):
        await caller


async def test_a_commit_that_is_pushed_to_a_closed_refresher_is_ignored(clock: LoopClock) -> None:
    """Nothing is counted and nothing is told."""
    bench = make_bench(clock)
    bench.plan(RENEWED)
    await bench.get()
    await bench.refresher.close(timeout=0)
    bench.refresher.on_commit(SHARED, clock.monotonic())
    assert (bench.state.generation, len(bench.emitted)) == (1, 1)
    unused = make_bench(clock)
    unused.refresher.on_commit(SHARED, clock.monotonic())
    assert unused.state.generation == 0


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


async def test_a_renewal_is_not_preceded_by_a_look(bench: Bench) -> None:
    """A rejected caller looks at the record if a backoff forbids calls, and afterwards claims without looking."""
    bench.plan(RENEWED)
    token = await bench.get()
    bench.state.back_off(BACKOFF, bench.clock.monotonic())
    with pytest.raises(RateLimitedError):
        await bench.get(rejected=token)
    await asyncio.sleep(30)
    bench.plan(NEXT)
    assert (await bench.get(rejected=token)).access_token == "made-up-access-2"
    assert bench.script.looks == 1


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


async def test_close_gives_a_call_as_long_as_it_is_told(clock: LoopClock) -> None:
    """A second is a second, and the cancelled call leaves nothing behind."""
    bench = make_bench(clock)
    bench.plan(RENEWED)
    bench.script.latency = 50.0
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    await bench.refresher.close(timeout=1)
    assert clock.monotonic() == 2.0
    with pytest.raises(ManagerClosedError):
        await caller
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_close_does_not_wait_for_ever(clock: LoopClock, caplog: pytest.LogCaptureFixture) -> None:
    """A renewal that ignores its cancellation is left alone after a while, and a warning says so."""
    bench = make_bench(clock)
    ended = asyncio.Event()

    async def renew(_request: RenewalRequest) -> Any:
        while not ended.is_set():
            with suppress(asyncio.CancelledError):
                await ended.wait()
        return RENEWED

    bench.refresher._open_renewer = lambda: evolve(bench.script, renews=renew)
    caller = asyncio.create_task(bench.get())
    await asyncio.sleep(1)
    with caplog.at_level(logging.WARNING, "apivideo_auth"):
        await bench.refresher.close(timeout=0)
    assert clock.monotonic() == pytest.approx(1 + 1.5)
    assert "a renewal ignores its cancellation" in caplog.text
    with pytest.raises(ManagerClosedError):
        await caller
    ended.set()
    await asyncio.sleep(1)
    await bench.refresher.close(timeout=5)
    assert len(caplog.records) == 1
