"""Events: their sentences, and the log records that say the same."""

import logging
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


def test_the_library_is_silent_without_logging() -> None:
    """A program that has not set up logging sees nothing of a warning."""
    code = "from apivideo_auth import events; events.log(events.StoreRecovered(seconds=1.0))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
