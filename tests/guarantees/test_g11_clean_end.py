"""G11: closing refuses every caller, and leaves nothing behind."""

import asyncio
import gc

import pytest

from apivideo_auth import AuthConnectionError, ManagerClosedError, MemoryStore, TokenManager
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service


@pytest.mark.virtual_time
async def test_g11_a_cached_token_is_not_served_after_close(clock: LoopClock, service: Service) -> None:
    """After close() get_token raises ManagerClosedError, also with a fresh token at hand; so does session()."""
    tokens = TokenManager(API_KEY, api=service, clock=clock)
    await tokens.get_token()
    await tokens.close()
    with pytest.raises(ManagerClosedError):
        await tokens.get_token()
    with pytest.raises(ManagerClosedError):
        tokens.session()
    with pytest.raises(ManagerClosedError):
        async with tokens:
            pass
    assert tokens.status().phase == "closed"


@pytest.mark.virtual_time
@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["private", "shared"])
async def test_g11_waiting_callers_are_refused_at_once(
    clock: LoopClock, service: Service, store: MemoryStore | None
) -> None:
    """Callers that wait for a renewal get ManagerClosedError when close() is called, not when it has ended."""
    service.latency = 3.0
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    callers = [asyncio.create_task(tokens.get_token()) for _ in range(3)]
    await asyncio.sleep(1)
    before = clock.monotonic()
    closing = asyncio.create_task(tokens.close())
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert clock.monotonic() == before
    assert {type(result) for result in results} == {ManagerClosedError}
    await closing


@pytest.mark.virtual_time
async def test_g11_callers_in_a_pause_are_refused_at_once(clock: LoopClock, service: Service) -> None:
    """Callers that wait out a pause between two tries get ManagerClosedError when close() is called."""
    service.always = AuthConnectionError("made-up outage", sent=False, retry_after=15)
    tokens = TokenManager(API_KEY, api=service, clock=clock)
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    await tokens.close()
    with pytest.raises(ManagerClosedError):
        await caller


@pytest.mark.virtual_time
async def test_g11_a_renewal_in_flight_lands_in_a_shared_store(clock: LoopClock, service: Service) -> None:
    """close() lets a renewal commit to a store that was passed, so that the refresh token is not lost."""
    service.latency = 3.0
    store = MemoryStore()
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    await tokens.close()
    assert isinstance(caller.exception(), ManagerClosedError)
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as other:
        await other.get_token()
    assert len(service.calls) == 1


@pytest.mark.virtual_time
async def test_g11_close_does_not_wait_longer_than_its_timeout(clock: LoopClock, service: Service) -> None:
    """A renewal that does not land within close_timeout is cancelled, and its claim given up."""
    service.gate = asyncio.Event()
    store = MemoryStore()
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    before = clock.monotonic()
    await tokens.close()
    assert clock.monotonic() - before == pytest.approx(5.0)
    assert isinstance(caller.exception(), ManagerClosedError)
    service.gate = None
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as other:
        await other.get_token()
    assert clock.monotonic() - before == pytest.approx(5.0)


@pytest.mark.virtual_time
async def test_g11_with_the_private_store_a_renewal_is_cancelled(clock: LoopClock, service: Service) -> None:
    """Nobody could use what a renewal brings to a private store, so close() does not wait for it."""
    service.gate = asyncio.Event()
    tokens = TokenManager(API_KEY, api=service, clock=clock)
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    before = clock.monotonic()
    await tokens.close()
    assert clock.monotonic() == before
    assert isinstance(caller.exception(), ManagerClosedError)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.virtual_time
async def test_g11_cancelling_close_skips_the_waiting_not_the_cleaning(clock: LoopClock, service: Service) -> None:
    """A cancelled close() still leaves no task, and close() can be called again."""
    service.gate = asyncio.Event()
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=MemoryStore())
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    closing = asyncio.create_task(tokens.close())
    await asyncio.sleep(1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert isinstance(caller.exception(), ManagerClosedError)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await tokens.close()


@pytest.mark.virtual_time
async def test_g11_close_is_idempotent(clock: LoopClock, service: Service) -> None:
    """Closing twice, at the same time or later, and closing what was never used, is closing once."""
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=MemoryStore())
    service.latency = 2.0
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    await asyncio.gather(tokens.close(), tokens.close(), tokens.close())
    await tokens.close()
    assert isinstance(caller.exception(), ManagerClosedError)
    await TokenManager(API_KEY, api=service, clock=clock).close()


@pytest.mark.virtual_time
async def test_g11_no_timer_is_left(clock: LoopClock, service: Service) -> None:
    """After close() the event loop has no timer of the manager any more."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
    await asyncio.sleep(86_400)
    assert len(service.calls) == 1


def test_g11_another_event_loop_is_one_clear_error() -> None:
    """Whatever has to do work in another event loop than the first raises one RuntimeError that says so."""

    async def use() -> TokenManager:
        tokens = TokenManager(API_KEY, api=Service(LoopClock()))
        await tokens.get_token()
        return tokens

    async def misuse(tokens: TokenManager) -> None:
        for work in (lambda: tokens.get_token(min_ttl=1), tokens.close, tokens.__aenter__):
            with pytest.raises(RuntimeError, match="another event loop"):
                await work()
        with pytest.raises(RuntimeError, match="another event loop"):
            tokens.session()

    tokens = asyncio.run(use())
    asyncio.run(misuse(tokens))


def test_g11_a_manager_may_be_made_before_a_loop_runs() -> None:
    """Construction needs no running loop; nothing is left after asyncio.run, and nothing warns."""
    tokens = TokenManager(API_KEY)

    async def main() -> None:
        async with tokens, tokens.session():
            pass

    asyncio.run(main(), debug=True)
    gc.collect()
