"""The command `doctor`: key, host, clock and store, each with what to do about it."""

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from attrs import frozen

from apivideo_auth import AuthError, TokenManager
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.cli import _exits, _token
from apivideo_auth.cli._account import Account

SKEW_ALLOWED: Final = 30.0
"""Seconds between this machine's clock and the server's; records in files are dated by the former."""


@frozen
class Finding:
    """One thing that was looked at. `code` is the exit code that it asks for."""

    what: str
    says: str
    code: int = _exits.OK

    def line(self) -> str:
        """Return the finding as people read it."""
        return f"{'ok' if self.code == _exits.OK else 'BAD':>3}  {self.what}: {self.says}"


async def examine(account: Account) -> AsyncIterator[Finding]:
    """Look at one thing after the other."""
    yield Finding("key", "it has the form of one")
    yield await _store(account)
    # The account's own store, so that the workers' refresh token is not ended by a further authentication.
    async with TokenManager(
        account.api_key, base_url=account.base_url, store=account.open_store(), policy=_token.POLICY
    ) as tokens:
        try:
            await tokens.get_token()
        except AuthError as error:
            yield Finding("authentication", str(error), _exits.code_of(error))
            return
        yield Finding("authentication", f"{account.base_url} gave a token")
        async with tokens.session(timeout=aiohttp.ClientTimeout(total=20)) as session:
            try:
                async with session.get("/videos", params={"pageSize": 1}) as response:
                    yield _resource(response)
                    yield _clock(response)
            except (aiohttp.ClientError, TimeoutError) as error:
                yield Finding("API", f"GET /videos failed with {type(error).__name__}", _exits.UNREACHABLE)


async def _store(account: Account) -> Finding:
    try:
        token = await _token.stored(account)
    except AuthError as error:
        return Finding("store", str(error), _exits.STORE)
    return Finding("store", "it holds no token" if token is None else f"its token lives for {token.remaining:.0f} s")


def _resource(response: aiohttp.ClientResponse) -> Finding:
    code = _exits.OK if response.ok else _exits.RATE_LIMITED if response.status == 429 else _exits.REFUSED  # noqa: PLR2004
    return Finding("API", f"GET /videos answered {response.status}", code)


def _clock(response: aiohttp.ClientResponse) -> Finding:
    try:
        skew = SYSTEM_CLOCK.utc() - parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return Finding("clock", "the server does not tell the time")
    if abs(skew) <= SKEW_ALLOWED:
        return Finding("clock", f"within {SKEW_ALLOWED:.0f} s of the server's")
    direction = "ahead of" if skew > 0 else "behind"
    return Finding("clock", f"{abs(skew):.0f} s {direction} the server's; set this machine's clock", _exits.FAILED)
