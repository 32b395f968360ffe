"""The main job in front of your eyes."""

import asyncio
import sys
from collections.abc import Callable

import aiohttp
from attrs import define
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from apivideo_auth import PRODUCTION, SANDBOX, BearerAuth, Token, TokenManager
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.emulator import Emulator

LIVE_REQUESTS_A_MINUTE = 60
"""Below the sandbox's documented limit of 100 reads a minute."""
OLD_ENOUGH_TO_REVOKE = 1.5


@define
class Report:
    """What the workers saw."""

    manager: TokenManager
    where: str
    requests: int = 0
    failures: int = 0
    revocations: int = 0
    longest_wait: float = 0.0
    last_failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether requests were made and none failed."""
        return self.requests > 0 and not self.failures

    def figures(self) -> dict[str, str]:
        """Return the counts as people read them."""
        status = self.manager.status()
        return {
            "requests": f"{self.requests:,}",
            "failures": f"{self.failures:,}",
            "renewals": f"{max(0, status.generation - 1)}",
            "revocations": f"{self.revocations}",
            "longest wait": f"{self.longest_wait * 1000:.1f} ms",
        }

    def summary(self) -> str:
        """Return the last word."""
        lines = [f"{name:>13}  {figure}" for name, figure in self.figures().items()]
        if self.last_failure is not None:
            lines.append(f"{'last failure':>13}  {self.last_failure}")
        verdict = "no request failed" if self.passed else "FAILED"
        return "\n".join([f"{self.where}: {verdict}", *lines])

    def line(self) -> str:
        """Return one line for an output that is no terminal."""
        status = self.manager.status()
        figures = ", ".join(f"{name} {figure}" for name, figure in self.figures().items())
        return f"generation {status.generation} ({status.phase}): {figures}"


class _Timed:
    """A token source that notes the longest wait for a token."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.base_url = report.manager.base_url

    async def get_token(self, *, rejected: Token | None = None) -> Token:
        """Return a token, and note how long it took."""
        before = SYSTEM_CLOCK.monotonic()
        try:
            return await self._report.manager.get_token(rejected=rejected)
        finally:
            self._report.longest_wait = max(self._report.longest_wait, SYSTEM_CLOCK.monotonic() - before)


async def local(workers: int, seconds: float, ttl: float) -> Report:
    """Run against a local api.video, whose tokens are revoked once in the middle."""
    async with Emulator(ttl=ttl) as server, TokenManager(server.api_key, base_url=server.url) as tokens:
        report = Report(tokens, "local api.video")

        def revoke() -> None:
            server.revoke_all()
            report.revocations += 1

        await _run(report, workers=workers, seconds=seconds, pause=0.05, ttl=ttl, revoke=revoke)
        return report


async def against_api(workers: int, seconds: float, *, sandbox: bool) -> Report:
    """Run against api.video itself, with the key of the environment."""
    base_url = SANDBOX if sandbox else PRODUCTION
    async with TokenManager.from_env(base_url=base_url) as tokens:
        report = Report(tokens, base_url)
        pause = workers * 60 / LIVE_REQUESTS_A_MINUTE
        await _run(report, workers=workers, seconds=seconds, pause=pause, ttl=3600, revoke=None)
        return report


async def _run(  # noqa: PLR0913  what differs between the two runs
    report: Report, *, workers: int, seconds: float, pause: float, ttl: float, revoke: Callable[[], None] | None
) -> None:
    await report.manager.get_token()
    bearer = BearerAuth(_Timed(report))
    async with aiohttp.ClientSession(report.manager.base_url, middlewares=(bearer,)) as session:
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for number in range(workers):
                    group.create_task(_work(session, report, delay=pause * number / workers, pause=pause))
                group.create_task(_show(report, ttl))
                if revoke is not None:
                    group.create_task(_revoke_once(report, revoke, after=seconds / 2, ttl=ttl))
        except TimeoutError:
            return


async def _work(session: aiohttp.ClientSession, report: Report, *, delay: float, pause: float) -> None:
    await asyncio.sleep(delay)
    while True:
        try:
            async with session.get("/videos") as response:
                await response.read()
                why = None if response.ok else f"status {response.status}"
        except aiohttp.ClientError as error:
            why = f"{type(error).__name__}: {error}"
        report.requests += 1
        if why is not None:
            report.failures += 1
            report.last_failure = why
        await asyncio.sleep(pause)


async def _revoke_once(report: Report, revoke: Callable[[], None], *, after: float, ttl: float) -> None:
    """Revoke in mid-life: a token that was refused in its first second is not replaced at once."""
    await asyncio.sleep(after)
    # Polled, since no event says that a token has reached an age.
    while (  # noqa: ASYNC110  as above
        report.manager.status().phase != "fresh" or ttl - await _left(report) < min(OLD_ENOUGH_TO_REVOKE, ttl / 2)
    ):
        await asyncio.sleep(0.02)
    revoke()


async def _left(report: Report) -> float:
    return (await report.manager.get_token()).remaining()


async def _show(report: Report, ttl: float) -> None:
    """Show the run as it goes: a live table on a terminal, else a line a second."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        while True:
            console.print(report.line(), highlight=False, soft_wrap=True)
            await asyncio.sleep(1)
    with Live(console=console, refresh_per_second=10) as live:
        while True:
            live.update(_view(report, await _left(report), ttl))
            await asyncio.sleep(0.1)


def _view(report: Report, left: float, ttl: float) -> Table:
    status = report.manager.status()
    view = Table.grid(padding=(0, 2))
    view.add_column(justify="right", style="bold")
    view.add_column(min_width=44)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=ttl, completed=max(0.0, left), width=32), f"{left:5.1f} s, {status.phase}")
    view.add_row("token", bar)
    view.add_row("generation", f"{status.generation}")
    for name, figure in report.figures().items():
        bad = name == "failures" and report.failures
        view.add_row(name, f"[red]{figure}[/]" if bad else figure)
    return view
