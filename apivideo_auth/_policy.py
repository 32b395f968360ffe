"""When to renew and how long to pause: pure functions of times and numbers.

Times are seconds on one clock, named by the caller; durations are seconds.
"""

from typing import Any, Final

from attrs import Attribute, field, frozen

from apivideo_auth._failure import Failure

REFRESH_JITTER: Final = 0.05
"""Stale comes earlier by up to this part of the lifetime, so that workers do not renew in the same second."""
LEEWAY: Final = 30.0
LEEWAY_PART: Final = 0.05
"""The default leeway is `LEEWAY`, at most this part of the lifetime."""
MIN_TTL_PART: Final = 0.9
"""More than this part of a lifetime cannot be asked for: a renewal would be due at once, again and again."""

INITIAL_BACKOFF: Final = 0.5
MAX_EXPONENTIAL_BACKOFF: Final = 30.0
MAX_RETRY_AFTER: Final = 60.0
"""A server's `Retry-After` is honoured up to this."""
REJECTED_KEY_BACKOFF: Final = 60.0
"""A refused API key is left alone for this long."""
MAX_BACKOFF: Final = 60.0
"""No pause is longer; a record that says so was damaged."""

INITIAL_THROTTLE: Final = 1.0
MAX_THROTTLE: Final = 60.0
MIN_REJECTION_AGE: Final = 1.0
"""A token younger than this is not renewed because of a 401."""
REJECTION_RESET_AFTER: Final = 60.0
"""After this long without a 401 the throttle of the renewals that they cause falls back."""

INITIAL_STORE_BACKOFF: Final = 1.0
MAX_STORE_BACKOFF: Final = 30.0

LEASE_MARGIN: Final = 5.0
"""A claim is_newer_than the one call that it covers by this."""
MAX_ATTEMPT_TIMEOUT: Final = 60.0
MAX_LEASE: Final = MAX_ATTEMPT_TIMEOUT + LEASE_MARGIN
"""No lease is longer; a record that says so was damaged."""

CLOCK_TOLERANCE: Final = 1.0
"""A moment may lie further ahead than it can by this: sums of floats are rounded, and clocks are set by a little."""

MAX_LIFETIME: Final = 86_400.0
"""At most a day is believed of `expires_in`."""


_FINITE: Final = 1e12


def _check_number(_policy: object, attribute: "Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"RefreshPolicy.{attribute.name} must be a number, not {type(value).__name__}")
    # Compared before anything else, since an integer can be too large to become a float.
    if not (-_FINITE < value < _FINITE):
        raise ValueError(f"RefreshPolicy.{attribute.name} must be a number of everyday size")


def _check_seconds(policy: object, attribute: "Attribute[Any]", value: object) -> None:
    _check_number(policy, attribute, value)
    assert isinstance(value, int | float)
    if value < 0:
        raise ValueError(f"RefreshPolicy.{attribute.name} must be 0 or more seconds, not {value}")


def _check_leeway(policy: object, attribute: "Attribute[Any]", value: object) -> None:
    if value is not None:
        _check_seconds(policy, attribute, value)


def _check_refresh_at(policy: object, attribute: "Attribute[Any]", value: float) -> None:
    _check_number(policy, attribute, value)
    if not 2 * REFRESH_JITTER <= value < 1:
        raise ValueError(
            f"RefreshPolicy.refresh_at is a part of the lifetime, from {2 * REFRESH_JITTER} to below 1, not {value}"
        )


def _check_attempt_timeout(policy: object, attribute: "Attribute[Any]", value: float) -> None:
    _check_seconds(policy, attribute, value)
    if not 0 < value <= MAX_ATTEMPT_TIMEOUT:
        raise ValueError(
            f"RefreshPolicy.attempt_timeout must be more than 0 and at most {MAX_ATTEMPT_TIMEOUT:g} seconds, not {value}"
        )


@frozen(kw_only=True)
class RefreshPolicy:
    """How a `TokenManager` renews. The defaults are right for nearly everybody. Durations are in seconds.

    - `refresh_at`: the part of the lifetime after which a token is stale and is renewed in the background; less
      up to 5 % of the lifetime, drawn anew for each token.
    - `leeway`: a token counts as expired so long before its end. `None`: 30 s, at most 5 % of the lifetime. A number
      is honoured up to half the time between stale and the end.
    - `attempt_timeout`: one call to an endpoint, whole; at most 60.
    - `deadline`: how long after the first failure in a row callers without a token still wait.
    - `close_timeout`: what `close()` gives a renewal in flight.

    Raises `TypeError` and `ValueError` for what contradicts this.
    """

    refresh_at: float = field(default=0.8, validator=_check_refresh_at)
    leeway: float | None = field(default=None, validator=_check_leeway)
    attempt_timeout: float = field(default=10.0, validator=_check_attempt_timeout)
    deadline: float = field(default=20.0, validator=_check_seconds)
    close_timeout: float = field(default=5.0, validator=_check_seconds)

    @property
    def lease(self) -> float:
        """How long a claim on the account's renewal is valid."""
        return self.attempt_timeout + LEASE_MARGIN


@frozen
class Moments:
    """When a token becomes stale, when it counts as expired, and when it ends."""

    stale_from: float
    expired_from: float
    ends_at: float


def moments(policy: RefreshPolicy, *, begins_at: float, lifetime: float, draw: float) -> Moments:
    """Return the moments of a token that was asked for at `begins_at`; `draw` is a random number in [0, 1)."""
    stale_after = lifetime * (policy.refresh_at - REFRESH_JITTER * draw)
    longest_leeway = (lifetime - stale_after) / 2
    wanted = min(LEEWAY, lifetime * LEEWAY_PART) if policy.leeway is None else policy.leeway
    ends_at = begins_at + lifetime
    return Moments(begins_at + stale_after, ends_at - min(wanted, longest_leeway), ends_at)


def believed_lifetime(expires_in: float) -> float:
    """Return how much of `expires_in` is believed."""
    return float(min(expires_in, MAX_LIFETIME))


def max_min_ttl(lifetime: float) -> float:
    """Return the most that a caller may ask for as `min_ttl`."""
    return lifetime * MIN_TTL_PART


def backoff_after(failure: Failure, *, failures: int, draw: float) -> float:
    """Return how long to leave the endpoint alone after the `failures`-th failure in a row.

    Full jitter: anywhere between nothing and the doubled-up bound; `draw` is a random number in [0, 1).
    """
    if failure.kind == "credentials":
        return REJECTED_KEY_BACKOFF
    bound = min(INITIAL_BACKOFF * 2.0 ** min(failures - 1, 16), MAX_EXPONENTIAL_BACKOFF)
    wish = failure.retry_after
    wished = min(wish, MAX_RETRY_AFTER) if wish is not None and wish > 0 else 0.0
    return max(bound * draw, wished)


def store_backoff(failures: int, *, draw: float) -> float:
    """Return how long to leave a store alone after the `failures`-th failure in a row: half of it is jitter."""
    bound = min(INITIAL_STORE_BACKOFF * 2.0 ** min(failures - 1, 16), MAX_STORE_BACKOFF)
    return bound * (1 - draw / 2)
