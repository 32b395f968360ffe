"""The transitions of an account's record as one table of cases, for everything that keeps records.

A case is data: the record before, an event, the moment, the answer, and the record after. `_record`, the memory, the
file and Redis all have to agree with it; `differences` compares their results with the case.
"""

import math
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import attrs
from attrs import evolve, frozen

from apivideo_auth._failure import Failure
from apivideo_auth._policy import (
    CLOCK_TOLERANCE,
    MAX_BACKOFF,
    MAX_LEASE,
    MAX_LIFETIME,
    MAX_THROTTLE,
    REJECTION_RESET_AFTER,
)
from apivideo_auth._record import (
    EMPTY,
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimAnswer,
    ClaimLost,
    Commit,
    Done,
    EndAnswer,
    Event,
    Granted,
    Record,
    Release,
    SharedToken,
    Throttled,
)

NOW: Final = 1000.0
STEP: Final = 0.001
"""One step past an edge."""
TOLERANCE: Final = 1e-6
"""Seconds by which moments may differ: a store may keep them on another clock, and as text."""

Answer: TypeAlias = ClaimAnswer | EndAnswer | SharedToken | None


@frozen(kw_only=True)
class Case:
    """`event` at the moment `now` turns `before` into `after` and is answered `answer`.

    Without an event the record's token is read.
    """

    name: str
    before: Record
    event: Event | None
    now: float = NOW
    answer: Answer
    after: Record


def differences(actual: object, expected: object, where: str = "it") -> Iterator[str]:
    """Yield where two values differ; numbers are equal within `TOLERANCE`."""
    if isinstance(expected, float) and isinstance(actual, float | int):
        if not math.isclose(actual, expected, rel_tol=0.0, abs_tol=TOLERANCE):
            yield f"{where} is {actual!r}, not {expected!r}"
    elif attrs.has(expected.__class__) and type(actual) is type(expected):
        for attribute in attrs.fields(expected.__class__):
            name = attribute.name
            yield from differences(getattr(actual, name), getattr(expected, name), f"{where}.{name}")
    elif actual != expected:
        yield f"{where} is {actual!r}, not {expected!r}"


OUTAGE: Final = Failure(kind="connection", message="no connection could be made", sent=False)
LIMITED: Final = Failure(
    kind="rate_limited",
    message="the endpoint asks for a pause",
    status=429,
    type="https://docs.api.video/reference/too-many-requests",
    title="Too many requests.",
    name="",
    retry_after=7.5,
)
REJECTED_KEY: Final = Failure(kind="credentials", message='the API key was rejected: "é" \\', status=400)
INVALID: Final = Failure(kind="invalid", message="not a token", status=200)
MISUSE: Final = Failure(kind="misuse", message="the connector is closed", sent=False)
FAILURES: Final = (OUTAGE, LIMITED, REJECTED_KEY, INVALID, MISUSE)

# Records that most cases begin with.
TOKEN: Final = Record(
    version="version-1",
    access=b"made-up-access-1",
    lifetime=3600.0,
    committed_at=NOW - 100,
    ends_at=NOW + 3500,
    refresh=b"made-up-refresh-1",
)
WITHOUT_REFRESH: Final = evolve(TOKEN, refresh=None)
OTHERS: Final = evolve(TOKEN, claim_id="other", claimed_at=NOW - 5, claim_until=NOW + 10)
MINE: Final = evolve(OTHERS, claim_id="mine")
FAILED: Final = evolve(TOKEN, failure=OUTAGE, failures=2, failing_since=NOW - 30, not_before=NOW - 5)
BACKING_OFF: Final = evolve(FAILED, not_before=NOW + 10)

# Events and answers of most cases.
CLAIM: Final = Claim(id="mine", seen="version-1", lease=15.0)
AFTER_401: Final = evolve(CLAIM, may_be_throttled=True)
SEEN_NONE: Final = evolve(CLAIM, seen=None)
SEEN_ANOTHER: Final = evolve(CLAIM, seen="version-0")
COMMIT: Final = Commit(
    id="mine", access=b"made-up-access-2", refresh=b"made-up-refresh-2", lifetime=3600.0, remaining=3590.0
)
RELEASE: Final = Release(id="mine", retry_after=0.25, failure=OUTAGE)
GRANTED: Final = Granted(refresh=b"made-up-refresh-1", committed_at=NOW - 100, failures=0, failing_for=0.0)
GRANTED_WITHOUT: Final = evolve(GRANTED, refresh=None)
FIRST: Final = Granted(refresh=None, committed_at=None, failures=0, failing_for=0.0)
SHARED: Final = SharedToken(
    version="version-1", access=b"made-up-access-1", lifetime=3600.0, remaining=3500.0, committed_at=NOW - 100
)


def _unchanged(name: str, record: Record, event: Event | None, answer: Answer) -> Case:
    return Case(name=name, before=record, event=event, answer=answer, after=record)


def _granted(name: str, record: Record, event: Claim, answer: Granted, **also: Any) -> Case:
    """Return a case of a claim that is granted; `also` changes too."""
    claimed = evolve(
        record, refresh=answer.refresh, claim_id=event.id, claimed_at=NOW, claim_until=NOW + event.lease, **also
    )
    return Case(name=name, before=record, event=event, answer=answer, after=claimed)


def _rejected(record: Record) -> Record:
    """Return a record whose token is rejected now, if it was not before."""
    return record if record.rejected_at is not None else evolve(record, rejected_at=NOW)


def _throttled(name: str, record: Record, wait: float) -> Case:
    """Return a case of a claim after a 401 that comes too soon; the 401 is noted."""
    return Case(name=name, before=record, event=AFTER_401, answer=Throttled(retry_after=wait), after=_rejected(record))


def _after_401(name: str, record: Record, throttle: float) -> Case:
    """Return a case of a claim after a 401 that is granted; `throttle` is the least time to the next."""
    rejected_at = _rejected(record).rejected_at
    granted = evolve(GRANTED, committed_at=record.committed_at)
    return _granted(
        name, record, AFTER_401, granted, rejected_at=rejected_at, throttle=throttle, throttled_until=NOW + throttle
    )


def _ending_at(moment: float) -> Record:
    return evolve(TOKEN, ends_at=moment)


def _committed_at(moment: float) -> Record:
    return evolve(TOKEN, committed_at=moment)


def _shared(remaining: float, lifetime: float = 3600.0) -> SharedToken:
    return evolve(SHARED, remaining=remaining, lifetime=lifetime)


def _backoff(wait: float) -> Backoff:
    return Backoff(retry_after=wait, failure=OUTAGE, failures=2, failing_for=30.0, committed_at=NOW - 100)


_AFTER_FAILURES: Final = evolve(GRANTED, failures=2, failing_for=30.0)
_ENDED: Final = _ending_at(NOW - STEP)
_FUTURE: Final = NOW + CLOCK_TOLERANCE + STEP

READS: Final = [
    _unchanged("an empty record has no token", EMPTY, None, None),
    _unchanged("a token that lives", TOKEN, None, SHARED),
    _unchanged("a token that ends in a moment", _ending_at(NOW + STEP), None, _shared(STEP)),
    _unchanged("a token that ends now has ended", _ending_at(NOW), None, None),
    _unchanged("a token that has ended counts as none", _ENDED, None, None),
    _unchanged("a token while another worker renews", OTHERS, None, SHARED),
    _unchanged("a token during a backoff", BACKING_OFF, None, SHARED),
    _unchanged("a version without a token", evolve(TOKEN, access=None), None, None),
    _unchanged("a token without a version", evolve(TOKEN, version=None), None, None),
    _unchanged("a token without a date", evolve(TOKEN, committed_at=None), None, None),
    _unchanged("a token with its whole lifetime", _ending_at(NOW + 3600), None, _shared(3600.0)),
    _unchanged("a token is not believed beyond its lifetime", _ending_at(NOW + 3600 + STEP), None, _shared(3600.0)),
    _unchanged(
        "a token that ends too late by the tolerance", _ending_at(NOW + 3600 + CLOCK_TOLERANCE), None, _shared(3600.0)
    ),
    _unchanged("a token that ends later than it can", _ending_at(_FUTURE + 3600), None, None),
    _unchanged(
        "a token of the near future",
        _committed_at(NOW + CLOCK_TOLERANCE),
        None,
        evolve(SHARED, committed_at=NOW + CLOCK_TOLERANCE),
    ),
    _unchanged("a token of the future counts as none", _committed_at(_FUTURE), None, None),
    _unchanged(
        "a token is believed for a day",
        evolve(TOKEN, lifetime=MAX_LIFETIME, ends_at=NOW + MAX_LIFETIME),
        None,
        _shared(MAX_LIFETIME, MAX_LIFETIME),
    ),
    _unchanged(
        "a token is not believed beyond a day",
        evolve(TOKEN, lifetime=MAX_LIFETIME + 1, ends_at=NOW + MAX_LIFETIME + 1),
        None,
        _shared(MAX_LIFETIME, MAX_LIFETIME),
    ),
    _unchanged("a token without a lifetime", evolve(TOKEN, lifetime=0.0, ends_at=NOW + STEP), None, None),
    _unchanged("a token with a lifetime below 0", evolve(TOKEN, lifetime=-STEP, ends_at=NOW + STEP), None, None),
]

CHANGES: Final = [
    _granted("an empty record is granted without a refresh token", EMPTY, SEEN_NONE, FIRST),
    _granted("a worker that has seen the token renews it with the refresh token", TOKEN, CLAIM, GRANTED),
    _granted("without a refresh token the worker uses the API key", WITHOUT_REFRESH, CLAIM, GRANTED_WITHOUT),
    _granted("an empty refresh token is one", evolve(TOKEN, refresh=b""), CLAIM, evolve(GRANTED, refresh=b"")),
    _granted("a claim lasts as long as its lease", TOKEN, evolve(CLAIM, lease=MAX_LEASE), GRANTED),
    _unchanged("a worker that has seen no token gets the token", TOKEN, SEEN_NONE, Changed(token=SHARED)),
    _unchanged("a worker that has seen another token gets the token", TOKEN, SEEN_ANOTHER, Changed(token=SHARED)),
    _unchanged(
        "a token that ends in a moment is given", _ending_at(NOW + STEP), SEEN_ANOTHER, Changed(token=_shared(STEP))
    ),
    _granted("a token that ends now is not given", _ending_at(NOW), SEEN_ANOTHER, GRANTED),
    _granted("a token that has ended is not given", _ENDED, SEEN_NONE, GRANTED),
    _granted("a token that has ended is renewed", _ENDED, CLAIM, GRANTED),
    _granted("a version without a token is not given", evolve(TOKEN, access=None), SEEN_ANOTHER, GRANTED),
    _granted("a token without a version is not given", evolve(TOKEN, version=None), SEEN_ANOTHER, GRANTED),
    _granted(
        "a token of the future is not given",
        _committed_at(_FUTURE),
        SEEN_ANOTHER,
        evolve(GRANTED, committed_at=_FUTURE),
    ),
    _granted("a token that ends later than it can is not given", _ending_at(_FUTURE + 3600), SEEN_ANOTHER, GRANTED),
    _unchanged(
        "a token that is given is not believed beyond its lifetime",
        _ending_at(NOW + 3600 + CLOCK_TOLERANCE),
        SEEN_ANOTHER,
        Changed(token=_shared(3600.0)),
    ),
]

LEASES: Final = [
    _unchanged("another worker renews", OTHERS, CLAIM, Busy(retry_after=10.0)),
    _unchanged(
        "another worker renews an empty record",
        evolve(EMPTY, claim_id="other", claimed_at=NOW - 5, claim_until=NOW + 10),
        CLAIM,
        Busy(retry_after=10.0),
    ),
    _unchanged("a lease that ends in a moment", evolve(OTHERS, claim_until=NOW + STEP), CLAIM, Busy(retry_after=STEP)),
    _granted("a lease that ends now has ended", evolve(OTHERS, claim_until=NOW), CLAIM, GRANTED_WITHOUT),
    _granted(
        "a claim that was never ended takes the refresh token with it",
        evolve(OTHERS, claim_until=NOW - 1),
        CLAIM,
        GRANTED_WITHOUT,
    ),
    _unchanged("the longest lease", evolve(OTHERS, claim_until=NOW + MAX_LEASE), CLAIM, Busy(retry_after=MAX_LEASE)),
    _unchanged(
        "the longest lease, too long by the tolerance",
        evolve(OTHERS, claim_until=NOW + MAX_LEASE + CLOCK_TOLERANCE),
        CLAIM,
        Busy(retry_after=MAX_LEASE),
    ),
    _granted(
        "a lease longer than leases can be counts as none",
        evolve(OTHERS, claim_until=_FUTURE + MAX_LEASE),
        CLAIM,
        GRANTED_WITHOUT,
    ),
    _granted("a lease without a claim counts as none", evolve(TOKEN, claim_until=NOW + 10), CLAIM, GRANTED),
    _unchanged("the same claim again gets the same refresh token", MINE, CLAIM, GRANTED),
    _unchanged("the same claim again, with another lease, keeps its lease", MINE, evolve(CLAIM, lease=60.0), GRANTED),
    _unchanged("the same claim again, without a refresh token", evolve(MINE, refresh=None), CLAIM, GRANTED_WITHOUT),
    _unchanged("the same claim again comes before the token", MINE, SEEN_NONE, GRANTED),
    _unchanged("the same claim again comes before a backoff", evolve(MINE, not_before=NOW + 9), CLAIM, GRANTED),
    _unchanged("the same claim again after a 401 grows no throttle", MINE, AFTER_401, GRANTED),
    _unchanged(
        "the same claim again after failures",
        evolve(MINE, failure=OUTAGE, failures=2, failing_since=NOW - 30),
        CLAIM,
        _AFTER_FAILURES,
    ),
    _unchanged(
        "the same claim again while its lease runs for a moment", evolve(MINE, claim_until=NOW + STEP), CLAIM, GRANTED
    ),
    _granted("the same claim again when its lease has ended", evolve(MINE, claim_until=NOW), CLAIM, GRANTED_WITHOUT),
    _granted(
        "the same claim again with a lease longer than leases can be",
        evolve(MINE, claim_until=_FUTURE + MAX_LEASE),
        CLAIM,
        GRANTED_WITHOUT,
    ),
]

BACKOFFS: Final = [
    _unchanged("the failures in a row and their cause", BACKING_OFF, CLAIM, _backoff(10.0)),
    _unchanged("a backoff that ends in a moment", evolve(BACKING_OFF, not_before=NOW + STEP), CLAIM, _backoff(STEP)),
    _granted("a backoff that ends now has ended", evolve(BACKING_OFF, not_before=NOW), CLAIM, _AFTER_FAILURES),
    _granted("a backoff that has ended", FAILED, CLAIM, _AFTER_FAILURES),
    _unchanged("the longest backoff", evolve(BACKING_OFF, not_before=NOW + MAX_BACKOFF), CLAIM, _backoff(MAX_BACKOFF)),
    _unchanged(
        "the longest backoff, too long by the tolerance",
        evolve(BACKING_OFF, not_before=NOW + MAX_BACKOFF + CLOCK_TOLERANCE),
        CLAIM,
        _backoff(MAX_BACKOFF),
    ),
    _granted(
        "a backoff longer than backoffs can be counts as none",
        evolve(BACKING_OFF, not_before=_FUTURE + MAX_BACKOFF),
        CLAIM,
        _AFTER_FAILURES,
    ),
    _granted("a backoff without a cause counts as none", evolve(TOKEN, not_before=NOW + 10), CLAIM, GRANTED),
    _unchanged(
        "failures that begin in the future, after the clock went back, have just begun",
        evolve(BACKING_OFF, failing_since=NOW + 100),
        CLAIM,
        evolve(_backoff(10.0), failing_for=0.0),
    ),
    *(
        _unchanged(
            f"the cause in full: {failure.kind}",
            evolve(BACKING_OFF, failure=failure),
            CLAIM,
            evolve(_backoff(10.0), failure=failure),
        )
        for failure in FAILURES
    ),
    _granted(
        "failures before the first token go on counting",
        evolve(EMPTY, failure=OUTAGE, failures=3, failing_since=NOW - 9, not_before=NOW - 1),
        SEEN_NONE,
        evolve(FIRST, failures=3, failing_for=9.0),
    ),
]


def _throttled_until(moment: float) -> Record:
    return evolve(TOKEN, rejected_at=NOW - 5, throttle=32.0, throttled_until=moment)


REJECTIONS: Final = [
    _throttled("a token committed now is too young", _committed_at(NOW), 1.0),
    _throttled("a token of almost a second is too young", _committed_at(NOW - 1 + STEP), STEP),
    _after_401("a token of a second is renewed", _committed_at(NOW - 1), 1.0),
    _after_401("a token of more than a second is renewed", _committed_at(NOW - 1 - STEP), 1.0),
    _throttled("a token of the near future is too young", _committed_at(NOW + CLOCK_TOLERANCE), 1.0),
    _after_401("a token of the future, after the clock went back, is not young", _committed_at(_FUTURE), 1.0),
    _throttled("the last renewal after a 401 is too recent", _throttled_until(NOW + 20), 20.0),
    _throttled("the throttle ends in a moment", _throttled_until(NOW + STEP), STEP),
    _after_401("the throttle ends now", _throttled_until(NOW), 60.0),
    _throttled("the longest throttle", _throttled_until(NOW + MAX_THROTTLE), MAX_THROTTLE),
    _throttled(
        "the longest throttle, too long by the tolerance",
        _throttled_until(NOW + MAX_THROTTLE + CLOCK_TOLERANCE),
        MAX_THROTTLE,
    ),
    _after_401(
        "a throttle longer than throttles can be counts as none", _throttled_until(_FUTURE + MAX_THROTTLE), 60.0
    ),
    _throttled("too young and throttled for longer", evolve(_throttled_until(NOW + 20), committed_at=NOW), 20.0),
    _throttled("throttled and too young for longer", evolve(_throttled_until(NOW + STEP), committed_at=NOW), 1.0),
    _granted("without a 401 a young token is renewed", _committed_at(NOW), CLAIM, evolve(GRANTED, committed_at=NOW)),
    _granted("without a 401 the throttle does not count", _throttled_until(NOW + 20), CLAIM, GRANTED),
    _granted(
        "a 401 on an empty record",
        EMPTY,
        evolve(AFTER_401, seen=None),
        FIRST,
        rejected_at=NOW,
        throttle=1.0,
        throttled_until=NOW + 1,
    ),
    *(
        _after_401(
            f"the throttle grows from {before:g} to {after:g}",
            evolve(TOKEN, rejected_at=NOW - 5, throttle=before, throttled_until=NOW - 1),
            after,
        )
        for before, after in [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 16.0), (16.0, 32.0), (32.0, 60.0)]
    ),
    *(
        _after_401(
            f"the throttle of a minute {name}",
            evolve(TOKEN, unrejected_since=since, rejected_at=rejected_at, throttle=60.0, throttled_until=NOW - 1),
            throttle,
        )
        for name, since, rejected_at, throttle in [
            ("stays after almost a minute without a 401", NOW - REJECTION_RESET_AFTER + STEP, None, 60.0),
            ("is reset after a minute without a 401", NOW - REJECTION_RESET_AFTER, None, 1.0),
            ("is reset after an hour without a 401", NOW - 3600, None, 1.0),
            ("stays if the token was rejected early", NOW - 3600, NOW - 3600 + 1, 60.0),
            (
                "stays if the token was rejected after almost a minute",
                NOW - 3600,
                NOW - 3600 + REJECTION_RESET_AFTER - STEP,
                60.0,
            ),
            (
                "is reset if the token was first rejected after a minute",
                NOW - 3600,
                NOW - 3600 + REJECTION_RESET_AFTER,
                1.0,
            ),
            ("stays after the clock went back", NOW + 3600, None, 60.0),
            ("stays if it is not known since when no token was rejected", None, None, 60.0),
        ]
    ),
    Case(
        name="the first 401 on a token is noted during a backoff too",
        before=BACKING_OFF,
        event=AFTER_401,
        answer=_backoff(10.0),
        after=evolve(BACKING_OFF, rejected_at=NOW),
    ),
]

_ALL_AT_ONCE: Final = evolve(
    OTHERS,
    **{name: getattr(BACKING_OFF, name) for name in ("failure", "failures", "failing_since", "not_before")},
    committed_at=NOW,
    rejected_at=NOW - 5,
    throttle=4.0,
    throttled_until=NOW + 3,
)
_UNCLAIMED: Final = evolve(_ALL_AT_ONCE, claim_id=None, claimed_at=0.0, claim_until=0.0)
_NOT_FAILING: Final = evolve(_UNCLAIMED, failure=None, failures=0, failing_since=0.0, not_before=0.0)
_COMMITTED_NOW: Final = evolve(SHARED, committed_at=NOW)

PRECEDENCE: Final = [
    _unchanged(
        "a newer token comes first; the 401 was not on it",
        _ALL_AT_ONCE,
        evolve(AFTER_401, seen="version-0"),
        Changed(token=_COMMITTED_NOW),
    ),
    _unchanged("then another worker's claim", _ALL_AT_ONCE, AFTER_401, Busy(retry_after=10.0)),
    _unchanged(
        "then a backoff; the first 401 has been noted", _UNCLAIMED, AFTER_401, evolve(_backoff(10.0), committed_at=NOW)
    ),
    _throttled("then the throttle", _NOT_FAILING, 3.0),
    _granted("then the claim is granted", _NOT_FAILING, CLAIM, evolve(GRANTED, committed_at=NOW)),
]

COMMITTED: Final = evolve(
    TOKEN,
    version="mine",
    access=b"made-up-access-2",
    refresh=b"made-up-refresh-2",
    committed_at=NOW,
    ends_at=NOW + 3590,
    unrejected_since=NOW,
)
_THROTTLED_MINE: Final = evolve(MINE, rejected_at=NOW - 5, throttle=4.0, throttled_until=NOW + 3)


def _committed(name: str, before: Record, event: Commit, after: Record) -> Case:
    return Case(name=name, before=before, event=event, answer=Done(committed_at=NOW), after=after)


COMMITS: Final = [
    _committed("the holder's token", MINE, COMMIT, COMMITTED),
    _committed(
        "the first token of all",
        evolve(EMPTY, claim_id="mine", claimed_at=NOW, claim_until=NOW + 15),
        COMMIT,
        COMMITTED,
    ),
    _committed("no refresh token", MINE, evolve(COMMIT, refresh=None), evolve(COMMITTED, refresh=None)),
    _committed(
        "a late commit: the token lives from the claim at most",
        evolve(MINE, claimed_at=NOW - 12),
        COMMIT,
        evolve(COMMITTED, ends_at=NOW + 3588),
    ),
    _committed(
        "a late commit, at the edge",
        evolve(MINE, claimed_at=NOW - 10),
        COMMIT,
        COMMITTED,
    ),
    _committed(
        "a late commit, one step past the edge",
        evolve(MINE, claimed_at=NOW - 10 - STEP),
        COMMIT,
        evolve(COMMITTED, ends_at=NOW + 3590 - STEP),
    ),
    _committed(
        "a token that is older than the claim ends as long after it as its worker says",
        evolve(MINE, claimed_at=NOW - 12),
        evolve(COMMIT, remaining=1790.0, ends_after=1800.0),
        evolve(COMMITTED, ends_at=NOW + 1788),
    ),
    _committed("a token that ends at the edge after its claim", MINE, evolve(COMMIT, ends_after=3595.0), COMMITTED),
    _committed(
        "a token that ends one step before the edge after its claim",
        MINE,
        evolve(COMMIT, ends_after=3595.0 - STEP),
        evolve(COMMITTED, ends_at=NOW + 3590 - STEP),
    ),
    _committed("a token that ends later after its claim", MINE, evolve(COMMIT, ends_after=3700.0), COMMITTED),
    _committed(
        "a claim in the future, after the clock went back", evolve(MINE, claimed_at=NOW + 100), COMMIT, COMMITTED
    ),
    _committed(
        "a token ends the failures in a row",
        evolve(BACKING_OFF, claim_id="mine", claimed_at=NOW - 5, claim_until=NOW + 10),
        COMMIT,
        COMMITTED,
    ),
    _committed(
        "a token leaves the throttle as it is",
        _THROTTLED_MINE,
        COMMIT,
        evolve(COMMITTED, throttle=4.0, throttled_until=NOW + 3),
    ),
    _committed(
        "a token after one that was not rejected",
        evolve(MINE, unrejected_since=NOW - 50),
        COMMIT,
        evolve(COMMITTED, unrejected_since=NOW - 50),
    ),
    _committed(
        "a token after one that was rejected",
        evolve(MINE, unrejected_since=NOW - 50, rejected_at=NOW - 1),
        COMMIT,
        COMMITTED,
    ),
    _committed("the lease ends now, and no other worker claimed", evolve(MINE, claim_until=NOW), COMMIT, COMMITTED),
    _committed(
        "the lease ended long ago, and no other worker claimed", evolve(MINE, claim_until=1.0), COMMIT, COMMITTED
    ),
    _unchanged("another worker's claim: lost, with the token", OTHERS, COMMIT, ClaimLost(token=SHARED)),
    _unchanged(
        "another worker's claim whose lease has ended: lost all the same",
        evolve(OTHERS, claim_until=NOW - 1),
        COMMIT,
        ClaimLost(token=SHARED),
    ),
    _unchanged("no claim: lost, with the token", TOKEN, COMMIT, ClaimLost(token=SHARED)),
    _unchanged("lost; the token ends in a moment", _ending_at(NOW + STEP), COMMIT, ClaimLost(token=_shared(STEP))),
    _unchanged("lost; the token ends now", _ending_at(NOW), COMMIT, ClaimLost(token=None)),
    _unchanged("lost; the token is of the future", _committed_at(_FUTURE), COMMIT, ClaimLost(token=None)),
    _unchanged("an emptied record", EMPTY, COMMIT, ClaimLost(token=None)),
    _unchanged("the same commit again", COMMITTED, COMMIT, Done(committed_at=NOW)),
    _unchanged(
        "the same commit again, later", evolve(COMMITTED, committed_at=NOW - 5), COMMIT, Done(committed_at=NOW - 5)
    ),
    _unchanged(
        "the same commit again, after the next claim",
        evolve(COMMITTED, claim_id="other", claimed_at=NOW, claim_until=NOW + 15),
        COMMIT,
        Done(committed_at=NOW),
    ),
    _unchanged(
        "the same commit again, after the token has ended",
        evolve(COMMITTED, ends_at=NOW),
        COMMIT,
        Done(committed_at=NOW),
    ),
]

_FAILED_ONCE: Final = evolve(WITHOUT_REFRESH, not_before=NOW + 0.25, failure=OUTAGE, failures=1, failing_since=NOW)
_MINE_AFTER_FAILURES: Final = evolve(FAILED, claim_id="mine", claimed_at=NOW - 5, claim_until=NOW + 10)


def _released(name: str, before: Record, event: Release, after: Record) -> Case:
    return Case(name=name, before=before, event=event, answer=Done(), after=after)


RELEASES: Final = [
    _released("the first failure", MINE, RELEASE, _FAILED_ONCE),
    _released(
        "a refresh token that was not used is given back",
        MINE,
        evolve(RELEASE, refresh=b"made-up-refresh-1"),
        evolve(_FAILED_ONCE, refresh=b"made-up-refresh-1"),
    ),
    _released(
        "a failure without a backoff", MINE, evolve(RELEASE, retry_after=0.0), evolve(_FAILED_ONCE, not_before=NOW)
    ),
    _released(
        "the next failure in a row",
        _MINE_AFTER_FAILURES,
        evolve(RELEASE, retry_after=8.0, failure=LIMITED),
        evolve(FAILED, refresh=None, not_before=NOW + 8, failure=LIMITED, failures=3),
    ),
    _released(
        "failures that began in the future go on",
        evolve(_MINE_AFTER_FAILURES, failing_since=NOW + 100),
        RELEASE,
        evolve(FAILED, refresh=None, not_before=NOW + 0.25, failures=3, failing_since=NOW + 100),
    ),
    *(
        _released(
            f"the cause is kept in full: {failure.kind}",
            MINE,
            evolve(RELEASE, retry_after=60.0, failure=failure),
            evolve(_FAILED_ONCE, not_before=NOW + 60, failure=failure),
        )
        for failure in FAILURES
    ),
    _released("without a failure nothing is counted", MINE, Release(id="mine"), WITHOUT_REFRESH),
    _released(
        "without a failure, and with the refresh token", MINE, Release(id="mine", refresh=b"made-up-refresh-1"), TOKEN
    ),
    _released(
        "without a failure the failures in a row stay",
        _MINE_AFTER_FAILURES,
        Release(id="mine"),
        evolve(FAILED, refresh=None),
    ),
    _released(
        "a failure leaves the throttle as it is",
        _THROTTLED_MINE,
        RELEASE,
        evolve(_FAILED_ONCE, rejected_at=NOW - 5, throttle=4.0, throttled_until=NOW + 3),
    ),
    _released("the lease ends now, and no other worker claimed", evolve(MINE, claim_until=NOW), RELEASE, _FAILED_ONCE),
    _released(
        "the lease ended long ago, and no other worker claimed", evolve(MINE, claim_until=1.0), RELEASE, _FAILED_ONCE
    ),
    _unchanged("another worker's claim: lost, with the token", OTHERS, RELEASE, ClaimLost(token=SHARED)),
    _unchanged(
        "another worker's claim: nothing is given back",
        OTHERS,
        Release(id="mine", refresh=b"made-up-refresh-0"),
        ClaimLost(token=SHARED),
    ),
    _unchanged(
        "another worker's claim whose lease has ended: lost all the same",
        evolve(OTHERS, claim_until=NOW - 1),
        RELEASE,
        ClaimLost(token=SHARED),
    ),
    _unchanged("no claim: lost, with the token", TOKEN, RELEASE, ClaimLost(token=SHARED)),
    _unchanged("the same release again changes nothing", _FAILED_ONCE, RELEASE, ClaimLost(token=SHARED)),
    _unchanged("lost; the token ends now", _ending_at(NOW), RELEASE, ClaimLost(token=None)),
    _unchanged("an emptied record", EMPTY, RELEASE, ClaimLost(token=None)),
]


def _titled(title: str, cases: list[Case]) -> list[Case]:
    return [evolve(case, name=f"{title}: {case.name}") for case in cases]


CASES: Final = (
    *_titled("read", READS),
    *_titled("claim", CHANGES),
    *_titled("claim, lease", LEASES),
    *_titled("claim, backoff", BACKOFFS),
    *_titled("claim, 401", REJECTIONS),
    *_titled("claim, order", PRECEDENCE),
    *_titled("commit", COMMITS),
    *_titled("release", RELEASES),
)
