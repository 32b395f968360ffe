"""The record of an account, and every way in which it may change.

One record per account says who may renew, with what, and since when. A renewal is one claim, one call, and one
commit or fail; what comes next is read off the record. All functions here are pure: a record, an event and the
time go in, a record and an answer come out. Times are seconds on the clock that the sharers of the record have in
common; what leaves in an answer are durations, so that each sharer can put them on a clock of its own.
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
)


@frozen(kw_only=True)
class Record:
    """What the sharers of an account know in common.

    - `version`: the id of the claim that committed last.
    - `access`, `lifetime`, `committed_at`, `ends_at`: the access token of that commit.
    - `refresh`: the refresh token; none when it was taken out by a claim, refused, or of unknown fate.
    - `claim_id`, `claim_until`: who may renew, and until when.
    - `not_before`, `failure`, `failures`, `failing_since`: the pause after failures in a row.
    - `rejected_at`: the first 401 on the current token; `unrejected_since`: since when no token was refused before it.
    - `throttle`, `throttled_until`: the throttle of renewals that 401s cause.
    """

    version: str | None = None
    access: bytes | None = field(default=None, repr=False)
    lifetime: float = 0.0
    committed_at: float | None = None
    ends_at: float = 0.0
    refresh: bytes | None = field(default=None, repr=False)
    claim_id: str | None = None
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


@frozen(kw_only=True)
class SharedToken:
    """The token of a record: its version, and how long it still lives."""

    version: str
    access: bytes = field(repr=False)
    lifetime: float
    remaining: float


# The events.


@frozen(kw_only=True)
class Claim:
    """A wish to renew. `seen` is the version that the claimant knows; `rejected` says that a 401 is the reason."""

    id: str
    seen: str | None
    lease: float
    rejected: bool = False


@frozen(kw_only=True)
class Commit:
    """The renewal of claim `id` brought a token that lives for another `remaining` seconds."""

    id: str
    access: bytes = field(repr=False)
    refresh: bytes | None = field(repr=False)
    lifetime: float
    remaining: float


@frozen(kw_only=True)
class Release:
    """The renewal of claim `id` brought none.

    `refresh` is given back only if it can still be used. Without a `failure` nothing is counted.
    """

    id: str
    backoff: float = 0.0
    failure: Failure | None = None
    refresh: bytes | None = field(default=None, repr=False)


Event: TypeAlias = Claim | Commit | Release


# The answers.


@frozen(kw_only=True)
class Granted:
    """The claimant renews: with `refresh`, which is out of the record now, or without one by the API key.

    `version` and `remaining` (seconds, below 0 after its end) are those of the record's token, by which a claimant
    tells whether it knows a newer one. `failures` in a row so far, the first of them `failing_for` seconds ago.
    """

    refresh: bytes | None = field(repr=False)
    version: str | None
    remaining: float
    failures: int
    failing_for: float


@frozen(kw_only=True)
class Changed:
    """The record holds another token than the claimant has seen."""

    token: SharedToken


@frozen(kw_only=True)
class Busy:
    """Somebody else renews; the claim lapses in `retry_after` seconds."""

    retry_after: float


@frozen(kw_only=True)
class Backoff:
    """Failures in a row, the first of them `failing_for` seconds ago; the next try may come in `retry_after` seconds."""

    retry_after: float
    failure: Failure
    failures: int
    failing_for: float


@frozen(kw_only=True)
class Throttled:
    """The last renewal that a 401 caused is too recent; the next may come in `retry_after` seconds."""

    retry_after: float


@frozen(kw_only=True)
class Done:
    """The commit or fail counted."""


@frozen(kw_only=True)
class ClaimLost:
    """The record no longer carries that claim, so nothing changed; `token` is what it holds instead."""

    token: SharedToken | None


ClaimAnswer: TypeAlias = Granted | Changed | Busy | Backoff | Throttled
EndAnswer: TypeAlias = Done | ClaimLost


def shared_token(record: Record, now: float) -> SharedToken | None:
    """Return the token of the record, never believed beyond its lifetime; none if it has ended."""
    if record.version is None or record.access is None:
        return None
    lifetime = min(record.lifetime, MAX_LIFETIME)
    remaining = min(record.ends_at - now, lifetime)
    if not remaining > 0:
        return None
    return SharedToken(version=record.version, access=record.access, lifetime=lifetime, remaining=remaining)


def claim(record: Record, event: Claim, now: float) -> tuple[Record, ClaimAnswer]:
    """Answer a claim; in this order: a newer token, somebody else's claim, a pause, the throttle of 401s."""
    token = shared_token(record, now)
    if token is not None and token.version != event.seen:
        return record, Changed(token=token)
    held = _ahead(record.claim_until, now, MAX_LEASE) if record.claim_id is not None else 0.0
    if held > 0:
        return record, Busy(retry_after=held)
    if event.rejected and record.rejected_at is None:
        record = evolve(record, rejected_at=now)
    cooling = _ahead(record.not_before, now, MAX_BACKOFF)
    if cooling > 0 and record.failure is not None:
        return record, Backoff(
            retry_after=cooling,
            failure=record.failure,
            failures=record.failures,
            failing_for=_failing_for(record, now),
        )
    if event.rejected:
        spaced = max(
            _ahead(record.throttled_until, now, MAX_THROTTLE),
            _ahead(record.committed_at + MIN_REJECTION_AGE, now, MIN_REJECTION_AGE)
            if record.committed_at is not None
            else 0.0,
        )
        if spaced > 0:
            return record, Throttled(retry_after=spaced)
        grown = INITIAL_THROTTLE if _was_trusted(record) else max(INITIAL_THROTTLE, 2 * record.throttle)
        throttle = min(grown, MAX_THROTTLE)
        record = evolve(record, throttle=throttle, throttled_until=now + throttle)
    granted = Granted(
        refresh=record.refresh,
        version=record.version,
        remaining=record.ends_at - now,
        failures=record.failures,
        failing_for=_failing_for(record, now),
    )
    return evolve(record, refresh=None, claim_id=event.id, claim_until=now + event.lease), granted


def commit(record: Record, event: Commit, now: float) -> tuple[Record, EndAnswer]:
    """Take the new tokens in, if the record still carries this claim."""
    if record.claim_id != event.id:
        return record, ClaimLost(token=shared_token(record, now))
    committed = evolve(
        record,
        version=event.id,
        access=event.access,
        lifetime=event.lifetime,
        committed_at=now,
        ends_at=now + event.remaining,
        refresh=event.refresh,
        claim_id=None,
        claim_until=0.0,
        not_before=0.0,
        failure=None,
        failures=0,
        failing_since=0.0,
        rejected_at=None,
        unrejected_since=_unrejected_since(record, now),
    )
    return committed, Done()


def release(record: Record, event: Release, now: float) -> tuple[Record, EndAnswer]:
    """Note the failure, if the record still carries this claim."""
    if record.claim_id != event.id:
        return record, ClaimLost(token=shared_token(record, now))
    failed = evolve(record, refresh=event.refresh, claim_id=None, claim_until=0.0)
    if event.failure is not None:
        failed = evolve(
            failed,
            not_before=now + event.backoff,
            failure=event.failure,
            failures=record.failures + 1,
            failing_since=record.failing_since if record.failures else now,
        )
    return failed, Done()


def _ahead(moment: float, now: float, longest: float) -> float:
    """Return how far `moment` lies ahead; 0 if it is past, or further off than such moments ever are."""
    ahead = moment - now
    return min(ahead, longest) if 0 < ahead <= longest + CLOCK_TOLERANCE else 0.0


def _failing_for(record: Record, now: float) -> float:
    return max(0.0, now - record.failing_since) if record.failures else 0.0


def _unrejected_since(record: Record, now: float) -> float:
    """Return since when no token was refused, for a record that takes a new one."""
    if record.rejected_at is not None or record.unrejected_since is None:
        return now
    return record.unrejected_since


def _was_trusted(record: Record) -> bool:
    """Say whether tokens lived unrefused for long before the current one was refused."""
    if record.rejected_at is None or record.unrejected_since is None:
        return False
    return record.rejected_at - record.unrejected_since >= REJECTION_RESET_AFTER
