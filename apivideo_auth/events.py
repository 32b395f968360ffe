"""What a manager tells its subscribers: frozen values without secrets."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Literal, TypeAlias

from attrs import frozen

__all__ = [
    "Event",
    "RefreshTokenRejected",
    "RenewalFailed",
    "StoreDegraded",
    "StoreRecovered",
    "TokenAdopted",
    "TokenRejected",
    "TokenRenewed",
]

Reason: TypeAlias = Literal["first", "expired", "stale", "rejected", "min_ttl"]
NotReplayed: TypeAlias = Literal["body", "no_token"]


@frozen(kw_only=True)
class TokenRenewed:
    """A call brought a token.

    - `endpoint`: the path that was called; `reason`: why.
    - `seconds`: how long the call took.
    - `generation`, `expires_at`, `lifetime` (seconds): of the new token.
    - `lifetime_assumed`: the answer did not say how long it lives, and 3,600 seconds are assumed.
    """

    endpoint: str
    reason: Reason
    seconds: float
    generation: int
    expires_at: datetime
    lifetime: float
    lifetime_assumed: bool


@frozen(kw_only=True)
class RenewalFailed:
    """A call brought no token.

    - `error_class`, `message`: what callers that cannot be served get.
    - `failures`: how many in a row, of the account.
    - `still_serving`: the current token is usable, so that nobody notices.
    - `next_try_in`: seconds before which no further call is made.
    """

    endpoint: str
    error_class: str
    message: str
    failures: int
    still_serving: bool
    next_try_in: float


@frozen(kw_only=True)
class RefreshTokenRejected:
    """The endpoint refused a refresh token; the API key is used next."""

    message: str


@frozen(kw_only=True)
class TokenAdopted:
    """Another worker's token was taken from the store; it lives for another `remaining` seconds."""

    generation: int
    expires_at: datetime
    remaining: float


@frozen(kw_only=True)
class TokenRejected:
    """The API answered 401 to a request with this token.

    `replayed`: the request was sent again with another one. Else `why_not`: "body", it could not be sent again in
    full; "no_token", no other token could be had.
    """

    generation: int
    replayed: bool
    why_not: NotReplayed | None


@frozen(kw_only=True)
class StoreDegraded:
    """The store is down; the manager goes on with a private record, and looks again in `next_try_in` seconds."""

    message: str
    next_try_in: float


@frozen(kw_only=True)
class StoreRecovered:
    """The store is back, `seconds` after it was lost."""

    seconds: float


Event: TypeAlias = (
    TokenRenewed | RenewalFailed | RefreshTokenRejected | TokenAdopted | TokenRejected | StoreDegraded | StoreRecovered
)
EventHandler: TypeAlias = Callable[[Event], object]

_logger = logging.getLogger("apivideo_auth")


def deliver(receiver: EventHandler, event: Event) -> None:
    """Hand an event to a receiver; an exception in it is logged and goes no further."""
    try:
        receiver(event)
    except Exception:
        _logger.exception("a receiver of %s failed", type(event).__name__)
