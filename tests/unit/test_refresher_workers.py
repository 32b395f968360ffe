"""The refresher beside other workers: their claims, their tokens, and looks at the record."""

import asyncio

import pytest
from attrs import evolve

from apivideo_auth import AuthConnectionError, TokenManager
from apivideo_auth._refresher import CLEANUP_TIMEOUT
from apivideo_auth.stores._account import FailoverAccount
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


def hold_claims(store: FaultyStore, clock: LoopClock, *, which: range, seconds: float) -> list[str]:
    """Let somebody else hold a claim for some seconds before each of these claims; return the list of all claims."""
    claims: list[str] = []

    def before(operation: str) -> None:
        if operation == "claim":
            claims.append(operation)
            if len(claims) - 1 in which:
                store.record = evolve(store.record, claim_id="somebody", claim_until=clock.monotonic() + seconds)

    store.before = before
    return claims


async def test_a_rejected_caller_waits_for_several_claims_of_others(clock: LoopClock, service: Service) -> None:
    """Workers that hold the claim one after another and commit nothing do not use up a caller's tries."""
    store = FaultyStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(60)
        claims = hold_claims(store, clock, which=range(5), seconds=15)
        assert (await tokens.get_token(rejected=token)).generation == 2
    assert len(claims) == 6
    assert len(service.calls) == 2


async def test_a_caller_whose_refresh_token_is_rejected_is_not_throttled(clock: LoopClock, service: Service) -> None:
    """The API key replaces a rejected refresh token at once, also if another worker's claim comes in between."""
    store = FaultyStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(60)
        service.live_refresh_tokens.clear()
        claims = hold_claims(store, clock, which=range(1, 2), seconds=0.25)
        assert (await tokens.get_token(rejected=token)).generation == 2
    assert len(claims) == 3
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]


async def test_a_token_of_another_worker_ends_a_long_backoff(clock: LoopClock, service: Service) -> None:
    """A caller whose own calls cannot work gets the token that another worker has committed without telling it."""
    store = FaultyStore(pushes=False)
    own = Service(clock, always=AuthConnectionError("made-up misuse", sent=False, retryable=False))
    async with (
        TokenManager(API_KEY, api=own, clock=clock, store=store) as tokens,
        TokenManager(API_KEY, api=service, clock=clock, store=store.process()) as other,
    ):
        with pytest.raises(AuthConnectionError, match="made-up misuse"):
            await tokens.get_token()
        token = await other.get_token()
        assert (await tokens.get_token()).access_token == token.access_token
    assert len(own.calls) == 1


async def test_close_waits_for_every_look_at_the_record(
    clock: LoopClock, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look goes on when its caller is cancelled, under a name that says what it is, and `close()` waits for each
    look, also if a later one has ended before.
    """
    durations = [1.2, 0.2]

    async def read(*_args: object) -> None:
        await asyncio.sleep(durations.pop(0))

    def looks() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if "look" in task.get_name()]

    store = FaultyStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store.process()) as other:
        tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
        token = await tokens.get_token()
        await asyncio.sleep(60)
        service.gate = asyncio.Event()
        renewing = asyncio.create_task(other.get_token(rejected=token))
        await asyncio.sleep(1)
        monkeypatch.setattr(FailoverAccount, "read", read)
        for _ in range(2):
            caller = asyncio.create_task(tokens.get_token(rejected=token))
            await asyncio.sleep(0.1)
            caller.cancel()
        assert looks() == ["apivideo-auth-look"] * 2
        await asyncio.sleep(0.3)
        assert looks() == ["apivideo-auth-look"]
        await tokens.close()
        assert looks() == []
        service.gate.set()
        assert (await renewing).generation == 2


async def test_close_does_not_wait_long_for_a_look(
    clock: LoopClock, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a store that does not answer holds `close()` up for a moment only."""

    async def read(*_args: object) -> None:
        await asyncio.sleep(100)

    store = FaultyStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(60)
        hold_claims(store, clock, which=range(1), seconds=15)
        monkeypatch.setattr(FailoverAccount, "read", read)
        caller = asyncio.create_task(tokens.get_token(rejected=token))
        await asyncio.sleep(1)
        caller.cancel()
        before = clock.monotonic()
        await tokens.close()
        assert clock.monotonic() - before == pytest.approx(CLEANUP_TIMEOUT)
        await asyncio.sleep(100)
    assert asyncio.all_tasks() == {asyncio.current_task()}
