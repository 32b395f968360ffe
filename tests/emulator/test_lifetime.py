"""The lifetime of access tokens, and the clock that decides about it."""

import asyncio

import aiohttp
import pytest

from apivideo_auth import RefreshPolicy, TokenManager
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.emulator import Emulator, RateLimits
from tests.emulator.client import Client, bearer_of, until
from tests.support.doubles import ManualClock


@pytest.mark.virtual_time
async def test_a_token_expires_in_virtual_time(session: aiohttp.ClientSession) -> None:
    """A token expires after an hour of the event loop's time, which may be virtual."""
    async with Emulator() as server:
        client = Client(server, session)
        token = await client.bearer()
        await asyncio.sleep(3599)
        assert (await client.get("/videos", token)).status == 200
        await asyncio.sleep(1)
        reply = await client.get("/videos", token)
    assert (reply.status, reply.slug) == (401, "authentication-invalid-access-token")
    assert reply.document["title"] == "The access token is invalid or expired."


async def test_a_token_lives_up_to_its_lifetime_and_no_longer(session: aiohttp.ClientSession) -> None:
    """A token is accepted until just before the end of its lifetime, and rejected from then on."""
    clock = ManualClock(0.0)
    async with Emulator(ttl=2.5, clock=clock) as server:
        client = Client(server, session)
        token = await client.bearer()
        clock.now = 2.499
        assert (await client.get("/videos", token)).status == 200
        clock.now = 2.5
        assert (await client.get("/videos", token)).status == 401


async def test_refresh_tokens_do_not_expire(session: aiohttp.ClientSession) -> None:
    """A refresh token is accepted long after its access token has expired."""
    clock = ManualClock(0.0)
    async with Emulator(ttl=1, clock=clock) as server:
        client = Client(server, session)
        reply = await client.authenticate()
        clock.now = 1e9
        reply = await client.refresh(reply.document["refresh_token"])
        assert (await client.get("/videos", bearer_of(reply))).status == 200


@pytest.mark.parametrize(("ttl", "expires_in"), [(3600, 3600), (2.9, 2), (1.0, 1), (0.2, 1), (11, 11)])
async def test_expires_in_is_an_integer(session: aiohttp.ClientSession, ttl: float, expires_in: int) -> None:
    """On the wire a lifetime is rounded down, and at least 1."""
    async with Emulator(ttl=ttl) as server:
        reply = await Client(server, session).authenticate()
    assert reply.document["expires_in"] == expires_in
    assert isinstance(reply.document["expires_in"], int)


@pytest.mark.virtual_time
async def test_the_default_clock_follows_the_loop() -> None:
    """The monotonic clock is the loop's time; the wall clock starts at the machine's and goes on with the loop."""
    before = SYSTEM_CLOCK.utc()
    async with Emulator() as server:
        assert server.clock.monotonic() == asyncio.get_running_loop().time()
        start = server.clock.utc()
        assert 0 <= start - before < 60
        await asyncio.sleep(86_400)
        assert server.clock.utc() - start == pytest.approx(86_400)


async def test_a_clock_can_be_given() -> None:
    """A given clock is the emulator's clock."""
    clock = ManualClock()
    async with Emulator(clock=clock) as server:
        assert server.clock is clock


async def test_a_clock_can_be_advanced(session: aiohttp.ClientSession) -> None:
    """`advance` moves both readings of the clock: a token expires and a rate limit resets without waiting."""
    async with Emulator(limits=RateLimits(uploads=1, writes=1, reads=1)) as server:
        client = Client(server, session)
        token = await client.bearer()
        monotonic, utc = server.clock.monotonic(), server.clock.utc()
        assert [(await client.get("/videos", token)).status for _ in range(2)] == [200, 429]
        server.advance(60)
        assert [(await client.get("/videos", token)).status for _ in range(2)] == [200, 429]
        server.advance(3540)
        assert (await client.get("/videos", token)).slug == "authentication-invalid-access-token"
        assert server.clock.monotonic() - monotonic == pytest.approx(3600, abs=60)
        assert server.clock.utc() - utc == pytest.approx(3600, abs=60)


@pytest.mark.parametrize(
    ("seconds", "error"), [(-1, ValueError), (float("inf"), ValueError), ("1", TypeError), (True, TypeError)]
)
async def test_a_clock_is_advanced_by_a_number_of_seconds(server: Emulator, seconds: object, error: type) -> None:
    """A clock never goes back: anything but a finite number of 0 or more is an error."""
    with pytest.raises(error, match="seconds must be"):
        server.advance(seconds)


async def test_only_the_emulators_own_clock_is_advanced() -> None:
    """`advance` is a `RuntimeError` before the start, and if a clock was given: its owner moves that one."""
    with pytest.raises(RuntimeError, match="not started"):
        Emulator().advance(1)
    with pytest.raises(RuntimeError, match="move the clock that was given"):
        Emulator(clock=ManualClock()).advance(1)


async def test_a_manager_with_the_same_clock_notices_at_its_next_call(server: Emulator) -> None:
    """With `clock=server.clock`, `advance` expires the manager's token as well. The manager's timer follows the event
    loop, so nothing happens by itself; the next `get_token` waits for a new token.
    """
    async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
        first = await tokens.get_token()
        server.advance(3600)
        assert tokens.status().phase == "expired"
        assert [call.path for call in server.calls] == ["/auth/api-key"]
        second = await tokens.get_token()
        assert second.access_token != first.access_token
        assert second.remaining() > 3000
    assert [(call.path, call.status) for call in server.calls] == [("/auth/api-key", 200), ("/auth/refresh", 200)]


async def test_a_stale_token_is_served_and_renewed_after_an_advance(server: Emulator) -> None:
    """Beyond 80 % of the lifetime the manager's next `get_token` returns the old token at once, and renews it."""
    async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
        first = await tokens.get_token()
        server.advance(3600 * RefreshPolicy().refresh_at)
        assert tokens.status().phase == "stale"
        assert await tokens.get_token() is first
        await until(lambda: tokens.status().generation == 2)
    assert server.calls[-1].outcome == "refreshed"
