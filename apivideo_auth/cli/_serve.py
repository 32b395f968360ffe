"""The command `serve`: the emulator as a server, for clients in any language."""

import asyncio
import logging
import os
import signal
from contextlib import suppress

import click

from apivideo_auth import AuthenticatePayload
from apivideo_auth._manager import API_KEY_VARIABLE
from apivideo_auth._secrets import Secret
from apivideo_auth.emulator import Emulator, Fault, RateLimits
from apivideo_auth.emulator._emulator import DEFAULT_API_KEY


async def run(  # noqa: PLR0913  one for each option
    *,
    host: str,
    port: int,
    ttl: float,
    limits: str,
    reusable_refresh: bool,
    refresh_revokes: bool,
    authenticate_invalidates: bool,
    refused_status: str,
    faults: tuple[Fault, ...],
) -> None:
    """Serve until SIGTERM or SIGINT. Raises `click.ClickException` if the address is not available.

    Raises `ValueError` if the API key of the environment is invalid.
    """
    environment_key = Secret(os.environ.get(API_KEY_VARIABLE, ""))
    if environment_key:
        AuthenticatePayload(environment_key)  # checks that clients can use the key
    server = Emulator(
        api_key=environment_key or DEFAULT_API_KEY,
        host=host,
        port=port,
        ttl=ttl,
        limits=RateLimits.named(limits),
        single_use=not reusable_refresh,
        refresh_revokes=refresh_revokes,
        authenticate_invalidates=authenticate_invalidates,
        refused_status=int(refused_status),
    )
    server.inject(*faults)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Event loops on Windows have no signal handlers; there Ctrl-C ends the loop itself.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    _log_requests()
    try:
        await server.start()
    except OSError as error:
        raise click.ClickException(f"cannot listen: {error.strerror or error}") from None
    try:
        click.echo(server.url)
        # A key of the environment may be a real one: it is never shown.
        known = f"the value of {API_KEY_VARIABLE}" if environment_key else server.api_key
        click.echo(f"The API key is {known}. Stop with Ctrl-C.", err=True)
        await stopped.wait()
    finally:
        await server.close()


def _log_requests() -> None:
    """Write the emulator's log, a line per request, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("apivideo_auth.emulator")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    # Otherwise -vv would log each request twice.
    logger.propagate = False


class _PrintableFormatter(logging.Formatter):
    """Escapes unprintable characters: a path comes from a client."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().format(record))
