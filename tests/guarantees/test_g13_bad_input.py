"""G13: whatever the endpoints send, the caller gets one typed error, and the manager stays as it was."""

import asyncio
import json

import pytest
from aiohttp import web

from apivideo_auth import AuthError, InvalidResponseError, RefreshPolicy, TokenManager
from apivideo_auth.events import TokenRenewed
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock
from tests.support.loopback import serving

GOOD = {
    "token_type": "Bearer",
    "expires_in": 3600,
    "access_token": "made-up-access",
    "refresh_token": "made-up-refresh",
}

BAD_RESPONSES = {
    "empty": b"",
    "html": b"<html>made-up</html>",
    "truncated": b'{"access_token": "made-up',
    "null token": json.dumps(GOOD | {"access_token": None}).encode(),
    "no token": b"{}",
    "zero": json.dumps(GOOD | {"expires_in": 0}).encode(),
    "negative": json.dumps(GOOD | {"expires_in": -3600}).encode(),
    "header injection": json.dumps(GOOD | {"access_token": "made-up\r\nX: y"}).encode(),
    "non-ASCII": json.dumps(GOOD | {"access_token": "made-up-é"}).encode(),
    "deep": b"[" * 50_000,
    "long number": b'{"expires_in": ' + b"1" * 5000 + b"}",
    "large": b" " * 200_000,
    "surrogate": b'{"access_token": "\\ud800"}',
    "list": b"[]",
}


class Server:
    """Sends a good token until a test sets a bad response."""

    def __init__(self) -> None:
        self.bad: bytes | None = None
        self.calls = 0

    async def __call__(self, request: web.Request) -> web.Response:
        self.calls += 1
        body = json.dumps(GOOD).encode() if self.bad is None else self.bad
        return web.Response(body=body, content_type="application/json")


@pytest.mark.parametrize("name", BAD_RESPONSES)
async def test_g13_a_bad_response_is_one_typed_error_at_the_start(name: str) -> None:
    """Without a token the caller gets InvalidResponseError, which shows nothing of the response."""
    server = Server()
    server.bad = BAD_RESPONSES[name]
    async with (
        serving(server) as url,
        TokenManager(API_KEY, base_url=url, policy=RefreshPolicy(deadline=0)) as tokens,
    ):
        with pytest.raises(InvalidResponseError) as caught:
            await tokens.get_token()
        assert tokens.status().phase == "empty"
    assert "made-up" not in str(caught.value)


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", BAD_RESPONSES)
async def test_g13_a_bad_response_leaves_the_current_token(name: str) -> None:
    """Callers keep getting the current token, and the manager recovers with the API key."""
    server = Server()
    async with serving(server) as url, TokenManager(API_KEY, base_url=url, clock=LoopClock()) as tokens:
        token = await tokens.get_token()
        server.bad = BAD_RESPONSES[name]
        await asyncio.sleep(2890)
        assert server.calls >= 2
        assert await tokens.get_token() is token
        server.bad = None
        await asyncio.sleep(61)
        assert tokens.status().generation == 2


@pytest.mark.parametrize("status", [201, 204, 301, 307, 400, 401, 403, 404, 405, 418, 429, 500, 502, 503, 599])
async def test_g13_every_status_is_one_typed_error(status: int) -> None:
    """Whatever the status, get_token raises one AuthError that carries it."""

    async def handle(request: web.Request) -> web.Response:
        headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)

    async with (
        serving(handle) as url,
        TokenManager(API_KEY, base_url=url, policy=RefreshPolicy(deadline=0)) as tokens,
    ):
        with pytest.raises(AuthError) as caught:
            await tokens.get_token()
    assert caught.value.status == status


async def test_g13_an_assumed_lifetime_is_marked_in_the_event() -> None:
    """Without expires_in the documented 3,600 seconds are assumed, and the event says so."""
    server, told = Server(), []
    server.bad = json.dumps({"access_token": "made-up-access"}).encode()
    async with serving(server) as url, TokenManager(API_KEY, base_url=url, on_event=told.append) as tokens:
        token = await tokens.get_token()
    assert 3590 < token.remaining() <= 3600 or token.remaining() > 0
    assert isinstance(told[0], TokenRenewed)
    assert (told[0].lifetime, told[0].lifetime_assumed) == (3600.0, True)
