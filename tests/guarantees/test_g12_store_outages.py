"""G12: what a worker does when its store fails in part, forgets answers, or comes back."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, NoReturn

import pytest
from attrs import evolve

from apivideo_auth import MemoryStore, TokenManager, TokenStoreError
from apivideo_auth.events import StoreDegraded, StoreRecovered
from apivideo_auth.stores._account import OPERATION_TIMEOUT
from apivideo_auth.stores._breaker import TURN_TIMEOUT
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service, pending_timers
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


def fail_writes(store: FaultyStore) -> list[str]:
    """Let reads work and writes fail; return the list of the writes that were tried."""
    tried: list[str] = []

    def before(operation: str) -> None:
        store.fault = "down" if operation in ("claim", "commit", "release") else None
        if store.fault:
            tried.append(operation)

    store.before = before
    return tried


async def test_g12_a_store_that_cannot_be_written_is_one_outage(clock: LoopClock, service: Service) -> None:
    """If reading works and writing fails, there is one event, and writes are tried ever more rarely."""
    service.lifetime = 2
    store, emitted = FaultyStore(), []
    tried = fail_writes(store)
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=emitted.append) as tokens:
        while clock.monotonic() < 300:
            await tokens.get_token()
            await asyncio.sleep(0.5)
        assert sum(isinstance(event, StoreDegraded) for event in emitted) == 1
        assert not any(isinstance(event, StoreRecovered) for event in emitted)
        assert len(tried) <= 25
        store.before = lambda _operation: setattr(store, "fault", None)
        await asyncio.sleep(40)
        assert sum(isinstance(event, StoreRecovered) for event in emitted) == 1
        assert store.record.access == (await tokens.get_token()).access_token.encode()


async def test_g12_the_pauses_of_a_store_outage_double_to_half_a_minute(clock: LoopClock, service: Service) -> None:
    """A store that is down is asked after pauses that grow to 30 seconds, and no more often."""
    store = FaultyStore()
    store.fault = "down"
    asked: list[float] = []
    store.before = lambda _operation: asked.append(clock.monotonic())
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        await tokens.get_token()
        await asyncio.sleep(600)
    gaps = [later - earlier for earlier, later in pairwise(asked) if later > earlier]
    assert 14 <= max(gaps) <= 30.1
    assert 20 <= len(gaps) <= 60


@pytest.mark.parametrize("operation", ["commit", "release"])
async def test_g12_an_end_whose_answer_is_lost_is_repeated(clock: LoopClock, service: Service, operation: str) -> None:
    """A commit or release that did not arrive is sent again when the store is back, long before the lease is over."""
    store = FaultyStore()
    if operation == "release":
        service.answers.append(ConnectionError("made-up"))
    store.before = lambda name: setattr(store, "fault", "down" if name == operation else None)
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        await tokens.get_token()
        assert store.record.claim_id is not None
        store.before = lambda _name: setattr(store, "fault", None)
        await asyncio.sleep(3)
        assert store.record.claim_id is None
        elsewhere = store.process()
        async with TokenManager(API_KEY, api=service, clock=clock, store=elsewhere) as other:
            before = clock.monotonic()
            await other.get_token()
            assert clock.monotonic() == before
    assert service.count("api-key") == (2 if operation == "release" else 1)


@pytest.mark.parametrize("moment", ["claim", "commit"])
async def test_g12_a_close_that_is_cancelled_leaves_no_claim(clock: LoopClock, service: Service, moment: str) -> None:
    """If `close()` is cancelled while a claim or commit is on its way, the claim is ended all the same."""
    store = FaultyStore()
    begun = asyncio.Event()
    original = store.open

    def open_slowly(account: str, **kwargs: object) -> object:
        slot = original(account, **kwargs)

        class Slow:
            def __getattr__(self, name: str) -> object:
                async def operation(*args: object) -> object:
                    answer = await getattr(slot, name)(*args)
                    if name == moment:
                        begun.set()
                        await asyncio.sleep(0.3)
                    return answer

                return operation

        return Slow()

    store.open = open_slowly
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    caller = asyncio.create_task(tokens.get_token())
    await begun.wait()
    closing = asyncio.create_task(tokens.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.wait({closing, caller})
    assert store.record.claim_id is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert pending_timers() == []
    async with TokenManager(API_KEY, api=service, clock=clock, store=store.process()) as other:
        before = clock.monotonic()
        await other.get_token()
        assert clock.monotonic() == before


async def test_g12_a_close_in_the_middle_of_an_offer_loses_nothing(clock: LoopClock, service: Service) -> None:
    """If a worker closes while it offers its token to a store that is back, the claim ends with that token."""
    store = FaultyStore()
    store.fault = "down"
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    token = await tokens.get_token()
    offered = asyncio.Event()
    original = store.before

    def before(operation: str) -> None:
        original(operation)
        if operation == "claim":
            offered.set()

    store.before, store.fault = before, None
    await offered.wait()
    closing = asyncio.create_task(tokens.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert store.record.claim_id is None
    assert store.record.access == token.access_token.encode()
    assert store.record.refresh is not None


async def test_g12_a_late_commit_does_not_make_a_token_look_younger(clock: LoopClock, service: Service) -> None:
    """If a commit is executed late, no worker believes that its token lives longer than it does."""
    service.lifetime = 60
    store = FaultyStore()
    elsewhere = store.process()
    delayed: list[asyncio.Task] = []
    original = store.open

    def open_late(account: str, **kwargs: object) -> object:
        slot = original(account, **kwargs)

        class Late:
            def __getattr__(self, name: str) -> object:
                async def operation(*args: object) -> object:
                    if name != "commit":
                        return await getattr(slot, name)(*args)

                    async def execute() -> None:
                        await asyncio.sleep(14)
                        await getattr(slot, name)(*args)

                    # The connection is stuck: the command arrives after its sender has given up.
                    delayed.append(asyncio.create_task(execute()))
                    raise TokenStoreError("made-up: no answer")

                return operation

        return Late()

    store.open = open_late
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store) as late,
        TokenManager(API_KEY, api=service, clock=clock, store=elsewhere) as other,
    ):
        await late.get_token()
        while clock.monotonic() < 120:
            token = await other.get_token()
            number = int(token.access_token.rpartition("-")[2])
            issued_at = service.calls[number - 1].at
            assert clock.monotonic() < issued_at + 60
            await asyncio.sleep(0.5)
    await asyncio.gather(*delayed)


async def test_g12_a_blocked_event_loop_does_not_lose_a_claims_answer(clock: LoopClock, service: Service) -> None:
    """An answer that arrives while the event loop is blocked for longer than the time limit still counts."""
    store, emitted = FaultyStore(), []
    loop = asyncio.get_running_loop()
    original = store.open

    def open_blocked(account: str, **kwargs: object) -> object:
        slot = original(account, **kwargs)

        class Blocked:
            def __getattr__(self, name: str) -> object:
                async def operation(*args: object) -> object:
                    answer = await getattr(slot, name)(*args)
                    arrived: asyncio.Future[None] = loop.create_future()
                    # The answer and the time limit become ready in the same step of the event loop.
                    loop.call_later(0.5, arrived.set_result, None)
                    await arrived
                    return answer

                return operation

        return Blocked()

    store.open = open_blocked
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=emitted.append) as tokens:
        await tokens.get_token()
    assert not any(isinstance(event, StoreDegraded) for event in emitted)


async def test_g12_hundreds_of_accounts_on_one_store_do_not_overload_it(clock: LoopClock, service: Service) -> None:
    """Three hundred accounts on one store wait for their turn, and waiting does not count as the store being down."""
    store, emitted = FaultyStore(), []
    in_use, most = 0, 0
    original = store.open

    def open_counted(account: str, **kwargs: object) -> object:
        slot = original(account, **kwargs)

        class Counted:
            def __getattr__(self, name: str) -> object:
                async def operation(*args: object) -> object:
                    nonlocal in_use, most
                    in_use, most = in_use + 1, max(most, in_use + 1)
                    try:
                        await asyncio.sleep(0.1)
                        return await getattr(slot, name)(*args)
                    finally:
                        in_use -= 1

                return operation

        return Counted()

    store.open = open_counted
    managers = [
        TokenManager(f"made-up-api-key-{number}", api=service, clock=clock, store=store, on_event=emitted.append)
        for number in range(300)
    ]
    await asyncio.gather(*(manager.get_token() for manager in managers))
    assert not any(isinstance(event, StoreDegraded) for event in emitted)
    assert most <= 8
    assert len(service.calls) == 300
    await asyncio.gather(*(manager.close() for manager in managers))


async def test_g12_a_token_of_a_renewal_during_the_recovery_is_offered(clock: LoopClock, service: Service) -> None:
    """If the store comes back while a private renewal is under way, its token is offered when it ends."""
    store = FaultyStore()
    store.fault = "down"
    service.latency = 4.0
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        caller = asyncio.create_task(tokens.get_token())
        await asyncio.sleep(1)
        store.fault = None
        token = await caller
        await asyncio.sleep(1)
        assert store.record.access == token.access_token.encode()
        assert store.record.refresh is not None


async def test_g12_an_offered_token_does_not_look_younger(clock: LoopClock, service: Service) -> None:
    """A token whose commit took its time before it went to the private record ends no later for other workers."""
    store = FaultyStore()
    store.before = lambda name: setattr(store, "fault", "slow" if name == "commit" else None)
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        await tokens.get_token()
        store.before = lambda _name: setattr(store, "fault", None)
        store.empty()
        await asyncio.sleep(5)
        assert store.record.access is not None
        assert store.record.ends_at <= service.calls[0].at + 3600 + 1e-6


async def test_g12_what_one_manager_sees_wakes_the_others(clock: LoopClock, service: Service) -> None:
    """A manager that waits for another worker is served as soon as a sibling in its process sees the commit."""
    holder, shared = FaultyStore(), None
    shared = holder.process()
    shared.pushes = False
    original = shared.open

    def open_without_changes(account: str, **kwargs: object) -> object:
        slot = original(account, **kwargs)

        class Deaf:
            def __getattr__(self, name: str) -> object:
                return getattr(slot, name) if name != "changed" else asyncio.sleep

        return Deaf()

    shared.open = open_without_changes
    service.latency = 2.0
    managers = [TokenManager(API_KEY, api=service, clock=clock, store=store) for store in (holder, shared, shared)]
    first = asyncio.create_task(managers[0].get_token())
    await asyncio.sleep(0.5)
    waiting = asyncio.create_task(managers[1].get_token())
    await first
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await managers[2].get_token()
    await waiting
    assert clock.monotonic() < 3
    assert len(service.calls) == 1
    for manager in managers:
        await manager.close()


async def test_g12_many_accounts_on_a_store_that_hangs(clock: LoopClock, service: Service) -> None:
    """A store that hangs costs its time limit once, not once for each of the accounts that wait for their turn."""
    store = FaultyStore()
    store.fault = "slow"
    managers = [
        TokenManager(f"made-up-api-key-{number}", api=service, clock=clock, store=store) for number in range(100)
    ]
    await asyncio.gather(*(manager.get_token() for manager in managers))
    assert clock.monotonic() <= 2
    store.fault = None
    await asyncio.gather(*(manager.close() for manager in managers))


async def test_g12_a_store_that_is_too_slow_for_its_accounts_delays_for_a_bounded_time(clock: LoopClock) -> None:
    """If the operations of many accounts queue for longer than a claim may wait, workers go on without the store."""

    class SlowStore(MemoryStore):
        max_concurrent = 1

        def open(self, account: str, **kwargs: Any) -> Any:
            slot = super().open(account, **kwargs)
            for name in ("read", "claim", "commit", "release"):
                setattr(slot, name, after_a_while(getattr(slot, name)))
            return slot

    def after_a_while(operation: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def slow(*arguments: object) -> object:
            await asyncio.sleep(0.4)
            return await operation(*arguments)

        return slow

    store, services, waits = SlowStore(), [Service(clock) for _ in range(60)], []

    async def ask(number: int) -> None:
        manager = TokenManager(f"{API_KEY}-{number}", api=services[number], clock=clock, store=store)
        before = clock.monotonic()
        await manager.get_token()
        waits.append(clock.monotonic() - before)
        await manager.close()

    await asyncio.gather(*(ask(number) for number in range(60)))
    assert max(waits) <= 2 * (TURN_TIMEOUT + OPERATION_TIMEOUT)
    assert {len(service.calls) for service in services} == {1}


async def test_g12_a_manager_that_joins_during_an_outage_looks_again(clock: LoopClock, service: Service) -> None:
    """If the manager that met the outage has closed, another one of its process offers the token to the store."""
    store, emitted = FaultyStore(), []
    store.fault = "down"
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as first:
        await first.get_token()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=emitted.append) as second:
        token = await second.get_token()
        store.fault = None
        await asyncio.sleep(60)
        assert store.record.access == token.access_token.encode()
        assert [type(event) for event in emitted].count(StoreRecovered) == 1
    assert len(service.calls) == 1


async def test_g12_damage_that_another_worker_repairs_is_reported_as_repaired(
    clock: LoopClock, service: Service
) -> None:
    """Each worker reports damage and its repair, whoever repairs it, and reports the next damage again."""
    store, repairing, reading = FaultyStore(), [], []
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=repairing.append) as one,
        TokenManager(API_KEY, api=service, clock=clock, store=store.process(), on_event=reading.append) as other,
    ):
        await one.get_token()
        await other.get_token()
        for damage in (b"\xff made-up damage", b"\xfe made-up damage"):
            store.record = evolve(store.record, access=damage, version="made-up")
            # This worker only meets the damage. The other one repairs it.
            await one._failover_slot.read()
            await asyncio.sleep(1000)
            await other.get_token(min_ttl=3000)
            await asyncio.sleep(1)
    for events in (repairing, reading):
        kinds = [type(event) for event in events if isinstance(event, StoreDegraded | StoreRecovered)]
        assert kinds == [StoreDegraded, StoreRecovered] * 2


async def test_g12_managers_one_after_another_remember_the_outage(clock: LoopClock, service: Service) -> None:
    """A manager for each request costs one call and one event in an outage, whenever garbage is collected."""

    class ClosedStore(MemoryStore):
        def open(self, account: str, **_kwargs: object) -> NoReturn:
            raise TokenStoreError(f"made-up outage for {account[:4]}")

    store, emitted = ClosedStore(), []
    for _ in range(5):
        async with TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=emitted.append) as tokens:
            await tokens.get_token()
        del tokens
        await asyncio.sleep(0.1)
        gc.collect()
    assert len(service.calls) == 1
    assert [type(event) for event in emitted if isinstance(event, StoreDegraded)] == [StoreDegraded]


async def test_g12_a_store_that_nobody_uses_is_not_kept(clock: LoopClock, service: Service) -> None:
    """What is remembered of an outage does not keep a store object alive."""
    store = FaultyStore()
    store.fault = "down"
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        await tokens.get_token()
    gone = weakref.ref(store)
    del tokens, store
    gc.collect()
    assert gone() is None
