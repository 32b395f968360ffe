"""The two endpoints, called over a private session."""

import asyncio
import re
import socket
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
from aiohttp import hdrs

from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._errors import error_from
from apivideo_auth._failure import Failure, clean_text
from apivideo_auth._models import AccessToken, AuthenticatePayload, RefreshTokenPayload
from apivideo_auth._policy import MAX_ATTEMPT_TIMEOUT
from apivideo_auth._response import MAX_BODY_SIZE, Endpoint, parse_response
from apivideo_auth._secrets import masked
from apivideo_auth._urls import PRODUCTION, invalid_proxy, normal_base_url
from apivideo_auth._validation import check_instance, check_number
from apivideo_auth._version import __version__
from apivideo_auth.events import logger

_CONNECT_FRACTION: Final = 0.9
"""The fraction of `attempt_timeout` within which a connection must be made. Without one, nothing was sent."""

_NETWORK_ERRORS: Final = (aiohttp.ClientError, OSError, asyncio.IncompleteReadError)
_CONNECTION_PROBLEMS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientSSLError, "the TLS handshake failed; check that the server speaks TLS on this port"),
    (aiohttp.ClientProxyConnectionError, "the proxy cannot be reached; check the proxy settings of the environment"),
    (ConnectionRefusedError, "the connection was refused; check that a server listens there"),
)
_CERTIFICATE_ADVICE: Final[dict[int | None, str]] = {
    # OpenSSL's codes: not yet valid, expired, another host name, another IP address.
    9: "check the clock of this machine",
    10: "check the clock of this machine, and the server's certificate",
    62: "check the base URL",
    64: "check the base URL",
}

_NAME = re.compile(r"[\w-]{1,50}", re.ASCII)
_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", re.ASCII)


class TokenEndpoints(Protocol):
    """The two calls that a `TokenManager` makes: `AuthenticationApi` has them; a stand-in may have them too."""

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        """Return a token for the API key."""
        ...

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        """Return a token for a refresh token."""
        ...


class AuthenticationApi:
    """The endpoints `POST /auth/api-key` and `POST /auth/refresh`.

    The session is private: no cookies, no middlewares, no redirects, no proxy from the environment unless `trust_env`.

    - `connector`: the aiohttp connector to use. The caller closes it.
    - `application`: `("name", "1.2.3")`, sent as `AV-Origin-App`.
    - `attempt_timeout`: the limit for one whole call, in seconds.

    Raises `TypeError`, `ValueError` or `InsecureUrlError` at construction if an argument is invalid. It works in one
    running event loop at a time; when that loop is closed, the next call opens a session in the new one.
    """

    clock: Clock = SYSTEM_CLOCK
    """Its wall clock turns a `Retry-After` with a date into seconds; it measures calls for the log."""

    def __init__(
        self,
        base_url: str = PRODUCTION,
        *,
        connector: aiohttp.BaseConnector | None = None,
        application: tuple[str, str] | None = None,
        trust_env: bool = False,
        attempt_timeout: float = 10,
    ) -> None:
        # Masked before anything can raise: tracebacks may show locals, and a secret may be in the wrong place.
        base_url, application = masked(base_url), masked(application)
        if connector is not None:
            check_instance("connector", connector, aiohttp.BaseConnector)
        check_instance("trust_env", trust_env, bool)
        check_number("attempt_timeout", attempt_timeout, 0, MAX_ATTEMPT_TIMEOUT)
        self._base_url = normal_base_url(base_url)
        self._connector = connector
        self._trust_env = trust_env
        self._attempt_timeout = attempt_timeout
        self._headers = origin_headers(application) | {
            hdrs.CONTENT_TYPE: "application/json",
            hdrs.ACCEPT: "application/json",
            hdrs.ACCEPT_ENCODING: "identity",
        }
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        # A traceback may show an api whose construction has just failed.
        return f"<AuthenticationApi {getattr(self, '_base_url', 'not constructed')}>"

    @property
    def base_url(self) -> str:
        """The origin of the endpoints, normalised."""
        return self._base_url

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        """Return a token for the API key.

        Raises `CredentialsRejectedError`, `RateLimitedError`, `InvalidResponseError`, another `AuthResponseError`, or
        `AuthConnectionError`.
        """
        payload = masked(payload)
        check_instance("payload", payload, AuthenticatePayload)
        return await self._call("/auth/api-key", payload, payload.api_key)

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        """Return a token for a refresh token, which is used up.

        Raises the same errors as `authenticate`. The refresh token can be used again only after a `RateLimitedError`
        or an `AuthConnectionError` with `sent=False`.
        """
        payload = masked(payload)
        check_instance("payload", payload, RefreshTokenPayload)
        return await self._call("/auth/refresh", payload, payload.refresh_token)

    async def close(self) -> None:
        """Close the session. The next call opens a new one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self, endpoint: Endpoint, payload: AuthenticatePayload | RefreshTokenPayload, secret: str
    ) -> AccessToken:
        # Failures are values until here, so that the exception has no frame that holds a response.
        started_at = self.clock.monotonic()
        result = await self._send(endpoint, payload, secret)
        failure = result if isinstance(result, Failure) else None
        outcome = "a token" if failure is None else f"status {failure.status}" if failure.status else failure.kind
        seconds = self.clock.monotonic() - started_at
        logger.debug("called %s%s: %s in %.2f s", self._base_url, endpoint, outcome, seconds)
        if isinstance(result, Failure):
            raise error_from(result)
        return result

    async def _send(
        self, endpoint: Endpoint, payload: AuthenticatePayload | RefreshTokenPayload, secret: str
    ) -> AccessToken | Failure:
        url = f"{self._base_url}{endpoint}"
        session = await self._open_session()
        if isinstance(session, Failure):
            return session
        try:
            async with session.post(url, data=payload.to_json(), allow_redirects=False) as response:
                return parse_response(
                    endpoint,
                    self._base_url,
                    response.status,
                    response.headers,
                    await _body_of(response),
                    utc=self.clock.utc(),
                    sent=secret,
                )
        except (*_NETWORK_ERRORS, ValueError) as error:
            if self._connector is not None and self._connector.closed:
                closed = "the connector was closed during the call; keep it open while it is in use"
                return Failure(kind="misuse", message=closed)
            return self._network_failure(error, url)

    async def _open_session(self) -> aiohttp.ClientSession | Failure:
        """Return the session of the running event loop, or the failure that there can be none."""
        loop = asyncio.get_running_loop()
        if self._connector is not None and self._connector.closed:
            return _misuse("the connector that was passed is closed; keep it open while it is in use")
        if self._session is not None and self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                return _misuse("this AuthenticationApi is in use in another event loop; make one in each loop")
            await self.close()
        if self._session is None or self._session.closed:
            try:
                self._session = self._new_session(loop)
            except RuntimeError:  # aiohttp rejects a connector of another loop
                return _misuse("the connector that was passed belongs to another event loop; make one in each loop")
            self._loop = loop
        return self._session

    def _new_session(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        # Without keep-alive: a connection that went stale between two renewals would lose a refresh token.
        connector = aiohttp.TCPConnector(force_close=True) if self._connector is None else self._connector
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=self._connector is None,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A separate connect timeout distinguishes a missing connection from a missing response.
            timeout=aiohttp.ClientTimeout(
                total=self._attempt_timeout,
                connect=self._attempt_timeout * _CONNECT_FRACTION,
                ceil_threshold=MAX_ATTEMPT_TIMEOUT,
            ),
            headers=self._headers,
            auto_decompress=False,
            trust_env=self._trust_env,
            loop=loop,
        )

    def _network_failure(self, error: Exception, url: str) -> Failure:  # noqa: PLR0911  one for each kind
        """Return the failure for an exception that a call raised: what happened, and what to do about it."""
        check = "check the network and the proxy" if self._trust_env else "check the network"
        invalid = invalid_proxy() if self._trust_env else None
        match error:
            case aiohttp.ClientConnectorError():
                return _not_sent(f"{url} cannot be reached: {self._why_no_connection(error)}")
            case aiohttp.ConnectionTimeoutError():
                limit = "" if self._connector is None else ", and whether other requests use up the connector's limit"
                seconds = f"{self._attempt_timeout * _CONNECT_FRACTION:g} seconds"
                return _not_sent(f"{url} cannot be reached: no connection within {seconds}; {check}{limit}")
            case aiohttp.ClientHttpProxyError():
                advice = "it requires a user name and a password" if error.status == 407 else "check its settings"  # noqa: PLR2004
                message = f"{url} cannot be reached: the proxy responded with status {error.status}; {advice}"
                return _not_sent(message)
            case ValueError() if invalid is not None:
                return _misuse(f"{url} cannot be reached: {invalid_proxy_problem(invalid)}")
            case aiohttp.InvalidURL():
                return _not_sent(f"{url} cannot be reached: its host is not valid; check the base URL")
            case ValueError():
                # The error's own text may show the password in the URL of a proxy.
                message = f"the call to {url} failed with {type(error).__name__}"
            case aiohttp.ClientResponseError():
                message = f"{url} did not send a valid HTTP response; check the base URL"
                return Failure(kind="invalid", message=message)
            case TimeoutError():
                seconds = f"{self._attempt_timeout:g} seconds"
                message = f"{url} did not respond within {seconds}; {check}"
            case _:
                message = f"{url} closed the connection before its response was complete; {check}"
        return Failure(kind="connection", message=message)

    def _why_no_connection(self, error: aiohttp.ClientConnectorError) -> str:
        # First, because this error has no `os_error` in older versions of aiohttp.
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return f"its TLS certificate is {certificate_problem(error)}"
        system_error = error.os_error
        proxy = "" if self._trust_env else "; behind a proxy, pass trust_env=True"
        for cls, reason in _CONNECTION_PROBLEMS:
            if isinstance(error, cls) or isinstance(system_error, cls):
                return reason
        if isinstance(system_error, socket.gaierror):
            return f"the host name does not resolve; check the base URL and the network{proxy}"
        return f"{system_error.strerror or 'no connection'}; check the network{proxy}"


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, with at most one byte more than allowed.

    If the body is cut short, return none of it, since the status and the headers mean enough. A token needs the whole
    body: with status 200, raise what aiohttp raises.
    """
    try:
        return await response.content.readexactly(MAX_BODY_SIZE + 1)
    except asyncio.IncompleteReadError as shorter:
        return shorter.partial
    except _NETWORK_ERRORS:
        if response.status == 200:  # noqa: PLR2004
            raise
        return b""


def invalid_proxy_problem(variable: str) -> str:
    """Return a sentence about a variable with an invalid URL of a proxy, without the URL: it may hold a password."""
    return f"the proxy in {variable} of the environment is not a valid URL; write one such as http://proxy.example:3128"


def certificate_problem(error: aiohttp.ClientConnectorCertificateError) -> str:
    """Return why a certificate is not trusted, by OpenSSL, and what to do about it."""
    cause = error.certificate_error
    own_ca = "if your network has its own CA, name the CA's file in SSL_CERT_FILE, or pass a connector that trusts it"
    advice = _CERTIFICATE_ADVICE.get(getattr(cause, "verify_code", None), own_ca)
    reason = clean_text(getattr(cause, "verify_message", "")).rstrip(".")
    return f"not trusted{f' ({reason})' if reason else ''}; {advice}"


def _not_sent(message: str) -> Failure:
    return Failure(kind="connection", sent=False, message=message)


def _misuse(message: str) -> Failure:
    return Failure(kind="misuse", sent=False, message=message)


def origin_headers(application: tuple[str, str] | None) -> dict[str, str]:
    """Return the headers that identify the client, in the vendor's format.

    Raises `TypeError` or `ValueError` if `application` does not fit that format.
    """
    headers = {"AV-Origin-Sdk": f"apivideo-auth:{__version__}"}
    if application is None:
        return headers
    if not (isinstance(application, tuple) and len(application) == 2):  # noqa: PLR2004  a pair
        raise TypeError('application must be a pair (name, version) such as ("my-app", "1.2.3")')
    name, version = application
    if not (isinstance(name, str) and isinstance(version, str)):
        raise TypeError('application must be a pair of strings such as ("my-app", "1.2.3")')
    if not _NAME.fullmatch(name):
        raise ValueError("application: the name must have 1 to 50 letters, digits, '_' or '-'")
    if not _VERSION.fullmatch(version):
        raise ValueError("application: the version must be up to three numbers of up to three digits, such as '1.2.3'")
    return headers | {"AV-Origin-App": f"{name}:{version}"}
