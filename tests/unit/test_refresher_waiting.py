"""What the refresher waits for: timers, backoffs, the claims of other workers, looks at the record, and close()."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import AuthConnectionError, ManagerClosedError, RateLimitedError, Token
from apivideo_auth._record import Busy, RenewalRequest
from tests.support.doubles import LoopClock, pending_timers
from tests.support.refresher_bench import BACKOFF, FAILED, NEXT, RENEWED, SHARED, Bench, make_bench

pytestmark = pytest.mark.virtual_time


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


async def test_a_private_record_is_not_looked_at(clock: LoopClock) -> None:
    """No other worker can have committed to it."""
    bench = make_bench(clock, is_shared=False)
    bench.plan(BACKOFF)
    with pytest.raises(RateLimitedError):
        await bench.get()
    assert bench.script.looks == 0
    await bench.refresher.close(timeout=0)


async def test_a_caller_waits_for_a_short_backoff(bench: Bench) -> None:
    """It waits for a change of the record until the backoff is over, looks, and renews."""
    short = evolve(BACKOFF, retry_after=5.0, failing_for=0.0)
    bench.plan(short, RENEWED)
    await bench.get()
    assert bench.script.waits == [5.0]
    assert bench.script.looks == 1
    assert bench.clock.monotonic() == pytest.approx(5.0, abs=0.01)


async def test_the_deadline_holds_although_the_backoff_is_over(bench: Bench) -> None:
    """A caller whose deadline is over gets the error of its renewal and causes no other one, although the event loop
    was so busy that the backoff has ended meanwhile. The next caller causes one.
    """
    bench.refresher._emit = lambda _event: setattr(bench.clock, "asleep", bench.clock.asleep + 60.0)
    bench.plan(FAILED, RENEWED)
    callers = [asyncio.create_task(bench.get()) for _ in range(3)]
    await asyncio.wait(callers)
    assert {type(caller.exception()) for caller in callers} == {RateLimitedError}
    assert len(bench.script.requests) == 1
    assert (await bench.get()).access_token == RENEWED.access


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
