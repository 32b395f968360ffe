"""The command `demo`: many workers, short-lived tokens, a revocation, and no failed request."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from apivideo_auth import BearerAuth, Token, TokenManager
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.cli._settings import Settings
from apivideo_auth.emulator import Emulator
from apivideo_auth.events import Event, RenewalFailed, TokenAdopted, TokenRejected, TokenRenewed

_LIVE_REQUESTS_PER_MINUTE: Final = 60
"""Below the sandbox's documented limit of 100 reads a minute."""
_MIN_AGE_TO_REVOKE: Final = 1.5
"""Seconds. The manager does not replace a token that is rejected in its first second."""

_REASONS: Final = {
    "first": "the first token",
    "stale": "renewed in the background",
    "expired": "the previous token has expired",
    "rejected": "the previous token was rejected with 401",
    "min_ttl": "a caller needs a longer life",
}


async def local(*, workers: int, seconds: float, ttl: float) -> "Report":
    """Run against a local api.video, which revokes all tokens once, about halfway."""
    async with Emulator(ttl=ttl) as server, TokenManager(server.api_key, base_url=server.url) as tokens:
        report = Report(tokens, "local api.video")
        report.announce(
            f"{workers} workers list videos of a local api.video for {seconds:g} s, through one session.",
            f"Tokens live for {ttl:g} s and are renewed in the background. Halfway, the server revokes all of them.",
            "No request should fail.",
        )
        await _run(report, workers=workers, seconds=seconds, pause=0.05, revoke=server.revoke_all)
        return report


async def against_api(settings: Settings, *, workers: int, seconds: float) -> "Report":
    """Run against api.video itself, where tokens live for an hour and nothing is revoked."""
    async with settings.manager() as tokens:
        report = Report(tokens, settings.base_url)
        report.announce(
            f"{workers} workers list videos of {settings.base_url} for {seconds:g} s, through one session, with "
            f"{_LIVE_REQUESTS_PER_MINUTE} requests a minute.",
            "One token serves them all. No request should fail.",
        )
        await _run(report, workers=workers, seconds=seconds, pause=workers * 60 / _LIVE_REQUESTS_PER_MINUTE)
        return report


class Report:
    """The events and figures of a run, shown on standard error as they happen."""

    def __init__(self, tokens: TokenManager, name: str) -> None:
        self.tokens = tokens
        self.requests = 0
        self.failures = 0
        self.revocations = 0
        self.longest_wait = 0.0
        self._name = name
        self._last_failure: str | None = None
        self._renewals = 0
        self._replays = 0
        self._lifetime = 0.0
        self._started = self._token_taken = SYSTEM_CLOCK.monotonic()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        tokens.subscribe(self.on_event)

    @property
    def passed(self) -> bool:
        """Whether requests were made and none failed."""
        return self.requests > 0 and not self.failures

    @property
    def token_age(self) -> float:
        """How many seconds ago the current token arrived."""
        return SYSTEM_CLOCK.monotonic() - self._token_taken

    def announce(self, *lines: str) -> None:
        """Print what the demo is about to show."""
        for line in lines:
            self._console.print(line, markup=False)

    def on_event(self, event: Event) -> None:
        """Add an event of the manager to the timeline."""
        match event:
            case TokenRenewed():
                self._renewals += event.generation > 1
                self._token_arrived(event.lifetime)
                self._add(
                    f"token {event.generation}  from {event.endpoint}, lives for {event.lifetime:g} s: "
                    f"{_REASONS[event.reason]}",
                    "green",
                )
            case TokenAdopted():
                self._token_arrived(event.remaining)
                self._add(f"token {event.generation}  from the store, expires in {event.remaining:.0f} s", "green")
            case RenewalFailed():
                self._add(f"renewal failed: {event.cause}", "red")
            case TokenRejected(replayed=True):
                self._replays += 1
            case _:
                pass

    def revoked(self) -> None:
        """Add a revocation to the timeline."""
        self.revocations += 1
        self._add("the server revokes all tokens", "yellow")

    def request_done(self, failure: str | None) -> None:
        """Count a request; say what failed."""
        self.requests += 1
        if failure is not None:
            self.failures += 1
            self._last_failure = failure
            self._add(f"request failed: {failure}", "red")

    def summary(self) -> str:
        """Return the figures of the whole run."""
        figures = {
            "requests": f"{self.requests:,}",
            "failures": f"{self.failures:,}",
            "renewals": f"{self._renewals}",
            "revocations": f"{self.revocations}",
            "sent again": f"{self._replays} after a 401",
            "longest wait": f"{self.longest_wait * 1000:.1f} ms for a token",
        }
        if self._last_failure is not None:
            figures["last failure"] = self._last_failure
        verdict = "no request failed" if self.passed else "FAILED"
        return "\n".join([f"{self._name}: {verdict}", *(f"{name:>13}  {figure}" for name, figure in figures.items())])

    async def show(self) -> None:
        """On a terminal, show the current token and the requests below the timeline, until cancelled."""
        # Log lines would be written over it.
        if not self._console.is_terminal or logging.getLogger("apivideo_auth").isEnabledFor(logging.INFO):
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._panel(), refresh=True)
                await asyncio.sleep(0.1)

    def _panel(self) -> Table:
        status = self.tokens.status()
        left = max(0.0, self._lifetime - self.token_age)
        panel = Table.grid(padding=(0, 2))
        panel.add_row(
            f"token {status.generation}",
            ProgressBar(total=self._lifetime, completed=left, width=20, complete_style="green"),
            f"{left:5.1f} s  {status.phase}",
            f"{self.requests:,} requests",
            f"[red]{self.failures:,} failed[/]" if self.failures else "0 failed",
        )
        return panel

    def _token_arrived(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._token_taken = SYSTEM_CLOCK.monotonic()

    def _add(self, text: str, style: str) -> None:
        seconds = SYSTEM_CLOCK.monotonic() - self._started
        self._console.print(f"{seconds:6.2f} s  {text}", style=style, markup=False)


class _TimedSource:
    """A token source that records the longest wait for a token."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.base_url = report.tokens.base_url

    async def get_token(self, *, rejected: Token | None = None) -> Token:
        """Return a token of the manager."""
        before = SYSTEM_CLOCK.monotonic()
        try:
            return await self._report.tokens.get_token(rejected=rejected)
        finally:
            self._report.longest_wait = max(self._report.longest_wait, SYSTEM_CLOCK.monotonic() - before)


async def _run(
    report: Report, *, workers: int, seconds: float, pause: float, revoke: Callable[[], None] | None = None
) -> None:
    await report.tokens.get_token()
    bearer = BearerAuth(_TimedSource(report), on_event=report.on_event)
    base_url = report.tokens.base_url
    # Proxies of the environment are for api.video's hosts, as in `Settings`.
    trust_env = base_url.startswith("https:")
    async with aiohttp.ClientSession(base_url, middlewares=(bearer,), trust_env=trust_env) as session:
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for number in range(workers):
                    group.create_task(_work(session, report, delay=pause * number / workers, pause=pause))
                group.create_task(report.show())
                if revoke is not None:
                    group.create_task(_revoke_once(report, revoke, after=seconds / 2))
        except TimeoutError:
            return


async def _work(session: aiohttp.ClientSession, report: Report, *, delay: float, pause: float) -> None:
    await asyncio.sleep(delay)
    while True:
        try:
            async with session.get("/videos") as response:
                await response.read()
                failure = None if response.ok else f"status {response.status}"
        except aiohttp.ClientError as error:
            failure = f"{type(error).__name__}: {error}"
        report.request_done(failure)
        await asyncio.sleep(pause)


async def _revoke_once(report: Report, revoke: Callable[[], None], *, after: float) -> None:
    await asyncio.sleep(after)
    # Not while a renewal runs: the server would revoke its token in the first second. Polled, since no event says that
    # a token has reached an age.
    while report.tokens.status().phase != "fresh" or report.token_age < _MIN_AGE_TO_REVOKE:  # noqa: ASYNC110  as above
        await asyncio.sleep(0.02)
    report.revoked()
    revoke()
