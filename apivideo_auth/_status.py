"""A snapshot of a manager."""

from datetime import datetime
from typing import Literal, TypeAlias

from attrs import frozen

Phase: TypeAlias = Literal["empty", "fresh", "stale", "expired", "closed"]


@frozen(kw_only=True)
class ManagerStatus:
    """A snapshot of a `TokenManager`, without secrets.

    - `phase`: `empty` (no token yet), `fresh`, `stale` (served, and to be renewed), `expired`, `closed`.
    - `generation`: how many tokens the manager has taken, its own and adopted ones.
    - `expires_at`, `renews_at`: end and planned renewal of the current token; aware, UTC.
    - `cooling_until`: no call is made before; set after a failure.
    - `last_error`: the last failed renewal, as text; none once one has succeeded.
    - `renewals`, `failures`, `rejections`: calls that brought a token, calls that failed (not counting a refused
      refresh token, which the API key replaces at once), tokens reported as refused.
    """

    phase: Phase
    generation: int
    expires_at: datetime | None
    renews_at: datetime | None
    cooling_until: datetime | None
    last_error: str | None
    renewals: int
    failures: int
    rejections: int
