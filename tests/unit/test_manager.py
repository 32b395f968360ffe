"""TokenManager: rejected, min_ttl, status, subscribe, session."""

import asyncio
from email.utils import formatdate

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses

from apivideo_auth import (
    SANDBOX,
    AccessToken,
    AuthConnectionError,
    AuthError,
    CredentialsRejectedError,
    InvalidResponseError,
    MemoryStore,
    RateLimitedError,
    RefreshPolicy,
    TokenManager,
    TokenRejectedError,
)
from apivideo_auth._refresher import Refresher
from apivideo_auth.events import RefreshTokenRejected, RenewalFailed, TokenAdopted, TokenRenewed
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.loopback import serving

virtual_time = pytest.mark.virtual_time


@virtual_time
async def test_a_rejected_token_is_never_the_answer(clock: LoopClock, service: Service) -> None:
    """Who names the current token gets a newer one by one renewal; a second who names it gets that at once."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        old = await tokens.get_token()
        await asyncio.sleep(10)
        given = await asyncio.gather(*(tokens.get_token(rejected=old) for _ in range(100)))
        assert {token.generation for token in given} == {2}
        assert (await tokens.get_token(rejected=old)).generation == 2
        assert tokens.status().rejections == 101
    assert len(service.calls) == 2


@virtual_time
async def test_only_who_names_a_token_is_denied_it(clock: LoopClock, service: Service) -> None:
    """While a renewal because of a 401 is under way, everyone else is served the current token."""
    service.gate = asyncio.Event()
    service.gate.set()
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        old = await tokens.get_token()
        await asyncio.sleep(10)
        service.gate.clear()
        refused = asyncio.create_task(tokens.get_token(rejected=old))
        await asyncio.sleep(1)
        assert await tokens.get_token() is old
        service.gate.set()
        assert (await refused).generation == 2


@virtual_time
async def test_a_revocation_of_both_tokens_leads_to_the_api_key(clock: LoopClock, service: Service) -> None:
    """If the refresh token is refused too after a 401, the same caller gets a token for the API key."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(10)
        service.live_refresh_tokens.clear()
        assert (await tokens.get_token(rejected=token)).generation == 2
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]


@virtual_time
async def test_a_newcomer_told_of_a_revocation_of_both_tokens_gets_one(clock: LoopClock, service: Service) -> None:
    """A manager that has no token yet, and is told that the shared one was refused, gets one for the API key."""
    store = MemoryStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        token = await tokens.get_token()
    await asyncio.sleep(10)
    service.live_refresh_tokens.clear()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        assert (await tokens.get_token(rejected=token)).access_token != token.access_token
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]


@virtual_time
async def test_a_token_younger_than_a_second_is_not_renewed_for_a_401(clock: LoopClock, service: Service) -> None:
    """A 401 on a token in its first second makes no call; the error says when one may be made."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        young = await tokens.get_token()
        await asyncio.sleep(0.75)
        with pytest.raises(TokenRejectedError) as caught:
            await tokens.get_token(rejected=young)
        assert caught.value.retry_after == pytest.approx(0.25)
        await asyncio.sleep(0.25)
        assert (await tokens.get_token(rejected=young)).generation == 2


@virtual_time
async def test_a_resource_that_answers_401_for_ever_costs_a_renewal_a_minute(
    clock: LoopClock, service: Service
) -> None:
    """Renewals that 401s cause are spaced 1, 2, 4 … 60 seconds; after a quiet minute the throttle falls back."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        waits = []
        for _ in range(1440):
            await asyncio.sleep(2.5)
            try:
                token = await tokens.get_token(rejected=token)
            except TokenRejectedError as error:
                waits.append(error.retry_after)
        assert all(0 < wait <= 60 for wait in waits)
        assert 60 <= len(service.calls) <= 68
        calls = len(service.calls)
        await asyncio.sleep(60)
        assert (await tokens.get_token(rejected=token)).generation == calls + 1


@virtual_time
async def test_the_cause_is_the_answer_to_a_rejection_that_fails(clock: LoopClock, service: Service) -> None:
    """If the renewal for a refused token fails, who named it gets the cause, and everyone else is served."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(10)
        service.always = RateLimitedError("made-up limit", status=429, retry_after=5)
        with pytest.raises(RateLimitedError):
            await tokens.get_token(rejected=token)
        with pytest.raises(RateLimitedError) as caught:
            await tokens.get_token(rejected=token)
        assert caught.value.retry_after == pytest.approx(5.0)
        assert await tokens.get_token() is token
    assert len(service.calls) == 2


@virtual_time
async def test_a_token_of_before_is_not_adopted_again(clock: LoopClock, service: Service) -> None:
    """A new manager that is told of a refused token does not take it from the shared store."""
    store = MemoryStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(10)
        async with TokenManager(API_KEY, api=service, clock=clock, store=store) as other:
            assert (await other.get_token(rejected=token)).access_token != token.access_token


@virtual_time
async def test_a_fresh_token_that_suits_is_given_without_the_refresher(
    clock: LoopClock, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller whose `min_ttl` or `rejected` the fresh token meets gets it at once; any other caller does not."""
    asked = []

    async def get(_refresher: object, rejected: object, min_ttl: object) -> None:
        asked.append((rejected is not None, min_ttl))

    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        old = await tokens.get_token()
        await asyncio.sleep(2)
        token = await tokens.get_token(rejected=old)
        monkeypatch.setattr(Refresher, "get", get)
        for min_ttl in (0, 60, 60.0, 2600):
            assert await tokens.get_token(min_ttl=min_ttl) is token
        before = tokens.status().rejections
        assert await tokens.get_token(rejected=old) is token
        assert tokens.status().rejections == before + 1
        assert asked == []
        await tokens.get_token(min_ttl=2900)
        await tokens.get_token(rejected=token)
        await tokens.get_token(rejected=old, min_ttl=60)
        clock.asleep = 2950
        await tokens.get_token(min_ttl=60)
        await tokens.get_token(rejected=old)
        assert asked == [(False, 2900), (True, None), (True, 60), (False, 60), (True, None)]
        for wrong in (True, -1, float("nan"), "60"):
            with pytest.raises((TypeError, ValueError), match="min_ttl"):
                await tokens.get_token(min_ttl=wrong)  # type: ignore[arg-type]


@virtual_time
async def test_min_ttl_renews_for_who_needs_more(clock: LoopClock, service: Service) -> None:
    """A caller that needs more life than is left causes one renewal; enough life causes none."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(1000)
        assert (await tokens.get_token(min_ttl=2599)).generation == 1
        assert (await tokens.get_token(min_ttl=2601)).generation == 2
        assert (await tokens.get_token(min_ttl=3240)).generation == 2
    assert len(service.calls) == 2


@virtual_time
async def test_min_ttl_beyond_a_lifetime_says_how_long_tokens_live(clock: LoopClock, service: Service) -> None:
    """More than 90 % of a lifetime is a ValueError that says the lifetime, without a call for it."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        with pytest.raises(
            ValueError, match="tokens live for 3600 seconds, and min_ttl is at most 90 % of that, 3240 seconds"
        ):
            await tokens.get_token(min_ttl=3241)
    assert len(service.calls) == 1


@virtual_time
async def test_min_ttl_beyond_a_lifetime_is_an_error_for_a_new_token_too(clock: LoopClock, service: Service) -> None:
    """The limit of 90 % holds although a new token that is renewed late would meet a longer `min_ttl`."""
    async with TokenManager(API_KEY, api=service, clock=clock, policy=RefreshPolicy(refresh_at=0.98)) as tokens:
        assert (await tokens.get_token(min_ttl=3240)).remaining() >= 3240
        with pytest.raises(ValueError, match="min_ttl is at most 90 % of that, 3240 seconds"):
            await tokens.get_token(min_ttl=3241)


@virtual_time
async def test_min_ttl_that_no_token_reaches_on_arrival_is_told(clock: LoopClock, service: Service) -> None:
    """If tokens arrive with less life than asked for, a bounded number of renewals says so."""
    service.lifetime, service.latency = 20, 4.0
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        with pytest.raises(InvalidResponseError, match="min_ttl"):
            await tokens.get_token(min_ttl=17)
    assert len(service.calls) <= 4


@virtual_time
async def test_who_needs_more_gets_the_cause_and_the_others_are_served(clock: LoopClock, service: Service) -> None:
    """If the renewal that min_ttl causes fails, its caller gets the cause at once, and again while it cools down."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        token = await tokens.get_token()
        await asyncio.sleep(1000)
        service.always = AuthConnectionError("made-up outage", sent=False, retry_after=30)
        before = clock.monotonic()
        for _ in range(2):
            with pytest.raises(AuthConnectionError):
                await tokens.get_token(min_ttl=3000)
        assert clock.monotonic() == before
        assert await tokens.get_token() is token
    assert len(service.calls) == 2


@virtual_time
async def test_status_follows_the_phases(clock: LoopClock, service: Service) -> None:
    """A snapshot says the phase, the moments and the counters, and does no I/O."""
    tokens = TokenManager(API_KEY, api=service, clock=clock)
    status = tokens.status()
    assert (status.phase, status.generation, status.expires_at, status.renews_at) == ("empty", 0, None, None)
    await tokens.get_token()
    status = tokens.status()
    assert (status.phase, status.generation, status.renewals) == ("fresh", 1, 1)
    assert status.expires_at is not None
    assert status.renews_at is not None
    assert status.expires_at.timestamp() == pytest.approx(clock.utc() + 3600)
    assert 2700 <= status.renews_at.timestamp() - clock.utc() <= 2880
    assert status.expires_at.utcoffset().total_seconds() == 0
    service.always = AuthConnectionError("made-up outage", sent=False, retry_after=40)
    await asyncio.sleep(2890)
    status = tokens.status()
    assert (status.phase, status.last_error) == ("stale", "made-up outage")
    assert status.failures >= 1
    assert status.backoff_until is not None
    assert 0 < status.backoff_until.timestamp() - clock.utc() <= 60
    clock.asleep = 3600
    assert tokens.status().phase == "expired"
    assert "made-up" not in repr(tokens)
    await tokens.close()
    assert (tokens.status().phase, tokens.status().expires_at) == ("closed", None)


@virtual_time
async def test_subscribers_hear_and_can_leave(clock: LoopClock, service: Service) -> None:
    """on_event and each subscriber hear every event; one that left hears no more, one that fails disturbs none."""
    first, second = [], []

    def failing(event: object) -> None:
        raise RuntimeError("made-up bug")

    async with TokenManager(API_KEY, api=service, clock=clock, on_event=first.append) as tokens:
        tokens.subscribe(failing)
        leave = tokens.subscribe(second.append)
        tokens.subscribe(second.append)
        await tokens.get_token()
        leave()
        leave()
        await asyncio.sleep(2900)
    assert [type(event) for event in first] == [TokenRenewed, TokenRenewed]
    assert [event.reason for event in first] == ["first", "stale"]
    assert len(second) == 3


@virtual_time
async def test_a_refused_refresh_token_leads_to_the_api_key_at_once(clock: LoopClock, service: Service) -> None:
    """A refused refresh token is told, costs no pause and no failure, and the API key is used."""
    told = []
    async with TokenManager(API_KEY, api=service, clock=clock, on_event=told.append) as tokens:
        await tokens.get_token()
        service.live_refresh_tokens.clear()
        await asyncio.sleep(2900)
        assert tokens.status().failures == 0
        assert tokens.status().generation == 2
    assert [type(event) for event in told] == [TokenRenewed, RefreshTokenRejected, TokenRenewed]
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]


@virtual_time
async def test_an_answer_without_refresh_token_leads_to_the_api_key(clock: LoopClock, service: Service) -> None:
    """Without a refresh token the next renewal authenticates."""
    service.answers.append(AccessToken("made-up-access", "bearer", 3600, None))
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(2900)
    assert [call.endpoint for call in service.calls] == ["api-key", "api-key"]


@virtual_time
async def test_managers_of_one_process_share_one_token(clock: LoopClock, service: Service) -> None:
    """Managers on one MemoryStore make one call a period, and each adopts what another renewed."""
    store, told = MemoryStore(), []
    managers = [TokenManager(API_KEY, api=service, clock=clock, store=store, on_event=told.append) for _ in range(10)]
    given = await asyncio.gather(*(manager.get_token() for manager in managers))
    assert len({token.access_token for token in given}) == 1
    await asyncio.sleep(10 * 3600)
    given = await asyncio.gather(*(manager.get_token() for manager in managers))
    assert len({token.access_token for token in given}) == 1
    assert service.count("api-key") == 1
    assert 12 <= service.count("refresh") <= 14
    assert sum(isinstance(event, TokenAdopted) for event in told) == 9 * len(service.calls)
    for manager in managers:
        await manager.close()
    assert "accounts=1" in repr(store)


@virtual_time
async def test_accounts_of_one_store_are_kept_apart(clock: LoopClock, service: Service) -> None:
    """Managers of other keys or places on one store never see each other's tokens."""
    store = MemoryStore()
    others = [
        ("made-up-key-a", "http://127.0.0.1:1"),
        ("made-up-key-a", "http://127.0.0.1:2"),
        ("made-up-key-b", "http://127.0.0.1:1"),
    ]
    given = set()
    for key, url in others:
        async with TokenManager(key, base_url=url, api=service, clock=clock, store=store) as tokens:
            given.add((await tokens.get_token()).access_token)
    assert len(given) == 3


@virtual_time
async def test_a_refused_key_is_left_alone(clock: LoopClock, service: Service) -> None:
    """A refused API key is told to every caller at once, and tried again only after a minute, by a caller."""
    service.always = CredentialsRejectedError("made-up refusal", status=400)
    told = []
    async with TokenManager(API_KEY, api=service, clock=clock, on_event=told.append) as tokens:
        for _ in range(100):
            with pytest.raises(CredentialsRejectedError) as caught:
                await tokens.get_token()
        assert caught.value.retry_after == pytest.approx(60)
        await asyncio.sleep(3600)
        assert len(service.calls) == 1
        service.always = None
        assert (await tokens.get_token()).generation == 1
    assert [type(event) for event in told] == [RenewalFailed, TokenRenewed]
    assert told[0].error_class == "CredentialsRejectedError"
    assert told[0].still_serving is False


@virtual_time
async def test_callers_without_a_token_wait_out_a_short_outage(clock: LoopClock, service: Service) -> None:
    """In the first 20 seconds of an outage callers wait, and get a token when it ends."""
    service.always = AuthConnectionError("made-up outage", sent=False)
    asyncio.get_running_loop().call_later(3, setattr, service, "always", None)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        given = await asyncio.gather(*(tokens.get_token() for _ in range(200)))
    assert {token.generation for token in given} == {1}
    assert clock.monotonic() < 20


@virtual_time
async def test_callers_fail_at_once_in_a_long_outage(clock: LoopClock, service: Service) -> None:
    """After the deadline callers fail at once between two tries, with the cause and when to come back."""
    service.always = AuthConnectionError("made-up outage", sent=False, retry_after=8)
    async with TokenManager(API_KEY, api=service, clock=clock, policy=RefreshPolicy(deadline=20)) as tokens:
        began = clock.monotonic()
        with pytest.raises(AuthConnectionError):
            await tokens.get_token()
        assert clock.monotonic() - began <= 20
        calls = len(service.calls)
        for _ in range(50):
            before = clock.monotonic()
            with pytest.raises(AuthError) as caught:
                await tokens.get_token()
            assert clock.monotonic() == before
            assert 0 < caught.value.retry_after <= 30
        assert len(service.calls) == calls


async def test_a_session_is_authenticated_and_says_what_it_is(service: Service) -> None:
    """session() sends the token, the origin headers and the caller's own, through own middlewares first."""
    seen, order = [], []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.Response(text="fine")

    async def own(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        order.append(request.headers.get("Authorization"))
        return await handler(request)

    service.clock = LoopClock()
    async with serving(handle) as url, TokenManager(API_KEY, api=service, base_url=url) as tokens:
        async with tokens.session(headers={"X-Own": "1"}, middlewares=(own,), raise_for_status=True) as session:
            async with session.get("/videos") as response:
                assert await response.text() == "fine"
        async with tokens.session() as session, session.get(f"{url}/absolute"):
            pass
    assert [headers["Authorization"] for headers in seen] == ["Bearer made-up-access-1"] * 2
    assert seen[0]["X-Own"] == "1"
    assert seen[0]["AV-Origin-Sdk"].startswith("apivideo-auth:")
    assert order == [None]


async def test_headers_of_the_caller_replace_those_of_the_session(service: Service) -> None:
    """A header that the caller of session() names, in any case, is sent instead of the manager's own."""
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.Response(text="fine")

    service.clock = LoopClock()
    async with serving(handle) as url, TokenManager(API_KEY, api=service, base_url=url) as tokens:
        async with tokens.session(headers={"av-origin-sdk": "own:1.0"}) as session, session.get("/videos"):
            pass
    assert seen[0].getall("AV-Origin-Sdk") == ["own:1.0"]


@virtual_time
async def test_the_managers_clock_dates_a_retry_after(clock: LoopClock, mocked: aioresponses) -> None:
    """A `Retry-After` with a date is measured on the clock that the manager was given."""
    date = formatdate(clock.utc() + 40, usegmt=True)
    mocked.post(f"{SANDBOX}/auth/api-key", status=429, headers={"Retry-After": date})
    async with TokenManager(API_KEY, base_url=SANDBOX, clock=clock, policy=RefreshPolicy(deadline=0)) as tokens:
        with pytest.raises(RateLimitedError) as caught:
            await tokens.get_token()
    assert caught.value.retry_after == pytest.approx(40, abs=1)


@virtual_time
async def test_the_policys_attempt_timeout_limits_a_call() -> None:
    """A call of the manager's own api takes at most the policy's attempt_timeout; the error says so."""

    async def handle(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    policy = RefreshPolicy(attempt_timeout=3, deadline=0)
    async with serving(handle) as url, TokenManager(API_KEY, base_url=url, policy=policy) as tokens:
        with pytest.raises(AuthConnectionError, match="did not respond within 3 seconds"):
            await tokens.get_token()
