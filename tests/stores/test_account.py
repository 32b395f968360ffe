"""One account in a store that fails: when events are emitted, whose turn it is, and how managers leave."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import TokenManager, events
from apivideo_auth._record import Granted
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


@pytest.mark.parametrize("name", ["max_concurrent", "operation_timeout"])
@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), ("3", TypeError), (None, TypeError)])
def test_an_attribute_of_a_store_is_checked(name: str, wrong: object, error: type[Exception]) -> None:
    """A store whose limits are wrong is refused when the manager is constructed."""
    store = FaultyStore()
    setattr(store, name, wrong)
    with pytest.raises(error, match=rf"store\.{name}"):
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


# Closing.


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


async def test_the_last_manager_closes_the_slot_of_the_store(opened) -> None:
    """The store's slot is opened on first use, closed when the last manager leaves, and opened again later."""
    store = FaultyStore()
    first, second = opened(store), opened(store)
    assert store.inner._accounts == {}
    await first.read()
    await first.close()
    await first.close()
    assert store.operations == ["read"]
    await second.close()
    assert store.operations == ["read", "close"]
    third = opened(store)
    await third.read()
    await third.close()
    assert store.operations == ["read", "close"] * 2


async def test_nothing_begins_after_the_last_manager_has_left(opened) -> None:
    """A commit that a store reports to an account without managers starts no task."""
    reports = []

    class Late(FaultyStore):
        def open(self, account: str, **kwargs: Any) -> Any:
            reports.append(kwargs["on_commit"])
            return super().open(account, **kwargs)

    slot = opened(Late())
    await slot.read()
    await slot.close()
    (report,) = reports
    report()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_of_the_program_is_no_outage(interruption: type[BaseException]) -> None:
    """If the program is interrupted while the store works, its event loop ends, and the next one uses the store."""
    manual, store, emitted = ManualClock(), FaultyStore(), []
    service = Service(manual)
    tokens = TokenManager(API_KEY, api=service, clock=manual, store=store, on_event=emitted.append)

    def interrupt(_operation: str) -> None:
        raise interruption

    async def use() -> None:
        async with tokens:
            await tokens.get_token()

    store.before = interrupt
    with pytest.raises(interruption):
        asyncio.run(tokens.get_token())
    store.before = lambda _operation: None
    asyncio.run(use())
    assert [type(event) for event in emitted] == [events.TokenRenewed]
    assert store.record.access == b"made-up-access-1"
