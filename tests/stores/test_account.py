"""One account in a store that fails: what is remembered, what is sent again, when events are emitted, who shares it."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import TokenManager, events
from apivideo_auth._record import Granted, Record, Release
from apivideo_auth.stores import FileStore, RedisStore, _failover
from apivideo_auth.stores._failover import FailoverSlot, open_failover_slot
from tests.conftest import API_KEY
from tests.stores.account_events import claimed, committed
from tests.stores.redis_workers import Answering
from tests.support.doubles import LoopClock, ManualClock, Service, pending_timers
from tests.support.faulty_store import FaultyStore

BASE_URL = "https://ws.api.video"


@pytest.fixture
def manual() -> ManualClock:
    """A clock that stands still until a test moves it."""
    return ManualClock()


@pytest.fixture
def opened(opened: Callable[..., FailoverSlot], manual: ManualClock) -> Callable[..., FailoverSlot]:
    """Open slots of an account with that clock; they are closed after the test."""

    def open_one(store: Any, emitted: list[events.Event] | None = None, api_key: str = API_KEY) -> FailoverSlot:
        return opened(store, manual, emitted=emitted, api_key=api_key)

    return open_one


# Events.


@pytest.mark.virtual_time
@pytest.mark.parametrize("operation", ["claim", "commit", "read"])
async def test_events_are_emitted_outside_the_lock(clock: LoopClock, service: Service, operation: str) -> None:
    """An outage and its end are emitted after the operation has released the account, so that a handler may use it."""
    store, seen = FaultyStore(), []
    store.before = lambda name: setattr(store, "fault", "down" if name == operation else None)

    def on_event(event: events.Event) -> None:
        if isinstance(event, events.StoreDegraded | events.StoreRecovered):
            seen.append((type(event), slot.account._lock.locked()))

    async with TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=on_event) as tokens:
        slot = tokens._failover_slot
        if operation == "read":
            await slot.read()
        await tokens.get_token()
        store.before = lambda _name: setattr(store, "fault", None)
        await asyncio.sleep(60)
    assert seen == [(events.StoreDegraded, False), (events.StoreRecovered, False)]


async def test_a_damaged_record_is_reported_outside_the_lock(opened, tmp_path) -> None:
    """A record that cannot be read is reported when the operation that found it has released the account."""
    store, locked = FileStore(tmp_path), []
    tmp_path.chmod(0o700)
    slot = opened(store)
    slot.emit = lambda _event: locked.append(slot.account._lock.locked())
    file = tmp_path / f"{_failover.account_name(BASE_URL, API_KEY)}.json"
    file.touch(0o600)
    file.write_text("damaged")
    await slot.claim(claimed("one"))
    await slot.commit(committed("one"))
    assert locked == [False, False]


# What is sent again, and what is remembered.


async def test_forgetting_the_record_ends_an_outage_of_writes(opened) -> None:
    """Deleting the record is a write: if it works after a failed write, the next claim goes to the store at once."""
    store, emitted = FaultyStore(), []
    slot = opened(store, emitted)
    await slot.claim(claimed("one"))
    store.fault = "down"
    await slot.commit(committed("one"))
    store.fault = None
    await slot.forget()
    assert [type(event) for event in emitted] == [events.StoreDegraded, events.StoreRecovered]
    assert isinstance(await slot.claim(claimed("two")), Granted)
    assert store.record.claim_id == "two"


async def test_forgetting_that_fails_is_an_outage_of_writes(opened) -> None:
    """If the record cannot be deleted, the store is not asked to write before its backoff is over."""
    store, emitted = FaultyStore(), []
    slot = opened(store, emitted)
    store.fault = "down"
    await slot.forget()
    assert [type(event) for event in emitted] == [events.StoreDegraded]
    await slot.claim(claimed("one"))
    assert store.operations == ["forget"]


async def test_a_claim_that_is_sent_again_is_not_throttled_twice(opened, manual: ManualClock) -> None:
    """A claim because of a 401 that the store never got counts once: privately, and not in the store too."""
    store = FaultyStore()
    slot = opened(store)
    await slot.claim(claimed("one"))
    await slot.commit(committed("one"))
    manual.now += 10
    store.fault = "down"
    assert isinstance(await slot.claim(claimed("two", "one", throttled=True)), Granted)
    await slot.release(Release(id="two"))
    store.fault = None
    manual.now += 1
    answer = await slot.claim(claimed("three", "one", throttled=True))
    assert isinstance(answer, Granted)
    assert answer.refresh == b"made-up-refresh-one"
    assert store.record.throttle == 1


def older(store: FaultyStore) -> Record:
    """Return a record of the store that is a second older, with a refresh token that nobody has sent."""
    record = store.record
    return evolve(
        record, version="older", committed_at=record.committed_at - 1, refresh=b"made-up-older", claim_id=None
    )


@pytest.mark.parametrize("how", ["sent again", "offered"])
async def test_a_commit_that_was_not_answered_at_first_is_the_newest_one(opened, manual, how: str) -> None:
    """The refresh token of a record before a commit that was sent again, or offered, is not used."""
    store = FaultyStore()
    slot = opened(store)
    if how == "offered":
        store.fault = "down"
    assert isinstance(await slot.claim(claimed("one")), Granted)
    store.fault = "lost" if how == "sent again" else "down"
    await slot.commit(committed("one"))
    store.fault = None
    manual.now += 2
    restored = []

    def restore(operation: str) -> None:
        if operation == "claim" and store.record.version == "one" and not restored:
            store.record = older(store)
            restored.append(operation)

    if how == "offered":
        await slot.read()
        assert store.record.version == "one"
    store.before = restore
    manual.now += 2
    answer = await slot.claim(claimed("two", "older"))
    assert isinstance(answer, Granted)
    assert restored == ["claim"]
    assert answer.refresh is None


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


# Tokens that cannot be tokens.


BAD = [b"\xff\xfe made-up", b"made-up\r\nX-Made-Up: 1", b"", "made-up text"]


@pytest.mark.virtual_time
@pytest.mark.parametrize("bad", BAD, ids=["bytes", "header", "empty", "text"])
@pytest.mark.parametrize("part", ["access", "refresh"])
async def test_a_token_that_no_header_can_hold_counts_as_missing(
    clock: LoopClock, service: Service, part: str, bad: object
) -> None:
    """A store without encryption whose record holds such a token has a damaged record: one event, and a renewal."""
    store, emitted = FaultyStore(), []
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store) as first,
        TokenManager(API_KEY, api=service, clock=clock, store=store.process(), on_event=emitted.append) as second,
    ):
        await first.get_token()
        if part == "access":
            store.record = evolve(store.record, access=bad, version="damaged", refresh=None)
        else:
            store.record = evolve(store.record, refresh=bad, access=None, version=None)
        assert (await second.get_token()).access_token == "made-up-access-2"
    assert service.count("api-key") == 2
    kinds = [type(event) for event in emitted]
    assert kinds == [events.StoreDegraded, events.StoreRecovered, events.TokenRenewed]


# Turns.


async def test_a_file_store_gets_one_operation_at_a_time(opened, tmp_path, monkeypatch) -> None:
    """The time limit of an operation does not run while the store's one thread works for another account."""
    release, began = threading.Event(), asyncio.Event()
    loop, store = asyncio.get_running_loop(), FileStore(tmp_path / "tokens")
    slots = [opened(store, api_key=f"{API_KEY}-{number}") for number in range(20)]
    submit = store._thread.submit
    waiting = 0

    def slow(job: Callable[[], Any]) -> Any:
        nonlocal waiting

        def work() -> Any:
            loop.call_soon_threadsafe(began.set)
            release.wait(10)
            return job()

        waiting += 1
        return submit(work)

    monkeypatch.setattr(store._thread, "submit", slow)
    tasks = [asyncio.create_task(slot.claim(claimed("one"))) for slot in slots]
    await began.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert waiting == 1
    release.set()
    assert {type(answer) for answer in await asyncio.gather(*tasks)} == {Granted}


async def test_a_store_names_how_many_operations_it_works_on(opened) -> None:
    """A store may have a `max_concurrent` of 1 or more; by default it gets eight operations at a time."""
    store = FaultyStore()
    assert opened(store).account.limiter._turns._value == 8
    store = FaultyStore()
    store.max_concurrent = 3
    assert opened(store).account.limiter._turns._value == 3
    for wrong, error in ((0, ValueError), ("3", TypeError)):
        store.max_concurrent = wrong
        with pytest.raises(error, match=r"store\.max_concurrent"):
            TokenManager(API_KEY, store=store)


@pytest.mark.virtual_time
async def test_waiting_for_a_small_pool_does_not_count_as_an_outage() -> None:
    """A client with two connections serves one operation at a time; the others wait, however long that takes."""
    emitted: list[events.Event] = []

    class Slow(Answering):
        connection_pool = type("Pool", (), {"max_connections": 2, "connection_kwargs": {}})()

        async def answer(self) -> object:
            await asyncio.sleep(0.4)
            return [b"none", b"", b""]

    store, clock = RedisStore(Slow()), LoopClock()
    slots = [
        open_failover_slot(
            store,
            base_url=BASE_URL,
            api_key=f"{API_KEY}-{number}",
            clock=clock,
            emit=emitted.append,
            on_commit=lambda _token, _asked_at: None,
            previous=None,
        )
        for number in range(8)
    ]
    await asyncio.gather(*(slot.read() for slot in slots))
    assert emitted == []
    for slot in slots:
        await slot.close()


# Opening and closing.


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


@pytest.mark.virtual_time
async def test_a_slot_that_swallows_its_cancellation_holds_nobody_up(clock: LoopClock, service: Service) -> None:
    """`close()` of a manager ends although closing the store's slot does not, not even when it is cancelled."""
    store, released = FaultyStore(), asyncio.Event()
    original = store.open

    def open_stubborn(account: str, **kwargs: object) -> object:
        slot = original(account, **kwargs)

        class Stubborn:
            def __getattr__(self, name: str) -> object:
                return getattr(slot, name)

            async def close(self) -> None:
                while not released.is_set():
                    try:
                        await released.wait()
                    except asyncio.CancelledError:
                        continue

        return Stubborn()

    store.open = open_stubborn
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    await tokens.get_token()
    # So that this test fails, and does not hang, if `close()` waits.
    asyncio.get_running_loop().call_later(60, released.set)
    before = clock.monotonic()
    await tokens.close()
    assert clock.monotonic() - before <= 2
    assert store.record.claim_id is None
    await released.wait()
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert pending_timers() == []


@pytest.mark.virtual_time
@pytest.mark.parametrize("raised", [asyncio.CancelledError, GeneratorExit, type("Odd", (BaseException,), {})])
async def test_whatever_a_store_raises_is_an_outage(
    clock: LoopClock, service: Service, raised: type[BaseException]
) -> None:
    """A store that raises something other than an `Exception` is down: callers get tokens, and the timer is set."""
    store, emitted = FaultyStore(), []

    def fail(_operation: str) -> None:
        raise raised

    store.before = fail
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=emitted.append) as tokens:
        async with asyncio.timeout(5):
            await tokens.get_token()
        await asyncio.sleep(7200)
    assert len(service.calls) == 3
    assert sum(isinstance(event, events.StoreDegraded) for event in emitted) == 1
