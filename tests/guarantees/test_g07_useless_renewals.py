"""G7: renewals that cannot help are throttled, failures are remembered, and nothing spins."""

import asyncio
from itertools import count

import pytest
from attrs import evolve

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthError,
    AuthResponseError,
    InvalidResponseError,
    MemoryStore,
    RateLimitedError,
    RefreshPolicy,
    TokenManager,
    TokenRejectedError,
)
from apivideo_auth._record import EMPTY
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


async def test_g07_a_worker_without_a_token_does_not_spin_while_401s_are_throttled(
    clock: LoopClock, service: Service
) -> None:
    """A restarted worker that is given a sibling's rejected token raises `TokenRejectedError`, and claims rarely."""
    store = FaultyStore()
    elsewhere = store.process()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as sibling:
        token = await sibling.get_token()
        await asyncio.sleep(2)
        token = await sibling.get_token(rejected=token)
        await asyncio.sleep(1.5)
        async with TokenManager(API_KEY, api=service, clock=clock, store=elsewhere) as restarted:
            store.record = evolve(store.record, throttled_until=clock.monotonic() + 30, throttle=30.0)
            with pytest.raises(TokenRejectedError) as caught:
                await restarted.get_token(rejected=token)
            # The caller learns how long the throttle lasts, from one claim for the token and one for its replacement.
            assert 29 < caught.value.retry_after <= 30
            assert elsewhere.operations.count("claim") <= 3
            # Only that caller is denied the token.
            assert (await restarted.get_token()).access_token == token.access_token
    assert len(service.calls) == 2


async def test_g07_a_store_that_always_says_busy_does_not_make_a_caller_spin(
    clock: LoopClock, service: Service
) -> None:
    """Whatever a store answers, a caller without a token waits or fails; it does not ask again and again."""
    store = FaultyStore()
    store.before = lambda _name: (
        setattr(store, "record", evolve(EMPTY, claim_id="other", claim_until=clock.monotonic() + 1e-6))
        if store.inner._accounts
        else None
    )
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, policy=RefreshPolicy(deadline=5)) as tokens:
        with pytest.raises(AuthConnectionError):
            await tokens.get_token()
    assert len(store.operations) <= 60


async def test_g07_a_store_that_always_has_a_slightly_better_token_does_not_make_a_caller_spin(
    clock: LoopClock, service: Service
) -> None:
    """A caller whose `min_ttl` no token of the store meets gets an error after a few claims."""
    store, offers = FaultyStore(), count(1)

    def offer_another_token(operation: str) -> None:
        if operation == "claim" and store.record.access is not None and len(store.operations) < 50:
            number = next(offers)
            record = evolve(store.record, version=f"offer-{number}", access=f"made-up-offer-{number}".encode())
            store.record = evolve(record, ends_at=record.ends_at + 1)

    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        await tokens.get_token()
        await asyncio.sleep(2000)
        store.before, before = offer_another_token, len(store.operations)
        with pytest.raises(InvalidResponseError):
            await tokens.get_token(min_ttl=3000)
        assert len(store.operations) - before <= 8
    assert len(service.calls) == 1


async def test_g07_min_ttl_that_fresh_tokens_do_not_meet_is_throttled(clock: LoopClock, service: Service) -> None:
    """If tokens arrive with less life than `min_ttl`, the caller gets an error, and renewals come ever more rarely."""
    service.lifetime, service.latency = 10, 2.0
    errors = []
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        while clock.monotonic() < 60:
            try:
                await tokens.get_token(min_ttl=8.9)
            except InvalidResponseError as error:
                errors.append(error)
            await asyncio.sleep(0.1)
    assert errors
    assert all(error.retry_after > 0 for error in errors)
    # Tokens of ten seconds are renewed about every six seconds anyway.
    assert len(service.calls) <= 20


async def test_g07_tokens_that_are_over_when_they_are_stored_are_a_failure(clock: LoopClock, service: Service) -> None:
    """A store so slow that tokens end before their commit leads to backoff, not to one call after another."""
    service.lifetime = 1
    store = FaultyStore()
    original = store.open

    def open_slowly(account: str, **kwargs: object) -> object:
        slot = original(account, **kwargs)

        class Slow:
            def __getattr__(self, name: str) -> object:
                async def operation(*args: object) -> object:
                    if name == "commit":
                        await asyncio.sleep(0.48)
                    return await getattr(slot, name)(*args)

                return operation

        return Slow()

    store.open = open_slowly
    service.latency = 0.5
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, policy=RefreshPolicy(deadline=2)) as tokens:
        while clock.monotonic() < 60:
            try:
                await tokens.get_token()
            except AuthError as error:
                assert isinstance(error, InvalidResponseError)  # noqa: PT017  every error is checked
            await asyncio.sleep(0.2)
        assert tokens.status().failures > 0
    assert len(service.calls) <= 15


async def test_g07_workers_share_the_backoff_after_a_token_that_is_over_on_arrival(
    clock: LoopClock, service: Service
) -> None:
    """If a token has expired when it arrives, the other workers back off as well, and use its refresh token next."""
    store, policy = FaultyStore(), RefreshPolicy(deadline=0)
    service.lifetime, service.latency = 3, 4.0
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store, policy=policy) as tokens,
        TokenManager(API_KEY, api=service, clock=clock, store=store.process(), policy=policy) as sibling,
    ):
        for manager in (tokens, sibling):
            with pytest.raises(InvalidResponseError):
                await manager.get_token()
        assert len(service.calls) == 1
        service.lifetime = 3600
        await asyncio.sleep(1)
        await sibling.get_token()
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]


@pytest.mark.parametrize("status", [404, 405, 410])
async def test_g07_a_url_without_the_endpoints_fails_at_once(clock: LoopClock, service: Service, status: int) -> None:
    """A 404, 405 or 410 of an endpoint is not retried: callers fail at once, with advice, and one call is made."""
    service.always = AuthResponseError("made-up: no such endpoint", status=status)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        for _ in range(3):
            with pytest.raises(AuthResponseError) as caught:
                await tokens.get_token()
            assert not caught.value.retryable
        assert clock.monotonic() == 0
    assert len(service.calls) == 1


async def test_g07_retry_after_is_kept_when_the_record_is_lost(clock: LoopClock, service: Service) -> None:
    """A backoff that the server asked for holds for its worker although the store loses the record."""
    store = FaultyStore()
    service.always = RateLimitedError("made-up limit", status=429, retry_after=30)
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, policy=RefreshPolicy(deadline=0)) as tokens:
        while clock.monotonic() < 59:
            with pytest.raises(RateLimitedError):
                await tokens.get_token()
            store.record = EMPTY
            await asyncio.sleep(0.5)
    assert len(service.calls) == 2


async def test_g07_a_401_ends_no_backoff_when_the_record_is_lost(clock: LoopClock, service: Service) -> None:
    """A 401 on a usable token does not end its worker's backoff, although the store has lost the record."""
    store = FaultyStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        token = await tokens.get_token()
        service.always = RateLimitedError("made-up limit", status=429, retry_after=30)
        await asyncio.sleep(3200)
        failed_at = service.calls[-1].at
        store.record = EMPTY
        with pytest.raises(RateLimitedError) as caught:
            await tokens.get_token(rejected=token)
        assert service.calls[-1].at == failed_at
        assert caught.value.retry_after == pytest.approx(failed_at + 30 - clock.monotonic())


@pytest.mark.parametrize("when", ["after", "during"])
async def test_g07_the_deadline_is_kept_when_the_record_is_lost(clock: LoopClock, service: Service, when: str) -> None:
    """Callers give up after the deadline of an outage although the store loses the record again and again."""
    store = FaultyStore()
    service.always = AuthConnectionError("made-up outage")
    service.latency = 0.1

    async def lose() -> None:
        while True:
            await asyncio.sleep(2)
            store.record = EMPTY

    async with TokenManager(API_KEY, api=service, clock=clock, store=store, policy=RefreshPolicy(deadline=5)) as tokens:
        if when == "during":
            # Lost while each call is under way, so that no failure is ever recorded.
            store.before = lambda name: name == "release" and setattr(store, "record", EMPTY)
        losing = asyncio.create_task(lose())
        with pytest.raises(AuthConnectionError):
            await tokens.get_token()
        losing.cancel()
        # One backoff more than the deadline, at most.
        assert clock.monotonic() <= 15
    assert len(service.calls) <= 15


async def test_g07_a_throttled_worker_is_given_a_siblings_newer_token(clock: LoopClock, service: Service) -> None:
    """While 401s are throttled, a newer token in a store that does not push is given at once."""
    store = FaultyStore(pushes=False)
    elsewhere = store.process()
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store) as one,
        TokenManager(API_KEY, api=service, clock=clock, store=elsewhere) as other,
    ):
        token = await one.get_token()
        await other.get_token()
        await asyncio.sleep(2)
        newer = await one.get_token(rejected=token)
        with pytest.raises(TokenRejectedError):
            await one.get_token(rejected=newer)
        assert (await other.get_token(rejected=token)).access_token == newer.access_token
    assert len(service.calls) == 2


async def test_g07_a_rejected_caller_is_given_a_newer_token_that_lives_shorter(
    clock: LoopClock, service: Service
) -> None:
    """For a caller whose token was rejected, any other token of the record is better."""
    store = FaultyStore(pushes=False)
    elsewhere = store.process()
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store) as one,
        TokenManager(API_KEY, api=service, clock=clock, store=elsewhere) as other,
    ):
        token = await one.get_token()
        await other.get_token()
        await asyncio.sleep(2)
        service.lifetime = 600
        newer = await one.get_token(rejected=token)
        assert (await other.get_token(rejected=token)).access_token == newer.access_token
    assert len(service.calls) == 2


async def test_g07_a_rejected_caller_is_given_a_newer_token_while_another_manager_renews(
    clock: LoopClock, service: Service
) -> None:
    """While a manager of its process renews, a rejected caller gets the token that another worker has committed."""
    store = FaultyStore(pushes=False)
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens,
        TokenManager(API_KEY, api=service, clock=clock, store=store) as neighbour,
        TokenManager(API_KEY, api=service, clock=clock, store=store.process()) as elsewhere,
    ):
        rejected = await tokens.get_token()
        await elsewhere.get_token()
        await asyncio.sleep(2)
        service.lifetime = 3000
        newer = await elsewhere.get_token(rejected=rejected)
        service.gate, service.lifetime = asyncio.Event(), 3600
        await asyncio.sleep(400)
        renewing = asyncio.create_task(neighbour.get_token(min_ttl=3240))
        await asyncio.sleep(0.1)
        before = clock.monotonic()
        assert (await tokens.get_token(rejected=rejected)).access_token == newer.access_token
        assert clock.monotonic() == before
        service.gate.set()
        await renewing


async def test_g07_a_newer_token_is_given_during_a_backoff(clock: LoopClock, service: Service) -> None:
    """A caller that waits out a backoff gets the token that a sibling commits meanwhile, also without push."""
    store = FaultyStore(pushes=False)
    service.answers.append(AuthConnectionError("made-up outage", sent=False, retry_after=15))
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        caller = asyncio.create_task(tokens.get_token())
        await asyncio.sleep(1)
        store.record = EMPTY
        async with TokenManager(API_KEY, api=service, clock=clock, store=store.process()) as sibling:
            token = await sibling.get_token()
        assert (await caller).access_token == token.access_token
        assert clock.monotonic() < 2
    assert len(service.calls) == 2


async def test_g07_a_thousand_managers_of_one_store_make_one_call(clock: LoopClock, service: Service) -> None:
    """Managers of one account on one store object share claims and looks: one call, and few operations."""
    store = FaultyStore()
    service.latency = 0.2
    managers = [TokenManager(API_KEY, api=service, clock=clock, store=store) for _ in range(1000)]
    tokens = await asyncio.gather(*(manager.get_token() for manager in managers))
    assert len({token.access_token for token in tokens}) == 1
    assert len(service.calls) == 1
    assert len(store.operations) <= 10
    store.operations.clear()
    await asyncio.sleep(3600)
    assert len(service.calls) == 2
    assert len(store.operations) <= 10
    for manager in managers:
        await manager.close()


async def test_g07_a_thousand_managers_without_their_store_make_one_call(clock: LoopClock, service: Service) -> None:
    """While the store is down, the managers of one process still renew once for all of them."""
    store = FaultyStore()
    store.fault = "down"
    service.latency = 0.2
    managers = [TokenManager(API_KEY, api=service, clock=clock, store=store) for _ in range(1000)]
    tokens = await asyncio.gather(*(manager.get_token() for manager in managers))
    assert len({token.access_token for token in tokens}) == 1
    assert len(service.calls) == 1
    for manager in managers:
        await manager.close()


async def test_g07_an_endpoint_that_gives_no_usable_token_is_backed_off(clock: LoopClock, service: Service) -> None:
    """Tokens that are over when they arrive count as failures of the endpoint."""
    service.latency = 2.0
    service.answers.extend(AccessToken(f"made-up-access-{n}", "Bearer", 1, None) for n in range(100))
    async with TokenManager(
        API_KEY, api=service, clock=clock, store=MemoryStore(), policy=RefreshPolicy(deadline=5)
    ) as tokens:
        with pytest.raises(InvalidResponseError):
            await tokens.get_token()
    assert len(service.calls) <= 10


async def test_g07_a_rejected_token_is_not_renewed_during_a_backoff_although_the_record_is_lost(
    clock: LoopClock, service: Service
) -> None:
    """A caller whose token was rejected gets the failure, without a call, until the worker's own backoff is over."""
    store = FaultyStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(10)
        service.answers.append(RateLimitedError("made-up limit", status=429, retry_after=30))
        with pytest.raises(RateLimitedError):
            await tokens.get_token(rejected=token)
        store.record = EMPTY
        await asyncio.sleep(29)
        with pytest.raises(RateLimitedError):
            await tokens.get_token(rejected=token)
        assert len(service.calls) == 2
        await asyncio.sleep(2)
        assert (await tokens.get_token(rejected=token)).access_token != token.access_token
