"""The two endpoints, over a session that nothing outside can disturb."""

import asyncio
import io
import re
from types import TracebackType
from typing import Self

import aiohttp

from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._errors import error_from
from apivideo_auth._failure import Failure
from apivideo_auth._models import AccessToken, AuthenticatePayload, RefreshTokenPayload
from apivideo_auth._policy import MAX_ATTEMPT_TIMEOUT
from apivideo_auth._response import BODY_LIMIT, Endpoint, parse_response
from apivideo_auth._urls import PRODUCTION, normal_base_url
from apivideo_auth._version import __version__

_NAME = re.compile(r"[\w-]{1,50}", re.ASCII)
_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", re.ASCII)


def origin_headers(application: tuple[str, str] | None) -> dict[str, str]:
    """Return the headers by which the vendor's clients say what they are; the format is the vendor's.

    Raises `TypeError` or `ValueError` for an `application` that they cannot say.
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
        raise ValueError("application: a name has 1 to 50 letters, digits, '_' or '-'")
    if not _VERSION.fullmatch(version):
        raise ValueError("application: a version is up to three numbers of up to three digits, such as '1.2.3'")
    return headers | {"AV-Origin-App": f"{name}:{version}"}


class AuthenticationApi:
    """`POST /auth/api-key` and `POST /auth/refresh` by themselves.

    The session is private: no cookies, no middlewares, no redirects, no proxy of the environment unless `trust_env`.
    A `connector` that is passed stays the caller's to close. `attempt_timeout` (seconds) bounds one call, whole.
    `application=("name", "1.2.3")` is sent as `AV-Origin-App`.

    Raises `TypeError`, `ValueError` or `InsecureUrlError` at construction for arguments that cannot be meant.
    """

    def __init__(
        self,
        base_url: str = PRODUCTION,
        *,
        connector: aiohttp.BaseConnector | None = None,
        application: tuple[str, str] | None = None,
        trust_env: bool = False,
        attempt_timeout: float = 10,
    ) -> None:
        if connector is not None and not isinstance(connector, aiohttp.BaseConnector):
            raise TypeError(f"connector must be an aiohttp connector, not {type(connector).__name__}")
        if not isinstance(trust_env, bool):
            raise TypeError(f"trust_env must be a bool, not {type(trust_env).__name__}")
        if isinstance(attempt_timeout, bool) or not isinstance(attempt_timeout, int | float):
            raise TypeError(f"attempt_timeout must be a number of seconds, not {type(attempt_timeout).__name__}")
        if not 0 < attempt_timeout <= MAX_ATTEMPT_TIMEOUT:
            raise ValueError(f"attempt_timeout must be more than 0 and at most {MAX_ATTEMPT_TIMEOUT:g} seconds")
        self._base_url = normal_base_url(base_url)
        self._connector = connector
        self._trust_env = trust_env
        self._utc = SYSTEM_CLOCK.utc
        self._timeout = aiohttp.ClientTimeout(total=attempt_timeout, ceil_threshold=MAX_ATTEMPT_TIMEOUT)
        self._headers = origin_headers(application) | {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<AuthenticationApi {self._base_url}>"

    @property
    def base_url(self) -> str:
        """The origin that is asked, normalised."""
        return self._base_url

    def keep_time_by(self, clock: Clock) -> None:
        """Read a `Retry-After` that names a date by this clock, in place of the machine's."""
        self._utc = clock.utc

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        """Ask for a token with the API key.

        Raises `CredentialsRejectedError`, `RateLimitedError`, `InvalidResponseError`, another `AuthResponseError`, or
        `AuthConnectionError`.
        """
        if not isinstance(payload, AuthenticatePayload):
            raise TypeError(f"authenticate takes an AuthenticatePayload, not {type(payload).__name__}")
        return await self._call("/auth/api-key", payload, payload.api_key)

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        """Ask for a token with a refresh token, which is used up by it.

        Raises what `authenticate` raises. After anything but `AuthConnectionError.sent` being False or
        `RateLimitedError` the refresh token may be used up although no new one came.
        """
        if not isinstance(payload, RefreshTokenPayload):
            raise TypeError(f"refresh takes a RefreshTokenPayload, not {type(payload).__name__}")
        return await self._call("/auth/refresh", payload, payload.refresh_token)

    async def close(self) -> None:
        """Close the session, and the connector if it was made here. Used again, the object opens anew."""
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
        answer = self._masked(await self._exchange(endpoint, payload), secret)
        if isinstance(answer, Failure):
            raise error_from(answer)
        return answer

    @staticmethod
    def _masked(answer: AccessToken | Failure, secret: str) -> AccessToken | Failure:
        """Mask the secret that was sent where the answer repeats it; before anything is raised, which shows locals."""
        return answer.redacted(secret) if isinstance(answer, Failure) else answer

    async def _exchange(  # noqa: PLR0911  one return for each way in which a call can end
        self, endpoint: Endpoint, payload: AuthenticatePayload | RefreshTokenPayload
    ) -> AccessToken | Failure:
        """Make one call. No local here holds a body, so that no traceback can show one."""
        where = f"{self._base_url}{endpoint}"
        try:
            async with self._opened_session().post(
                where,
                # A payload object's repr does not show the bytes, in whatever frame of aiohttp it stands.
                data=aiohttp.BytesPayload(payload.to_json(), content_type="application/json"),
                allow_redirects=False,
            ) as response:
                body = io.BytesIO()
                while not response.content.at_eof() and body.tell() <= BODY_LIMIT:
                    body.write(await response.content.read(BODY_LIMIT + 1 - body.tell()))
                if body.tell() > BODY_LIMIT:
                    response.close()
                return parse_response(
                    endpoint,
                    self._base_url,
                    response.status,
                    response.headers,
                    body.getvalue(),
                    utc=self._utc(),
                )
        except aiohttp.ClientConnectorCertificateError as error:
            # It has no error of the system beneath, unlike the others.
            why = type(error.certificate_error).__name__
            return Failure(kind="connection", sent=False, message=f"{where} cannot be reached ({why})")
        except aiohttp.ClientConnectorError as error:
            why = type(error.os_error).__name__
            return Failure(kind="connection", sent=False, message=f"{where} cannot be reached ({why})")
        except aiohttp.ConnectionTimeoutError:
            return Failure(kind="connection", sent=False, message=f"{where} cannot be reached (timed out)")
        except TimeoutError:
            limit = f"{self._timeout.total:g} seconds"
            return Failure(kind="connection", message=f"{where} gave no answer within {limit}")
        except aiohttp.ClientHttpProxyError as error:
            why = f"the proxy answered {error.status}"
            return Failure(kind="connection", sent=False, message=f"{where} cannot be reached ({why})")
        except aiohttp.ClientResponseError:
            return Failure(kind="invalid", message=f"{where} answered something that is not HTTP")
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            return Failure(kind="connection", message=f"{where} broke off the call ({type(error).__name__})")

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            owned = self._connector is None
            # One call every 45 minutes gains nothing from keep-alive, and a connection that went stale meanwhile
            # would eat a refresh token.
            connector = aiohttp.TCPConnector(force_close=True) if self._connector is None else self._connector
            self._session = aiohttp.ClientSession(
                connector=connector,
                connector_owner=owned,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                headers=self._headers,
                auto_decompress=False,
                trust_env=self._trust_env,
            )
        return self._session
