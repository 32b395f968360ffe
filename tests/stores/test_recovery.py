"""A store that fails and is back: what is sent again, what is offered, and which refresh token is used."""

import asyncio
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import MemoryStore, events
from apivideo_auth._record import EMPTY, Changed, Granted, Record, Release
from apivideo_auth.stores._failover import FailoverSlot
from tests.stores.account_events import claimed, committed
from tests.support.doubles import LoopClock, ManualClock
from tests.support.faulty_store import FaultyStore
from tests.support.record_cases import OUTAGE


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until a test moves it."""
    return ManualClock()


async def renewed(slot: FailoverSlot, name: str, seen: str | None = None) -> Granted:
    """Claim and commit; return the answer to the claim."""
    granted = await slot.claim(claimed(name, seen))
    assert isinstance(granted, Granted)
    await slot.commit(committed(name))
    return granted


# What is sent again.


async def test_a_claim_without_an_answer_is_ended_although_reading_fails_meanwhile(opened, clock) -> None:
    """A claim that the store may have granted is sent again and released, and the refresh token stays usable."""
    store = FaultyStore()
    slot, other = opened(store, clock), opened(store.process(), clock)
    await renewed(other, "one")
    store.fault = "lost"
    assert isinstance(await slot.claim(claimed("two", "one")), Granted)
    await slot.release(Release(id="two", failure=OUTAGE, retry_after=30.0))
    store.fault = "down"
    await slot.read()
    assert store.record.claim_id == "two"
    store.fault = None
    clock.now += 10
    await slot.read()
    assert store.record.claim_id is None
    assert store.record.refresh == b"made-up-refresh-one"


@pytest.mark.parametrize("fault", ["lost", "down"])
@pytest.mark.parametrize("operation", ["read", "claim"])
async def test_a_commit_that_is_sent_again_replaces_the_private_token(
    opened, clock, fault: str, operation: str
) -> None:
    """When the store has confirmed the commit, nothing of the outage is remembered."""
    store = FaultyStore()
    slot = opened(store, clock)
    await slot.claim(claimed("one"))
    store.fault = fault
    await slot.commit(committed("one"))
    assert slot.account.private.token(clock.now) is not None
    store.fault = None
    clock.now += 10
    if operation == "read":
        await slot.read()
    else:
        assert isinstance(await slot.claim(claimed("two", "one")), Granted)
    assert store.record.version == "one"
    assert not slot.account.remembers


async def test_a_private_token_that_is_newer_than_a_lost_commit_is_offered(opened, clock) -> None:
    """A token that the worker got after a commit without an answer is not lost when that commit is sent again."""
    store = FaultyStore()
    slot = opened(store, clock)
    await slot.claim(claimed("one"))
    store.fault = "lost"
    await slot.commit(committed("one"))
    clock.now += 10
    store.fault = "down"
    await renewed(slot, "two", "one")
    store.fault = None
    clock.now += 10
    await slot.read()
    assert store.record.version == "two"
    assert store.record.refresh == b"made-up-refresh-two"


@pytest.mark.parametrize("fault", ["lost", "down"])
async def test_a_refresh_token_whose_commit_was_not_answered_is_not_used(opened, clock, fault: str) -> None:
    """The store may have executed the commit. Until that is known, the worker renews with the API key."""
    store = FaultyStore()
    slot = opened(store, clock)
    await slot.claim(claimed("one"))
    store.fault = fault
    await slot.commit(committed("one"))
    answer = await slot.claim(claimed("two", "one"))
    assert isinstance(answer, Granted)
    assert answer.refresh is None


@pytest.mark.virtual_time
async def test_an_outage_of_writes_is_remembered_by_the_next_manager(opened, clock: ManualClock) -> None:
    """A manager that joins while writing fails looks at the store again when the backoff of writing is over."""
    store = FaultyStore()
    store.before = lambda operation: setattr(store, "fault", None if operation == "read" else "down")
    first = opened(store, clock)
    await first.claim(claimed("one"))
    await first.close()
    second = opened(store, clock)
    await second.read()
    await second.claim(claimed("one"))
    assert store.operations == ["claim", "close", "read"]
    backoff = second.account._breaker.wait(write=True)
    assert backoff > 0
    assert second.account._timer.when() == asyncio.get_running_loop().time() + backoff


async def test_forgetting_the_record_ends_an_outage_of_writes(opened, clock) -> None:
    """Deleting the record is a write: if it works after a failed write, the next claim goes to the store at once."""
    store, emitted = FaultyStore(), []
    slot = opened(store, clock, emitted=emitted)
    await slot.claim(claimed("one"))
    store.fault = "down"
    await slot.commit(committed("one"))
    store.fault = None
    await slot.forget()
    assert [type(event) for event in emitted] == [events.StoreDegraded, events.StoreRecovered]
    assert isinstance(await slot.claim(claimed("two")), Granted)
    assert store.record.claim_id == "two"


async def test_forgetting_that_fails_is_an_outage_of_writes(opened, clock) -> None:
    """If the record cannot be deleted, the store is not asked to write before its backoff is over."""
    store, emitted = FaultyStore(), []
    slot = opened(store, clock, emitted=emitted)
    store.fault = "down"
    await slot.forget()
    assert [type(event) for event in emitted] == [events.StoreDegraded]
    await slot.claim(claimed("one"))
    assert store.operations == ["forget"]


async def test_a_claim_that_is_sent_again_is_not_throttled_twice(opened, clock: ManualClock) -> None:
    """A claim because of a 401 that the store never got counts once: privately, and not in the store too."""
    store = FaultyStore()
    slot = opened(store, clock)
    await slot.claim(claimed("one"))
    await slot.commit(committed("one"))
    clock.now += 10
    store.fault = "down"
    assert isinstance(await slot.claim(claimed("two", "one", throttled=True)), Granted)
    await slot.release(Release(id="two"))
    store.fault = None
    clock.now += 1
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
async def test_a_commit_that_was_not_answered_at_first_is_the_newest_one(opened, clock, how: str) -> None:
    """The refresh token of a record before a commit that was sent again, or offered, is not used."""
    store = FaultyStore()
    slot = opened(store, clock)
    if how == "offered":
        store.fault = "down"
    assert isinstance(await slot.claim(claimed("one")), Granted)
    store.fault = "lost" if how == "sent again" else "down"
    await slot.commit(committed("one"))
    store.fault = None
    clock.now += 2
    restored = []

    def restore(operation: str) -> None:
        if operation == "claim" and store.record.version == "one" and not restored:
            store.record = older(store)
            restored.append(operation)

    if how == "offered":
        await slot.read()
        assert store.record.version == "one"
    store.before = restore
    clock.now += 2
    answer = await slot.claim(claimed("two", "older"))
    assert isinstance(answer, Granted)
    assert restored == ["claim"]
    assert answer.refresh is None


# What is offered.


@pytest.mark.virtual_time
async def test_a_token_is_offered_when_its_renewal_ends_after_the_outage(opened) -> None:
    """If the store is back before a private renewal has ended, the store gets its token at once."""
    store = FaultyStore()
    slot = opened(store, LoopClock())
    store.fault = "down"
    await slot.claim(claimed("one"))
    store.fault = None
    await asyncio.sleep(10)
    assert store.record == EMPTY
    await slot.commit(committed("one"))
    await asyncio.sleep(0.1)
    assert store.record.access == b"made-up-access-one"


PRIVATE = Record(
    version="private",
    access=b"made-up-access-private",
    refresh=b"made-up-refresh-private",
    lifetime=3600.0,
    committed_at=0.0,
    ends_at=4500.0,
)


@pytest.mark.parametrize(
    ("version", "ends_at", "offered"),
    [
        ("private", 4501.0, True),
        ("private", 4500.0, False),
        ("private", 4499.0, False),
        ("one", 4501.0, False),
    ],
)
async def test_the_better_token_is_kept(opened, clock, version: str, ends_at: float, *, offered: bool) -> None:
    """The private token is offered if it lives longer than the record's, and is not the record's already."""
    store = FaultyStore()
    slot, other = opened(store, clock), opened(store.process(), clock)
    await renewed(other, "one")
    store.record = evolve(store.record, ends_at=4500.0)
    slot.account.private.record = evolve(PRIVATE, version=version, ends_at=ends_at)
    token = await slot.read()
    assert store.record.version == ("private" if offered else "one")
    assert store.record.claim_id is None
    assert slot.account.private.record == EMPTY
    assert (token is None) is offered


async def test_an_offer_that_is_executed_late_does_not_make_the_token_look_younger(opened, clock) -> None:
    """The token of the outage ends no later in the record than it does, however long its commit was on its way."""
    store = FaultyStore()
    slot = opened(store, clock)
    await opened(store.process(), clock).read()
    slot.account.private.record = PRIVATE

    def delay(operation: str) -> None:
        clock.now += 3 * (operation == "commit")

    store.before = delay
    await slot.read()
    assert store.record.version == "private"
    assert store.record.ends_at == PRIVATE.ends_at


# Which refresh token is used.


async def test_a_refresh_token_that_is_given_back_is_used_again(opened, clock: ManualClock) -> None:
    """A refresh token that a call did not use goes out with the next renewal."""
    store = FaultyStore()
    slot = opened(store, clock)
    await renewed(slot, "one")
    for name in ("two", "three"):
        answer = await slot.claim(claimed(name, "one"))
        assert isinstance(answer, Granted)
        assert answer.refresh == b"made-up-refresh-one"
        await slot.release(Release(id=name, refresh=answer.refresh))


async def test_the_refresh_token_of_a_cancelled_claim_is_given_back(opened, clock: ManualClock) -> None:
    """If a caller is cancelled while its claim is granted, the record is as it was before the claim."""
    store = FaultyStore()
    slot = opened(store, clock)
    await renewed(slot, "one")
    before = store.record
    claim = asyncio.create_task(slot.claim(claimed("two", "one")))
    await asyncio.sleep(0)
    claim.cancel()
    await asyncio.wait({claim})
    assert claim.cancelled()
    assert store.operations[-2:] == ["claim", "release"]
    assert store.record == before


@pytest.mark.parametrize("seen_by", ["read", "claim", "commit"])
async def test_the_refresh_token_of_an_older_record_is_not_used(opened, clock, seen_by: str) -> None:
    """A worker that has seen a newer commit, in whatever answer, does not use the refresh token of an older record."""
    store = FaultyStore()
    slot, other = opened(store, clock), opened(store.process(), clock)
    await renewed(other, "one")
    older = store.record
    clock.now += 1
    if seen_by == "commit":
        # The worker's claim was over when another worker renewed.
        assert isinstance(await slot.claim(claimed("late", "one")), Granted)
        clock.now += 20
        older = evolve(store.record, claim_id=None, refresh=b"made-up-refresh-older")
    await renewed(other, "two", "one")
    match seen_by:
        case "read":
            await slot.read()
        case "claim":
            assert isinstance(await slot.claim(claimed("three")), Changed)
        case "commit":
            await slot.commit(committed("late"))
    store.record = older
    answer = await slot.claim(claimed("four", "one"))
    assert isinstance(answer, Granted)
    assert answer.refresh is None


# What an outage is, and what is said about it.


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (KeyError("made-up"), "KeyError: 'made-up'"),
        (OSError(5, "made-up"), "OSError: [Errno 5] made-up"),
        (RuntimeError(), "RuntimeError"),
    ],
)
async def test_the_cause_of_an_outage_names_the_error(opened, clock, error: Exception, cause: str) -> None:
    """The event has the error's class, and its text if there is one."""
    store, emitted = FaultyStore(), []

    def fail(_operation: str) -> None:
        raise error

    store.before = fail
    await opened(store, clock, emitted=emitted).read()
    (event,) = emitted
    assert isinstance(event, events.StoreDegraded)
    assert event.cause == cause


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("own", "takes", "is_outage"),
    [(None, 0.25, False), (None, 0.75, True), (3.0, 2.0, False), (3.0, 4.0, True), (0.125, 0.25, False)],
)
async def test_a_store_may_ask_for_more_time(opened, own: float | None, takes: float, *, is_outage: bool) -> None:
    """An operation may take half a second, or longer if the store has an `operation_timeout` of its own."""

    class SlowStore(FaultyStore):
        def open(self, account: str, **kwargs: Any) -> Any:
            slot = MemoryStore.open(self.inner, account, **kwargs)
            read = slot.read

            async def slowly() -> Any:
                await asyncio.sleep(takes)
                return await read()

            slot.read = slowly
            return slot

    store, emitted = SlowStore(), []
    if own is not None:
        store.operation_timeout = own
    await opened(store, LoopClock(), emitted=emitted).read()
    assert [type(event) for event in emitted] == [events.StoreDegraded] * is_outage


@pytest.mark.virtual_time
async def test_tasks_of_a_store_have_names(opened) -> None:
    """Who looks at the tasks of a program sees which ones are the package's."""
    store, names = FaultyStore(), set()
    slot, other = opened(store, LoopClock()), opened(store.process(), LoopClock())
    mine = asyncio.current_task()

    def note(_operation: str) -> None:
        names.update(task.get_name() for task in asyncio.all_tasks() if task is not mine)

    store.before = note
    await renewed(slot, "one")
    await slot.read()
    watching = asyncio.create_task(slot.changed(60), name="apivideo-auth-test")
    await asyncio.sleep(1)
    await renewed(other, "two", "one")
    await watching
    await asyncio.sleep(1)
    assert names == {
        f"apivideo-auth-{name}" for name in ("claim", "look", "operation", "test", "timed-operation", "watch")
    }
