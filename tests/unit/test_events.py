"""Events: their sentences, and the log records that say the same."""

import asyncio
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from apivideo_auth import events

END = datetime(2026, 1, 1, tzinfo=UTC)

SENTENCES = [
    (
        events.TokenRenewed(
            endpoint="/auth/refresh",
            reason="stale",
            seconds=0.21,
            generation=2,
            expires_at=END,
            lifetime=3600.0,
            lifetime_assumed=False,
        ),
        "INFO",
        "renewed the token at /auth/refresh (reason: stale) in 0.21 s; it lives for 3600 s",
    ),
    (
        events.TokenRenewed(
            endpoint="/auth/api-key",
            reason="first",
            seconds=0.5,
            generation=1,
            expires_at=END,
            lifetime=3600.0,
            lifetime_assumed=True,
        ),
        "INFO",
        "renewed the token at /auth/api-key (reason: first) in 0.50 s; it lives for 3600 s, which is assumed",
    ),
    (
        events.RenewalFailed(
            endpoint="/auth/refresh",
            error_class="AuthResponseError",
            cause="status 503",
            failures=3,
            still_serving=True,
            next_try_in=2.04,
        ),
        "WARNING",
        (
            "the renewal at /auth/refresh failed (failure 3 in a row): status 503; "
            "the current token is still usable, next try in 2.0 s"
        ),
    ),
    (
        events.RenewalFailed(
            endpoint="/auth/api-key",
            error_class="AuthConnectionError",
            cause="made-up",
            failures=1,
            still_serving=False,
            next_try_in=0.3,
        ),
        "WARNING",
        (
            "the renewal at /auth/api-key failed (failure 1 in a row): made-up; "
            "there is no usable token, next try in 0.3 s"
        ),
    ),
    (
        events.RefreshTokenRejected(cause="made-up"),
        "WARNING",
        "the refresh token was rejected, the API key is used next: made-up",
    ),
    (
        events.TokenAdopted(generation=2, expires_at=END, remaining=100.4),
        "DEBUG",
        "adopted another worker's token; it lives for another 100 s",
    ),
    (
        events.TokenRejected(generation=1, replayed=True, why_not=None),
        "DEBUG",
        "the API rejected token 1 with a 401; the request was sent again with another token",
    ),
    (
        events.TokenRejected(generation=1, replayed=False, why_not="body"),
        "WARNING",
        "the API rejected token 1 with a 401; the request was not sent again, because its body cannot be sent twice",
    ),
    (
        events.TokenRejected(generation=1, replayed=False, why_not="no_token"),
        "WARNING",
        "the API rejected token 1 with a 401; the request was not sent again: no other token is available",
    ),
    (
        events.StoreDegraded(cause="made-up", next_try_in=1.0),
        "WARNING",
        "the token store failed: made-up; continuing without it, next try in 1.0 s",
    ),
    (events.StoreRecovered(seconds=4.25), "WARNING", "the token store works again after 4.2 s"),
]


@pytest.mark.parametrize(("event", "level", "sentence"), SENTENCES, ids=lambda value: type(value).__name__)
def test_an_event_and_its_log_record_say_the_same(
    event: events.Event, level: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each event is one sentence, and is logged with it at its level on the logger of the package."""
    caplog.set_level(logging.DEBUG, "apivideo_auth")
    events.log(event)
    assert event.message == sentence
    assert caplog.record_tuples == [("apivideo_auth", getattr(logging, level), sentence)]


def test_every_event_has_its_sentence() -> None:
    """The table above leaves out no event."""
    assert {type(event) for event, _, _ in SENTENCES} == set(events.Event.__args__)


def test_a_handler_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in an event handler is logged with its traceback and goes no further."""

    def handler(_event: events.Event) -> None:
        raise LookupError("made-up")

    events.deliver(handler, events.StoreRecovered(seconds=1.0))
    assert "an event handler failed on StoreRecovered" in caplog.text
    assert "LookupError: made-up" in caplog.text


def test_a_handler_that_raises_a_cancellation_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that asks a cancelled future for its result does not cancel the manager's task."""

    def handler(_event: events.Event) -> None:
        raise asyncio.CancelledError

    events.deliver(handler, events.StoreRecovered(seconds=1.0))
    assert "an event handler failed on StoreRecovered" in caplog.text


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_a_handler_may_end_the_program(interruption: type[BaseException]) -> None:
    """Ctrl-C and `sys.exit()` in an event handler end the program as anywhere else."""

    def handler(_event: events.Event) -> None:
        raise interruption

    with pytest.raises(interruption):
        events.deliver(handler, events.StoreRecovered(seconds=1.0))


def test_a_logging_filter_that_raises_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter or handler of the program's logging that raises reaches neither callers nor the renewal."""

    def raise_an_error(_record: logging.LogRecord) -> bool:
        raise LookupError("made-up")

    def handler(_event: events.Event) -> None:
        raise LookupError("made-up")

    monkeypatch.setattr(events.logger, "filters", [raise_an_error])
    events.log(events.StoreRecovered(seconds=1.0))
    events.deliver(handler, events.StoreRecovered(seconds=1.0))


PROGRAM = """
import asyncio
import contextlib
import logging
import sys

from apivideo_auth import AuthError, RefreshPolicy, TokenManager
from apivideo_auth.emulator import Emulator, Fault

if len(sys.argv) > 1:
    logging.basicConfig(level=sys.argv[1], format="%(name)s %(levelname)s %(message)s")


async def stream():
    yield b"made-up"


async def main():
    async with Emulator() as server:
        async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
            async with tokens.session() as session:
                await tokens.get_token()
                server.inject(Fault(status=503, headers={"Retry-After": "7"}))
                server.advance(3000)
                for _ in range(2):
                    await tokens.get_token(min_ttl=1)
                    while tokens.status().phase == "stale" and not tokens.status().last_error:
                        await asyncio.sleep(0.01)
                server.advance(3600)
                await tokens.get_token()
                server.advance(60)
                server.revoke_all()
                await session.post("/videos", data=stream())
        async with TokenManager("made-up-wrong-key", base_url=server.url, policy=RefreshPolicy(deadline=0)) as tokens:
            with contextlib.suppress(AuthError):
                await tokens.get_token()


asyncio.run(main())
"""
LOGGED = [
    r"DEBUG called .*/auth/api-key: a token in ",
    r"INFO renewed the token at /auth/api-key \(reason: first\) .* it lives for 3600 s",
    r"DEBUG called .*/auth/refresh: status 503 in ",
    r"WARNING the renewal at /auth/refresh failed \(failure 1 in a row\): .* status 503; .*, next try in 7\.0 s",
    r"DEBUG called .*/auth/\S+: a token in ",
    r"INFO renewed the token at /auth/\S+ \(reason: expired\)",
    r"DEBUG called .*/auth/refresh: a token in ",
    r"INFO renewed the token at /auth/refresh \(reason: rejected\)",
    r"WARNING the API rejected token 2 with a 401; the request was not sent again, because its body cannot be",
    r"DEBUG called .*/auth/api-key: status 400 in ",
    r"WARNING the renewal at /auth/api-key failed .* rejected the API key.* no usable token, next try in 60\.0 s",
]


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", None])
def test_a_program_that_logs_sees_what_happens(level: str | None) -> None:
    """Renewals are shown at INFO, failures and 401s that are not replayed at WARNING with the cause and the next try,
    calls at DEBUG. A program that has not set up logging sees nothing. No record shows a token or the key.
    """
    arguments = [] if level is None else [level]
    run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    lines = [line.partition(" ")[2] for line in run.stderr.splitlines() if line.startswith("apivideo_auth ")]
    wanted = [line for line in LOGGED if level and getattr(logging, line.split()[0]) >= getattr(logging, level)]
    assert len(lines) == len(wanted), run.stderr
    for line, pattern in zip(lines, wanted, strict=True):
        assert re.match(pattern, line), line
    assert "eyJ" not in run.stderr
    assert "made-up" not in run.stderr
    assert level or run.stderr == ""
