"""When to renew and how long to pause: tables at the exact edge and one step past it."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apivideo_auth import RefreshPolicy
from apivideo_auth._errors import FailureKind
from apivideo_auth._failure import Failure
from apivideo_auth._policy import (
    MAX_BACKOFF,
    MAX_LEASE,
    MAX_LIFETIME,
    backoff_after,
    believed_lifetime,
    check_min_ttl,
    is_usable,
    moments,
    store_backoff,
)

BEGIN = 1000.0
ALMOST_ONE = math.nextafter(1.0, 0.0)
NAN, INFINITY = math.nan, math.inf


def failure(kind: FailureKind = "connection", retry_after: float | None = None) -> Failure:
    return Failure(kind=kind, message="made up", retry_after=retry_after)


# The moments.


@pytest.mark.parametrize(
    ("lifetime", "jitter", "stale_after", "leeway"),
    [
        (3600, 0.0, 2880.0, 30.0),
        (3600, 0.5, 2790.0, 30.0),
        (3600, 1.0, 2700.0, 30.0),
        (86_400, 0.0, 69_120.0, 30.0),
        (601, 0.0, 480.8, 30.0),
        (600, 0.0, 480.0, 30.0),
        (599, 0.0, 479.2, 29.95),
        (60, 0.0, 48.0, 3.0),
        (11, 0.0, 8.8, 0.55),
        (1, 0.0, 0.8, 0.05),
        (1, 1.0, 0.75, 0.05),
    ],
)
def test_default_moments(lifetime: float, jitter: float, stale_after: float, leeway: float) -> None:
    """Stale from 80 % of the lifetime less up to 5 %, expired 30 s before the end but at most 5 % of the lifetime."""
    when = moments(RefreshPolicy(), begins_at=BEGIN, lifetime=lifetime, jitter=jitter)
    assert when.stale_from == pytest.approx(BEGIN + stale_after)
    assert when.expired_from == pytest.approx(BEGIN + lifetime - leeway)
    assert when.ends_at == BEGIN + lifetime


@pytest.mark.parametrize(
    ("refresh_at", "jitter", "stale_after"),
    [(0.1, 0.0, 10.0), (0.1, 1.0, 5.0), (0.5, 0.0, 50.0), (0.5, 0.2, 49.0), (0.9, 0.0, 90.0), (0.99, 0.0, 99.0)],
)
def test_stale_from(refresh_at: float, jitter: float, stale_after: float) -> None:
    """A token is stale from that part of its lifetime, or earlier by a random part of 5 % of the lifetime."""
    when = moments(RefreshPolicy(refresh_at=refresh_at), begins_at=BEGIN, lifetime=100.0, jitter=jitter)
    assert when.stale_from == pytest.approx(BEGIN + stale_after)


@pytest.mark.parametrize(
    ("leeway", "lifetime", "jitter", "honoured"),
    [
        (0, 3600.0, 0.0, 0.0),
        (5, 3600.0, 0.0, 5.0),
        (300, 3600.0, 0.0, 300.0),
        (359, 3600.0, 0.0, 359.0),
        (360, 3600.0, 0.0, 360.0),
        (361, 3600.0, 0.0, 360.0),
        (1e9, 3600.0, 0.0, 360.0),
        (449, 3600.0, 1.0, 449.0),
        (450, 3600.0, 1.0, 450.0),
        (451, 3600.0, 1.0, 450.0),
        (30, 100.0, 0.0, 10.0),
        (30, 1.0, 0.0, 0.1),
    ],
)
def test_leeway_that_is_given(leeway: float, lifetime: float, jitter: float, honoured: float) -> None:
    """A leeway is honoured up to half the time between stale and the end."""
    when = moments(RefreshPolicy(leeway=leeway), begins_at=BEGIN, lifetime=lifetime, jitter=jitter)
    assert when.ends_at - when.expired_from == pytest.approx(honoured)


@pytest.mark.parametrize(("refresh_at", "honoured"), [(0.9, 5.0), (0.91, 4.5), (0.98, 1.0)])
def test_default_leeway_leaves_time_between_stale_and_expired(refresh_at: float, honoured: float) -> None:
    """Where a token becomes stale late, the default leeway too takes at most half of what is left."""
    when = moments(RefreshPolicy(refresh_at=refresh_at), begins_at=BEGIN, lifetime=100.0, jitter=0.0)
    assert when.ends_at - when.expired_from == pytest.approx(honoured)


@settings(deadline=None, database=None)
@given(
    lifetime=st.integers(1, 86_400) | st.floats(1.0, MAX_LIFETIME),
    refresh_at=st.floats(0.1, 0.99),
    leeway=st.none() | st.floats(0.0, 1e6),
    jitter=st.floats(0.0, ALMOST_ONE),
    begins_at=st.floats(0.0, 1e9),
)
def test_the_moments_keep_their_order(
    lifetime: float, refresh_at: float, leeway: float | None, jitter: float, begins_at: float
) -> None:
    """From a second to a day, a token is first stale, then expired, then ended, and never stale too late."""
    policy = RefreshPolicy(refresh_at=refresh_at, leeway=leeway)
    when = moments(policy, begins_at=begins_at, lifetime=lifetime, jitter=jitter)
    assert begins_at < when.stale_from < when.expired_from <= when.ends_at == begins_at + lifetime
    assert when.stale_from <= begins_at + lifetime * refresh_at + 1e-6
    assert when.stale_from >= begins_at + lifetime * (refresh_at - 0.05) - 1e-6
    least = 30.0 if leeway is None else leeway
    assert when.ends_at - when.expired_from <= least + 1e-6


# The pauses.


@pytest.mark.parametrize(
    ("failures", "bound"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 16.0), (7, 30.0), (8, 30.0), (17, 30.0), (10**9, 30.0)],
)
@pytest.mark.parametrize("kind", ["connection", "response", "rate_limited", "invalid"])
def test_backoff_doubles_with_full_jitter(kind: FailureKind, failures: int, bound: float) -> None:
    """The pause lies anywhere between nothing and a bound that doubles from 0.5 s to 30 s."""
    assert backoff_after(failure(kind), failures=failures, jitter=0.0) == 0.0
    assert backoff_after(failure(kind), failures=failures, jitter=0.25) == bound / 4
    assert backoff_after(failure(kind), failures=failures, jitter=ALMOST_ONE) == pytest.approx(bound)


@pytest.mark.parametrize(
    ("wish", "jitter", "pause"),
    [
        (None, 0.5, 1.0),
        (-1.0, 0.5, 1.0),
        (0.0, 0.5, 1.0),
        (0.999, 0.5, 1.0),
        (1.0, 0.5, 1.0),
        (1.001, 0.5, 1.001),
        (5, 0.0, 5.0),
        (59.999, 0.5, 59.999),
        (60.0, 0.5, 60.0),
        (60.001, 0.5, 60.0),
        (1e300, 0.5, 60.0),
        pytest.param(10**400, 0.5, 60.0, id="401 digits"),
        (INFINITY, 0.5, 60.0),
        (-INFINITY, 0.5, 1.0),
        (NAN, 0.5, 1.0),
    ],
)
@pytest.mark.parametrize("kind", ["response", "rate_limited"])
def test_a_servers_wish_replaces_a_shorter_backoff(
    kind: FailureKind, wish: float | None, jitter: float, pause: float
) -> None:
    """`Retry-After` is honoured up to a minute; nonsense and what is shorter than the backoff change nothing."""
    assert backoff_after(failure(kind, wish), failures=3, jitter=jitter) == pause


@pytest.mark.parametrize("failures", [1, 2, 100])
@pytest.mark.parametrize("wish", [None, 1.0, 3600.0])
def test_a_refused_key_is_left_alone_for_a_minute(failures: int, wish: float | None) -> None:
    """The pause after a refused API key is one minute, without jitter, whatever the server wishes."""
    assert backoff_after(failure("credentials", wish), failures=failures, jitter=0.3) == 60.0


def test_no_pause_is_longer_than_records_believe() -> None:
    """The longest pause there is can be kept in a record."""
    longest = [
        backoff_after(failure(kind, wish), failures=99, jitter=ALMOST_ONE)
        for kind in ("connection", "response", "credentials", "rate_limited", "invalid")
        for wish in (None, INFINITY)
    ]
    assert max(longest) == MAX_BACKOFF


@pytest.mark.parametrize(
    ("failures", "bound"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (7, 30.0), (10**9, 30.0)]
)
def test_a_store_is_left_alone_for_longer_and_longer(failures: int, bound: float) -> None:
    """The pause of a store doubles from 1 s to 30 s, and at least half of it is kept."""
    assert store_backoff(failures, jitter=0.0) == bound
    assert store_backoff(failures, jitter=0.5) == bound * 3 / 4
    assert bound / 2 <= store_backoff(failures, jitter=ALMOST_ONE) <= bound


# What is believed, and what can be asked for.


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (1, 1.0),
        (11, 11.0),
        (3599, 3599.0),
        (3600, 3600.0),
        (86_399, 86_399.0),
        (86_400, 86_400.0),
        (86_401, 86_400.0),
        pytest.param(10**400, 86_400.0, id="401 digits"),
        (INFINITY, 86_400.0),
    ],
)
def test_believed_lifetime(expires_in: float, lifetime: float) -> None:
    """At most a day is believed of what the server says, and it is a float."""
    believed = believed_lifetime(expires_in)
    assert believed == lifetime
    assert type(believed) is float


@pytest.mark.parametrize(("lifetime", "most"), [(1.0, 0.9), (10.0, 9.0), (3600.0, 3240.0), (86_400.0, 77_760.0)])
def test_longest_min_ttl(lifetime: float, most: float) -> None:
    """At most 90 % of a lifetime can be asked for."""
    check_min_ttl(most, lifetime=lifetime)
    with pytest.raises(ValueError, match=f"tokens live for {lifetime:g} seconds"):
        check_min_ttl(math.nextafter(most, math.inf), lifetime=lifetime)


# The policy.


def test_the_defaults() -> None:
    """The defaults are those that the documentation states."""
    assert RefreshPolicy() == RefreshPolicy(
        refresh_at=0.8, leeway=None, attempt_timeout=10, deadline=20, close_timeout=5
    )


FIELDS = ("refresh_at", "leeway", "attempt_timeout", "deadline", "close_timeout")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("refresh_at", 0.1),
        ("refresh_at", ALMOST_ONE),
        ("leeway", None),
        ("leeway", 0),
        ("leeway", 1e9),
        ("attempt_timeout", math.nextafter(0.0, 1.0)),
        ("attempt_timeout", 60),
        ("deadline", 0),
        ("deadline", 1e9),
        ("close_timeout", 0.0),
        ("close_timeout", 1e9),
    ],
)
def test_values_at_the_edge_are_taken(name: str, value: Any) -> None:
    """Each field takes every number within its bounds."""
    assert getattr(RefreshPolicy(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("refresh_at", math.nextafter(0.1, 0.0)),
        ("refresh_at", 0),
        ("refresh_at", -0.5),
        ("refresh_at", 1),
        ("refresh_at", 80),
        ("leeway", -5e-324),
        ("attempt_timeout", 0),
        ("attempt_timeout", -1),
        ("attempt_timeout", math.nextafter(60.0, 61.0)),
        ("deadline", -5e-324),
        ("close_timeout", -1),
        *((name, value) for name in FIELDS for value in (NAN, INFINITY, -INFINITY)),
        *(pytest.param(name, 10**400, id=f"{name}-401 digits") for name in FIELDS),
    ],
)
def test_values_past_the_edge_are_value_errors(name: str, value: Any) -> None:
    """A number out of bounds, and what is no finite number, is a `ValueError` that names the field."""
    with pytest.raises(ValueError, match=rf"RefreshPolicy\.{name}"):
        RefreshPolicy(**{name: value})


@pytest.mark.parametrize("value", [True, False, "10", b"10", [10], 1j, object()])
@pytest.mark.parametrize("name", FIELDS)
def test_what_is_no_number_is_a_type_error(name: str, value: Any) -> None:
    """A boolean is no number, nor is text; the `TypeError` names the field."""
    with pytest.raises(TypeError, match=rf"RefreshPolicy\.{name}"):
        RefreshPolicy(**{name: value})


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "leeway"])
def test_only_the_leeway_may_be_none(name: str) -> None:
    """`None` is a `TypeError` where it has no meaning."""
    with pytest.raises(TypeError, match=rf"RefreshPolicy\.{name}"):
        RefreshPolicy(**{name: None})  # type: ignore[arg-type]


def test_a_policy_is_frozen_and_keyword_only() -> None:
    """A policy cannot be changed, and its fields are given by name."""
    with pytest.raises(TypeError):
        RefreshPolicy(0.5)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        RefreshPolicy().deadline = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(("attempt_timeout", "lease"), [(0.5, 5.5), (10, 15.0), (60, 65.0)])
def test_a_lease_outlives_its_call(attempt_timeout: float, lease: float) -> None:
    """A claim lasts five seconds longer than the call it covers, and the longest is one that records believe."""
    assert RefreshPolicy(attempt_timeout=attempt_timeout).lease == lease <= MAX_LEASE


def test_jitter_never_makes_a_token_stale_later() -> None:
    """The larger the random number, the earlier the token is stale."""
    draws = [step / 100 for step in range(100)]
    stale = [moments(RefreshPolicy(), begins_at=0.0, lifetime=3600.0, jitter=jitter).stale_from for jitter in draws]
    assert all(later < earlier for earlier, later in pairwise(stale))


@pytest.mark.parametrize("value", [1e12, -1e12])
def test_a_number_of_a_million_millions_is_not_finite_enough(value: float) -> None:
    """The message says the limit."""
    with pytest.raises(ValueError, match=r"RefreshPolicy\.deadline must be finite and at most 1e\+12"):
        RefreshPolicy(deadline=value)


def test_the_limits_of_attempt_timeout_are_named() -> None:
    """The message says what is allowed, and what was passed."""
    expected = r"RefreshPolicy\.attempt_timeout must be more than 0 and at most 60 seconds, not 61"
    with pytest.raises(ValueError, match=expected):
        RefreshPolicy(attempt_timeout=61)


def test_a_wish_of_less_than_a_second_is_honoured() -> None:
    """However short it is, it is the least that the worker waits."""
    assert backoff_after(failure("connection", 0.5), failures=1, jitter=0.0) == 0.5


@pytest.mark.parametrize(
    ("leeway", "remaining", "usable"),
    [(None, 30.0, False), (None, 30.001, True), (1000.0, 450.0, False), (1000.0, 450.001, True)],
)
def test_a_token_is_usable_until_the_earliest_moment_of_its_expiry(
    leeway: float | None, remaining: float, usable: bool
) -> None:
    """Whatever the jitter draws for it: a long leeway counts up to half the time from the earliest stale moment."""
    policy = RefreshPolicy(leeway=leeway)
    assert is_usable(policy, lifetime=3600.0, remaining=remaining) is usable
