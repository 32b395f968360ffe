"""The state of a manager: the token that it serves, its backoff, and its counters; pure.

Moments are seconds on the manager's monotonic clock. `now` is a parameter of every question.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define, evolve, field, frozen

from apivideo_auth._failure import Failure
from apivideo_auth._policy import MAX_MIN_TTL_FRACTION, Moments, RefreshPolicy
from apivideo_auth._record import NEVER, Backoff, RenewalRequest

if TYPE_CHECKING:
    from apivideo_auth._token import Token

Phase: TypeAlias = Literal["empty", "fresh", "stale", "expired", "closed"]


@frozen(kw_only=True)
class ManagerStatus:
    """A snapshot of a `TokenManager`, without secrets.

    - `phase`: `empty` (no token yet), `fresh`, `stale` (served, and due for renewal), `expired` or `closed`.
    - `generation`: how many tokens the manager has taken, its own and adopted ones.
    - `expires_at`, `renews_at`: end and planned renewal of the current token; aware, UTC.
    - `backoff_until`: no call is made before this moment; `None` without a backoff.
    - `last_error`: the last failed renewal, as text; `None` after a success.
    - `renewals`, `failures`: calls that brought a token, and calls that did not. A rejected refresh token is not
      counted, because the API key replaces it at once.
    - `rejections`: how often `get_token` was called with `rejected`.
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
    """The token that is served, and the version of the record that it came from."""

    token: "Token"
    moments: Moments
    lifetime: float
    version: str | None


@frozen(kw_only=True)
class BackoffState:
    """No call is made before `not_before`. There were `failures` in a row, the first one at `failing_since`.

    `last_commit_at`: the last commit of the record when the worker failed itself, on the record's clock.
    """

    not_before: float
    failing_since: float
    failures: int
    failure: Failure
    last_commit_at: float = NEVER

    def exceeds(self, deadline: float) -> bool:
        """Return whether the next call comes too late for a caller who waits."""
        return not self.failure.retryable or self.not_before > self.failing_since + deadline


@define(kw_only=True)
class State:
    """The state of one manager.

    `token`, `fresh_until` and `suits_until` serve the fast path of `get_token`. Before `fresh_until` nothing else
    matters to a caller without arguments. A `min_ttl` that ends before `suits_until` is met, and is not too long.
    """

    policy: RefreshPolicy
    token: "Token | None" = None
    fresh_until: float = NEVER
    suits_until: float = NEVER
    closed: bool = False
    current: Current | None = None
    backoff: BackoffState | None = None
    # The life that the current token had when it was taken; a renewal for more may help nobody, so it is throttled.
    best_ttl: float = float("inf")
    generation: int = 0
    renewals: int = 0
    failures: int = 0
    rejections: int = 0
    last_error: str | None = field(default=None, init=False)

    def phase(self, now: float) -> Phase:
        """Return the name of the state."""
        if self.closed:
            return "closed"
        if self.current is None:
            return "empty"
        when = self.current.moments
        return "fresh" if now < when.stale_from else "stale" if now < when.expired_from else "expired"

    def usable(self, now: float) -> Current | None:
        """Return the current token while it may be handed out."""
        current = self.current
        return current if current is not None and now < current.moments.expired_from else None

    def active_backoff(self, now: float) -> BackoffState | None:
        """Return the backoff, unless it is over."""
        return self.backoff if self.backoff is not None and now < self.backoff.not_before else None

    def renewal_due(self) -> float | None:
        """Return when to renew although nobody asks; `None` if only a caller may cause a renewal."""
        if self.closed or self.current is None:
            return None
        due = self.current.moments.stale_from
        if self.backoff is not None:
            if not self.backoff.failure.retryable:
                return None
            due = max(due, self.backoff.not_before)
        return due if due < self.current.moments.expired_from else None

    def request(self, now: float, *, rejected: bool = False, min_ttl: float = 0.0) -> RenewalRequest:
        """Return the worker's side of a renewal.

        `rejected`: the current token was rejected. `min_ttl`: the current token does not live for so long.
        """
        current = self.usable(now)
        return RenewalRequest(
            policy=self.policy,
            version=None if self.current is None else self.current.version,
            access=None if current is None else current.token.access_token,
            remaining=None if current is None else current.moments.ends_at - now,
            rejected=rejected and current is not None,
            may_be_throttled=current is not None and (rejected or min_ttl > self.best_ttl),
            failures=0 if self.backoff is None else self.backoff.failures,
            failing_since=None if self.backoff is None else self.backoff.failing_since,
            last_commit_at=NEVER if self.backoff is None else self.backoff.last_commit_at,
        )

    def take(self, token: "Token", when: Moments, *, lifetime: float, ttl: float, version: str | None) -> None:
        """Serve this token, which lives for another `ttl` seconds, from now on."""
        self.generation, self.best_ttl = token.generation, ttl
        if not self.closed:
            self.current = Current(token=token, moments=when, lifetime=lifetime, version=version)
            self.token, self.fresh_until = token, when.stale_from
            longest = lifetime * MAX_MIN_TTL_FRACTION
            self.suits_until = min(when.stale_from, when.ends_at - lifetime + longest)
            self.clear_backoff()

    def clear_backoff(self) -> None:
        """Forget the failures: the endpoints work again."""
        self.backoff = self.last_error = None

    def back_off(self, backoff: Backoff, now: float, *, last_commit_at: float | None = None) -> None:
        """Make no call before the backoff is over. What the worker knows of earlier failures stays.

        `last_commit_at`: the last commit of the record, if the worker itself has failed.
        """
        new = BackoffState(
            not_before=now + backoff.retry_after,
            failing_since=now - backoff.failing_for,
            failures=backoff.failures,
            failure=backoff.failure,
            last_commit_at=NEVER if last_commit_at is None else last_commit_at,
        )
        old = self.backoff
        if backoff.committed_at is not None:
            new = evolve(new, last_commit_at=max(new.last_commit_at, backoff.committed_at))
            if old is not None and backoff.committed_at > old.last_commit_at:
                # Another worker has committed since, so the earlier failures are another outage's.
                old = None
        if old is not None:
            # A record that was lost, or that is private, does not show that the endpoints have worked meanwhile.
            new = evolve(new, last_commit_at=max(new.last_commit_at, old.last_commit_at))
        if old is not None and last_commit_at is None:
            new = evolve(
                new,
                not_before=max(new.not_before, old.not_before),
                failing_since=min(new.failing_since, old.failing_since),
                failures=max(new.failures, old.failures),
            )
        self.backoff = new
        self.last_error = backoff.failure.message

    def close(self) -> None:
        """Drop the token; the phase is `closed`."""
        self.closed = True
        self.current = self.token = self.backoff = None
        self.fresh_until = self.suits_until = NEVER

    def status(self, now: float, utc: float) -> ManagerStatus:
        """Return a snapshot. `utc` is the wall clock at `now`."""

        def date(moment: float | None) -> datetime | None:
            return None if moment is None else date_of(moment, now=now, utc=utc)

        backoff = self.active_backoff(now)
        return ManagerStatus(
            phase=self.phase(now),
            generation=self.generation,
            expires_at=date(None if self.current is None else self.current.moments.ends_at),
            renews_at=date(self.renewal_due()),
            backoff_until=date(None if backoff is None else backoff.not_before),
            last_error=self.last_error,
            renewals=self.renewals,
            failures=self.failures,
            rejections=self.rejections,
        )


def date_of(moment: float, *, now: float, utc: float) -> datetime:
    """Return a moment of the monotonic clock as a date. `utc` is the wall clock at `now`."""
    return datetime.fromtimestamp(utc + (moment - now), UTC)
