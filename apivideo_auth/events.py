"""The events of a `TokenManager`: frozen values without secrets.

Each has a `message`, one sentence that is also its record on the logger `apivideo_auth`. Events about a failure also
have a `cause`, the text of the failure alone.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal, TypeAlias, assert_never

from attrs import frozen

__all__ = [
    "Event",
    "EventHandler",
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
    """A renewal succeeded: an endpoint sent a token.

    - `endpoint`: the path of the endpoint; `reason`: why it was called.
    - `seconds`: how long the call took.
    - `generation`, `expires_at`, `lifetime` (seconds): of the new token.
    - `lifetime_assumed`: the response did not contain the lifetime, and 3,600 seconds are assumed.
    """

    endpoint: str
    reason: Reason
    seconds: float
    generation: int
    expires_at: datetime
    lifetime: float
    lifetime_assumed: bool

    @property
    def message(self) -> str:
        """The event as a sentence."""
        assumed = ", which is assumed" if self.lifetime_assumed else ""
        return (
            f"renewed the token at {self.endpoint} (reason: {self.reason}) in {self.seconds:.2f} s; "
            f"it lives for {self.lifetime:g} s{assumed}"
        )


@frozen(kw_only=True)
class RenewalFailed:
    """A renewal failed: an endpoint sent no token.

    - `error_class`, `cause`: class and text of the error that callers get if they cannot be served.
    - `failures`: how many calls of the account have failed in a row.
    - `still_serving`: the current token is still usable, so no caller is affected.
    - `next_try_in`: seconds until the next call may be made.
    - `reason`: why the endpoint was called; `seconds`: how long the call took. `None` if that is not known.
    """

    endpoint: str
    error_class: str
    cause: str
    failures: int
    still_serving: bool
    next_try_in: float
    reason: Reason | None = None
    seconds: float | None = None

    @property
    def message(self) -> str:
        """The event as a sentence."""
        serving = "the current token is still usable" if self.still_serving else "there is no usable token"
        return (
            f"the renewal at {self.endpoint} failed (failure {self.failures} in a row): {self.cause}; "
            f"{serving}, next try in {self.next_try_in:.1f} s"
        )


@frozen(kw_only=True)
class RefreshTokenRejected:
    """The endpoint rejected a refresh token. The next call uses the API key."""

    cause: str

    @property
    def message(self) -> str:
        """The event as a sentence."""
        return f"the refresh token was rejected, the API key is used next: {self.cause}"


@frozen(kw_only=True)
class TokenAdopted:
    """Another worker's token was taken from the store. It lives for another `remaining` seconds."""

    generation: int
    expires_at: datetime
    remaining: float

    @property
    def message(self) -> str:
        """The event as a sentence."""
        return f"adopted another worker's token; it lives for another {self.remaining:.0f} s"


@frozen(kw_only=True)
class TokenRejected:
    """The API responded with 401 to a request with this token.

    - `replayed`: the request was sent again with another token.
    - `why_not`: "body", the body cannot be sent again in full; "no_token", no other token is available. `None` if the
      request was replayed.
    - `cause`: the text of the error if no other token is available.
    """

    generation: int
    replayed: bool
    why_not: NotReplayed | None
    cause: str | None = None

    @property
    def message(self) -> str:
        """The event as a sentence."""
        rejected = f"the API rejected token {self.generation} with a 401"
        match self.why_not:
            case None:
                return f"{rejected}; the request was sent again with another token"
            case "body":
                return f"{rejected}; the request was not sent again, because its body cannot be sent twice"
            case "no_token":
                return f"{rejected}; the request was not sent again: {self.cause or 'no other token is available'}"
            case _:
                assert_never(self.why_not)


@frozen(kw_only=True)
class StoreDegraded:
    """The store is down, or its record cannot be read.

    The manager continues with a private record and tries the store in `next_try_in` seconds.
    """

    cause: str
    next_try_in: float

    @property
    def message(self) -> str:
        """The event as a sentence."""
        return f"the token store failed: {self.cause}; continuing without it, next try in {self.next_try_in:.1f} s"


@frozen(kw_only=True)
class StoreRecovered:
    """The store works again, `seconds` after it failed."""

    seconds: float

    @property
    def message(self) -> str:
        """The event as a sentence."""
        return f"the token store works again after {self.seconds:.1f} s"


Event: TypeAlias = (
    TokenRenewed | RenewalFailed | RefreshTokenRejected | TokenAdopted | TokenRejected | StoreDegraded | StoreRecovered
)
EventHandler: TypeAlias = Callable[[Event], object]
"""A function that gets events. It is called in the event loop, so it must not block."""

logger: Final = logging.getLogger("apivideo_auth")
logger.addHandler(logging.NullHandler())


def log(event: Event) -> None:
    """Write an event to the logger `apivideo_auth`. A filter or handler of the program that raises has no effect."""
    match event:
        case RenewalFailed() | RefreshTokenRejected() | StoreDegraded() | StoreRecovered():
            level = logging.WARNING
        case TokenRejected():
            level = logging.DEBUG if event.replayed else logging.WARNING
        case TokenRenewed():
            level = logging.INFO
        case TokenAdopted():
            level = logging.DEBUG
    with suppress(Exception):
        logger.log(level, "%s", event.message)


def deliver(handler: EventHandler, event: Event) -> None:
    """Call an event handler. If it raises, that is logged and has no other effect."""
    try:
        handler(event)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        with suppress(Exception):
            logger.exception("an event handler failed on %s", type(event).__name__)
