"""The record of an account and its transitions; pure.

An account has one record: its tokens, the claim that stands, the backoff and the throttle. A renewal is one claim, one
call, and one commit or release. Each transition takes a record, an event and the time, and returns a record and an
answer; nothing but the record decides.

Moments are seconds on the clock that the workers of the record share. Answers hold durations, so that each worker can
place them on its own clock.
"""

from typing import Final, TypeAlias

from attrs import evolve, field, frozen

from apivideo_auth._failure import Failure
from apivideo_auth._policy import (
    CLOCK_TOLERANCE,
    INITIAL_THROTTLE,
    MAX_BACKOFF,
    MAX_LEASE,
    MAX_LIFETIME,
    MAX_THROTTLE,
    MIN_REJECTION_AGE,
    REJECTION_RESET_AFTER,
    RefreshPolicy,
    is_usable,
)


@frozen(kw_only=True)
class Record:
    """The state that the workers of an account share.

    - `version`: the id of the claim that committed last.
    - `access`, `lifetime`, `committed_at`, `ends_at`: the access token of that commit.
    - `refresh`: the refresh token; `None` if there is none, or if it was rejected or may have been used. While a claim
      stands, it is reserved for the holder.
    - `claim_id`, `claimed_at`, `claim_until`: the claim that stands, and its lease.
    - `not_before`, `failure`, `failures`, `failing_since`: the backoff after failures in a row.
    - `rejected_at`: the first 401 on the current token; `unrejected_since`: the start of the period without a 401
      before it.
    - `throttle`, `throttled_until`: the least time between renewals that 401s cause.
    """

    version: str | None = None
    access: bytes | None = field(default=None, repr=False)
    lifetime: float = 0.0
    committed_at: float | None = None
    ends_at: float = 0.0
    refresh: bytes | None = field(default=None, repr=False)
    claim_id: str | None = None
    claimed_at: float = 0.0
    claim_until: float = 0.0
    not_before: float = 0.0
    failure: Failure | None = None
    failures: int = 0
    failing_since: float = 0.0
    rejected_at: float | None = None
    unrejected_since: float | None = None
    throttle: float = 0.0
    throttled_until: float = 0.0


EMPTY: Final = Record()
NEVER: Final = float("-inf")


@frozen(kw_only=True)
class SharedToken:
    """The access token of a record.

    - `lifetime`, `remaining`: seconds.
    - `committed_at`: when it was committed, on the record's clock. It orders the commits of one record.
    """

    version: str
    access: bytes = field(repr=False)
    lifetime: float
    remaining: float
    committed_at: float


@frozen(kw_only=True)
class RenewalRequest:
    """The worker's side of a renewal.

    - `version`: the record's version that the worker knows.
    - `access`, `remaining`: its own token, if it has a usable one, and the seconds that it still lives.
    - `rejected`: a caller is denied that token, so any other token is better.
    - `may_be_throttled`: the worker still has a usable token. Answered `Throttled` if the previous such renewal was too
      recent.
    - `failures`, `failing_since`: the failures in a row that the worker knows of, and the first one, on its own clock.
    - `last_commit_at`: the last commit of the record at the worker's own last failure, on the record's clock.
    """

    policy: RefreshPolicy
    version: str | None = None
    access: str | None = field(default=None, repr=False)
    remaining: float | None = None
    rejected: bool = False
    may_be_throttled: bool = False
    failures: int = 0
    failing_since: float | None = None
    last_commit_at: float = NEVER

    def should_adopt(self, token: SharedToken) -> bool:
        """Return whether the record's token is better than the worker's own."""
        if self.access is not None and token.access == self.access.encode():
            return False
        if self.remaining is None or self.rejected:
            return is_usable(self.policy, lifetime=token.lifetime, remaining=token.remaining)
        return token.remaining > self.remaining

    def own_failures_count(self, granted: "Granted") -> bool:
        """Return whether the worker's own failures still count: no other worker has committed since the last one."""
        return granted.committed_at is None or granted.committed_at <= self.last_commit_at


# The events.


@frozen(kw_only=True)
class Claim:
    """Ask for the right to renew.

    - `seen`: the version that the worker knows. `lease`: seconds.
    - `may_be_throttled`: the worker still has a usable token. Answered `Throttled` if the previous such renewal was too
      recent.
    """

    id: str
    seen: str | None
    lease: float
    may_be_throttled: bool = False


@frozen(kw_only=True)
class Commit:
    """End claim `id` with a token that lives for another `remaining` of its `lifetime` seconds.

    `ends_after`: seconds from the claim to the token's end. `None` is the lifetime: the call came after the claim.
    """

    id: str
    access: bytes = field(repr=False)
    refresh: bytes | None = field(repr=False)
    lifetime: float
    remaining: float
    ends_after: float | None = None


@frozen(kw_only=True)
class Release:
    """End claim `id` without a token.

    - `refresh`: the refresh token, given back because it can still be used.
    - `failure`, `retry_after`: the failure to remember, and the seconds to back off. Without a failure,
      nothing is counted.
    """

    id: str
    retry_after: float = 0.0
    failure: Failure | None = None
    refresh: bytes | None = field(default=None, repr=False)


Event: TypeAlias = Claim | Commit | Release


# The answers. `retry_after` is the number of seconds until another claim may be granted.


@frozen(kw_only=True)
class Granted:
    """The worker renews: with `refresh`, or with the API key if that is `None`.

    - `committed_at`: when the record's last token was committed; `None` if there never was one.
    - `failures`: how many there were in a row; the first one was `failing_for` seconds ago.
    """

    refresh: bytes | None = field(repr=False)
    committed_at: float | None
    failures: int
    failing_for: float


@frozen(kw_only=True)
class Changed:
    """The record holds a token that the worker has not seen."""

    token: SharedToken


@frozen(kw_only=True)
class Busy:
    """Another worker renews; `retry_after` is what is left of its lease."""

    retry_after: float


@frozen(kw_only=True)
class Backoff:
    """Renewals failed `failures` times in a row; the first failure was `failing_for` seconds ago.

    `committed_at`: when the record's last token was committed; `None` if there never was one.
    """

    retry_after: float
    failure: Failure
    failures: int
    failing_for: float
    committed_at: float | None = None


@frozen(kw_only=True)
class Throttled:
    """The previous renewal because of a 401 is too recent, or the token is less than a second old."""

    retry_after: float


@frozen(kw_only=True)
class Done:
    """The commit or release counts. `committed_at`: when a commit was made, on the record's clock."""

    committed_at: float | None = None


@frozen(kw_only=True)
class ClaimLost:
    """The record no longer carries that claim, so nothing has changed; `token` is what the record holds instead."""

    token: SharedToken | None


ClaimAnswer: TypeAlias = Granted | Changed | Busy | Backoff | Throttled
EndAnswer: TypeAlias = Done | ClaimLost


def shared_token(record: Record, now: float) -> SharedToken | None:
    """Return the token of the record, or `None` if it has ended or is dated in the future.

    A token from the future was committed by a worker whose clock was wrong, so nobody knows when it ends.
    """
    if record.version is None or record.access is None or record.committed_at is None:
        return None
    lifetime = min(record.lifetime, MAX_LIFETIME)
    remaining = min(record.ends_at - now, lifetime)
    is_from_future = max(record.ends_at - lifetime, record.committed_at) > now + CLOCK_TOLERANCE
    if remaining <= 0 or is_from_future:
        return None
    return SharedToken(
        version=record.version,
        access=record.access,
        lifetime=lifetime,
        remaining=remaining,
        committed_at=record.committed_at,
    )


def claim(record: Record, event: Claim, now: float) -> tuple[Record, ClaimAnswer]:
    """Answer a claim. A new token comes first, then another worker's claim, then a backoff, then the throttle."""
    lease_left = _ahead(record.claim_until, now, MAX_LEASE) if record.claim_id is not None else 0.0
    if lease_left > 0 and record.claim_id == event.id:
        # The same claim again, because its answer was lost.
        return record, _granted(record, record.refresh, now)
    token = shared_token(record, now)
    if token is not None and token.version != event.seen:
        return record, Changed(token=token)
    if lease_left > 0:
        return record, Busy(retry_after=lease_left)
    if event.may_be_throttled and record.rejected_at is None:
        record = evolve(record, rejected_at=now)
    backoff_left = _ahead(record.not_before, now, MAX_BACKOFF)
    if backoff_left > 0 and record.failure is not None:
        return record, Backoff(
            retry_after=backoff_left,
            failure=record.failure,
            failures=record.failures,
            failing_for=_failing_for(record, now),
            committed_at=record.committed_at,
        )
    if event.may_be_throttled:
        age_left = 0.0
        if record.committed_at is not None:
            age_left = _ahead(record.committed_at + MIN_REJECTION_AGE, now, MIN_REJECTION_AGE)
        throttle_left = max(_ahead(record.throttled_until, now, MAX_THROTTLE), age_left)
        if throttle_left > 0:
            return record, Throttled(retry_after=throttle_left)
        grown = INITIAL_THROTTLE if _throttle_starts_again(record) else max(INITIAL_THROTTLE, 2 * record.throttle)
        throttle = min(grown, MAX_THROTTLE)
        record = evolve(record, throttle=throttle, throttled_until=now + throttle)
    # A claim that was not ended may have used the refresh token.
    refresh = record.refresh if record.claim_id is None else None
    granted = _granted(record, refresh, now)
    return evolve(record, refresh=refresh, claim_id=event.id, claimed_at=now, claim_until=now + event.lease), granted


def commit(record: Record, event: Commit, now: float) -> tuple[Record, EndAnswer]:
    """Store the new tokens, if the record still carries this claim."""
    if record.version == event.id:
        # The same commit again, because its answer was lost.
        return record, Done(committed_at=record.committed_at)
    if record.claim_id != event.id:
        return record, ClaimLost(token=shared_token(record, now))
    committed = evolve(
        record,
        version=event.id,
        access=event.access,
        lifetime=event.lifetime,
        committed_at=now,
        # A commit may be executed late.
        ends_at=min(
            now + event.remaining,
            record.claimed_at + (event.lifetime if event.ends_after is None else event.ends_after),
        ),
        refresh=event.refresh,
        claim_id=None,
        claimed_at=0.0,
        claim_until=0.0,
        not_before=0.0,
        failure=None,
        failures=0,
        failing_since=0.0,
        rejected_at=None,
        unrejected_since=_unrejected_since(record, now),
    )
    return committed, Done(committed_at=now)


def release(record: Record, event: Release, now: float) -> tuple[Record, EndAnswer]:
    """End the claim without a token, if the record still carries it, and remember the failure."""
    if record.claim_id != event.id:
        return record, ClaimLost(token=shared_token(record, now))
    released = evolve(record, refresh=event.refresh, claim_id=None, claimed_at=0.0, claim_until=0.0)
    if event.failure is not None:
        released = evolve(
            released,
            not_before=now + event.retry_after,
            failure=event.failure,
            failures=record.failures + 1,
            failing_since=record.failing_since if record.failures else now,
        )
    return released, Done()


def _granted(record: Record, refresh: bytes | None, now: float) -> Granted:
    return Granted(
        refresh=refresh,
        committed_at=record.committed_at,
        failures=record.failures,
        failing_for=_failing_for(record, now),
    )


def _ahead(moment: float, now: float, longest: float) -> float:
    """Return how far `moment` lies ahead; 0 if it is past, or further off than such moments ever are."""
    ahead = moment - now
    return max(0.0, min(ahead, longest)) if ahead <= longest + CLOCK_TOLERANCE else 0.0


def _failing_for(record: Record, now: float) -> float:
    return max(0.0, now - record.failing_since) if record.failures else 0.0


def _unrejected_since(record: Record, now: float) -> float:
    """Return the start of the period without a 401, for a record that takes a new token."""
    if record.rejected_at is not None or record.unrejected_since is None:
        return now
    return record.unrejected_since


def _throttle_starts_again(record: Record) -> bool:
    """Return whether tokens lived for long without a 401 before the current one was rejected."""
    if record.rejected_at is None or record.unrejected_since is None:
        return False
    return record.rejected_at - record.unrejected_since >= REJECTION_RESET_AFTER
