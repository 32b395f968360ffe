"""G6: a refresh token goes out at most once, unless it provably was not used."""

import asyncio

import pytest

from apivideo_auth import (
    AuthConnectionError,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    MemoryStore,
    RateLimitedError,
    TokenManager,
    _record,
)
from apivideo_auth.events import RefreshTokenRejected, TokenAdopted
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(
    ("failure", "next_endpoint"),
    [
        (AuthConnectionError("made-up: refused", sent=False), "refresh"),
        (RateLimitedError("made-up limit", status=429), "refresh"),
        (AuthConnectionError("made-up: the answer was lost"), "api-key"),
        (AuthResponseError("made-up", status=500), "api-key"),
        (InvalidResponseError("made-up", status=200), "api-key"),
        (CredentialsRejectedError("made-up", status=400), "api-key"),
        (RuntimeError("made-up bug"), "api-key"),
        (TimeoutError(), "api-key"),
    ],
    ids=["refused", "429", "lost", "500", "malformed", "credentials", "bug", "timeout"],
)
async def test_g06_what_follows_a_failed_refresh(
    clock: LoopClock, service: Service, failure: Exception, next_endpoint: str
) -> None:
    """A refresh token that was provably not used is sent again; after any other failure the API key is sent."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.answers.append(failure)
        await asyncio.sleep(2950)
        assert tokens.status().generation == 2
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", next_endpoint]
    assert len(service.used_refresh_tokens) == (1 if next_endpoint == "refresh" else 0)


async def test_g06_a_lost_answer_is_never_followed_by_the_same_refresh_token(
    clock: LoopClock, service: Service
) -> None:
    """When answers are lost again and again after the work was done, the server never sees a refresh token twice."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.loses = lambda number: number % 3 != 0
        await asyncio.sleep(86_400)
        assert tokens.status().phase in ("fresh", "stale")
    assert len(service.used_refresh_tokens) > 20
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))


async def test_g06_a_call_that_hangs_has_an_unknown_outcome(clock: LoopClock, service: Service) -> None:
    """A refresh without an answer within the attempt's timeout is abandoned, and the API key is used."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.gate = asyncio.Event()
        await asyncio.sleep(2890)
        service.gate = None
        await asyncio.sleep(60)
        assert tokens.status().generation == 2
    assert service.count("refresh") == 1
    assert service.calls[-1].endpoint == "api-key"


async def test_g06_after_a_rejected_refresh_token_a_siblings_token_is_adopted(
    clock: LoopClock, service: Service
) -> None:
    """If a sibling has committed meanwhile, its token is adopted, and the API key is not used."""
    store, emitted = MemoryStore(), []
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=emitted.append) as tokens,
        TokenManager(API_KEY, api=service, clock=clock, store=store) as sibling,
    ):
        await tokens.get_token()
        await sibling.get_token()
        (account,) = store._accounts.values()
        service.live_refresh_tokens.clear()
        rejected = asyncio.Event()

        def renew_meanwhile(event: object) -> None:
            if isinstance(event, RefreshTokenRejected):
                # As if the sibling had authenticated between the rejection and the next claim.
                service.live_refresh_tokens.add("made-up-refresh-sibling")
                held, _ = _record.claim(
                    account.record,
                    _record.Claim(id="sibling", seen=account.record.version, lease=5),
                    clock.monotonic(),
                )
                account.record, _ = _record.commit(
                    held,
                    _record.Commit(
                        id="sibling",
                        access=b"made-up-access-sibling",
                        refresh=b"made-up-refresh-sibling",
                        lifetime=3600,
                        remaining=3600,
                    ),
                    clock.monotonic(),
                )
                rejected.set()

        tokens.subscribe(renew_meanwhile)
        sibling.subscribe(renew_meanwhile)
        await asyncio.sleep(2890)
        assert rejected.is_set()
        assert (await tokens.get_token()).access_token == "made-up-access-sibling"
        assert (await sibling.get_token()).access_token == "made-up-access-sibling"
    assert service.count("api-key") == 1
    assert any(isinstance(event, TokenAdopted) for event in emitted)


async def test_g06_a_cancelled_renewal_gives_no_refresh_token_back(clock: LoopClock, service: Service) -> None:
    """A renewal that close() cancels during the call leaves the shared record without its refresh token."""
    store = MemoryStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        await tokens.get_token()
        service.gate = asyncio.Event()
        while len(service.calls) < 2:  # noqa: ASYNC110  virtual time costs nothing
            await asyncio.sleep(1)
    service.gate = None
    (account,) = store._accounts.values()
    assert account.record.refresh is None
    assert account.record.claim_id is None
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        clock.asleep = 3600
        await tokens.get_token()
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]


async def test_g06_a_store_that_was_set_back_misleads_no_worker_that_has_renewed(
    clock: LoopClock, service: Service
) -> None:
    """A worker does not send the refresh token of a record that is older than its own last commit."""
    store = FaultyStore()
    worker, other = (TokenManager(API_KEY, api=service, clock=clock, store=store.process()) for _ in range(2))
    async with worker, other:
        await worker.get_token()
        await other.get_token()
        earlier = store.record
        clock.asleep = 2000
        service.loses = lambda number: number == 2
        with pytest.raises(AuthConnectionError):
            await other.get_token(min_ttl=2000)
        await asyncio.sleep(2)
        await worker.get_token(min_ttl=2000)
        assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]
        store.record = earlier
        clock.asleep = 6000
        await worker.get_token()
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))
