"""G4: while the current token is usable for a caller, that caller sees no failed renewal."""

import asyncio

import pytest

from apivideo_auth import (
    AuthConnectionError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    TokenManager,
)
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(
    "failure",
    [
        AuthConnectionError("made-up outage", sent=False),
        AuthConnectionError("made-up outage"),
        RateLimitedError("made-up limit", status=429, retry_after=5),
        InvalidResponseError("made-up garbage", status=200),
        CredentialsRejectedError("made-up rejection", status=401),
        RuntimeError("made-up bug of a stand-in"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_g04_an_outage_while_the_token_is_usable_is_hidden(
    clock: LoopClock, service: Service, failure: Exception
) -> None:
    """From the first failed renewal until the token's leeway begins, every caller is served."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.always = failure
        await asyncio.sleep(2690)
        while clock.monotonic() - service.calls[0].at < 3569:
            assert (await tokens.get_token()).generation == 1
            await asyncio.sleep(1)
        assert tokens.status().failures >= 1
        assert tokens.status().last_error is not None


async def test_g04_the_timer_recovers_by_itself(clock: LoopClock, service: Service) -> None:
    """When the endpoint is back before the token expires, the manager renews without a caller."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.always = AuthConnectionError("made-up outage", sent=False)
        await asyncio.sleep(3000)
        assert tokens.status().failures > 1
        service.always = None
        await asyncio.sleep(31)
        status = tokens.status()
    assert status.generation == 2
    assert status.last_error is None


async def test_g04_ten_minutes_without_the_endpoint(clock: LoopClock, service: Service) -> None:
    """Ten minutes of outage while a token is usable: no caller notices, and the backoff bounds the calls."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(2650)
        service.always = AuthConnectionError("made-up outage")
        asyncio.get_running_loop().call_later(600, setattr, service, "always", None)
        for _ in range(3600 - 2650 - 31):
            await tokens.get_token()
            await asyncio.sleep(1)
        assert tokens.status().generation == 2
    assert service.count("refresh") == 1
    assert len(service.calls) < 150
