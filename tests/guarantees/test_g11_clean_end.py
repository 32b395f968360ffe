"""G11: closing ends every caller's wait with an error, and leaves nothing behind."""

import asyncio
import gc

import pytest
from aiohttp import web

from apivideo_auth import AuthConnectionError, ManagerClosedError, MemoryStore, TokenManager
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service, pending_timers
from tests.support.faulty_store import FaultyStore
from tests.support.loopback import serving


@pytest.mark.virtual_time
async def test_g11_a_cached_token_is_not_served_after_close(clock: LoopClock, service: Service) -> None:
    """After close() get_token raises ManagerClosedError, even if the token is still fresh; so does session()."""
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
async def test_g11_waiting_callers_end_at_once(clock: LoopClock, service: Service, store: MemoryStore | None) -> None:
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
async def test_g11_callers_that_wait_out_a_backoff_end_at_once(clock: LoopClock, service: Service) -> None:
    """Callers that wait out a backoff between two tries get ManagerClosedError when close() is called."""
    service.always = AuthConnectionError("made-up outage", sent=False, retry_after=15)
    tokens = TokenManager(API_KEY, api=service, clock=clock)
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    await tokens.close()
    with pytest.raises(ManagerClosedError):
        await caller


@pytest.mark.virtual_time
async def test_g11_a_renewal_in_flight_commits_to_a_shared_store(clock: LoopClock, service: Service) -> None:
    """close() lets a renewal commit to a store that was passed in, so that the refresh token is not lost."""
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
    """A renewal that has not ended within close_timeout is cancelled, and its claim released."""
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
    """A token in the private store is of no use after close(), so close() does not wait for the renewal."""
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
async def test_g11_cancelling_close_skips_the_waiting_not_the_cleanup(clock: LoopClock, service: Service) -> None:
    """A cancelled close() leaves no task and no timer, and close() can be called again."""
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
    assert pending_timers() == []
    await tokens.close()


@pytest.mark.virtual_time
async def test_g11_close_is_idempotent(clock: LoopClock, service: Service) -> None:
    """close() may be called twice, at the same time or later, and on a manager that was never used."""
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=MemoryStore())
    service.latency = 2.0
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    await asyncio.gather(tokens.close(), tokens.close(), tokens.close())
    await tokens.close()
    assert isinstance(caller.exception(), ManagerClosedError)
    await TokenManager(API_KEY, api=service, clock=clock).close()


@pytest.mark.virtual_time
@pytest.mark.parametrize("store", [None, MemoryStore(), FaultyStore()], ids=["private", "shared", "down"])
async def test_g11_no_timer_is_left(
    clock: LoopClock, service: Service, store: MemoryStore | FaultyStore | None
) -> None:
    """When close() returns, the event loop has no timer of the manager."""
    if isinstance(store, FaultyStore):
        store.fault = "down"
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    await tokens.get_token()
    assert pending_timers()
    await tokens.close()
    assert pending_timers() == []


@pytest.mark.virtual_time
async def test_g11_no_timer_is_left_by_a_cancelled_close(clock: LoopClock, service: Service) -> None:
    """A close() that is cancelled while it waits for a renewal leaves no timer."""
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=MemoryStore())
    await tokens.get_token()
    service.gate = asyncio.Event()
    clock.asleep = 3000
    assert (await tokens.get_token()).generation == 1
    await asyncio.sleep(0.1)
    assert len(service.calls) == 2
    closing = asyncio.create_task(tokens.close())
    await asyncio.sleep(0.1)
    closing.cancel()
    await asyncio.wait({closing})
    assert pending_timers() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_g11_another_event_loop_is_one_clear_error() -> None:
    """Every use that needs work raises the same RuntimeError in another event loop while the first one is open."""

    async def use() -> TokenManager:
        tokens = TokenManager(API_KEY, api=Service(LoopClock()))
        await tokens.get_token()
        return tokens

    async def misuse(tokens: TokenManager) -> None:
        for work in (lambda: tokens.get_token(min_ttl=3000), tokens.close, tokens.__aenter__):
            with pytest.raises(RuntimeError, match="another event loop"):
                await work()
        with pytest.raises(RuntimeError, match="another event loop"):
            tokens.session()

    loop = asyncio.new_event_loop()
    try:
        tokens = loop.run_until_complete(use())
        asyncio.run(misuse(tokens))
        loop.run_until_complete(tokens.close())
    finally:
        loop.close()


def test_g11_a_manager_may_be_made_before_a_loop_runs() -> None:
    """Construction needs no running loop; asyncio.run leaves nothing behind, and no warning."""
    tokens = TokenManager(API_KEY)

    async def main() -> None:
        async with tokens, tokens.session():
            pass

    asyncio.run(main(), debug=True)
    gc.collect()


async def test_g11_the_managers_own_api_stays_open_for_the_renewal_in_flight() -> None:
    """close() lets a call of the manager's own api end, and its token be committed, before it closes that api."""
    calls: list[str] = []
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        calls.append(request.path)
        arrived.set()
        await answer.wait()
        return web.json_response({"access_token": "made-up-access", "refresh_token": "made-up-refresh"})

    store = MemoryStore()
    async with serving(handle) as url:
        tokens = TokenManager(API_KEY, base_url=url, store=store)
        caller = asyncio.create_task(tokens.get_token())
        await arrived.wait()
        closing = asyncio.create_task(tokens.close())
        with pytest.raises(ManagerClosedError):
            await caller
        answer.set()
        await closing
        async with TokenManager(API_KEY, base_url=url, store=store) as other:
            assert (await other.get_token()).access_token == "made-up-access"
    assert calls == ["/auth/api-key"]
