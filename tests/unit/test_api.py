"""AuthenticationApi: its calls, its session and its connections."""

import asyncio
import gc
import json
import logging
import ssl
from contextlib import suppress

import aiohttp
import pytest
import trustme
from aiohttp import web
from aioresponses import aioresponses

from apivideo_auth import (
    PRODUCTION,
    SANDBOX,
    AuthConnectionError,
    AuthenticationApi,
    AuthError,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshTokenPayload,
)
from tests.conftest import API_KEY
from tests.support.answers import ANSWER, KEY, TOKEN
from tests.support.doubles import ManualClock
from tests.support.loopback import serving


async def test_both_endpoints_answer_a_token(mocked: aioresponses) -> None:
    """Each endpoint gets its own path and body, and its response is an AccessToken."""
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
async def test_a_response_without_a_token_is_a_typed_error(
    mocked: aioresponses, status: int, headers: dict[str, str], error: type[AuthResponseError]
) -> None:
    """Each kind of response raises its own error, with the status, type and title as attributes."""
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
    sentences = (f"{SANDBOX} rejected the API key: ", f"{SANDBOX}/auth/api-key responded ")
    assert str(caught.value).startswith(sentences)
    if status >= 400:
        assert (caught.value.title, caught.value.name) == ("Made up.", "apiKey")
        assert caught.value.type.endswith("/made-up")


async def test_a_refused_connection_was_not_sent() -> None:
    """If no server listens, the error says that nothing was sent."""
    async with serving(lambda request: None) as url:
        gone = url
    async with AuthenticationApi(gone) as api:
        with pytest.raises(AuthConnectionError, match="cannot be reached") as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is False


@pytest.mark.virtual_time
async def test_a_call_that_waited_for_a_connection_was_not_sent() -> None:
    """With a shared connector whose only connection is in use the call times out and says that nothing was sent."""
    calls = []
    arrived, done = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        calls.append(request.path)
        if request.path == "/busy":
            arrived.set()
            await done.wait()
        return web.json_response(ANSWER)

    async with (
        serving(handle) as url,
        aiohttp.TCPConnector(limit=1) as connector,
        aiohttp.ClientSession(connector=connector, connector_owner=False) as session,
        AuthenticationApi(url, connector=connector) as api,
    ):
        busy = asyncio.create_task(session.get(f"{url}/busy"))
        await arrived.wait()
        with pytest.raises(AuthConnectionError, match=r"no connection within 9 seconds.*connector's limit") as caught:
            await api.refresh(RefreshTokenPayload("made-up-refresh"))
        assert (caught.value.sent, caught.value.retryable) == (False, True)
        done.set()
        (await busy).release()
        assert await api.refresh(RefreshTokenPayload("made-up-refresh")) == TOKEN
    assert calls == ["/busy", "/auth/refresh"]


async def test_a_closed_connector_is_one_clear_error() -> None:
    """A connector that its owner has closed, before or during the call, is an error that says so and is not retried."""
    arrived = asyncio.Event()

    async def handle(_request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()

    async with serving(handle) as url:
        connector = aiohttp.TCPConnector()
        async with AuthenticationApi(url, connector=connector) as api:
            call = asyncio.create_task(api.authenticate(KEY))
            await arrived.wait()
            await connector.close()
            with pytest.raises(AuthConnectionError, match=r"^the connector was closed .* call; .*use$") as caught:
                await call
            assert (caught.value.sent, caught.value.retryable) == (True, False)
            with pytest.raises(AuthConnectionError, match=r"^the connector that .* is closed; .*use$") as caught:
                await api.authenticate(KEY)
            assert (caught.value.sent, caught.value.retryable) == (False, False)


async def test_another_event_loop_is_one_clear_error() -> None:
    """In a second event loop, while the first is open, a connector or an api of the first is an error that says so."""

    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    async with serving(handle) as url:
        async with aiohttp.TCPConnector() as connector:
            api = AuthenticationApi(url, connector=connector)
            with pytest.raises(AuthConnectionError, match=r"^the connector .* another event .*each loop$") as caught:
                await asyncio.to_thread(asyncio.run, api.authenticate(KEY))
            assert (caught.value.sent, caught.value.retryable) == (False, False)
        async with AuthenticationApi(url) as api:
            await api.authenticate(KEY)
            with pytest.raises(AuthConnectionError, match=r"^this AuthenticationApi is in use .*each loop$") as caught:
                await asyncio.to_thread(asyncio.run, api.authenticate(KEY))
            assert (caught.value.sent, caught.value.retryable) == (False, False)
            assert await api.authenticate(KEY) == TOKEN


async def test_it_works_in_the_next_event_loop_when_the_first_is_closed() -> None:
    """One asyncio.run after another can use the same object; nothing of the first loop is left behind."""

    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    async with serving(handle) as url:
        api = AuthenticationApi(url)
        for _ in range(3):
            assert await asyncio.to_thread(asyncio.run, api.authenticate(KEY)) == TOKEN
        assert await api.authenticate(KEY) == TOKEN
        await api.close()
        assert await asyncio.to_thread(asyncio.run, api.authenticate(KEY)) == TOKEN
        await api.close()
    gc.collect()


async def test_tls_is_verified() -> None:
    """With an untrusted certificate nothing is sent and the error gives advice; with a trusted one the call works."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response(ANSWER)

    async with serving(handle, ssl_context=server_context) as url:
        async with AuthenticationApi(url) as api:
            with pytest.raises(AuthConnectionError, match=r"certificate is not trusted.*pass a connector") as caught:
                await api.authenticate(KEY)
        assert caught.value.sent is False
        assert seen == []
        client_context = ssl.create_default_context()
        authority.configure_trust(client_context)
        async with aiohttp.TCPConnector(ssl=client_context) as connector:
            async with AuthenticationApi(url, connector=connector) as api:
                assert await api.authenticate(KEY) == TOKEN
            assert not connector.closed


async def test_a_server_without_tls_is_said() -> None:
    """A port that does not speak TLS is an error that says so, before anything is sent."""
    async with serving(lambda request: None) as url, AuthenticationApi(url.replace("http", "https")) as api:
        with pytest.raises(AuthConnectionError, match="the TLS handshake failed") as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is False


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "a token"), (503, "status 503"), (None, "connection")],
    ids=["token", "status", "none"],
)
async def test_each_call_is_logged(
    mocked: aioresponses, caplog: pytest.LogCaptureFixture, status: int | None, outcome: str
) -> None:
    """A call is one record at DEBUG: the endpoint, the outcome and the time that it took, without a secret."""
    caplog.set_level(logging.DEBUG, "apivideo_auth")
    exception = aiohttp.ClientOSError() if status is None else None
    answer = {"access_token": "made-up-access", "token_type": "bearer", "expires_in": 3600}
    mocked.post(f"{PRODUCTION}/auth/api-key", status=status or 200, payload=answer, exception=exception)
    async with AuthenticationApi() as api:
        with suppress(AuthError):
            await api.authenticate(KEY)
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(f"called {PRODUCTION}/auth/api-key: {outcome} in 0.")
    assert "made-up" not in record.getMessage()


async def test_it_can_be_used_again_after_close() -> None:
    """close() is idempotent, and the next call opens a new session."""

    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    async with serving(handle) as url:
        api = AuthenticationApi(url)
        for _ in range(2):
            assert await api.authenticate(KEY) == TOKEN
            await api.close()
            await api.close()
    assert "127.0.0.1" in repr(api)


@pytest.mark.virtual_time
async def test_close_ends_a_call() -> None:
    """A call that waits for its response when the api is closed fails at once, and not at its timeout."""
    arrived = asyncio.Event()

    async def handle(_request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()

    async with serving(handle) as url:
        api = AuthenticationApi(url)
        call = asyncio.create_task(api.authenticate(KEY))
        await arrived.wait()
        before = asyncio.get_running_loop().time()
        await api.close()
        with pytest.raises(AuthConnectionError, match="closed the connection") as caught:
            await call
        assert asyncio.get_running_loop().time() == before
    assert caught.value.sent is True


async def test_a_request_has_the_documented_headers() -> None:
    """Each call sends JSON and asks for JSON that is not compressed; no call sends a cookie that another one got."""
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers)
        response = web.json_response(ANSWER)
        response.set_cookie("made-up", "cookie")
        return response

    async with serving(handle) as url:
        # A cookie jar takes no cookies from a host without a name.
        async with AuthenticationApi(url.replace("127.0.0.1", "localhost")) as api:
            await api.authenticate(KEY)
            await api.refresh(RefreshTokenPayload("made-up-refresh"))
    for headers in seen:
        assert headers.getall("Content-Type") == ["application/json"]
        assert headers.getall("Accept") == ["application/json"]
        assert headers.getall("Accept-Encoding") == ["identity"]
        assert "Cookie" not in headers
    assert len(seen) == 2


async def test_the_date_of_a_retry_after_counts_from_the_apis_clock(mocked: aioresponses) -> None:
    """The pause is the time from the clock's now to the date."""
    mocked.post(f"{SANDBOX}/auth/api-key", status=429, headers={"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"})
    async with AuthenticationApi(SANDBOX) as api:
        api.clock = ManualClock(15)
        with pytest.raises(RateLimitedError) as caught:
            await api.authenticate(KEY)
    assert caught.value.retry_after == 45


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"connector": "tcp"}, TypeError),
        ({"trust_env": "yes"}, TypeError),
        ({"attempt_timeout": "10"}, TypeError),
        ({"attempt_timeout": 0}, ValueError),
        ({"application": ("my-app", 1)}, TypeError),
        ({"application": (1, "1.2.3")}, TypeError),
    ],
    ids=str,
)
def test_an_invalid_argument_is_named(kwargs: dict, error: type[Exception]) -> None:
    """The message begins with the name of the argument and says what it must be."""
    (name,) = kwargs
    with pytest.raises(error, match=f"^{name} must be "):
        AuthenticationApi(**kwargs)


def test_a_short_timeout_is_allowed() -> None:
    """A timeout is any number of seconds more than 0 and at most 60."""
    for seconds in (0.1, 60):
        assert AuthenticationApi(attempt_timeout=seconds).base_url == PRODUCTION


async def test_each_call_has_a_connection_of_its_own() -> None:
    """No connection is kept alive, so that none can be stale when the next token is due."""
    peers = []

    async def handle(request: web.Request) -> web.Response:
        peers.append((request.transport.get_extra_info("peername"), request.headers.get("Connection")))
        return web.json_response(ANSWER)

    async with serving(handle) as url, AuthenticationApi(url) as api:
        for _ in range(3):
            await api.authenticate(KEY)
    assert len({peer for peer, _ in peers}) == 3


async def test_each_endpoint_takes_its_own_payload() -> None:
    """Anything else is a TypeError that names the argument and its type."""
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(TypeError, match=r"^payload must be of type AuthenticatePayload, not RefreshTokenPayload$"):
            await api.authenticate(RefreshTokenPayload("made-up-refresh"))
        with pytest.raises(TypeError, match=r"^payload must be of type RefreshTokenPayload, not AuthenticatePayload$"):
            await api.refresh(KEY)


def test_an_api_that_was_not_constructed_can_be_shown() -> None:
    """A traceback may show an object whose construction has just failed."""
    assert repr(AuthenticationApi.__new__(AuthenticationApi)) == "<AuthenticationApi not constructed>"
