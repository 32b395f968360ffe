"""What a manager knows: the token it serves, its backoff, and its counters; pure.

Moments are seconds on the manager's monotonic clock. `now` is a parameter of every question.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define, field, frozen

from apivideo_auth._failure import Failure
from apivideo_auth._policy import Moments, RefreshPolicy
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
    """No call is made before `until`. There were `failures` in a row, the first one at `failing_since`.

    `committed_at`: the last commit of the record when the worker failed itself.
    """

    until: float
    failing_since: float
    failures: int
    failure: Failure
    committed_at: float = NEVER

    def exceeds(self, deadline: float) -> bool:
        """Return whether the next call comes too late for a caller who waits."""
        return not self.failure.retryable or self.until > self.failing_since + deadline


@define(kw_only=True)
class State:
    """The state of one manager.

    `token` and `fresh_until` serve the fast path of `get_token`: before that moment nothing else matters.
    """

    policy: RefreshPolicy
    token: "Token | None" = None
    fresh_until: float = NEVER
    closed: bool = False
    current: Current | None = None
    backoff: BackoffState | None = None
    # The most life that this manager's last renewal could offer; a renewal for more is throttled.
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
        return self.backoff if self.backoff is not None and now < self.backoff.until else None

    def renewal_due(self) -> float | None:
        """Return when to renew although nobody asks; `None` if only a caller may cause a renewal."""
        if self.closed or self.current is None:
            return None
        due = self.current.moments.stale_from
        if self.backoff is not None:
            if not self.backoff.failure.retryable:
                return None
            due = max(due, self.backoff.until)
        return due if due < self.current.moments.expired_from else None

    def request(self, now: float, *, rejected: bool = False, min_ttl: float = 0.0) -> RenewalRequest:
        """Return what a renewal needs to know.

        `rejected`: the current token was rejected. `min_ttl`: the current token does not live for so long.
        """
        current = self.usable(now)
        return RenewalRequest(
            policy=self.policy,
            version=None if self.current is None else self.current.version,
            access=None if current is None else current.token.access_token,
            remaining=None if current is None else current.moments.ends_at - now,
            rejected=rejected and current is not None,
            throttled=current is not None and (rejected or min_ttl > self.best_ttl),
            failures=0 if self.backoff is None else self.backoff.failures,
            failing_since=None if self.backoff is None else self.backoff.failing_since,
            failed_commit=NEVER if self.backoff is None else self.backoff.committed_at,
        )

    def take(self, token: "Token", when: Moments, *, lifetime: float, version: str | None) -> None:
        """Serve this token from now on."""
        self.generation = token.generation
        if not self.closed:
            self.current = Current(token=token, moments=when, lifetime=lifetime, version=version)
            self.token, self.fresh_until = token, when.stale_from
            self.backoff = self.last_error = None

    def back_off(self, backoff: Backoff, now: float, *, committed_at: float | None = None) -> None:
        """Make no call before the backoff is over. What the worker knows of earlier failures stays.

        `committed_at`: the last commit of the record, if the worker itself has failed.
        """
        until, failing_since, failures = now + backoff.retry_after, now - backoff.failing_for, backoff.failures
        last_commit = NEVER if committed_at is None else committed_at
        if self.backoff is not None:
            # A record that was lost, or that is private, does not show that the endpoints have worked meanwhile.
            last_commit = max(last_commit, self.backoff.committed_at)
        if self.backoff is not None and committed_at is None:
            until = max(until, self.backoff.until)
            failing_since = min(failing_since, self.backoff.failing_since)
            failures = max(failures, self.backoff.failures)
        self.last_error = backoff.failure.message
        self.backoff = BackoffState(
            until=until,
            failing_since=failing_since,
            failures=failures,
            failure=backoff.failure,
            committed_at=last_commit,
        )

    def close(self) -> None:
        """Serve nobody any more, and drop the token."""
        self.closed = True
        self.current = self.token = self.backoff = None
        self.fresh_until = NEVER

    def status(self, now: float, utc: float) -> ManagerStatus:
        """Return a snapshot. `utc` is the wall clock at `now`."""

        def date(moment: float | None) -> datetime | None:
            return None if moment is None else datetime.fromtimestamp(utc + (moment - now), UTC)

        backoff = self.active_backoff(now)
        return ManagerStatus(
            phase=self.phase(now),
            generation=self.generation,
            expires_at=date(None if self.current is None else self.current.moments.ends_at),
            renews_at=date(self.renewal_due()),
            backoff_until=date(None if backoff is None else backoff.until),
            last_error=self.last_error,
            renewals=self.renewals,
            failures=self.failures,
            rejections=self.rejections,
        )
