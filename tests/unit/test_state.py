"""The state of a manager, by itself: phases, moments, requests and backoffs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import RefreshPolicy, Token
from apivideo_auth._failure import Failure
from apivideo_auth._policy import Moments
from apivideo_auth._record import NEVER, Backoff, RenewalRequest
from apivideo_auth._state import BackoffState, ManagerStatus, State, date_of

DATE = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = Moments(stale_from=2800.0, expired_from=3570.0, ends_at=3600.0)
POLICY = RefreshPolicy()
OUTAGE = Failure(kind="connection", message="made-up outage")
REJECTED = Failure(kind="credentials", message="made-up rejection")
BACKOFF = Backoff(retry_after=5.0, failure=OUTAGE, failures=2, failing_for=30.0)
OWN = BackoffState(not_before=105.0, failing_since=70.0, failures=2, failure=OUTAGE)


def serving(*, version: str | None = "version-1", ttl: float = 3590.0) -> State:
    """Return a state with a token whose moments are `MOMENTS`."""
    state = State(policy=POLICY)
    state.take(Token("made-up-access", DATE, 4), MOMENTS, lifetime=3600.0, ttl=ttl, version=version)
    return state


def backing_off(**changes: Any) -> State:
    """Return a state with a token and with the backoff `OWN`, changed so."""
    state = serving()
    state.backoff = evolve(OWN, **changes)
    return state


@pytest.mark.parametrize(
    ("now", "phase", "is_usable"),
    [
        (0.0, "fresh", True),
        (2799.0, "fresh", True),
        (2800.0, "stale", True),
        (3569.0, "stale", True),
        (3570.0, "expired", False),
        (3600.0, "expired", False),
    ],
)
def test_a_token_goes_through_its_phases(now: float, phase: str, *, is_usable: bool) -> None:
    """Each phase begins exactly at its moment, and an expired token is not usable."""
    state = serving()
    assert state.phase(now) == phase
    assert state.usable(now) is (state.current if is_usable else None)


def test_a_state_without_a_token() -> None:
    """It is empty, has nothing to serve and nothing to renew."""
    state = State(policy=POLICY)
    assert (state.phase(0.0), state.usable(0.0), state.renewal_due(), state.active_backoff(0.0)) == (
        "empty",
        None,
        None,
        None,
    )
    assert state.request(0.0) == RenewalRequest(policy=POLICY)
    assert state.request(0.0, rejected=True, min_ttl=9e9) == RenewalRequest(policy=POLICY)


@pytest.mark.parametrize(
    ("stale_from", "suits_until"), [(2800.0, 2800.0), (3239.0, 3239.0), (3240.0, 3240.0), (3500.0, 3240.0)]
)
def test_the_fast_path_of_min_ttl_ends_at_90_percent_of_a_lifetime(stale_from: float, suits_until: float) -> None:
    """It compares `min_ttl` with the rest of that time only, so it serves nobody who asks for more than 90 %."""
    state, begins_at = State(policy=POLICY), 100.0
    when = Moments(begins_at + stale_from, begins_at + 3570.0, begins_at + 3600.0)
    state.take(Token("made-up-access", DATE, 4), when, lifetime=3600.0, ttl=3590.0, version=None)
    assert state.fresh_until == begins_at + stale_from
    assert state.suits_until == pytest.approx(begins_at + suits_until)


def test_a_token_is_taken() -> None:
    """The fast path serves it until it is stale, and earlier failures are forgotten."""
    state = State(policy=POLICY)
    state.back_off(BACKOFF, 100.0)
    token = Token("made-up-access", DATE, 4)
    state.take(token, MOMENTS, lifetime=3600.0, ttl=3590.0, version="version-1")
    assert (state.token, state.fresh_until, state.generation, state.best_ttl) == (token, 2800.0, 4, 3590.0)
    assert state.current is not None
    assert (state.current.token, state.current.lifetime, state.current.version) == (token, 3600.0, "version-1")
    assert (state.backoff, state.last_error) == (None, None)


def test_a_closed_state_serves_nothing() -> None:
    """A token that comes after close() is counted, and not served."""
    state = backing_off()
    state.close()
    assert (state.phase(0.0), state.current, state.token, state.backoff) == ("closed", None, None, None)
    assert (state.fresh_until, state.suits_until, state.renewal_due()) == (NEVER, NEVER, None)
    state.take(Token("made-up-access", DATE, 5), MOMENTS, lifetime=3600.0, ttl=3590.0, version="version-2")
    assert (state.phase(0.0), state.current, state.token, state.generation) == ("closed", None, None, 5)
    assert state.fresh_until == NEVER


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"not_before": 105.0}, 2800.0),
        ({"not_before": 2900.0}, 2900.0),
        ({"not_before": 3569.0}, 3569.0),
        ({"not_before": 3570.0}, None),
        ({"failure": REJECTED}, None),
    ],
    ids=["over-before", "later", "last-moment", "too-late", "rejected-key"],
)
def test_a_renewal_is_due_while_the_token_is_usable(changes: dict[str, Any], due: float | None) -> None:
    """The timer renews when the token is stale and the backoff is over, if the token is usable then."""
    assert serving().renewal_due() == 2800.0
    assert backing_off(**changes).renewal_due() == due


@pytest.mark.parametrize(("now", "is_active"), [(104.0, True), (105.0, False)])
def test_a_backoff_ends_at_its_moment(now: float, *, is_active: bool) -> None:
    """From then on a call may be made."""
    state = backing_off()
    assert state.active_backoff(now) is (state.backoff if is_active else None)


@pytest.mark.parametrize(
    ("changes", "deadline", "exceeds"),
    [({}, 35.0, False), ({}, 34.0, True), ({"failure": REJECTED}, 1000.0, True)],
    ids=["just-in-time", "too-late", "no-use"],
)
def test_a_caller_waits_for_the_next_try_until_the_deadline(
    changes: dict[str, Any], deadline: float, *, exceeds: bool
) -> None:
    """The deadline counts from the first failure, and waiting for a rejected key is of no use."""
    assert evolve(OWN, **changes).exceeds(deadline) is exceeds


@pytest.mark.parametrize(
    ("arguments", "is_rejected", "is_throttled"),
    [
        ({}, False, False),
        ({"rejected": True}, True, True),
        ({"min_ttl": 3590.0}, False, False),
        ({"min_ttl": 3591.0}, False, True),
    ],
    ids=["stale", "rejected", "enough-when-new", "too-much"],
)
def test_a_request_for_another_token(arguments: dict[str, Any], *, is_rejected: bool, is_throttled: bool) -> None:
    """It names the token in use; a renewal that may help nobody can be throttled."""
    request = serving().request(100.0, **arguments)
    assert request == RenewalRequest(
        policy=POLICY,
        version="version-1",
        access="made-up-access",
        remaining=3500.0,
        rejected=is_rejected,
        may_be_throttled=is_throttled,
    )


def test_a_request_after_the_token_has_expired() -> None:
    """It names no token, and cannot be throttled; the version and the failures stay known."""
    state = backing_off(last_commit_at=7.0)
    assert state.request(3570.0, rejected=True, min_ttl=9e9) == RenewalRequest(
        policy=POLICY, version="version-1", failures=2, failing_since=70.0, last_commit_at=7.0
    )


SHARED = evolve(BACKOFF, committed_at=50.0)
AT_100 = BackoffState(not_before=105.0, failing_since=70.0, failures=2, failure=OUTAGE)
EARLIER = BackoffState(not_before=120.0, failing_since=60.0, failures=6, failure=REJECTED, last_commit_at=50.0)
LATER = BackoffState(not_before=101.0, failing_since=95.0, failures=1, failure=REJECTED, last_commit_at=50.0)


@pytest.mark.parametrize(
    ("old", "backoff", "own_commit", "expected"),
    [
        (None, BACKOFF, None, AT_100),
        (None, BACKOFF, 40.0, evolve(AT_100, last_commit_at=40.0)),
        (None, SHARED, None, evolve(AT_100, last_commit_at=50.0)),
        (None, SHARED, 60.0, evolve(AT_100, last_commit_at=60.0)),
        # The worker has failed itself: its new backoff counts alone.
        (EARLIER, BACKOFF, 40.0, evolve(AT_100, last_commit_at=50.0)),
        (EARLIER, BACKOFF, 60.0, evolve(AT_100, last_commit_at=60.0)),
        # The record's backoff: what the worker knows stays.
        (EARLIER, SHARED, None, evolve(EARLIER, failure=OUTAGE)),
        (EARLIER, BACKOFF, None, evolve(EARLIER, failure=OUTAGE)),
        (LATER, SHARED, None, evolve(AT_100, last_commit_at=50.0)),
        # Another worker has committed meanwhile, so earlier failures are another outage's.
        (EARLIER, evolve(SHARED, committed_at=51.0), None, evolve(AT_100, last_commit_at=51.0)),
    ],
    ids=[
        "first",
        "own",
        "shared",
        "own-is-newer",
        "own-again",
        "own-again-newer",
        "shared-earlier",
        "lost-earlier",
        "shared-later",
        "committed-since",
    ],
)
def test_backoffs_are_combined(
    old: BackoffState | None, backoff: Backoff, own_commit: float | None, expected: BackoffState
) -> None:
    """A backoff of the record does not shorten what the worker itself knows of the same outage."""
    state = serving()
    state.backoff = old
    state.back_off(backoff, 100.0, last_commit_at=own_commit)
    assert state.backoff == expected
    assert state.last_error == "made-up outage"


def test_status_is_a_snapshot() -> None:
    """Moments become dates of the wall clock, and the counters are copied."""
    state = backing_off(not_before=2900.0)
    state.renewals, state.failures, state.rejections, state.last_error = 3, 2, 1, "made-up outage"
    utc = DATE.timestamp()
    assert state.status(2850.0, utc) == ManagerStatus(
        phase="stale",
        generation=4,
        expires_at=DATE + timedelta(seconds=750),
        renews_at=DATE + timedelta(seconds=50),
        backoff_until=DATE + timedelta(seconds=50),
        last_error="made-up outage",
        renewals=3,
        failures=2,
        rejections=1,
    )
    later = state.status(2900.0, utc)
    assert (later.backoff_until, later.renews_at) == (None, DATE)
    empty = State(policy=POLICY).status(0.0, utc)
    assert (empty.phase, empty.expires_at, empty.renews_at, empty.backoff_until) == ("empty", None, None, None)


def test_a_moment_is_a_date_in_utc() -> None:
    """The wall clock at `now` places a moment of the monotonic clock."""
    assert date_of(105.0, now=100.0, utc=DATE.timestamp()) == DATE + timedelta(seconds=5)
    assert date_of(100.0, now=100.0, utc=DATE.timestamp()).tzinfo is UTC
