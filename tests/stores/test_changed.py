"""Waiting for a change: one manager watches the store for all managers of its process."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from apivideo_auth import events
from apivideo_auth._record import Backoff, Busy, Changed, Claim, Granted, Release
from apivideo_auth.stores._account import OPERATION_TIMEOUT
from apivideo_auth.stores._failover import MAX_CONCURRENT, FailoverSlot
from tests.stores.account_events import claimed, committed
from tests.support.doubles import LoopClock, pending_timers
from tests.support.faulty_store import FaultyStore
from tests.support.record_cases import OUTAGE

pytestmark = pytest.mark.virtual_time

FOREVER = 100_000.0


class ScriptedStore(FaultyStore):
    """A store whose slots wait for a change as a test says."""

    def __init__(self, changed: Callable[[float], Awaitable[None]]) -> None:
        super().__init__()
        self.changed = changed

    def open(self, account: str, **kwargs: Any) -> Any:
        slot = super().open(account, **kwargs)
        store = self

        class Scripted:
            def __getattr__(self, name: str) -> Any:
                return getattr(slot, name)

            async def changed(self, timeout: float) -> None:
                store.begin("changed")
                await store.changed(timeout)

        return Scripted()


def watched(store: FaultyStore) -> int:
    """Return how often the store was asked to wait for a change."""
    return store.operations.count("changed")


async def seconds_of(waiting: Awaitable[None]) -> float:
    """Return how long something takes."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    await waiting
    return loop.time() - began_at


@pytest.fixture
def worker(opened: Callable[..., FailoverSlot], clock: LoopClock) -> Callable[[FaultyStore], FailoverSlot]:
    """Open a slot in another process."""
    return lambda store: opened(store.process(), clock)


async def test_one_manager_watches_the_store_for_all(opened, worker, clock: LoopClock) -> None:
    """However many managers wait, the store is asked once; a release of another worker ends all their waits."""
    store = FaultyStore()
    other, slots = worker(store), [opened(store, clock) for _ in range(3)]
    assert isinstance(await other.claim(claimed("other")), Granted)
    assert {type(await slot.claim(claimed("ours"))) for slot in slots} == {Busy}
    waits = [asyncio.create_task(seconds_of(slot.changed(FOREVER))) for slot in slots]
    await asyncio.sleep(20)
    assert watched(store) == 1
    await other.release(Release(id="other"))
    assert await asyncio.gather(*waits) == [20] * 3
    assert watched(store) == 1


async def test_another_manager_takes_over_the_watch(opened, worker, clock: LoopClock) -> None:
    """If the manager that watches the store stops waiting, the others return, and the next one to wait watches it."""
    store = FaultyStore()
    other, first, second = worker(store), opened(store, clock), opened(store, clock)
    await other.claim(claimed("other"))
    await first.read()
    await second.read()
    watching = asyncio.create_task(first.changed(FOREVER))
    waiting = asyncio.create_task(seconds_of(second.changed(FOREVER)))
    await asyncio.sleep(5)
    watching.cancel()
    assert await waiting == 5
    await second.read()
    waiting = asyncio.create_task(seconds_of(second.changed(FOREVER)))
    await asyncio.sleep(5)
    assert watched(store) == 2
    await other.release(Release(id="other"))
    assert await waiting == 5
    assert watching.cancelled()


async def test_a_manager_that_has_missed_a_change_returns_alone(opened, worker, clock: LoopClock) -> None:
    """A manager that has missed a change returns at once; one that has not goes on waiting, and watches the store."""
    store = FaultyStore()
    other, first, second = worker(store), opened(store, clock), opened(store, clock)
    await second.claim(claimed("one"))
    await second.release(Release(id="one"))
    await second.claim(claimed("two"))
    await second.release(Release(id="two"))
    await other.claim(claimed("other"))
    assert isinstance(await second.claim(claimed("three")), Busy)
    waits = [asyncio.create_task(seconds_of(slot.changed(FOREVER))) for slot in (first, second)]
    await asyncio.sleep(5)
    assert [wait.done() for wait in waits] == [True, False]
    assert watched(store) == 1
    await other.release(Release(id="other"))
    assert await asyncio.gather(*waits) == [0, 5]


@pytest.mark.parametrize("situation", ["alone", "a sibling watches", "a sibling renews", "the store is down"])
async def test_waiting_ends_with_its_timeout(opened, worker, clock: LoopClock, situation: str) -> None:
    """Without a change the wait ends after its timeout. The store is asked only if that can help."""
    store, emitted = FaultyStore(), []
    other, slot, sibling = worker(store), opened(store, clock, emitted=emitted), opened(store, clock)
    match situation:
        case "a sibling renews":
            await sibling.claim(claimed("sibling"))
        case "the store is down":
            store.fault = "down"
        case _:
            await other.claim(claimed("other"))
    await slot.read()
    watching = None
    if situation == "a sibling watches":
        watching = asyncio.create_task(sibling.changed(FOREVER))
        await asyncio.sleep(1)
    store.operations.clear()
    slot.account._cancel_timer()
    assert await seconds_of(slot.changed(7)) == 7
    assert watched(store) == (situation == "alone")
    assert all(isinstance(event, events.StoreDegraded) for event in emitted)
    if watching is not None:
        watching.cancel()


@pytest.mark.parametrize("answer", ["read", Busy, Backoff, Changed, Granted])
async def test_waiting_begins_with_the_last_answer(opened, worker, clock: LoopClock, answer: Any) -> None:
    """A manager waits for what changes after its last answer, and does not miss what has changed since."""
    store = FaultyStore()
    other, slot, sibling = worker(store), opened(store, clock), opened(store, clock)
    await other.claim(claimed("other"))
    if answer is Backoff:
        await other.release(Release(id="other", failure=OUTAGE, retry_after=30.0))
    elif answer is Changed:
        await other.commit(committed("other"))
    elif answer is Granted:
        await other.release(Release(id="other"))

    async def ask() -> None:
        if answer == "read":
            assert await slot.read() is None
        else:
            assert isinstance(await slot.claim(claimed("ours")), answer)

    # What changed before the answer does not count.
    await sibling.release(Release(id="nothing"))
    await ask()
    assert await seconds_of(slot.changed(3)) == 3
    if answer is not Granted:
        await ask()
        await sibling.release(Release(id="nothing"))
        assert await seconds_of(slot.changed(3)) == 0


async def test_a_manager_that_has_no_answer_yet_returns_early_if_in_doubt(opened, clock: LoopClock) -> None:
    """A new manager waits if nothing has changed in its account, and otherwise asks first."""
    store = FaultyStore()
    first = opened(store, clock)
    assert await seconds_of(first.changed(3)) == 3
    await first.claim(claimed("one"))
    await first.commit(committed("one"))
    assert await seconds_of(opened(store, clock).changed(3)) == 0


async def test_a_claim_that_meets_a_change_wakes_the_others(opened, worker, clock: LoopClock) -> None:
    """Managers that wait for another worker's renewal return when a sibling learns that it is over."""
    store = ScriptedStore(asyncio.sleep)
    other, slot, sibling = worker(store), opened(store, clock), opened(store, clock)
    await other.claim(claimed("other"))
    assert isinstance(await slot.claim(claimed("ours")), Busy)
    waiting = asyncio.create_task(seconds_of(slot.changed(10)))
    await asyncio.sleep(1)
    assert isinstance(await sibling.claim(claimed("sibling")), Busy)
    await asyncio.sleep(1)
    await other.release(Release(id="other", failure=OUTAGE, retry_after=30.0))
    assert isinstance(await sibling.claim(claimed("sibling")), Backoff)
    assert await waiting == 2


async def test_a_store_that_cannot_wait_is_down(opened, clock: LoopClock) -> None:
    """If the store fails while managers wait for it, they return, and it is not asked again during its backoff."""

    async def fail(timeout: float) -> None:
        await asyncio.sleep(timeout / 2)
        raise TimeoutError

    store, emitted = ScriptedStore(fail), []
    slots = [opened(store, clock, emitted=emitted), opened(store, clock)]
    waits = [asyncio.create_task(seconds_of(slot.changed(10))) for slot in slots]
    assert await asyncio.gather(*waits) == [5, 5]
    assert [event.cause for event in emitted] == ["TimeoutError"]
    assert not slots[0].account._breaker.can_read
    await slots[0].read()
    await slots[0].changed(0.1)
    assert store.operations == ["changed"]


async def test_a_long_wait_is_no_outage_and_takes_no_turn(opened, clock: LoopClock) -> None:
    """Any number of accounts may wait for a store that has nothing to report, and others can use it meanwhile."""
    store, emitted = FaultyStore(), []
    slots = [
        opened(store, clock, emitted=emitted, api_key=f"made-up-key-{number}") for number in range(MAX_CONCURRENT + 1)
    ]
    waits = [asyncio.create_task(slot.changed(60)) for slot in slots[1:]]
    await asyncio.sleep(1)
    assert watched(store) == MAX_CONCURRENT
    assert await seconds_of(slots[0].read()) == 0
    await asyncio.gather(*waits)
    assert emitted == []


async def test_a_wake_says_nothing_about_the_store(opened, clock: LoopClock) -> None:
    """If a wait ends because of a sibling while the store is down, that is not the end of the outage."""
    store, emitted = ScriptedStore(asyncio.sleep), []
    slot, sibling = opened(store, clock, emitted=emitted), opened(store, clock)
    waiting = asyncio.create_task(seconds_of(slot.changed(10)))
    await asyncio.sleep(1)
    store.fault = "down"
    await sibling.read()
    sibling.account._waiters.wake()
    assert await waiting == 1
    assert [type(event) for event in emitted] == [events.StoreDegraded]


async def test_a_store_that_swallows_the_cancellation_of_a_wait(opened, clock: LoopClock) -> None:
    """The wait ends half a second after its timeout, and such a store is not asked again while it waits."""
    released = asyncio.Event()

    async def stubborn(_timeout: float) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    store = ScriptedStore(stubborn)
    slot = opened(store, clock)
    assert await seconds_of(slot.changed(3)) == 3 + OPERATION_TIMEOUT
    assert await seconds_of(slot.changed(3)) == 3
    assert watched(store) == 1
    released.set()
    await asyncio.sleep(1)
    await slot.read()
    store.changed = asyncio.sleep
    assert await seconds_of(slot.changed(3)) == 3
    assert watched(store) == 2


@pytest.mark.parametrize("end", ["cancel", "timeout"])
async def test_nothing_is_left_of_a_wait(opened, clock: LoopClock, end: str) -> None:
    """When a wait has ended, no task and no timer of it is left, and the store has ended its wait as well."""
    left = []

    async def changed(timeout: float) -> None:
        try:
            await asyncio.sleep(timeout + 1)
        finally:
            left.append(clock.monotonic())

    store = ScriptedStore(changed)
    slot = opened(store, clock)
    waiting = asyncio.create_task(slot.changed(60))
    await asyncio.sleep(1)
    if end == "cancel":
        waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() is (end == "cancel")
    assert left == [clock.monotonic()]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert pending_timers() == []


class SlowClaims(FaultyStore):
    """A store whose claims take five milliseconds, so that other managers run meanwhile."""

    def open(self, account: str, **kwargs: Any) -> Any:
        slot = super().open(account, **kwargs)
        claim = slot.claim

        async def slowly(event: Claim) -> Any:
            await asyncio.sleep(0.005)
            return await claim(event)

        slot.claim = slowly
        return slot


@pytest.mark.parametrize("number", [1, 2, 5])
async def test_a_wake_makes_each_manager_claim_once(opened, worker, clock: LoopClock, number: int) -> None:
    """Managers that wait for another worker, and are woken, claim once more each: they do not wake each other."""
    store = SlowClaims()
    other, slots = worker(store), [opened(store, clock) for _ in range(number)]
    assert isinstance(await other.claim(claimed("other")), Granted)
    claims: Counter[int] = Counter()

    async def wait_for_token(index: int) -> None:
        while isinstance(await slots[index].claim(claimed("ours")), Busy):
            claims[index] += 1
            await slots[index].changed(FOREVER)

    waiting = [asyncio.create_task(wait_for_token(index)) for index in range(number)]
    await asyncio.sleep(1)
    slots[0].account._waiters.wake()
    await asyncio.sleep(1)
    assert claims == dict.fromkeys(range(number), 2)
    await other.commit(committed("other"))
    await asyncio.wait(waiting)
    assert claims == dict.fromkeys(range(number), 2)
