"""Rate limits: so many requests of a kind in each minute."""

import math
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from attrs import define, field, frozen

from apivideo_auth.emulator._checks import check_choice, check_int

Kind = Literal["uploads", "writes", "reads"]

_WINDOW: Final = 60.0
_UNREACHED: Final = 1_000_000_000


@frozen
class RateLimits:
    """How many uploads, writes and reads a minute the API takes.

    `NONE` is out of reach, so that nothing is ever limited and the headers are there all the same; `SANDBOX` and
    `PRODUCTION` are api.video's. Others can be made, and then count from 1.
    """

    uploads: int
    writes: int
    reads: int

    NONE: ClassVar["RateLimits"]
    SANDBOX: ClassVar["RateLimits"]
    PRODUCTION: ClassVar["RateLimits"]

    def __attrs_post_init__(self) -> None:
        check_int("uploads", self.uploads, 1, _UNREACHED)
        check_int("writes", self.writes, 1, _UNREACHED)
        check_int("reads", self.reads, 1, _UNREACHED)

    @classmethod
    def named(cls, name: str) -> "RateLimits":
        """Return the limits called "none", "sandbox" or "production"."""
        known = {"none": cls.NONE, "sandbox": cls.SANDBOX, "production": cls.PRODUCTION}
        check_choice("limits", name, known)
        return known[name]

    def of(self, kind: Kind) -> int:
        """Return the limit of one kind."""
        return {"uploads": self.uploads, "writes": self.writes, "reads": self.reads}[kind]


RateLimits.NONE = RateLimits(_UNREACHED, _UNREACHED, _UNREACHED)
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
        """Count a request, or return False if this minute's are used up."""
        window = self._window(kind, now)
        if window.used >= self.limits.of(kind):
            return False
        window.used += 1
        self._windows[kind] = window
        return True

    def headers(self, kind: Kind, now: float) -> Mapping[str, str]:
        """Return the headers that say what is left, and in how many seconds there is everything again."""
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
