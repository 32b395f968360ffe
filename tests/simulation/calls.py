"""Calls of the service and what they bring, as values; what is set of the service, and its faults."""

from typing import Literal, TypeAlias

from attrs import define, frozen

SECRET = "made-up-s3cret"
"""In every API key, access token and refresh token, so that a leak is found by it."""

API_KEY = f"{SECRET}-key"
KEY_REFUSED = "the API key was refused"

Outcome: TypeAlias = Literal["granted", "unsent", "limited", "failed", "refused", "foreign", "unknown", "cancelled"]

FAULTS = (
    "unreachable",  # provably not sent
    "lost before",  # the connection breaks before the work is done
    "lost after",  # the answer is lost, and the refresh token is used up
    "limited",  # 429
    "broken",  # 5xx
    "malformed",  # the work is done, and the answer cannot be read
    "hang",  # no answer until the attempt's timeout
    "hang after",  # as above, and the work is done
    "stuck",  # no answer, and the stand-in has no timeout of its own
    "foreign",  # an exception that is not the package's, with a secret in its text
    "telltale",  # an error of the package's own, whose text quotes what was sent
    "nonsense",  # the work is done, and the answer is no token
    "no refresh token",
    "odd lifetime",
    "dawdle",  # so slow that others may have renewed meanwhile
    "slow",  # so slow that the token is stale or over when it arrives
)


@define(eq=False)
class Grant:
    """What a call brought into the world at the service. `with_access` came with the refresh token."""

    access: str
    refresh: str | None
    lifetime: int
    made_at: float
    revoked: bool = False


@define(eq=False)
class Call:
    """One call of an endpoint. `grant` is what the caller received."""

    number: int
    worker: str
    account: str
    endpoint: Literal["authenticate", "refresh"]
    refresh: str | None
    started: float
    fault: str | None = None
    ended: float | None = None
    outcome: Outcome | None = None
    grant: Grant | None = None
    retry_after: float | None = None


@frozen(kw_only=True)
class Modes:
    """What is unknown of the service, what it is set to, and how fast it is.

    `suspends`: while the API key is refused, refresh tokens are too. `slowness` is the part of a lifetime that a slow
    answer takes.
    """

    refresh_revokes: bool = False
    authenticate_invalidates: bool = False
    suspends: bool = False
    lifetime: int = 3600
    attempt_timeout: float = 10.0
    latency: float = 0.2
    slowness: float = 0.9


@frozen
class Spell:
    """A time with faults; `weights` sum up to the probability of one at most."""

    begins: float
    ends: float
    weights: dict[str, float]
