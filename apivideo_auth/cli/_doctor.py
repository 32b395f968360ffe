"""The command `doctor`: checks the API key, the store, the API and the clock."""

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import aiohttp
from attrs import frozen

from apivideo_auth import AuthError, TokenStoreError
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.cli import _stored
from apivideo_auth.cli._exits import ExitCode, exit_code
from apivideo_auth.cli._settings import Settings

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
    """Make one check after the other."""
    yield Finding("key", "has a valid form")
    yield await _store(settings)
    # With the account's store: authenticating beside it might end the refresh token that its workers share.
    async with settings.manager() as tokens:
        try:
            await tokens.get_token()
        except AuthError as error:
            yield Finding("authentication", str(error), exit_code(error) or ExitCode.FAILED)
            return
        yield Finding("authentication", f"{settings.base_url} issued a token")
        async with tokens.session(timeout=aiohttp.ClientTimeout(total=20)) as session:
            try:
                async with session.get("/videos", params={"pageSize": 1}) as response:
                    yield _resource(response)
                    yield _clock(response)
            except (aiohttp.ClientError, TimeoutError) as error:
                yield Finding("API", f"GET /videos failed: {type(error).__name__}", ExitCode.UNREACHABLE)


async def _store(settings: Settings) -> Finding:
    try:
        seconds = await _stored.remaining(settings)
    except TokenStoreError as error:
        return Finding("store", str(error), ExitCode.STORE)
    return Finding("store", "no token is stored" if seconds is None else f"its token expires in {seconds:.0f} s")


def _resource(response: aiohttp.ClientResponse) -> Finding:
    if response.ok:
        code = ExitCode.OK
    elif response.status == HTTPStatus.TOO_MANY_REQUESTS:
        code = ExitCode.RATE_LIMITED
    elif response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        code = ExitCode.UNREACHABLE
    else:
        code = ExitCode.REJECTED
    return Finding("API", f"GET /videos answered {response.status}", code)


def _clock(response: aiohttp.ClientResponse) -> Finding:
    try:
        skew = SYSTEM_CLOCK.utc() - parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return Finding("clock", "not checked, since the response has no valid Date")
    if abs(skew) <= _MAX_SKEW:
        return Finding("clock", f"differs from the server's by less than {_MAX_SKEW:.0f} s")
    direction = "ahead of" if skew > 0 else "behind"
    return Finding("clock", f"{abs(skew):.0f} s {direction} the server's; set this machine's clock", ExitCode.FAILED)
