"""The command line: commands, options and help.

The modules that do the work import aiohttp. They are imported when a command runs, so that `--help` responds at once.
"""
# ruff: noqa: PLC0415

import math
import os
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from apivideo_auth._version import __version__
from apivideo_auth.cli._exits import ExitCode, exit_code
from apivideo_auth.cli._faults import ServeCommand, faults_option

if TYPE_CHECKING:
    from apivideo_auth.cli._settings import Settings

__all__ = ["command", "main"]

_T = TypeVar("_T")


def main() -> None:
    """Run the command. Errors that the user can act on become one line on standard error and an exit code."""
    try:
        sys.exit(command.main(prog_name="apivideo-auth", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:
        # Most likely standard output is on a full disk. Its buffer goes to the null device, so that the interpreter
        # does not try again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        click.echo(f"Error: {error.strerror or error}", err=True)
        sys.exit(ExitCode.FAILED)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(code)


def _log(_context: click.Context, _parameter: click.Parameter, count: int) -> None:
    if count:
        import logging

        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("apivideo_auth").setLevel(logging.INFO if count == 1 else logging.DEBUG)


_verbose = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_log,
    help="Log renewals and failures to standard error; -vv also logs calls and adopted tokens.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="apivideo-auth")
@_verbose
def command() -> None:
    """Keep programs authenticated to api.video.

    The API key is read from APIVIDEO_API_KEY, from a file or from standard input, never from an argument. Other
    variables: APIVIDEO_BASE_URL (default: production) and APIVIDEO_TOKEN_STORE (default: file:; or file:///folder,
    redis://host:6379/0, memory:).

    Exit codes: 0 success, 1 failed, 2 wrong usage, 3 rejected, 4 unreachable, 5 rate-limited, 6 token store failed,
    7 not a response of api.video, 130 interrupted (Ctrl-C).
    """


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    import asyncio

    return asyncio.run(coroutine)


class _Number(click.FloatRange):
    """A finite number in a range; click's own accepts "nan"."""

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]  # click takes text as well
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def _account_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose the account. The command gets its `Settings` as the first argument."""

    @click.option("--sandbox", is_flag=True, help="Use the sandbox, whatever APIVIDEO_BASE_URL says.")
    @click.option(
        "--key-file",
        type=click.Path(path_type=Path, allow_dash=True),
        help="Read the API key from this file; - means standard input.",
    )
    @_verbose
    @wraps(function)
    def with_settings(*, sandbox: bool, key_file: Path | None, **options: Any) -> None:  # noqa: ANN401  the command's
        from apivideo_auth.cli._settings import Settings

        function(Settings.find(key_file, sandbox=sandbox), **options)

    return with_settings


@command.command()
@click.option("--seconds", type=_Number(min=4), default=20, show_default=True, help="How long to run.")
@click.option("--workers", type=click.IntRange(min=1), default=20, show_default=True, help="Concurrent callers.")
@click.option(
    "--ttl", type=_Number(min=3), default=3, show_default=True, help="Lifetime of the local tokens, in seconds."
)
@click.option("--live", is_flag=True, help="Run against api.video, with APIVIDEO_API_KEY.")
@click.option("--sandbox", is_flag=True, help="With --live: use the sandbox.")
@_verbose
def demo(*, seconds: float, workers: int, ttl: float, live: bool, sandbox: bool) -> None:
    """Show renewals and a revocation without a failed request.

    Starts a local api.video with short-lived tokens. Many workers list videos through one authenticated session,
    across renewals and one revocation. Shows what happens as it happens, and ends with a summary on standard output.
    Exits 0 only if no request failed.
    """
    from apivideo_auth.cli import _demo
    from apivideo_auth.cli._settings import Settings

    if sandbox and not live:
        raise click.UsageError("--sandbox needs --live")
    if live:
        run = _demo.against_api(Settings.find(None, sandbox=sandbox), workers=workers, seconds=seconds)
    else:
        run = _demo.local(workers=workers, seconds=seconds, ttl=ttl)
    report = _run(run)
    click.echo(report.summary())
    sys.exit(ExitCode.OK if report.passed else ExitCode.FAILED)


@command.command()
@_account_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["token", "header", "json", "env", "curl"]),
    default="token",
    show_default=True,
    help="token: the bare token; header: a header line; json: with its expiry; env: for eval; curl: a curl config.",
)
@click.option("--min-ttl", type=_Number(min=0), help="The token must live for at least this many seconds.")
@click.option("--force", is_flag=True, help="Get a new token, also if the stored one is valid.")
def token(settings: "Settings", *, form: str, min_ttl: float | None, force: bool) -> None:
    """Print a token for scripts.

    The token is stored between calls and renewed when it is due. For example:

    \b
        apivideo-auth token --format curl | curl --config - https://ws.api.video/videos
    """  # noqa: D301  click's mark for a paragraph that is not wrapped
    from apivideo_auth.cli import _token

    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  its descriptor was closed
        raise click.ClickException("cannot print the token: standard output is closed")
    got = _run(_token.get(settings, min_ttl=min_ttl, force=force))
    click.echo(_token.formatted(got, form, settings.base_url))


@command.command("exec", context_settings={"allow_interspersed_args": False})
@_account_options
@click.option("--min-ttl", type=_Number(min=0), help="The token must live for at least this many seconds.")
@click.argument("arguments", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(settings: "Settings", *, min_ttl: float | None, arguments: tuple[str, ...]) -> None:
    """Run a program with a token in its environment.

    The program finds the token in APIVIDEO_ACCESS_TOKEN and the API in APIVIDEO_BASE_URL. It does not see
    APIVIDEO_API_KEY. For example:

    \b
        apivideo-auth exec --min-ttl 600 -- ./upload.sh video.mp4

    The token is not renewed while the program runs. Signals and the exit code are the program's own; the exit code is
    126 if it cannot be executed and 127 if it is not found.
    """  # noqa: D301  click's mark for a paragraph that is not wrapped
    from apivideo_auth.cli import _token

    got = _run(_token.get(settings, min_ttl=min_ttl))
    _token.execute(arguments, got, settings.base_url)


@command.command()
@_account_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(settings: "Settings", *, as_json: bool) -> None:
    """Say whether a token is stored and how long it lives.

    Makes no call to api.video. Exits 1 if no token is stored.
    """
    from apivideo_auth.cli import _token

    seconds = _run(_token.remaining(settings))
    click.echo(_token.described(settings.base_url, seconds, as_json=as_json))
    sys.exit(ExitCode.OK if seconds is not None else ExitCode.FAILED)


@command.command()
@_account_options
def logout(settings: "Settings") -> None:
    """Delete the stored token.

    Tokens that were printed or handed out remain valid until they expire.
    """
    from apivideo_auth.cli import _token

    _run(_token.forget(settings))
    click.echo(f"{settings.base_url}: the stored token is deleted", err=True)


@command.command()
@_account_options
def doctor(settings: "Settings") -> None:
    """Check the API key, the store, the network, the API and the clock.

    Prints one line per check. The exit code is that of the first check that failed.
    """
    from apivideo_auth.cli import _doctor

    async def examine() -> ExitCode:
        code = ExitCode.OK
        async for finding in _doctor.examine(settings):
            click.echo(finding.line())
            code = code or finding.code
        return code

    sys.exit(_run(examine()))


@command.command(cls=ServeCommand)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="The port; 0 picks a free one."
)
@click.option(
    "--ttl",
    type=_Number(min=0, min_open=True),
    default=3600,
    show_default=True,
    help="Lifetime of tokens, in seconds.",
)
@click.option(
    "--limits",
    type=click.Choice(["none", "sandbox", "production"]),
    default="none",
    show_default=True,
    help="Rate limits: none, or those of one of api.video's hosts.",
)
@click.option("--reusable-refresh", is_flag=True, help="Accept a refresh token more than once.")
@click.option("--refresh-revokes", is_flag=True, help="A refresh revokes the previous access token.")
@click.option("--authenticate-invalidates", is_flag=True, help="Authenticating revokes earlier refresh tokens.")
@click.option(
    "--refused-status",
    type=click.Choice(["400", "401", "403"]),
    default="400",
    show_default=True,
    help="The status for a wrong API key or refresh token.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=faults_option,
    metavar="SPEC",
    help="Cause a fault; repeatable, see below.",
)
@_verbose
def serve(**options: Any) -> None:  # noqa: ANN401  those of `_serve.run`
    """Run a local api.video for clients in any language.

    The first line on standard output is its URL, printed once it listens; everything else goes to standard error. It
    accepts the API key in APIVIDEO_API_KEY, or else a fixed one, which it prints. SIGTERM and SIGINT (Ctrl-C) stop it.
    """
    from apivideo_auth.cli import _serve

    _run(_serve.run(**options))
