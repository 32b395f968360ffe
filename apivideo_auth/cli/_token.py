"""The commands `token`, `exec`, `status` and `logout`: a token for scripts and programs, kept between calls."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Final, NoReturn

import click

from apivideo_auth import RateLimitedError, Token, TokenManager, TokenRejectedError
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._manager import API_KEY_VARIABLE, BASE_URL_VARIABLE
from apivideo_auth.cli._exits import ExitCode
from apivideo_auth.cli._settings import Settings
from apivideo_auth.events import Event, StoreDegraded, TokenRenewed

ACCESS_TOKEN_VARIABLE: Final = "APIVIDEO_ACCESS_TOKEN"  # noqa: S105  the variable's name

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
            click.echo(f"Warning: the token is not kept: {event.cause}", err=True)

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


def formatted(token: Token, form: str, base_url: str) -> str:
    """Return a token of the API at `base_url` in one of the formats of the option `--format`."""
    # str() unmasks: these texts are what the user asked for.
    access_token, authorization = str(token.access_token), str(token.authorization)
    match form:
        case "header":
            return f"Authorization: {authorization}"
        case "env":
            return f"export {ACCESS_TOKEN_VARIABLE}={shlex.quote(access_token)}"
        case "curl":
            escaped = authorization.replace("\\", "\\\\").replace('"', '\\"')
            return f'header = "Authorization: {escaped}"'
        case "json":
            return json.dumps(
                {
                    "version": 1,
                    "access_token": access_token,
                    "token_type": "Bearer",
                    "expires_at": token.expires_at.isoformat(timespec="seconds"),
                    "expires_on": int(token.expires_at.timestamp()),
                    "expires_in": int(token.remaining()),
                    "base_url": base_url,
                }
            )
        case _:
            return access_token


def execute(arguments: tuple[str, ...], token: Token, base_url: str) -> NoReturn:
    """Become another program, which has the token in its environment and not the API key."""
    environment = {name: value for name, value in os.environ.items() if name != API_KEY_VARIABLE}
    environment |= {ACCESS_TOKEN_VARIABLE: str(token.access_token), BASE_URL_VARIABLE: base_url}
    try:
        if not arguments[0]:
            raise FileNotFoundError  # noqa: TRY301  the operating systems name different errors
        if sys.platform == "win32":
            # Windows cannot replace a process: the prompt would return while the program still runs.
            sys.exit(subprocess.call(arguments, env=environment))  # noqa: S603  the user's own program
        # Python ignores these signals, and an ignored signal stays ignored in the program.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606  as above
    except FileNotFoundError:
        click.echo(f"Error: command not found: {arguments[0] or repr('')}", err=True)
        sys.exit(ExitCode.NOT_FOUND)
    except OSError as error:
        click.echo(f"Error: cannot execute {arguments[0]}: {error.strerror}", err=True)
        sys.exit(ExitCode.NOT_EXECUTABLE)


async def remaining(settings: Settings) -> float | None:
    """Return how many seconds the stored token lives, or `None` if there is none. Raises `TokenStoreError`."""
    async with settings.slot() as slot:
        token = await slot.read()
    return None if token is None else token.remaining


async def forget(settings: Settings) -> None:
    """Delete the record of the account. Raises `TokenStoreError`."""
    async with settings.slot() as slot:
        await slot.forget()


def described(base_url: str, seconds: float | None, *, as_json: bool) -> str:
    """Say whether a token is stored and how long it lives, to people or to programs."""
    expires_at = None if seconds is None else datetime.fromtimestamp(SYSTEM_CLOCK.utc() + seconds, UTC)
    if as_json:
        return json.dumps(
            {
                "base_url": base_url,
                "stored": seconds is not None,
                "expires_at": None if expires_at is None else expires_at.isoformat(timespec="seconds"),
                "expires_in": None if seconds is None else int(seconds),
            }
        )
    if seconds is None:
        return f"{base_url}: no token is stored"
    minutes, rest = divmod(int(seconds), 60)
    return f"{base_url}: the stored token expires in {minutes} min {rest} s, at {expires_at:%H:%M:%S} UTC"
