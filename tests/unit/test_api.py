"""AuthenticationApi: with mocked responses, and against real servers where the network matters."""

import asyncio
import gc
import gzip
import json
import logging
import socket
import ssl
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import aiohttp
import pytest
import trustme
from aiohttp import web
from aioresponses import aioresponses

from apivideo_auth import (
    PRODUCTION,
    SANDBOX,
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    AuthenticationApi,
    AuthError,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshPolicy,
    RefreshTokenPayload,
    TokenManager,
)
from apivideo_auth._api import certificate_problem
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
async def test_no_response_is_a_connection_error(mocked: aioresponses, exception: Exception, *, sent: bool) -> None:
    """The error says what happened, what to do, and whether the request may have reached the server. It names no
    exception class and has no chained exception.
    """
    mocked.post(f"{SANDBOX}/auth/api-key", exception=exception)
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(AuthConnectionError) as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is sent
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SANDBOX in str(caught.value)
    assert "; check " in str(caught.value)
    assert "Error" not in str(caught.value)


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
            with pytest.raises(AuthConnectionError, match="the connector was closed during the call") as caught:
                await call
            assert (caught.value.sent, caught.value.retryable) == (True, False)
            with pytest.raises(AuthConnectionError, match="the connector that was passed is closed") as caught:
                await api.authenticate(KEY)
            assert (caught.value.sent, caught.value.retryable) == (False, False)


async def test_another_event_loop_is_one_clear_error() -> None:
    """In a second event loop, while the first is open, a connector or an api of the first is an error that says so."""

    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    async with serving(handle) as url:
        async with aiohttp.TCPConnector() as connector:
            api = AuthenticationApi(url, connector=connector)
            with pytest.raises(AuthConnectionError, match=r"connector .* another event loop") as caught:
                await asyncio.to_thread(asyncio.run, api.authenticate(KEY))
            assert (caught.value.sent, caught.value.retryable) == (False, False)
        async with AuthenticationApi(url) as api:
            await api.authenticate(KEY)
            with pytest.raises(AuthConnectionError, match="in use in another event loop") as caught:
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


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the host name does not resolve"),
        (ConnectionRefusedError(111, "refused"), "the connection was refused; check that a server listens"),
        (OSError(101, "Network is unreachable"), "Network is unreachable; check the network; .*trust_env=True"),
        (OSError(), "no connection; check the network"),
    ],
    ids=["name", "refused", "network", "unknown"],
)
async def test_a_failed_connection_is_a_sentence_with_advice(
    mocked: aioresponses, error: OSError, sentence: str
) -> None:
    """The message says what happened and what to do, without the names of exception classes."""
    mocked.post(f"{SANDBOX}/auth/api-key", exception=aiohttp.ClientConnectorError(None, error))
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(AuthConnectionError, match=f"cannot be reached: {sentence}") as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is False
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize(("status", "hint"), [(407, "requires a user name and a password"), (502, "status 502")])
async def test_a_proxy_that_answers_itself_is_said(mocked: aioresponses, status: int, hint: str) -> None:
    """A proxy that does not let the request through is named, and nothing was sent."""
    error = aiohttp.ClientHttpProxyError(None, (), status=status, message="made-up")
    mocked.post(f"{SANDBOX}/auth/api-key", exception=error)
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(AuthConnectionError, match=f"the proxy responded .*{hint}") as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is False


async def test_a_proxy_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment that cannot be reached is named as the cause."""
    async with serving(lambda request: None) as url:
        gone = url
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, gone)
    async with AuthenticationApi("http://127.0.0.1:1", trust_env=True) as api:
        with pytest.raises(AuthConnectionError, match="the proxy cannot be reached"):
            await api.authenticate(KEY)


INVALID_PROXIES = [
    "http://user:made-up-password@",
    "http://user:made-up-password@127.0.0.1:99999",
    "http://user:made-up-password@127.0.0.1:abc",
    "http://user:made-up-password@[::1",
    "http://user:made-up-password@a..b:1",
    "http://user:made-up-password@" + "a" * 64 + ":1",
    "http://user:made-up-password@999.1.1.1:1",
    "http://user:made-up-password@a..xn--zz--:1",
    "user:made-up-password@127.0.0.1:1",
    "made-up-password",
    "://",
]


@pytest.mark.parametrize("proxy", INVALID_PROXIES)
async def test_an_invalid_proxy_of_the_environment_is_said(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """With trust_env, a proxy with an invalid URL is a typed error that names the variable and not its value. Nothing
    was sent, trying again does not help, and a TokenManager raises the same error.
    """
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    errors = []
    async with (
        AuthenticationApi(trust_env=True) as api,
        TokenManager(API_KEY, trust_env=True, policy=RefreshPolicy(deadline=0)) as tokens,
    ):
        refresh = partial(api.refresh, RefreshTokenPayload("made-up-refresh"))
        for call in (partial(api.authenticate, KEY), refresh, tokens.get_token):
            with pytest.raises(AuthConnectionError, match=r"the proxy in HTTPS_PROXY .* not a valid URL; ") as caught:
                await call()
            errors.append(caught.value)
    assert {(error.sent, error.retryable) for error in errors} == {(False, False)}
    assert str(errors[0]) == str(errors[2])
    assert "made-up-" not in f"{errors}"
    assert all(error.__cause__ is error.__context__ is None for error in errors)


@pytest.mark.parametrize(
    ("exception", "sent", "text"),
    [
        (aiohttp.InvalidURL("https://made-up-password@"), False, "its host is not valid; check the base URL"),
        (UnicodeError("made-up-password"), True, "failed with UnicodeError"),
    ],
    ids=["InvalidURL", "UnicodeError"],
)
async def test_a_value_error_of_a_connector_is_a_connection_error(
    mocked: aioresponses, exception: Exception, text: str, *, sent: bool
) -> None:
    """Whatever ValueError aiohttp or a connector raises, the caller gets a typed error without its text."""
    mocked.post(f"{SANDBOX}/auth/api-key", exception=exception)
    async with AuthenticationApi(SANDBOX, trust_env=True) as api:
        with pytest.raises(AuthConnectionError, match=text) as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is sent
    assert "made-up-password" not in str(caught.value)


async def test_a_rate_limit_says_when_to_try_again(mocked: aioresponses) -> None:
    """The message of a 429 names the seconds."""
    mocked.post(f"{SANDBOX}/auth/api-key", status=429, headers={"X-RateLimit-Retry-After": "7"})
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(RateLimitedError, match="try again in 7 seconds"):
            await api.authenticate(KEY)


@pytest.mark.parametrize("status", [404, 405, 410])
async def test_a_wrong_address_is_not_worth_a_retry(mocked: aioresponses, status: int) -> None:
    """A 404, 405 or 410 says to check the base URL, and that waiting does not help."""
    mocked.post(f"{SANDBOX}/auth/api-key", status=status)
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(AuthResponseError, match="check the base URL") as caught:
            await api.authenticate(KEY)
    assert caught.value.retryable is False


async def raw_server(answer: bytes, *, then_hang: bool = False) -> tuple[asyncio.Server, str]:
    """Send these bytes to every client."""

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
    """Whatever a server writes, valid HTTP or not, the caller gets one typed error."""
    server, url = await raw_server(answer)
    async with server, AuthenticationApi(url) as api:
        with pytest.raises(error) as caught:
            await api.authenticate(KEY)
        assert type(caught.value) is error


@pytest.mark.virtual_time
@pytest.mark.parametrize("then_hang", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [(503, AuthResponseError), (429, RateLimitedError), (401, CredentialsRejectedError), (201, InvalidResponseError)],
)
@pytest.mark.parametrize("framing", ["Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\nff\r\n{"])
async def test_an_error_whose_body_is_cut_short_keeps_its_status(
    status: int, error: type[AuthResponseError], framing: str, *, then_hang: bool
) -> None:
    """The status and Retry-After of a response count, also if its body breaks off or never ends. Of several
    Retry-After headers the longest wait counts.
    """
    headers = f"HTTP/1.1 {status} Made Up\r\nRetry-After: 9\r\nRetry-After: 30\r\nRetry-After: 3\r\n"
    server, url = await raw_server(f"{headers}{framing}".encode(), then_hang=then_hang)
    async with server, AuthenticationApi(url) as api:
        with pytest.raises(error) as caught:
            await api.refresh(RefreshTokenPayload("made-up-refresh"))
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.retry_after) == (status, 30.0)


async def test_an_endless_response_is_cut_off() -> None:
    """At most 64 KiB of a response are read, even if it never ends."""
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
    """One call takes at most attempt_timeout as a whole."""
    server, url = await raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", then_hang=True)
    loop = asyncio.get_running_loop()
    async with server, AuthenticationApi(url, attempt_timeout=7) as api:
        before = loop.time()
        with pytest.raises(AuthConnectionError, match="within 7 seconds"):
            await api.authenticate(KEY)
        assert loop.time() - before == pytest.approx(7, abs=0.1)


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


@pytest.mark.parametrize(
    ("name", "not_after", "advice"),
    [
        ("127.0.0.1", None, r"\(unable to get local issuer certificate\); if your network has its own CA"),
        ("127.0.0.1", datetime(2020, 1, 1, tzinfo=UTC), r"\(certificate has expired\); check the clock"),
        ("ws.api.video", None, r"\(IP address mismatch, .*\); check the base URL"),
    ],
    ids=["unknown CA", "expired", "another name"],
)
async def test_a_certificate_error_says_why(name: str, not_after: datetime | None, advice: str) -> None:
    """The message has OpenSSL's reason, and the advice fits it."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name, not_before=datetime(2019, 1, 1, tzinfo=UTC), not_after=not_after).configure_cert(
        server_context
    )
    client_context = ssl.create_default_context()
    if "CA" not in advice:
        authority.configure_trust(client_context)
    async with (
        serving(lambda request: None, ssl_context=server_context) as url,
        aiohttp.TCPConnector(ssl=client_context) as connector,
        AuthenticationApi(url, connector=connector) as api,
    ):
        with pytest.raises(AuthConnectionError, match=f"certificate is not trusted {advice}") as caught:
            await api.authenticate(KEY)
    assert caught.value.sent is False


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


async def test_a_connection_with_an_endless_response_is_not_kept() -> None:
    """A connector that was passed keeps no connection on which the rest of a response would still arrive."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" " * 65_536)
        return response

    async with serving(handle) as url, aiohttp.TCPConnector() as connector:
        async with AuthenticationApi(url, connector=connector) as api:
            with pytest.raises(InvalidResponseError, match="longer than 65536"):
                await api.authenticate(KEY)
        assert not connector._acquired
        assert not any(connector._conns.values())


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_response_is_read(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """A server that compresses although nobody asked for it is understood."""

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=compress(json.dumps(ANSWER).encode()), headers={"Content-Encoding": encoding})

    async with serving(handle) as url, AuthenticationApi(url) as api:
        assert await api.authenticate(KEY) == TOKEN


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            aiohttp.ClientHttpProxyError(None, (), status=407),
            "cannot be reached: the proxy responded with status 407; it requires a user name and a password",
        ),
        (
            aiohttp.ClientHttpProxyError(None, (), status=502),
            "cannot be reached: the proxy responded with status 502; check its settings",
        ),
        (
            aiohttp.ClientResponseError(None, (), status=400),
            "did not send a valid HTTP response; check the base URL",
        ),
        (
            aiohttp.ServerDisconnectedError(),
            "closed the connection before its response was complete; check the network",
        ),
        (TimeoutError(), "did not respond within 10 seconds; check the network"),
        (aiohttp.ConnectionTimeoutError(), "cannot be reached: no connection within 9 seconds; check the network"),
    ],
    ids=["proxy-password", "proxy", "not-http", "broken", "no-response", "no-connection"],
)
async def test_a_failed_call_is_told_in_one_sentence(mocked: aioresponses, error: Exception, text: str) -> None:
    """The sentence names the URL, what happened and, if something can be done, what."""
    mocked.post(f"{SANDBOX}/auth/refresh", exception=error)
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises((AuthConnectionError, InvalidResponseError)) as caught:
            await api.refresh(RefreshTokenPayload("made-up-refresh"))
    assert f"{SANDBOX}/auth/refresh " in str(caught.value)
    assert str(caught.value).endswith(text)


async def test_each_endpoint_takes_its_own_payload() -> None:
    """Anything else is a TypeError that names the argument and its type."""
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(TypeError, match=r"^payload must be of type AuthenticatePayload, not RefreshTokenPayload$"):
            await api.authenticate(RefreshTokenPayload("made-up-refresh"))
        with pytest.raises(TypeError, match=r"^payload must be of type RefreshTokenPayload, not AuthenticatePayload$"):
            await api.refresh(KEY)


@pytest.mark.parametrize(
    ("error", "options", "text"),
    [
        (TimeoutError(), {"trust_env": True}, " seconds; check the network and the proxy"),
        (
            aiohttp.ClientConnectorError(None, OSError(101, "made-up")),
            {"trust_env": True},
            "cannot be reached: made-up; check the network",
        ),
        (
            aiohttp.ClientConnectorError(None, OSError(101, "made-up")),
            {},
            "cannot be reached: made-up; check the network; behind a proxy, pass trust_env=True",
        ),
    ],
    ids=["timeout", "proxy-allowed", "proxy-not-allowed"],
)
async def test_the_advice_depends_on_the_proxy(
    mocked: aioresponses, error: Exception, options: dict, text: str
) -> None:
    """Whoever allows the proxies of the environment is told to check them, and everybody else that they exist."""
    mocked.post(f"{SANDBOX}/auth/api-key", exception=error)
    async with AuthenticationApi(SANDBOX, **options) as api:
        with pytest.raises(AuthConnectionError) as caught:
            await api.authenticate(KEY)
    assert str(caught.value).endswith(text)


async def test_the_advice_depends_on_the_connector(mocked: aioresponses) -> None:
    """A connector that was passed may have no connection left."""
    mocked.post(f"{SANDBOX}/auth/api-key", exception=aiohttp.ConnectionTimeoutError())
    async with aiohttp.TCPConnector() as connector, AuthenticationApi(SANDBOX, connector=connector) as api:
        with pytest.raises(AuthConnectionError) as caught:
            await api.authenticate(KEY)
    limit = "; check the network, and whether other requests use up the connector's limit"
    assert str(caught.value).endswith(limit)


def test_the_reason_of_openssl_is_told_without_its_full_stop() -> None:
    """Without a reason the sentence goes on with the advice."""

    class ReasonError(Exception):
        verify_code = 0
        verify_message = "made-up reason X."

    advice = "; if your network has its own CA, name the CA's file in SSL_CERT_FILE, or pass a connector that trusts it"
    told = certificate_problem(aiohttp.ClientConnectorCertificateError(None, ReasonError()))
    assert told == f"not trusted (made-up reason X){advice}"
    assert certificate_problem(aiohttp.ClientConnectorCertificateError(None, Exception())) == f"not trusted{advice}"


def test_an_api_that_was_not_constructed_can_be_shown() -> None:
    """A traceback may show an object whose construction has just failed."""
    assert repr(AuthenticationApi.__new__(AuthenticationApi)) == "<AuthenticationApi not constructed>"
