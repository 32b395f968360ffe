"""The commands `token`, `status` and `logout`: a token for scripts, kept between calls."""

import asyncio
import json
import shlex
from datetime import UTC, datetime
from typing import Final

from apivideo_auth import RateLimitedError, RefreshPolicy, Token, TokenManager, TokenRejectedError
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._record import SharedToken
from apivideo_auth.cli._account import Account
from apivideo_auth.events import StoreDegraded, TokenRenewed
from apivideo_auth.stores._encrypted import open_slot

FORMATS: Final = ("token", "header", "json", "env", "curl")
POLICY: Final = RefreshPolicy(deadline=5)
"""Who waits at a prompt wants to hear of an outage soon."""
MAX_WAIT: Final = 2.0


async def get(account: Account, *, min_ttl: float | None, force: bool) -> tuple[Token, list[str]]:
    """Return a token, and warnings. With `force` it is one that was not stored before."""
    renewed: list[TokenRenewed] = []
    warnings: list[str] = []

    def watch(event: object) -> None:
        if isinstance(event, TokenRenewed):
            renewed.append(event)
        elif isinstance(event, StoreDegraded):
            warnings.append(f"the token is not kept: {event.cause}")

    async with TokenManager(
        account.api_key, base_url=account.base_url, store=account.open_store(), policy=POLICY, on_event=watch
    ) as tokens:
        token = await tokens.get_token(min_ttl=min_ttl)
        if force and not renewed:
            token = await _another(tokens, token)
        return token, warnings


async def _another(tokens: TokenManager, token: Token) -> Token:
    """Return another token; one that is too young to be replaced is waited for."""
    try:
        return await tokens.get_token(rejected=token)
    except TokenRejectedError as error:
        wait = error.retry_after or 0.0
    if wait > MAX_WAIT:
        raise RateLimitedError(f"a token was replaced moments ago; try again in {wait:.0f} seconds", retry_after=wait)
    await asyncio.sleep(wait)
    return await tokens.get_token(rejected=token)


def formatted(token: Token, form: str) -> str:
    """Return a token as one of `FORMATS`."""
    # str() of each, since these texts are what the caller asked to see.
    access_token, authorization = str(token.access_token), str(token.authorization)
    if form == "header":
        return f"Authorization: {authorization}"
    if form == "env":
        return f"export APIVIDEO_ACCESS_TOKEN={shlex.quote(access_token)}"
    if form == "curl":
        escaped = authorization.replace("\\", "\\\\").replace('"', '\\"')
        return f'header = "Authorization: {escaped}"'
    if form == "json":
        return json.dumps(
            {
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_at": token.expires_at.isoformat(),
                "expires_in": int(token.remaining()),
            }
        )
    return access_token


async def stored(account: Account) -> SharedToken | None:
    """Return what is stored, without a call; raise `TokenStoreError`."""
    slot = open_slot(
        account.open_store(),
        base_url=account.base_url,
        api_key=account.api_key,
        clock=SYSTEM_CLOCK,
        on_commit=_nothing,
        on_damage=_ignore,
    )
    try:
        return await slot.read()
    finally:
        await slot.close()


async def forget(account: Account) -> None:
    """Delete what is stored; raise `TokenStoreError`."""
    slot = open_slot(
        account.open_store(),
        base_url=account.base_url,
        api_key=account.api_key,
        clock=SYSTEM_CLOCK,
        on_commit=_nothing,
        on_damage=_ignore,
    )
    try:
        await slot.forget()
    finally:
        await slot.close()


def described(account: Account, token: SharedToken | None, *, as_json: bool) -> str:
    """Return what is stored, without a secret, for people or for programs."""
    left = None if token is None else token.remaining
    expires_at = None if left is None else datetime.fromtimestamp(SYSTEM_CLOCK.utc() + left, UTC)
    if as_json:
        return json.dumps(
            {
                "base_url": account.base_url,
                "stored": token is not None,
                "expires_at": None if expires_at is None else expires_at.isoformat(timespec="seconds"),
                "expires_in": None if left is None else int(left),
            }
        )
    if left is None or expires_at is None:
        return f"{account.base_url}: no token is stored"
    minutes, seconds = divmod(int(left), 60)
    return f"{account.base_url}: a token for another {minutes} min {seconds} s, until {expires_at:%H:%M:%S} UTC"


def _ignore(_message: str) -> None:
    """Ignore damage."""


def _nothing() -> None:
    """Ignore a commit: a command looks once."""
