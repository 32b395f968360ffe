"""What a manager knows: the token it serves, the pause it keeps, and its counters. No I/O, no asyncio.

Moments are seconds on the manager's monotonic clock, and `now` is handed in.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from attrs import define, field, frozen

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._errors import AuthError, error_from
from apivideo_auth._failure import Failure
from apivideo_auth._policy import Moments, RefreshPolicy, moments
from apivideo_auth._record import Backoff, SharedToken
from apivideo_auth._renewal import Failed, RenewalRequest, Renewed
from apivideo_auth._token import Token

FOREVER_AGO: Final = float("-inf")


Phase: TypeAlias = Literal["empty", "fresh", "stale", "expired", "closed"]


@frozen(kw_only=True)
class ManagerStatus:
    """A snapshot of a `TokenManager`, without secrets.

    - `phase`: `empty` (no token yet), `fresh`, `stale` (served, and to be renewed), `expired`, `closed`.
    - `generation`: how many tokens the manager has taken, its own and adopted ones.
    - `expires_at`, `renews_at`: end and planned renewal of the current token; aware, UTC.
    - `backoff_until`: no call is made before; set after a failure.
    - `last_error`: the last failed renewal, as text; none once one has succeeded.
    - `renewals`, `failures`, `rejections`: calls that brought a token, calls that failed (not counting a refused
      refresh token, which the API key replaces at once), tokens reported as refused.
    """

    phase: Phase
    generation: int
    expires_at: datetime | None
    renews_at: datetime | None
    backoff_until: datetime | None
    last_error: str | None
    renewals: int
    failures: int
    rejections: int


@frozen(kw_only=True)
class Current:
    """The token that is served. `version` is the record's, of which it came."""

    token: Token
    moments: Moments
    lifetime: float
    version: str | None


@frozen(kw_only=True)
class Pause:
    """No call is made before `until`. The first failure in a row was at `failing_since`."""

    until: float
    failing_since: float
    failure: Failure

    def error(self, now: float) -> AuthError:
        """Return a new exception that tells the cause, and when the next try may come."""
        return error_from(self.failure, retry_after=max(0.0, self.until - now))


@define(kw_only=True)
class State:
    """The state of one manager.

    `token` and `fresh_until` are for the fast path of `get_token`: before that moment nothing else has to be looked at.
    """

    policy: RefreshPolicy
    clock: Clock
    draw: Callable[[], float]
    token: Token | None = None
    fresh_until: float = FOREVER_AGO
    closed: bool = False
    current: Current | None = None
    pause: Pause | None = None
    # Before this moment no renewal is made because the current token was refused.
    throttled_until: float = FOREVER_AGO
    generation: int = 0
    renewals: int = 0
    failures: int = 0
    rejections: int = 0
    last_error: str | None = field(default=None, init=False)

    def usable(self, now: float) -> Current | None:
        """Return the current token while it may be handed out."""
        current = self.current
        return current if current is not None and now < current.moments.expired_from else None

    def paused(self, now: float) -> Pause | None:
        """Return the pause that is kept now."""
        return self.pause if self.pause is not None and now < self.pause.until else None

    def renewal_due(self) -> float | None:
        """Return when to renew although nobody asks; None if only a caller may cause it."""
        if self.closed or self.current is None:
            return None
        due = self.current.moments.stale_from
        if self.pause is not None:
            if self.pause.failure.kind == "credentials":
                return None
            due = max(due, self.pause.until)
        return due if due < self.current.moments.expired_from else None

    def wish(self, refused: Token | None, now: float, *, skip_throttle: bool = False) -> RenewalRequest:
        """Return what a renewal has to know; `refused` is the token that a caller was refused with.

        `skip_throttle`: a renewal for that reason was granted already, so that its throttle is not asked for again.
        """
        rejected = None if refused is None else refused.access_token
        if self.current is None:
            return RenewalRequest(rejected=rejected, skip_throttle=skip_throttle)
        return RenewalRequest(
            seen=self.current.version,
            remaining=self.current.moments.ends_at - now,
            rejected=rejected,
            skip_throttle=skip_throttle,
            because_rejected=(
                not skip_throttle and rejected == self.current.token.access_token and self.usable(now) is not None
            ),
        )

    def take_renewed(self, renewed: Renewed, reason: events.Reason) -> events.TokenRenewed:
        """Serve the token that a call brought."""
        self.renewals += 1
        token = self._take(renewed.access, renewed.lifetime, renewed.sent_at, renewed.version)
        return events.TokenRenewed(
            endpoint=renewed.path,
            reason=reason,
            seconds=renewed.seconds,
            generation=token.generation,
            expires_at=token.expires_at,
            lifetime=renewed.lifetime,
            lifetime_assumed=renewed.lifetime_assumed,
        )

    def take_adopted(self, shared: SharedToken, asked_at: float) -> events.TokenAdopted:
        """Serve the token of another worker; what is left of its life counts from `asked_at`."""
        begins_at = asked_at - (shared.lifetime - shared.remaining)
        token = self._take(shared.access.decode(), shared.lifetime, begins_at, shared.version)
        return events.TokenAdopted(generation=token.generation, expires_at=token.expires_at, remaining=shared.remaining)

    def _take(self, access: str, lifetime: float, begins_at: float, version: str | None) -> Token:
        when = moments(self.policy, begins_at=begins_at, lifetime=lifetime, draw=self.draw())
        self.generation += 1
        token = Token(access, self.utc_of(when.ends_at), self.generation, clock=self.clock, ends_at=when.ends_at)
        if not self.closed:
            self.current = Current(token=token, moments=when, lifetime=lifetime, version=version)
            self.token, self.fresh_until = token, when.stale_from
            self.pause, self.throttled_until, self.last_error = None, FOREVER_AGO, None
        return token

    def note_failure(self, failed: Failed, now: float) -> events.RenewalFailed:
        """Keep the pause that a failed call left."""
        self.failures += 1
        self.note_pause(failed.cooling, now)
        error = error_from(failed.cooling.failure)
        return events.RenewalFailed(
            endpoint=failed.path,
            error_class=type(error).__name__,
            cause=str(error),
            failures=failed.cooling.failures,
            still_serving=self.usable(now) is not None,
            next_try_in=failed.cooling.retry_after,
        )

    def note_pause(self, cooling: Backoff, now: float) -> None:
        """Keep a pause of the account."""
        self.last_error = cooling.failure.message
        self.pause = Pause(
            until=now + cooling.retry_after, failing_since=now - cooling.failing_for, failure=cooling.failure
        )

    def close(self) -> None:
        """Serve nobody any more, and let go of the token."""
        self.closed = True
        self.current = self.token = self.pause = None
        self.fresh_until = FOREVER_AGO

    def phase(self, now: float) -> Phase:
        """Return the name of the state."""
        if self.closed:
            return "closed"
        if self.current is None:
            return "empty"
        if now < self.current.moments.stale_from:
            return "fresh"
        return "expired" if self.usable(now) is None else "stale"

    def status(self, now: float) -> ManagerStatus:
        """Return a snapshot."""
        when = None if self.current is None else self.current.moments
        pause, due = self.paused(now), self.renewal_due()
        return ManagerStatus(
            phase=self.phase(now),
            generation=self.generation,
            expires_at=None if when is None else self.utc_of(when.ends_at),
            renews_at=None if due is None else self.utc_of(due),
            backoff_until=None if pause is None else self.utc_of(pause.until),
            last_error=self.last_error,
            renewals=self.renewals,
            failures=self.failures,
            rejections=self.rejections,
        )

    def utc_of(self, moment: float) -> datetime:
        """Return a moment as people read it, by the wall clock of now."""
        return datetime.fromtimestamp(self.clock.utc() + (moment - self.clock.monotonic()), UTC)
