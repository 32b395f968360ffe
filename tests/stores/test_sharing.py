"""Which managers share an account, and what is kept of it between them."""

import asyncio
import gc
import threading
from contextlib import suppress
from typing import Any

import pytest

from apivideo_auth import TokenManager, events
from apivideo_auth._record import Busy, Granted
from apivideo_auth.stores import _failover
from apivideo_auth.stores._failover import open_failover_slot
from tests.conftest import API_KEY
from tests.stores.account_events import claimed, committed
from tests.support.doubles import ManualClock, Service
from tests.support.faulty_store import FaultyStore

BASE_URL = "https://ws.api.video"


@pytest.fixture
def manual() -> ManualClock:
    """A clock that stands still until a test moves it."""
    return ManualClock()


async def test_two_threads_open_an_account_at_the_same_time(manual: ManualClock, monkeypatch) -> None:
    """Each event loop gets an account of its own, shared within the loop, and never two threads change the registry."""
    store, inside, most = FaultyStore(), 0, 0
    met = threading.Barrier(2)
    lock = threading.Lock()
    make = _failover.FailoverAccount

    def make_slowly(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        # Nobody else comes, because the registry is locked.
        with suppress(threading.BrokenBarrierError):
            met.wait(0.2)
        account = make(*args, **kwargs)
        with lock:
            inside -= 1
        return account

    monkeypatch.setattr(_failover, "FailoverAccount", make_slowly)

    async def use() -> tuple[Any, Any]:
        slots = [
            open_failover_slot(
                store,
                base_url=BASE_URL,
                api_key=API_KEY,
                clock=manual,
                emit=lambda _event: None,
                on_commit=lambda _token, _asked_at: None,
                previous=None,
            )
            for _ in range(2)
        ]
        for slot in slots:
            await slot.read()
        for slot in slots:
            await slot.close()
        return slots[0].account, slots[1].account

    pairs = await asyncio.gather(*(asyncio.to_thread(asyncio.run, use()) for _ in range(2)))
    assert most == 1
    assert all(first is second for first, second in pairs)
    assert pairs[0][0] is not pairs[1][0]


def test_a_manager_keeps_its_private_token_if_another_one_was_faster() -> None:
    """If another manager has opened the account in the next event loop, a private token is kept all the same."""
    manual, store = ManualClock(), FaultyStore()
    service = Service(manual)
    tokens, other = (TokenManager(API_KEY, api=service, clock=manual, store=store) for _ in range(2))
    store.fault = "down"
    asyncio.run(tokens.get_token())
    manual.now += 3590

    async def go_on() -> None:
        async with other, tokens:
            account = tokens._failover_slot.account
            assert account is other._failover_slot.account
            await tokens.get_token()

    asyncio.run(go_on())
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]


def test_managers_that_move_to_another_event_loop_keep_their_token() -> None:
    """Managers that shared a private token in a closed event loop share it in the next one, whoever comes first."""
    manual, store = ManualClock(), FaultyStore()
    service = Service(manual)
    managers = [TokenManager(API_KEY, api=service, clock=manual, store=store) for _ in range(3)]
    store.fault = "down"

    async def use() -> None:
        for manager in managers:
            await manager.get_token()

    asyncio.run(use())
    manual.now += 3590

    async def go_on() -> None:
        async with managers[2], managers[1], managers[0]:
            await use()

    asyncio.run(go_on())
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]


async def test_managers_with_different_clocks_do_not_share(opened) -> None:
    """The moments of an account are on one clock."""
    store, clock = FaultyStore(), ManualClock()
    slots = [opened(store, clock), opened(store, clock), opened(store, ManualClock())]
    assert slots[0].account is slots[1].account
    assert slots[0].account is not slots[2].account
    assert len({slot.account.limiter for slot in slots}) == 1


async def test_a_store_that_cannot_be_a_key_is_used_all_the_same(opened, manual: ManualClock) -> None:
    """If a store of the user has no hash, its managers meet in the store only."""

    class WithoutHash(FaultyStore):
        def __eq__(self, other: object) -> bool:
            return self is other

        __hash__ = None

    store = WithoutHash()
    first, second = opened(store, manual), opened(store, manual)
    assert isinstance(await first.claim(claimed("one")), Granted)
    assert isinstance(await second.claim(claimed("two")), Busy)
    assert store.operations == ["claim", "claim"]


async def test_what_is_remembered_is_kept_as_long_as_it_matters(opened, manual: ManualClock) -> None:
    """An account in an outage is kept for its next manager until the store is back, whatever other accounts do."""
    store, emitted = FaultyStore(), []
    store.fault = "down"
    for name in ("one", "other"):
        slot = opened(store, manual, api_key=f"{API_KEY}-{name}")
        await slot.claim(claimed(name))
        await slot.commit(committed(name))
        await slot.close()
    del slot
    gc.collect()
    store.fault = None
    manual.now += 60
    one = opened(store, manual, api_key=f"{API_KEY}-one", emitted=emitted)
    await one.read()
    await one.close()
    assert [type(event) for event in emitted] == [events.StoreRecovered]
    assert len(_failover._kept_of[store]) == 1
    other = opened(store, manual, api_key=f"{API_KEY}-other", emitted=emitted)
    await other.read()
    await other.close()
    assert [type(event) for event in emitted] == [events.StoreRecovered] * 2
    assert _failover._kept_of[store] == set()
