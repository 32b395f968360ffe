"""How long access tokens live, and by which clock."""

import asyncio

import aiohttp
import pytest

from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.emulator import Emulator
from tests.emulator.client import Client, bearer_of
from tests.support.doubles import ManualClock


@pytest.mark.virtual_time
async def test_a_token_expires_in_virtual_time(session: aiohttp.ClientSession) -> None:
    """An hour of the event loop's time ends a token, however little real time that takes."""
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
    """A token is good just before its lifetime is over, and not at that very moment."""
    clock = ManualClock(0.0)
    async with Emulator(ttl=2.5, clock=clock) as server:
        client = Client(server, session)
        token = await client.bearer()
        clock.now = 2.499
        assert (await client.get("/videos", token)).status == 200
        clock.now = 2.5
        assert (await client.get("/videos", token)).status == 401


async def test_refresh_tokens_do_not_expire(session: aiohttp.ClientSession) -> None:
    """A refresh token is_newer_than its access token by as long as anybody likes."""
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
    """The clock that is handed in is the one that is shown."""
    clock = ManualClock()
    async with Emulator(clock=clock) as server:
        assert server.clock is clock
