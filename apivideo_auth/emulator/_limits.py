"""Rate limits: a number of requests of each kind per minute."""

import math
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from attrs import define, field, frozen

from apivideo_auth._validation import check_choice, check_int, valid

Kind = Literal["uploads", "writes", "reads"]

_WINDOW: Final = 60.0
_UNREACHABLE: Final = 1_000_000_000


@frozen
class RateLimits:
    """How many uploads, writes and reads per minute the API accepts, 1 or more of each.

    `SANDBOX` and `PRODUCTION` are api.video's limits. `NONE` is never reached; its responses have the headers too.
    """

    uploads: int = field(validator=valid(check_int, 1, _UNREACHABLE))
    writes: int = field(validator=valid(check_int, 1, _UNREACHABLE))
    reads: int = field(validator=valid(check_int, 1, _UNREACHABLE))

    NONE: ClassVar["RateLimits"]
    SANDBOX: ClassVar["RateLimits"]
    PRODUCTION: ClassVar["RateLimits"]

    @classmethod
    def named(cls, name: str) -> "RateLimits":
        """Return the limits with the name "none", "sandbox" or "production"."""
        known = {"none": cls.NONE, "sandbox": cls.SANDBOX, "production": cls.PRODUCTION}
        check_choice("limits", name, known)
        return known[name]

    def of(self, kind: Kind) -> int:
        """Return the limit of one kind."""
        limit: int = getattr(self, kind)
        return limit


RateLimits.NONE = RateLimits(_UNREACHABLE, _UNREACHABLE, _UNREACHABLE)
RateLimits.SANDBOX = RateLimits(uploads=40, writes=40, reads=100)
RateLimits.PRODUCTION = RateLimits(uploads=100, writes=200, reads=500)


@define
class _Window:
    """A minute that began with its first request."""

    started_at: float
    used: int = 0


@define
class RateLimiter:
    """Counts requests by kind. `now` is in seconds of one monotonic clock."""

    limits: RateLimits
    _windows: dict[Kind, _Window] = field(factory=dict[Kind, _Window], init=False)

    def admit(self, kind: Kind, now: float) -> bool:
        """Count a request, or return False if the limit of this minute is used up."""
        window = self._windows[kind] = self._window(kind, now)
        if window.used >= self.limits.of(kind):
            return False
        window.used += 1
        return True

    def headers(self, kind: Kind, now: float) -> Mapping[str, str]:
        """Return the headers that say how many requests are left, and in how many seconds the next minute begins."""
        window = self._window(kind, now)
        limit = self.limits.of(kind)
        return {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(limit - window.used),
            "X-RateLimit-Retry-After": str(math.ceil(_WINDOW - (now - window.started_at))),
        }

    def _window(self, kind: Kind, now: float) -> _Window:
        window = self._windows.get(kind)
        return _Window(now) if window is None or now - window.started_at >= _WINDOW else window
