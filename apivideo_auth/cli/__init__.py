"""The command line. Each command's work is in a module of its own, imported when it is called."""

import asyncio
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from apivideo_auth._version import __version__
from apivideo_auth.cli import _exits

if TYPE_CHECKING:
    from apivideo_auth.emulator import Fault

__all__ = ["command"]

_F = TypeVar("_F", bound=Callable[..., None])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="apivideo-auth")
def command() -> None:
    """Keep programs authenticated to api.video.

    The API key comes from the environment (APIVIDEO_API_KEY), a file or standard input, never from an argument. Other
    variables: APIVIDEO_BASE_URL, APIVIDEO_TOKEN_STORE (memory:, file:, redis://host:6379/0).

    Exit codes: 0 good, 1 something failed, 2 usage, 3 refused, 4 unreachable, 5 rate-limited, 6 store, 7 an answer that
    is none of api.video's.
    """


class _Number(click.FloatRange):
    """A number in a range that is one: "nan" is in every range."""

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]  # click takes text as well
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def _account_options(function: _F) -> _F:
    for option in (
        click.option("--sandbox", is_flag=True, help="The sandbox, in place of APIVIDEO_BASE_URL or production."),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path, allow_dash=True),
            help="Read the API key from this file; - is standard input.",
        ),
    ):
        function = option(function)
    return function


@command.command()
@click.option("--seconds", type=_Number(min=1), default=20, show_default=True, help="How long to run.")
@click.option("--workers", type=click.IntRange(min=1), default=20, show_default=True, help="Concurrent callers.")
@click.option("--ttl", type=_Number(min=2), default=3, show_default=True, help="Life of the local server's tokens.")
@click.option("--live", is_flag=True, help="Run against api.video, with APIVIDEO_API_KEY.")
@click.option("--sandbox", is_flag=True, help="With --live: against the sandbox.")
def demo(*, seconds: float, workers: int, ttl: float, live: bool, sandbox: bool) -> None:
    """Show the main job: many callers, short-lived tokens, a revocation, and no failed request.

    Starts a local api.video, calls GET /videos from many workers through one authenticated session, across many
    renewals and one revocation. Ends with a summary on standard output; exit 0 only if no request failed.
    """
    from apivideo_auth.cli import _demo  # noqa: PLC0415  imported when called

    if sandbox and not live:
        raise click.UsageError("--sandbox goes with --live")
    with _exits.mapped():
        run = _demo.against_api(workers, seconds, sandbox=sandbox) if live else _demo.local(workers, seconds, ttl)
        report = asyncio.run(run)
    click.echo(report.summary())
    sys.exit(_exits.OK if report.passed else _exits.FAILED)


@command.command()
@_account_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["token", "header", "json", "env", "curl"]),
    default="token",
    show_default=True,
    help="token: alone; header: Authorization: …; env: for eval; curl: for curl --config -.",
)
@click.option("--min-ttl", type=_Number(min=0), help="Seconds of life that are needed.")
@click.option("--force", is_flag=True, help="Get another one than is stored.")
def token(*, sandbox: bool, key_file: Path | None, form: str, min_ttl: float | None, force: bool) -> None:
    """Print a token to standard output, for scripts.

    It is kept between calls, in the file store unless APIVIDEO_TOKEN_STORE says otherwise:

        apivideo-auth token --format curl | curl --config - https://ws.api.video/videos
    """
    from apivideo_auth.cli import _account, _token  # noqa: PLC0415  imported when called

    with _exits.mapped():
        account = _account.find(key_file, sandbox=sandbox)
        given, warnings = asyncio.run(_token.get(account, min_ttl=min_ttl, force=force))
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(_token.formatted(given, form))


@command.command()
@_account_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(*, sandbox: bool, key_file: Path | None, as_json: bool) -> None:
    """Say what is stored and how long it lasts, without a call; exit 1 if there is no token."""
    from apivideo_auth.cli import _account, _token  # noqa: PLC0415  imported when called

    with _exits.mapped():
        account = _account.find(key_file, sandbox=sandbox)
        stored = asyncio.run(_token.stored(account))
    click.echo(_token.described(account, stored, as_json=as_json))
    sys.exit(_exits.OK if stored is not None else _exits.FAILED)


@command.command()
@_account_options
def logout(*, sandbox: bool, key_file: Path | None) -> None:
    """Forget what is stored. The tokens themselves live on until they expire."""
    from apivideo_auth.cli import _account, _token  # noqa: PLC0415  imported when called

    with _exits.mapped():
        account = _account.find(key_file, sandbox=sandbox)
        asyncio.run(_token.forget(account))
    click.echo(f"{account.base_url}: nothing is stored any more", err=True)


@command.command()
@_account_options
def doctor(*, sandbox: bool, key_file: Path | None) -> None:
    """Check key, store, host and clock; the exit code is that of the first thing that is bad."""
    from apivideo_auth.cli import _account, _doctor  # noqa: PLC0415  imported when called

    async def examine() -> int:
        code = _exits.OK
        async for finding in _doctor.examine(account):
            click.echo(finding.line())
            code = code or finding.code
        return code

    with _exits.mapped():
        account = _account.find(key_file, sandbox=sandbox)
        code = asyncio.run(examine())
    sys.exit(code)


def _faults(_context: click.Context, _parameter: click.Parameter, specs: tuple[str, ...]) -> "tuple[Fault, ...]":
    from apivideo_auth.emulator._fault_spec import parse_fault  # noqa: PLC0415  imported when called

    try:
        return tuple(parse_fault(spec) for spec in specs)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error)) from None


class _Serve(click.Command):
    """Shows the syntax of faults beneath the options."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write it as it is, line by line."""
        from apivideo_auth.emulator._fault_spec import FAULT_SYNTAX  # noqa: PLC0415  imported when shown

        with formatter.section("Faults"):
            for line in FAULT_SYNTAX.splitlines():
                formatter.write(f"  {line}\n" if line else "\n")


@command.command(cls=_Serve)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="0 is a free one.")
@click.option("--ttl", type=_Number(min=0, min_open=True), default=3600, show_default=True, help="Life of tokens.")
@click.option("--limits", type=click.Choice(["none", "sandbox", "production"]), default="none", show_default=True)
@click.option("--reusable-refresh", is_flag=True, help="Take a refresh token more than once.")
@click.option("--refresh-revokes", is_flag=True, help="A refresh ends the access token of before.")
@click.option("--authenticate-invalidates", is_flag=True, help="A token for the API key ends earlier refresh tokens.")
@click.option("--refused-status", type=click.Choice(["400", "401", "403"]), default="400", show_default=True)
@click.option("--fault", "faults", multiple=True, callback=_faults, metavar="SPEC", help="See below; repeatable.")
def serve(  # noqa: PLR0913  one for each option
    *,
    host: str,
    port: int,
    ttl: float,
    limits: str,
    reusable_refresh: bool,
    refresh_revokes: bool,
    authenticate_invalidates: bool,
    refused_status: str,
    faults: "tuple[Fault, ...]",
) -> None:
    """Serve a local api.video, for clients in any language.

    The first line on standard output is the address, once it listens; the rest goes to standard error. The API key
    that it takes is APIVIDEO_API_KEY, else a fixed one that it names. SIGTERM and SIGINT end it.
    """
    from apivideo_auth.cli import _serve  # noqa: PLC0415  imported when called

    with _exits.mapped():
        server = _serve.emulator(
            host=host,
            port=port,
            ttl=ttl,
            limits=limits,
            reusable_refresh=reusable_refresh,
            refresh_revokes=refresh_revokes,
            authenticate_invalidates=authenticate_invalidates,
            refused_status=int(refused_status),
            faults=faults,
        )
        asyncio.run(_serve.run(server))
