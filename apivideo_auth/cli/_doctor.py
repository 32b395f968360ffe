"""The command `doctor`: checks the API key, the store, the network, the API and the clock."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from attrs import frozen
from yarl import URL

from apivideo_auth import AuthError, TokenStoreError
from apivideo_auth._api import certificate_problem, invalid_proxy_problem
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._failure import clean_text
from apivideo_auth._response import http_date
from apivideo_auth._urls import invalid_proxy
from apivideo_auth.cli import _token
from apivideo_auth.cli._exits import ExitCode, exit_code
from apivideo_auth.cli._settings import Settings

_TIMEOUT: Final = aiohttp.ClientTimeout(total=20)
_MAX_SKEW: Final = 30.0
"""Seconds between the clocks of this machine and of the server. Records in files are dated by the former."""


@frozen
class Finding:
    """The result of one check."""

    check: str
    result: str
    code: ExitCode = ExitCode.OK

    def line(self) -> str:
        """Return the finding as a line for people."""
        return f"{'ok' if self.code == ExitCode.OK else 'FAIL':>4}  {self.check}: {self.result}"


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run the checks one after another."""
    yield Finding("key", "has a valid form")
    yield await _store(settings)
    async for finding in _network(settings):
        yield finding
        if finding.code != ExitCode.OK:
            return
    # With the account's store: a separate authentication might invalidate the refresh token that its workers share.
    async with settings.manager() as tokens:
        try:
            await tokens.get_token()
        except AuthError as error:
            yield Finding("authentication", str(error), exit_code(error) or ExitCode.FAILED)
            return
        yield Finding("authentication", f"{settings.base_url} issued a token")
        async with tokens.session(timeout=_TIMEOUT) as session:
            try:
                async with session.get("/videos", params={"pageSize": 1}) as response:
                    yield _resource(response)
                    yield _clock(response)
            except (aiohttp.ClientError, TimeoutError) as error:
                yield Finding("API", f"GET /videos failed: {type(error).__name__}", ExitCode.UNREACHABLE)


async def _store(settings: Settings) -> Finding:
    try:
        seconds = await _token.remaining(settings)
    except TokenStoreError as error:
        return Finding("store", str(error), ExitCode.STORE)
    return Finding("store", "no token is stored" if seconds is None else f"its token expires in {seconds:.0f} s")


async def _network(settings: Settings) -> AsyncIterator[Finding]:
    """Make a request without a secret. Any response shows that the proxy, the host and its certificate work."""
    proxy = _proxy(URL(settings.base_url)) if settings.trust_env else None
    host = settings.base_url.partition("//")[2]
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=settings.trust_env) as session,
            session.get(settings.base_url, allow_redirects=False),
        ):
            pass
    except aiohttp.ClientProxyConnectionError:
        yield Finding("proxy", f"{proxy} cannot be reached; it comes from the environment", ExitCode.UNREACHABLE)
    except aiohttp.ClientHttpProxyError as error:
        yield Finding(
            "proxy", f"{proxy} responded with {error.status} {clean_text(error.message)}", ExitCode.UNREACHABLE
        )
    except aiohttp.ClientConnectorDNSError:
        yield Finding("host", f"the name {host} does not resolve", ExitCode.UNREACHABLE)
    except aiohttp.ClientConnectorCertificateError as error:
        yield Finding("TLS", f"the certificate of {host} is {certificate_problem(error)}", ExitCode.UNREACHABLE)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        variable = invalid_proxy() if settings.trust_env and isinstance(error, ValueError) else None
        if variable is not None:
            yield Finding("proxy", invalid_proxy_problem(variable), ExitCode.UNREACHABLE)
            return
        # The text of a ValueError, such as aiohttp's InvalidURL, may show the password in the URL of a proxy.
        reason = type(error).__name__ if isinstance(error, ValueError) else str(error) or type(error).__name__
        yield Finding("host", f"{host} cannot be reached: {reason}", ExitCode.UNREACHABLE)
    else:
        yield Finding("proxy", "none" if proxy is None else f"{proxy} works")
        yield Finding("host", f"{host} responds")
        yield Finding("TLS", "the certificate is trusted" if settings.base_url.startswith("https:") else "not used")


def _proxy(url: URL) -> str | None:
    """Return host and port of the proxy that the environment names for this URL."""
    proxy = None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)
    return proxy and proxy.rpartition("@")[2].rpartition("//")[2]


def _resource(response: aiohttp.ClientResponse) -> Finding:
    if response.ok:
        code = ExitCode.OK
    elif response.status == HTTPStatus.TOO_MANY_REQUESTS:
        code = ExitCode.RATE_LIMITED
    elif response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        code = ExitCode.UNREACHABLE
    else:
        code = ExitCode.REJECTED
    return Finding("API", f"GET /videos responded with {response.status}", code)


def _clock(response: aiohttp.ClientResponse) -> Finding:
    date = http_date(response.headers.get("Date", ""))
    if date is None:
        return Finding("clock", "not checked, since the response has no valid Date")
    skew = SYSTEM_CLOCK.utc() - date
    if abs(skew) <= _MAX_SKEW:
        return Finding("clock", f"differs from the server's by less than {_MAX_SKEW:.0f} s")
    direction = "ahead of" if skew > 0 else "behind"
    return Finding("clock", f"{abs(skew):.0f} s {direction} the server's; set this machine's clock", ExitCode.FAILED)
