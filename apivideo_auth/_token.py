"""The token that callers get, and the protocol of its sources."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from attrs import Factory, field, frozen

from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._models import check_token
from apivideo_auth._secrets import Secret, fingerprint, masked
from apivideo_auth._validation import check_int, valid

if TYPE_CHECKING:
    from attrs import Attribute


def _check_expires_at(_token: object, _attribute: "Attribute[Any]", value: object) -> None:
    if not isinstance(value, datetime):
        raise TypeError(f"Token.expires_at must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError("Token.expires_at must have a time zone; write datetime(…, tzinfo=UTC)")


def _authorization(token: "Token") -> str:
    return Secret(f"Bearer {token.access_token}")


@frozen(init=False)
class Token:
    """An access token that was usable when `get_token` returned it.

    - `authorization`: the value of the header, "Bearer …".
    - `access_token`: the token alone.
    - `expires_at`: its end by the wall clock; aware, UTC. Show it to people, and use `remaining()` for decisions.
    - `generation`: how many tokens its manager had taken by then. It means nothing to another process.

    Its `repr` and `str` show a fingerprint instead of the token. It cannot be pickled; use `str(token.access_token)`.
    """

    access_token: str = field(validator=check_token)
    expires_at: datetime = field(validator=_check_expires_at)
    generation: int = field(validator=valid(check_int, 0))
    _clock: Clock = field(eq=False)
    _ends_at: float | None = field(eq=False)
    authorization: str = field(init=False, eq=False, default=Factory(_authorization, takes_self=True))

    def __init__(
        self,
        access_token: str,
        expires_at: datetime,
        generation: int = 1,
        *,
        clock: Clock = SYSTEM_CLOCK,
        ends_at: float | None = None,
    ) -> None:
        # Masked first: if a check raises, a traceback with locals shows this one.
        access_token, expires_at = masked(access_token), masked(expires_at)
        generation = masked(generation)
        self.__attrs_init__(access_token, expires_at, generation, clock, ends_at)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def remaining(self) -> float:
        """Return the seconds until its end, 0 after it. Jumps of the wall clock do not affect a manager's tokens."""
        if self._ends_at is None:
            return max(0.0, self.expires_at.timestamp() - self._clock.utc())
        return max(0.0, self._ends_at - self._clock.monotonic())

    def __repr__(self) -> str:
        # A traceback may show a token whose construction has just failed.
        expires_at, access_token = getattr(self, "expires_at", None), getattr(self, "access_token", None)
        if not (isinstance(expires_at, datetime) and isinstance(access_token, str)):
            return "<Token not constructed>"
        expiry, mark = expires_at.isoformat(timespec="seconds"), fingerprint(access_token, size=4)
        return f"<Token generation={getattr(self, 'generation', 0)!r} expires_at={expiry} fingerprint={mark}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Token cannot be pickled; use str(token.access_token) if it has to leave the process")


class TokenSource(Protocol):
    """An object that provides tokens: a `TokenManager`, or any other with this method."""

    async def get_token(self, *, rejected: Token | None = None) -> Token:
        """Return a token that is usable now and is not `rejected`, the token that the API has rejected."""
        ...
