"""`RefreshPolicy`, the moments of a token, and the durations of backoffs; pure.

Moments are seconds on one clock, which the caller names. Durations are seconds. `jitter` is a random number in [0, 1).
"""

from typing import Any, Final

from attrs import Attribute, field, frozen, validators

from apivideo_auth._failure import Failure

REFRESH_JITTER: Final = 0.05
"""A token becomes stale earlier by up to this fraction of its lifetime: workers do not renew in the same second."""
LEEWAY: Final = 30.0
MAX_LEEWAY_FRACTION: Final = 0.05
"""The default leeway is `LEEWAY`, but at most this fraction of the lifetime."""
MAX_MIN_TTL_FRACTION: Final = 0.9
"""`min_ttl` is at most this fraction of a lifetime. More would cause one renewal after another."""

INITIAL_BACKOFF: Final = 0.5
MAX_EXPONENTIAL_BACKOFF: Final = 30.0
"""The backoff doubles from failure to failure, up to this bound."""
MAX_RETRY_AFTER: Final = 60.0
"""A server's `Retry-After` is honoured up to this."""
REJECTED_KEY_BACKOFF: Final = 60.0
"""A rejected API key, or a URL without the endpoints, is not tried again for this long."""
MAX_BACKOFF: Final = 60.0
"""No backoff is longer; a record that says so is damaged."""

INITIAL_THROTTLE: Final = 1.0
MAX_THROTTLE: Final = 60.0
"""The least time between renewals that 401s cause. It doubles while the renewed token is rejected as well."""
MIN_REJECTION_AGE: Final = 1.0
"""A 401 on a younger token causes no renewal."""
REJECTION_RESET_AFTER: Final = 60.0
"""After this long without a 401 the throttle starts again from `INITIAL_THROTTLE`."""

INITIAL_STORE_BACKOFF: Final = 1.0
MAX_STORE_BACKOFF: Final = 30.0
"""A store that fails is left alone for this long, doubling from one failure to the next."""

LEASE_MARGIN: Final = 5.0
"""A claim outlives the one call that it covers by this."""
MAX_ATTEMPT_TIMEOUT: Final = 60.0
MAX_LEASE: Final = MAX_ATTEMPT_TIMEOUT + LEASE_MARGIN
"""No lease is longer; a record that says so is damaged."""

CLOCK_TOLERANCE: Final = 1.0
"""A moment of a record may lie further ahead than it should by this: sums are rounded, and clocks are adjusted."""

MAX_LIFETIME: Final = 86_400.0
"""At most a day of `expires_in` is believed."""

_MAX_NUMBER: Final = 1e12


def _check_number(_policy: object, attribute: "Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"RefreshPolicy.{attribute.name} must be a number, not {type(value).__name__}")
    # Compared before anything else, since an integer can be too large to become a float.
    if not (-_MAX_NUMBER < value < _MAX_NUMBER):
        raise ValueError(f"RefreshPolicy.{attribute.name} must be finite and at most {_MAX_NUMBER:g}")


def _check_seconds(policy: object, attribute: "Attribute[Any]", value: object) -> None:
    _check_number(policy, attribute, value)
    assert isinstance(value, int | float)
    if value < 0:
        raise ValueError(f"RefreshPolicy.{attribute.name} must be 0 or more seconds, not {value}")


def _check_refresh_at(policy: object, attribute: "Attribute[Any]", value: float) -> None:
    _check_number(policy, attribute, value)
    if not 2 * REFRESH_JITTER <= value < 1:
        raise ValueError(
            f"RefreshPolicy.refresh_at is a fraction of the lifetime, from {2 * REFRESH_JITTER} to below 1, not {value}"
        )


def _check_attempt_timeout(policy: object, attribute: "Attribute[Any]", value: float) -> None:
    _check_seconds(policy, attribute, value)
    if not 0 < value <= MAX_ATTEMPT_TIMEOUT:
        limits = f"more than 0 and at most {MAX_ATTEMPT_TIMEOUT:g} seconds"
        raise ValueError(f"RefreshPolicy.attempt_timeout must be {limits}, not {value}")


@frozen(kw_only=True)
class RefreshPolicy:
    """The timing of renewals. The defaults are right for nearly everybody. Durations are in seconds.

    - `refresh_at`: a token is stale, and is renewed in the background, after this fraction of its lifetime, less up
      to 5 % of the lifetime at random.
    - `leeway`: a token counts as expired this long before its end. `None`: 30 s, at most 5 % of the lifetime. A number
      counts up to half the time between stale and the end.
    - `attempt_timeout`: the limit for one call to an endpoint; at most 60.
    - `deadline`: how long after the first failure in a row callers without a token still wait.
    - `close_timeout`: how long `close()` waits for a renewal in flight.

    Raises `TypeError` if a value is not a number, and `ValueError` if it is out of range.
    """

    refresh_at: float = field(default=0.8, validator=_check_refresh_at)
    leeway: float | None = field(default=None, validator=validators.optional(_check_seconds))
    attempt_timeout: float = field(default=10.0, validator=_check_attempt_timeout)
    deadline: float = field(default=20.0, validator=_check_seconds)
    close_timeout: float = field(default=5.0, validator=_check_seconds)

    @property
    def lease(self) -> float:
        """How long a claim is valid, in seconds."""
        return self.attempt_timeout + LEASE_MARGIN


@frozen
class Moments:
    """The moments at which a token becomes stale, counts as expired, and ends."""

    stale_from: float
    expired_from: float
    ends_at: float


def moments(policy: RefreshPolicy, *, begins_at: float, lifetime: float, jitter: float) -> Moments:
    """Return the moments of a token whose lifetime counts from `begins_at`."""
    stale_after = lifetime * (policy.refresh_at - REFRESH_JITTER * jitter)
    max_leeway = (lifetime - stale_after) / 2
    leeway = min(LEEWAY, lifetime * MAX_LEEWAY_FRACTION) if policy.leeway is None else policy.leeway
    ends_at = begins_at + lifetime
    return Moments(begins_at + stale_after, ends_at - min(leeway, max_leeway), ends_at)


def is_usable(policy: RefreshPolicy, *, lifetime: float, remaining: float) -> bool:
    """Return whether a token with `remaining` of its `lifetime` seconds may be handed out, whatever the jitter."""
    latest = moments(policy, begins_at=0.0, lifetime=lifetime, jitter=1.0)
    return lifetime - remaining < latest.expired_from


def believed_lifetime(expires_in: float) -> float:
    """Return how much of `expires_in` is believed."""
    return float(min(expires_in, MAX_LIFETIME))


def check_min_ttl(min_ttl: float, *, lifetime: float) -> None:
    """Raise `ValueError` if tokens of this lifetime could not serve a caller who asks for `min_ttl`."""
    longest = lifetime * MAX_MIN_TTL_FRACTION
    if min_ttl > longest:
        raise ValueError(
            f"min_ttl is too long: tokens live for {lifetime:g} seconds, "
            f"and min_ttl is at most 90 % of that, {longest:g} seconds"
        )


def backoff_after(failure: Failure, *, failures: int, jitter: float) -> float:
    """Return how long to back off after the `failures`-th failure in a row.

    Full jitter: the backoff lies anywhere between 0 and the bound that doubles with each failure.
    """
    if not failure.retryable:
        return REJECTED_KEY_BACKOFF
    bound = min(INITIAL_BACKOFF * 2.0 ** min(failures - 1, 16), MAX_EXPONENTIAL_BACKOFF)
    return max(bound * jitter, min(failure.retry_after or 0.0, MAX_RETRY_AFTER))


def store_backoff(failures: int, *, jitter: float) -> float:
    """Return how long to leave a store alone after the `failures`-th failure in a row; half of it is jitter."""
    bound = min(INITIAL_STORE_BACKOFF * 2.0 ** min(failures - 1, 16), MAX_STORE_BACKOFF)
    return bound * (1 - jitter / 2)
