"""AuthenticationApi: the sentence about a failed call says what happened and what to do."""

import socket
import ssl
from datetime import UTC, datetime
from functools import partial
from unittest.mock import Mock

import aiohttp
import pytest
import trustme
from aioresponses import aioresponses

from apivideo_auth import (
    SANDBOX,
    AuthConnectionError,
    AuthenticationApi,
    AuthResponseError,
    InvalidResponseError,
    RateLimitedError,
    RefreshPolicy,
    RefreshTokenPayload,
    TokenManager,
)
from apivideo_auth._api import certificate_problem
from tests.conftest import API_KEY
from tests.support.answers import KEY
from tests.support.loopback import serving


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


async def test_a_proxy_at_an_impossible_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is no IPv4 address is an invalid URL; older versions of aiohttp try to connect to it."""
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:made-up-password@999.1.1.1:1")
    async with AuthenticationApi(trust_env=True) as api:
        problem = r"the proxy in HTTPS_PROXY .* not a valid URL; |the proxy cannot be reached; "
        with pytest.raises(AuthConnectionError, match=problem) as caught:
            await api.authenticate(KEY)
    assert not caught.value.sent
    assert "made-up-" not in str(caught.value)


async def test_an_invalid_proxy_for_another_scheme_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is not trusted is said, although a proxy that is not used has an invalid URL."""
    monkeypatch.setenv("HTTP_PROXY", "http://")
    async with AuthenticationApi(trust_env=True) as api:
        error = aiohttp.ClientConnectorCertificateError(Mock(), ssl.SSLCertVerificationError("made up"))
        assert isinstance(error, ValueError)
        failure = api._network_failure(error, "https://ws.api.video/auth/api-key")
    assert "its TLS certificate is not trusted" in failure.message
    assert failure.retryable


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
    assert f"{SANDBOX}/auth/api-key " in str(caught.value)
    assert "made-up-password" not in str(caught.value)


async def test_a_proxy_that_is_not_used_is_not_blamed(mocked: aioresponses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trust_env, an invalid proxy of the environment is not the reason of a failed call."""
    monkeypatch.setenv("HTTPS_PROXY", "made-up")
    mocked.post(f"{SANDBOX}/auth/api-key", exception=aiohttp.InvalidURL("https://made-up"))
    async with AuthenticationApi(SANDBOX) as api:
        with pytest.raises(AuthConnectionError, match="its host is not valid"):
            await api.authenticate(KEY)


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
