"""The command line. Each command's work is in a module of its own, imported when it is called."""

import asyncio
import sys

import click

from apivideo_auth._version import __version__
from apivideo_auth.cli import _exits

__all__ = ["command"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="apivideo-auth")
def command() -> None:
    """Keep programs authenticated to api.video.

    The API key comes from the environment (APIVIDEO_API_KEY), never from an argument.
    """


@command.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=20, show_default=True, help="How long to run.")
@click.option("--workers", type=click.IntRange(min=1), default=20, show_default=True, help="Concurrent callers.")
@click.option(
    "--ttl", type=click.FloatRange(min=2), default=3, show_default=True, help="Life of the local server's tokens."
)
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
