"""The command `token`: a token for scripts, kept between calls."""

import asyncio
import json
import shlex
from typing import Final

import click

from apivideo_auth import RateLimitedError, Token, TokenManager, TokenRejectedError
from apivideo_auth.cli._settings import Settings
from apivideo_auth.events import Event, StoreDegraded, TokenRenewed

_MAX_WAIT: Final = 2.0
"""Seconds that --force waits until the stored token is old enough to be replaced."""


async def get(settings: Settings, *, min_ttl: float | None = None, force: bool = False) -> Token:
    """Return a token; with `force` a new one, not the one that was stored. Warns if the token cannot be kept."""
    renewals = 0

    def watch(event: Event) -> None:
        nonlocal renewals
        if isinstance(event, TokenRenewed):
            renewals += 1
        elif isinstance(event, StoreDegraded):
            click.echo(f"Warning: the token is not kept: {event.message}", err=True)

    async with settings.manager(watch) as tokens:
        token = await tokens.get_token(min_ttl=min_ttl)
        return await _another(tokens, token) if force and not renewals else token


async def _another(tokens: TokenManager, token: Token) -> Token:
    """Return another token; wait if this one is too young to be replaced."""
    try:
        return await tokens.get_token(rejected=token)
    except TokenRejectedError as error:
        wait = error.retry_after or 0.0
    if wait > _MAX_WAIT:
        raise RateLimitedError(f"a token was replaced moments ago; try again in {wait:.0f} seconds", retry_after=wait)
    await asyncio.sleep(wait)
    return await tokens.get_token(rejected=token)


def formatted(token: Token, form: str) -> str:
    """Return a token in one of the formats of the option `--format`."""
    # str() unmasks: these texts are what the user asked for.
    access_token, authorization = str(token.access_token), str(token.authorization)
    match form:
        case "header":
            return f"Authorization: {authorization}"
        case "env":
            return f"export APIVIDEO_ACCESS_TOKEN={shlex.quote(access_token)}"
        case "curl":
            escaped = authorization.replace("\\", "\\\\").replace('"', '\\"')
            return f'header = "Authorization: {escaped}"'
        case "json":
            return json.dumps(
                {
                    "access_token": access_token,
                    "token_type": "Bearer",
                    "expires_at": token.expires_at.isoformat(),
                    "expires_in": int(token.remaining()),
                }
            )
        case _:
            return access_token
