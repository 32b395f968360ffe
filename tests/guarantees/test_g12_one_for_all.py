"""G12: workers that share a store make one renewal per period, and no token is missing when the store fails."""

import asyncio

import pytest
from attrs import evolve

from apivideo_auth import AuthConnectionError, AuthError, TokenManager, TokenStoreError
from apivideo_auth.events import StoreDegraded, StoreRecovered, TokenAdopted, TokenRenewed
from apivideo_auth.stores._account import OPERATION_TIMEOUT
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service, pending_timers
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time
FAULTS = ["down", "slow", "garbage", "lost"]


def workers(number: int, store: FaultyStore, service: Service, clock: LoopClock, emitted: list) -> list[TokenManager]:
    """Return managers that share a store, each in a process of its own; their events go to `emitted`."""
    return [
        TokenManager(API_KEY, api=service, clock=clock, store=store.process(), on_event=emitted.append)
        for _ in range(number)
    ]


def count(emitted: list, kind: type) -> int:
    """Return the number of events of a kind."""
    return sum(isinstance(event, kind) for event in emitted)


@pytest.mark.parametrize("fault", FAULTS)
async def test_g12_a_store_that_is_down_from_the_start_delays_by_its_time_limit(
    clock: LoopClock, service: Service, fault: str
) -> None:
    """Without its store a worker authenticates for itself, after half a second at most, and emits one event."""
    store, emitted = FaultyStore(), []
    store.fault = fault
    (tokens,) = workers(1, store, service, clock, emitted)
    async with tokens:
        before = clock.monotonic()
        assert (await tokens.get_token()).generation == 1
        assert clock.monotonic() - before <= OPERATION_TIMEOUT + 0.01
    assert count(emitted, StoreDegraded) == 1
    assert [call.endpoint for call in service.calls] == ["api-key"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_g12_hours_without_the_store(clock: LoopClock, service: Service, fault: str) -> None:
    """While the store is down a worker renews for itself with its own refresh tokens; no caller waits or fails."""
    store, emitted = FaultyStore(), []
    (tokens,) = workers(1, store, service, clock, emitted)
    async with tokens:
        await tokens.get_token()
        store.fault = fault
        waits = []
        for _ in range(6 * 360):
            before = clock.monotonic()
            await tokens.get_token()
            waits.append(clock.monotonic() - before)
            await asyncio.sleep(10)
        assert max(waits) == 0
    # The shared refresh token is never used without a claim: the first private renewal authenticates.
    assert service.count("api-key") <= 2
    assert 7 <= len(service.calls) <= 9
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))
    assert count(emitted, StoreDegraded) == 1


async def test_g12_a_store_that_is_back_gets_the_workers_token(clock: LoopClock, service: Service) -> None:
    """When the store is back, a private token is committed to it without a call, and the other workers adopt it."""
    store, emitted, others_emitted = FaultyStore(), [], []
    (tokens,) = workers(1, store, service, clock, emitted)
    (other,) = workers(1, store, service, clock, others_emitted)
    async with tokens, other:
        await tokens.get_token()
        await other.get_token()
        store.fault = "down"
        await asyncio.sleep(3000)
        # Each renewed for itself.
        assert len(service.calls) == 3
        store.fault = None
        await asyncio.sleep(60)
        assert count(emitted, StoreRecovered) == count(others_emitted, StoreRecovered) == 1
        assert len(service.calls) == 3
        ours, theirs = await tokens.get_token(), await other.get_token()
        assert ours.access_token == theirs.access_token
        assert store.record.access == ours.access_token.encode()
        await asyncio.sleep(3600)
        # From now on they share again, and use the refresh token that was committed.
        assert len(service.calls) == 4
        assert service.calls[-1].endpoint == "refresh"
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))


@pytest.mark.parametrize("fault", FAULTS)
async def test_g12_a_store_lost_between_claim_and_commit(clock: LoopClock, service: Service, fault: str) -> None:
    """If the store fails when the new token is committed, the worker serves it, and no refresh token is used twice."""
    store, emitted = FaultyStore(), []
    first, second = workers(2, store, service, clock, emitted)
    async with first, second:
        store.before = lambda operation: setattr(store, "fault", fault if operation == "commit" else store.fault)
        assert (await first.get_token()).generation == 1
        store.before = lambda _operation: None
        await asyncio.sleep(100)
        store.fault = None
        await asyncio.sleep(100)
        assert (await second.get_token()).access_token == (await first.get_token()).access_token
        await asyncio.sleep(4 * 3600)
        assert (await second.get_token()).access_token == (await first.get_token()).access_token
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))
    assert len(service.calls) <= 7


async def test_g12_an_emptied_store_costs_one_authentication(clock: LoopClock, service: Service) -> None:
    """After the store restarted without its records, one renewal authenticates for all workers."""
    store, emitted = FaultyStore(), []
    managers = workers(10, store, service, clock, emitted)
    await asyncio.gather(*(manager.get_token() for manager in managers))
    store.empty()
    await asyncio.sleep(2900)
    given = await asyncio.gather(*(manager.get_token() for manager in managers))
    assert len({token.access_token for token in given}) == 1
    assert [call.endpoint for call in service.calls] == ["api-key", "api-key"]
    for manager in managers:
        await manager.close()


async def test_g12_the_refresh_token_of_an_earlier_record_is_not_used(clock: LoopClock, service: Service) -> None:
    """After the store fell back to an earlier record, a worker that knows a newer token authenticates."""
    store, emitted = FaultyStore(), []
    (tokens,) = workers(1, store, service, clock, emitted)
    async with tokens:
        await tokens.get_token()
        older = store.record
        await asyncio.sleep(2900)
        assert len(service.used_refresh_tokens) == 1
        store.record = older
        await asyncio.sleep(2900)
        assert tokens.status().generation == 3
    assert len(service.used_refresh_tokens) == 1
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]


async def test_g12_a_dead_holder_is_replaced_when_its_lease_is_over(clock: LoopClock, service: Service) -> None:
    """A claim whose holder has died delays the other workers until its lease is over, and no longer."""
    store, emitted = FaultyStore(), []
    process_that_dies = store.process()
    dead = TokenManager(API_KEY, api=service, clock=clock, store=process_that_dies)
    (alive,) = workers(1, store, service, clock, emitted)
    service.gate = asyncio.Event()
    caller = asyncio.create_task(dead.get_token())
    await asyncio.sleep(0.1)
    # The holder's process is killed: nothing of it runs any more, and its claim stays.
    (holder,) = (task for task in asyncio.all_tasks() if task.get_name() == "apivideo-auth-renewal")
    process_that_dies.fault = "down"
    holder.cancel()
    caller.cancel()
    await asyncio.sleep(0.1)
    assert store.record.claim_id is not None
    service.gate = None
    began = service.calls[0].at
    assert (await alive.get_token()).generation == 1
    assert clock.monotonic() - began == pytest.approx(15, abs=0.2)
    await dead.close()
    await alive.close()


async def test_g12_a_claim_whose_answer_was_lost_is_released(clock: LoopClock, service: Service) -> None:
    """Once the store answers again, a claim whose answer was lost is released before its lease is over."""
    store, emitted = FaultyStore(), []
    first, second = workers(2, store, service, clock, emitted)
    async with first, second:
        store.fault = "lost"
        await first.get_token()
        store.fault = None
        assert store.record.claim_id is not None
        await asyncio.sleep(2)
        assert store.record.claim_id is None
        assert (await second.get_token()).access_token == (await first.get_token()).access_token
        assert clock.monotonic() < 5
    assert len(service.calls) == 1


async def test_g12_a_holder_that_wakes_up_late_overwrites_nothing(clock: LoopClock, service: Service) -> None:
    """The commit of a holder that stood still past its lease does not count; the holder adopts the newer token."""
    store, emitted = FaultyStore(), []
    late, other = workers(2, store, service, clock, emitted)
    gate = service.gate = asyncio.Event()
    asleep = asyncio.create_task(late.get_token())
    await asyncio.sleep(0.1)
    # The holder stops, and its lease runs out without its noticing.
    record = store.record
    store.record = evolve(record, claim_until=clock.monotonic())
    service.gate = None
    winner = await other.get_token()
    gate.set()
    assert (await asleep).access_token == winner.access_token
    assert store.record.access == winner.access_token.encode()
    assert count(emitted, TokenRenewed) == 1
    assert count(emitted, TokenAdopted) == 1
    await late.close()
    await other.close()


async def test_g12_a_claim_is_released_if_too_little_of_its_lease_is_left(clock: LoopClock, service: Service) -> None:
    """A holder that was delayed between claim and call sends nothing, releases the claim, and claims again."""
    store, emitted = FaultyStore(), []
    (tokens,) = workers(1, store, service, clock, emitted)
    slept = []

    def sleep_after_the_claim(operation: str) -> None:
        if operation == "claim" and not slept:
            slept.append(True)
            clock.asleep += 6

    store.before = sleep_after_the_claim
    async with tokens:
        assert (await tokens.get_token()).generation == 1
    assert store.operations.count("claim") == 2
    assert store.operations.count("release") == 1
    assert len(service.calls) == 1


async def test_g12_closing_while_the_store_is_down_leaves_nothing(clock: LoopClock, service: Service) -> None:
    """close() of a worker whose store hangs takes a few operations' time limit, and leaves no task and no timer."""
    store, emitted = FaultyStore(), []
    (tokens,) = workers(1, store, service, clock, emitted)
    await tokens.get_token()
    store.fault = "slow"
    await asyncio.sleep(3000)
    before = clock.monotonic()
    await tokens.close()
    assert clock.monotonic() - before <= 3 * OPERATION_TIMEOUT
    assert pending_timers() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    operations = len(store.operations)
    await asyncio.sleep(86_400)
    assert len(store.operations) == operations


async def test_g12_a_store_that_cannot_be_opened_is_down(clock: LoopClock, service: Service) -> None:
    """A store that raises when it is opened counts as down."""

    class Broken:
        needs_encryption = False

        def open(self, account: str, **kwargs: object) -> None:
            raise TokenStoreError("made-up")

    emitted: list = []
    async with TokenManager(API_KEY, api=service, clock=clock, store=Broken(), on_event=emitted.append) as tokens:
        await tokens.get_token()
    assert [type(event) for event in emitted] == [StoreDegraded, TokenRenewed]
    assert emitted[0].cause == "TokenStoreError: made-up"


async def test_g12_ninety_nine_of_a_hundred_workers_adopt(clock: LoopClock, service: Service) -> None:
    """A hundred workers make one call per period, also when they all start at the same moment."""
    store, emitted = FaultyStore(), []
    managers = workers(100, store, service, clock, emitted)
    service.latency = 0.3
    await asyncio.gather(*(manager.get_token() for manager in managers))
    await asyncio.sleep(3 * 3600)
    assert service.count("api-key") == 1
    assert 3 <= service.count("refresh") <= 4
    assert service.most_in_flight == 1
    for manager in managers:
        await manager.close()


async def test_g12_many_workers_call_a_dead_endpoint_as_often_as_one(clock: LoopClock, service: Service) -> None:
    """Failures and their backoff are shared: a hundred callers of fifty workers make as many calls as one caller."""
    store, emitted = FaultyStore(), []
    service.always = AuthConnectionError("made-up outage", sent=False, retry_after=4)
    managers = workers(50, store, service, clock, emitted)

    async def caller(manager: TokenManager) -> None:
        for _ in range(60):
            with pytest.raises(AuthError):
                await manager.get_token()
            await asyncio.sleep(1)

    await asyncio.gather(*(caller(manager) for manager in managers for _ in range(2)))
    elapsed = clock.monotonic()
    assert len(service.calls) <= elapsed / 4 + 1
    for manager in managers:
        await manager.close()


async def test_g12_an_offered_token_keeps_its_lifetime(clock: LoopClock, service: Service) -> None:
    """A token that was obtained while the store was down keeps its lifetime, and so its leeway, for other workers."""
    store = FaultyStore()
    owner, other = workers(2, store, service, clock, [])
    async with owner, other:
        store.fault = "down"
        await owner.get_token()
        await asyncio.sleep(1800)
        store.fault = None
        await asyncio.sleep(60)
        assert (await other.get_token()).access_token == (await owner.get_token()).access_token
        with pytest.raises(ValueError, match="tokens live for 3600 seconds"):
            await other.get_token(min_ttl=3500)
        assert len(service.calls) == 1


async def test_g12_a_late_holder_compares_the_token_that_it_got(clock: LoopClock, service: Service) -> None:
    """A holder that lost its claim adopts the record's token if that lives longer than the token it has just got."""
    store = FaultyStore()
    late, other = workers(2, store, service, clock, [])
    async with late, other:
        service.lifetime = 10_000
        await late.get_token()
        await other.get_token()
        clock.asleep, service.lifetime = 1500, 3600
        gate = service.gate = asyncio.Event()
        asleep = asyncio.create_task(late.get_token(min_ttl=8900))
        await asyncio.sleep(1)
        store.record = evolve(store.record, claim_until=clock.monotonic())
        service.gate = None
        await asyncio.gather(other.get_token(min_ttl=8900), return_exceptions=True)
        gate.set()
        await asyncio.gather(asleep, return_exceptions=True)
        assert (await late.get_token()).access_token == store.record.access.decode()
