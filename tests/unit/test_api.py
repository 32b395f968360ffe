"""AuthenticationApi: with mocked answers, and against real servers where the network matters."""

import asyncio
import json
import ssl

import aiohttp
import pytest
import trustme
from aiohttp import web
from aioresponses import aioresponses

from apivideo_auth import (
    SANDBOX,
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    AuthenticationApi,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshTokenPayload,
)
from tests.conftest import API_KEY
from tests.support.loopback import serving

ANSWER = {
    "token_type": "Bearer",
    "expires_in": 3600,
    "access_token": "made-up-access",
    "refresh_token": "made-up-refresh",
}
TOKEN = AccessToken("made-up-access", "Bearer", 3600, "made-up-refresh")
KEY = AuthenticatePayload(API_KEY)


async def test_both_endpoints_answer_a_token(mocked: aioresponses) -> None:
    """Each endpoint is called with its wire name, and what it answers is an AccessToken."""
    mocked.post(f"{SANDBOX}/auth/api-key", payload=ANSWER)
    mocked.post(f"{SANDBOX}/auth/refresh", payload=ANSWER)
    async with AuthenticationApi(SANDBOX) as api:
        assert await api.authenticate(KEY) == TOKEN
        assert await api.refresh(RefreshTokenPayload("made-up-refresh")) == TOKEN
    sent = {
        url.path: json.loads(request.kwargs["data"].decode())
        for (_, url), requests in mocked.requests.items()
        for request in requests
    }
    assert sent == {
        "/auth/api-key": {"apiKey": API_KEY},
        "/auth/refresh": {"refreshToken": "made-up-refresh"},
    }
    for requests in mocked.requests.values():
        assert requests[0].kwargs["allow_redirects"] is False


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (400, {}, CredentialsRejectedError),
        (401, {}, CredentialsRejectedError),
        (403, {}, CredentialsRejectedError),
        (429, {"Retry-After": "7"}, RateLimitedError),
        (500, {}, AuthResponseError),
        (204, {}, InvalidResponseError),
        (200, {}, InvalidResponseError),
    ],
)
async def test_an_answer_that_is_no_token_is_a_typed_error(
    mocked: aioresponses, status: int, headers: dict[str, str], error: type[AuthResponseError]
) -> None:
    """Each class of answer raises its own error with the status, type and title as data."""
    payload = {
        "type": "https://docs.api.video/reference/made-up",
        "title": "Made up.",
        "name": "apiKey",
        "status": status,
    }
    mocked.post(f"{SANDBOX}/auth/api-key", status=status, headers=headers, payload=payload)
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(error) as caught:
            await api.authenticate(KEY)
    assert type(caught.value) is error
    assert caught.value.status == status
    assert caught.value.retry_after == (7.0 if headers else None)
    if status >= 400:
        assert (caught.value.title, caught.value.name) == ("Made up.", "apiKey")
        assert caught.value.type.endswith("/made-up")


@pytest.mark.parametrize(
    ("exception", "sent"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(104, "reset"), True),
        (aiohttp.ClientPayloadError("cut"), True),
        (TimeoutError(), True),
        (aiohttp.ConnectionTimeoutError("connect"), False),
        (aiohttp.ClientConnectorError(None, OSError(111, "refused")), False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_no_answer_is_a_connection_error(mocked: aioresponses, exception: Exception, *, sent: bool) -> None:
    """The error says whether the request may have reached the server, and chains nothing."""
    mocked.post(f"{SANDBOX}/auth/api-key", exception=exception)
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(AuthConnectionError) as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is sent
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SANDBOX in str(caught.value)


async def test_a_refused_connection_was_not_sent() -> None:
    """Where nobody listens, the error says that nothing was sent."""
    async with serving(lambda request: None) as url:
        gone = url
    async with AuthenticationApi(gone) as api:
        with pytest.raises(AuthConnectionError, match="cannot be reached") as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is False


async def raw_server(answer: bytes, *, then_hang: bool = False) -> tuple[asyncio.Server, str]:
    """Serve these bytes to whoever connects."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(answer)
            await writer.drain()
            if then_hang:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", AuthConnectionError),
        (b"made-up nonsense\r\n\r\n", InvalidResponseError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", AuthConnectionError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\r\n", AuthConnectionError),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n", InvalidResponseError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b" " * 200_000, InvalidResponseError),
        (b"HTTP/1.1 204 No Content\r\n\r\n", InvalidResponseError),
    ],
    ids=["nothing", "no-http", "cut", "cut-chunk", "long-header", "large", "no-content"],
)
async def test_bytes_of_any_kind_are_a_typed_error(answer: bytes, error: type[Exception]) -> None:
    """Whatever a server writes, valid HTTP or not, one typed error comes of it."""
    server, url = await raw_server(answer)
    async with server, AuthenticationApi(url) as api:
        with pytest.raises(error) as caught:
            await api.authenticate(KEY)
        assert type(caught.value) is error


async def test_an_endless_answer_is_cut_off() -> None:
    """Of an answer that never ends 64 KiB are read."""
    written = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while written < 2**30:
                await response.write(b" " * 65_536)
                written += 65_536
        except ConnectionError:
            pass
        return response

    async with serving(handle) as url, AuthenticationApi(url) as api:
        with pytest.raises(InvalidResponseError, match="longer than 65536"):
            await api.authenticate(KEY)
    assert written < 2**26


@pytest.mark.virtual_time
async def test_a_server_that_hangs_is_timed_out() -> None:
    """One call takes at most attempt_timeout, whole."""
    server, url = await raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", then_hang=True)
    loop = asyncio.get_running_loop()
    async with server, AuthenticationApi(url, attempt_timeout=7) as api:
        before = loop.time()
        with pytest.raises(AuthConnectionError, match="within 7 seconds"):
            await api.authenticate(KEY)
        assert loop.time() - before == pytest.approx(7, abs=0.1)


async def test_tls_is_verified() -> None:
    """A certificate that nobody vouches for is a connection error before anything is sent; a known one works."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response(ANSWER)

    async with serving(handle, ssl_context=server_context) as url:
        async with AuthenticationApi(url) as api:
            with pytest.raises(AuthConnectionError) as caught:
                await api.authenticate(KEY)
        assert caught.value.sent is False
        assert seen == []
        client_context = ssl.create_default_context()
        authority.configure_trust(client_context)
        async with aiohttp.TCPConnector(ssl=client_context) as connector:
            async with AuthenticationApi(url, connector=connector) as api:
                assert await api.authenticate(KEY) == TOKEN
            assert not connector.closed


async def test_it_can_be_used_again_after_close() -> None:
    """close() is idempotent; a further call opens a session anew."""

    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    async with serving(handle) as url:
        api = AuthenticationApi(url)
        for _ in range(2):
            assert await api.authenticate(KEY) == TOKEN
            await api.close()
            await api.close()
    assert "127.0.0.1" in repr(api)


async def test_each_call_has_a_connection_of_its_own() -> None:
    """The token call keeps no connection alive, so that none can have gone stale when the next one is due."""
    peers = []

    async def handle(request: web.Request) -> web.Response:
        peers.append((request.transport.get_extra_info("peername"), request.headers.get("Connection")))
        return web.json_response(ANSWER)

    async with serving(handle) as url, AuthenticationApi(url) as api:
        for _ in range(3):
            await api.authenticate(KEY)
    assert len({peer for peer, _ in peers}) == 3
