"""How the record of an account changes: one table for everything that keeps records.

A case is data: the record before, an event, the moment, the answer, and the record after. `_record`, the memory, the
file and Redis all have to agree with it; `differences` compares what they say with what the case says.
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
    """Tell where two values differ; numbers are equal within `TOLERANCE`."""
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
REFUSED: Final = Failure(kind="credentials", message='the API key was refused: "é", \\ and a\nline', status=400)
INVALID: Final = Failure(kind="invalid", message="that is no token", status=200)
FAILURES: Final = (OUTAGE, LIMITED, REFUSED, INVALID)

# Records that most cases begin with.
TOKEN: Final = Record(
    version="version-1",
    access=b"made-up-access-1",
    lifetime=3600.0,
    committed_at=NOW - 100,
    ends_at=NOW + 3500,
    refresh=b"made-up-refresh-1",
)
TAKEN: Final = evolve(TOKEN, refresh=None)
HELD: Final = evolve(TAKEN, claim_id="other", claim_until=NOW + 10)
MINE: Final = evolve(TAKEN, claim_id="mine", claim_until=NOW + 10)
FAILED: Final = evolve(TOKEN, failure=OUTAGE, failures=2, failing_since=NOW - 30, not_before=NOW - 5)
PAUSED: Final = evolve(FAILED, not_before=NOW + 10)

# Events and answers of most cases.
CLAIM: Final = Claim(id="mine", seen="version-1", lease=15.0)
REJECTED: Final = evolve(CLAIM, rejected=True)
NEWCOMER: Final = evolve(CLAIM, seen=None)
BEHIND: Final = evolve(CLAIM, seen="version-0")
COMMIT: Final = Commit(
    id="mine", access=b"made-up-access-2", refresh=b"made-up-refresh-2", lifetime=3600.0, remaining=3590.0
)
FAIL: Final = Release(id="mine", backoff=0.25, failure=OUTAGE)
GRANTED: Final = Granted(
    refresh=b"made-up-refresh-1", version="version-1", remaining=3500.0, failures=0, failing_for=0.0
)
SHARED: Final = SharedToken(version="version-1", access=b"made-up-access-1", lifetime=3600.0, remaining=3500.0)


def _unchanged(name: str, record: Record, event: Event | None, answer: Answer) -> Case:
    return Case(name=name, before=record, event=event, answer=answer, after=record)


def _granted(name: str, record: Record, event: Claim, answer: Granted, **also: Any) -> Case:
    """Return a case of a claim that is granted: the refresh token is out, the lease runs; `also` changes too."""
    after = evolve(record, refresh=None, claim_id=event.id, claim_until=NOW + event.lease, **also)
    return Case(name=name, before=record, event=event, answer=answer, after=after)


def _rejected(record: Record) -> Record:
    """Return a record whose token was refused now, if it was not before."""
    return record if record.rejected_at is not None else evolve(record, rejected_at=NOW)


def _spaced(name: str, record: Record, wait: float) -> Case:
    """Return a case of a claim after a 401 that comes too soon; the 401 is noted."""
    return Case(name=name, before=record, event=REJECTED, answer=Throttled(retry_after=wait), after=_rejected(record))


def _after_401(name: str, record: Record, throttle: float) -> Case:
    """Return a case of a claim after a 401 that is granted; `throttle` is the least time to the next."""
    rejected_at = _rejected(record).rejected_at
    return _granted(
        name, record, REJECTED, GRANTED, rejected_at=rejected_at, throttle=throttle, throttled_until=NOW + throttle
    )


def _ending_at(moment: float) -> Record:
    return evolve(TOKEN, ends_at=moment)


def _shared(remaining: float, lifetime: float = 3600.0) -> SharedToken:
    return evolve(SHARED, remaining=remaining, lifetime=lifetime)


def _cooling(wait: float) -> Backoff:
    return Backoff(retry_after=wait, failure=OUTAGE, failures=2, failing_for=30.0)


_AFTER_FAILURES: Final = evolve(GRANTED, failures=2, failing_for=30.0)
_PAST: Final = evolve(TOKEN, ends_at=NOW - STEP)

READS: Final = [
    _unchanged("an empty record has no token", EMPTY, None, None),
    _unchanged("a token that lives is read", TOKEN, None, SHARED),
    _unchanged("a token that ends in a moment is read", _ending_at(NOW + STEP), None, _shared(STEP)),
    _unchanged("a token that ends now has ended", _ending_at(NOW), None, None),
    _unchanged("a token that ended is none", _PAST, None, None),
    _unchanged("a token is read while somebody renews", HELD, None, SHARED),
    _unchanged("a token is read during a pause", PAUSED, None, SHARED),
    _unchanged("a version without a token is none", evolve(TOKEN, access=None), None, None),
    _unchanged("a token without a version is none", evolve(TOKEN, version=None), None, None),
    _unchanged("a token that lives exactly its lifetime", _ending_at(NOW + 3600), None, _shared(3600.0)),
    _unchanged("a token is not believed beyond its lifetime", _ending_at(NOW + 3600 + STEP), None, _shared(3600.0)),
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
    _unchanged("a token without a lifetime is none", evolve(TOKEN, lifetime=0.0), None, None),
]

CHANGES: Final = [
    _granted(
        "an empty record is granted, without a refresh token",
        EMPTY,
        NEWCOMER,
        Granted(refresh=None, version=None, remaining=-NOW, failures=0, failing_for=0.0),
    ),
    _granted("who has seen the token renews it, and takes the refresh token out", TOKEN, CLAIM, GRANTED),
    _granted("without a refresh token the API key is used", TAKEN, CLAIM, evolve(GRANTED, refresh=None)),
    _granted("a claim lasts as long as its lease", TOKEN, evolve(CLAIM, lease=MAX_LEASE), GRANTED),
    _unchanged("who has seen none is told the token", TOKEN, NEWCOMER, Changed(token=SHARED)),
    _unchanged("who has seen another is told the token", TOKEN, BEHIND, Changed(token=SHARED)),
    _unchanged("a token that ends in a moment is told", _ending_at(NOW + STEP), BEHIND, Changed(token=_shared(STEP))),
    _granted("a token that ends now is not told", _ending_at(NOW), BEHIND, evolve(GRANTED, remaining=0.0)),
    _granted("a token that ended is not told", _PAST, NEWCOMER, evolve(GRANTED, remaining=-STEP)),
    _granted("a token that ended is renewed by who has seen it", _PAST, CLAIM, evolve(GRANTED, remaining=-STEP)),
    _granted("a version without a token is not told", evolve(TOKEN, access=None), BEHIND, GRANTED),
    _granted(
        "a token without a version is not told", evolve(TOKEN, version=None), BEHIND, evolve(GRANTED, version=None)
    ),
    _unchanged(
        "what is told is not believed beyond its lifetime",
        _ending_at(NOW + 9000),
        BEHIND,
        Changed(token=_shared(3600.0)),
    ),
    _unchanged(
        "what is told is not believed beyond a day",
        evolve(TOKEN, lifetime=1e9, ends_at=1e9),
        BEHIND,
        Changed(token=_shared(MAX_LIFETIME, MAX_LIFETIME)),
    ),
]

LEASES: Final = [
    _unchanged("somebody else renews", HELD, CLAIM, Busy(retry_after=10.0)),
    _unchanged(
        "somebody else renews an empty record", evolve(HELD, access=None, version=None), CLAIM, Busy(retry_after=10.0)
    ),
    _unchanged("one's own claim, whose answer was lost, is held too", MINE, CLAIM, Busy(retry_after=10.0)),
    _unchanged(
        "a lease that lapses in a moment holds", evolve(HELD, claim_until=NOW + STEP), CLAIM, Busy(retry_after=STEP)
    ),
    _granted(
        "a lease that lapses now holds no more", evolve(HELD, claim_until=NOW), CLAIM, evolve(GRANTED, refresh=None)
    ),
    _granted(
        "a lease that has lapsed holds no more", evolve(HELD, claim_until=NOW - 1), CLAIM, evolve(GRANTED, refresh=None)
    ),
    _unchanged(
        "the longest lease holds",
        evolve(HELD, claim_until=NOW + MAX_LEASE),
        CLAIM,
        Busy(retry_after=MAX_LEASE),
    ),
    _granted(
        "a lease longer than leases are is none",
        evolve(HELD, claim_until=NOW + MAX_LEASE + CLOCK_TOLERANCE + STEP),
        CLAIM,
        evolve(GRANTED, refresh=None),
    ),
    _granted("a lease of nobody is none", evolve(TOKEN, claim_until=NOW + 10), CLAIM, GRANTED),
]

PAUSES: Final = [
    _unchanged("failures in a row are told with their cause", PAUSED, CLAIM, _cooling(10.0)),
    _unchanged("a pause that ends in a moment is kept", evolve(PAUSED, not_before=NOW + STEP), CLAIM, _cooling(STEP)),
    _granted("a pause that ends now is over", evolve(PAUSED, not_before=NOW), CLAIM, _AFTER_FAILURES),
    _granted("a pause that has ended is over", FAILED, CLAIM, _AFTER_FAILURES),
    _unchanged(
        "the longest pause is kept",
        evolve(PAUSED, not_before=NOW + MAX_BACKOFF),
        CLAIM,
        _cooling(MAX_BACKOFF),
    ),
    _granted(
        "a pause longer than pauses are is none",
        evolve(PAUSED, not_before=NOW + MAX_BACKOFF + CLOCK_TOLERANCE + STEP),
        CLAIM,
        _AFTER_FAILURES,
    ),
    _granted("a pause without a cause is none", evolve(TOKEN, not_before=NOW + 10), CLAIM, GRANTED),
    _unchanged(
        "a row of failures that begins in the future, after the clock went back, has just begun",
        evolve(PAUSED, failing_since=NOW + 100),
        CLAIM,
        evolve(_cooling(10.0), failing_for=0.0),
    ),
    *(
        _unchanged(
            f"the cause is told in full: {failure.kind}",
            evolve(PAUSED, failure=failure),
            CLAIM,
            evolve(_cooling(10.0), failure=failure),
        )
        for failure in FAILURES
    ),
    _granted(
        "failures in a row go on counting where there never was a token",
        evolve(EMPTY, failure=OUTAGE, failures=3, failing_since=NOW - 9, not_before=NOW - 1),
        NEWCOMER,
        Granted(refresh=None, version=None, remaining=-NOW, failures=3, failing_for=9.0),
    ),
]


def _committed_at(moment: float) -> Record:
    return evolve(TOKEN, committed_at=moment)


def _spaced_until(moment: float) -> Record:
    return evolve(TOKEN, rejected_at=NOW - 5, throttle=32.0, throttled_until=moment)


REJECTIONS: Final = [
    _spaced("a token committed now is too young", _committed_at(NOW), 1.0),
    _spaced("a token of almost a second is too young", _committed_at(NOW - 1 + STEP), STEP),
    _after_401("a token of a second is renewed", _committed_at(NOW - 1), 1.0),
    _after_401("a token of more than a second is renewed", _committed_at(NOW - 1 - STEP), 1.0),
    _spaced("a token of the near future is young", _committed_at(NOW + CLOCK_TOLERANCE), 1.0),
    _after_401(
        "a token of the future, after the clock went back, is not young",
        _committed_at(NOW + CLOCK_TOLERANCE + STEP),
        1.0,
    ),
    _spaced("the last renewal after a 401 is too recent", _spaced_until(NOW + 20), 20.0),
    _spaced("the throttle ends in a moment", _spaced_until(NOW + STEP), STEP),
    _after_401("the throttle ends now", _spaced_until(NOW), 60.0),
    _spaced("the longest throttle is kept", _spaced_until(NOW + MAX_THROTTLE), MAX_THROTTLE),
    _after_401(
        "a throttle longer than spacings are is none", _spaced_until(NOW + MAX_THROTTLE + CLOCK_TOLERANCE + STEP), 60.0
    ),
    _spaced(
        "a throttle beyond the longest by rounding is the longest",
        _spaced_until(NOW + MAX_THROTTLE + CLOCK_TOLERANCE),
        MAX_THROTTLE,
    ),
    _spaced("young and spaced: the throttle is longer", evolve(_spaced_until(NOW + 20), committed_at=NOW), 20.0),
    _spaced("young and spaced: the youth is longer", evolve(_spaced_until(NOW + STEP), committed_at=NOW), 1.0),
    _granted("other reasons need not wait for a token to age", _committed_at(NOW), CLAIM, GRANTED),
    _granted("other reasons need not keep the throttle", _spaced_until(NOW + 20), CLAIM, GRANTED),
    _granted(
        "a 401 on what the record never had is renewed",
        EMPTY,
        evolve(REJECTED, seen=None),
        Granted(refresh=None, version=None, remaining=-NOW, failures=0, failing_for=0.0),
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
            ("stays, after almost a minute unrefused", NOW - REJECTION_RESET_AFTER + STEP, None, 60.0),
            ("falls back, after a minute unrefused", NOW - REJECTION_RESET_AFTER, None, 1.0),
            ("falls back, after an hour unrefused", NOW - 3600, None, 1.0),
            ("stays, if the token was refused early", NOW - 3600, NOW - 3600 + 1, 60.0),
            (
                "stays, if the token was refused at almost a minute",
                NOW - 3600,
                NOW - 3600 + REJECTION_RESET_AFTER - STEP,
                60.0,
            ),
            (
                "falls back, if the token was first refused at a minute",
                NOW - 3600,
                NOW - 3600 + REJECTION_RESET_AFTER,
                1.0,
            ),
            ("stays, after the clock went back", NOW + 3600, None, 60.0),
            ("stays, if it is not known since when", None, None, 60.0),
        ]
    ),
    Case(
        name="the first 401 on a token is noted in a pause too",
        before=PAUSED,
        event=REJECTED,
        answer=_cooling(10.0),
        after=evolve(PAUSED, rejected_at=NOW),
    ),
]

_ALL_AT_ONCE: Final = evolve(
    HELD,
    **{name: getattr(PAUSED, name) for name in ("failure", "failures", "failing_since", "not_before")},
    committed_at=NOW,
    rejected_at=NOW - 5,
    throttle=4.0,
    throttled_until=NOW + 3,
)
_NOT_HELD: Final = evolve(_ALL_AT_ONCE, claim_id=None, claim_until=0.0)
_NOT_PAUSED: Final = evolve(_NOT_HELD, failure=None, failures=0, failing_since=0.0, not_before=0.0)

PRECEDENCE: Final = [
    _unchanged(
        "first of all, a newer token; its 401 is none of this one",
        _ALL_AT_ONCE,
        evolve(REJECTED, seen="version-0"),
        Changed(token=SHARED),
    ),
    _unchanged("then somebody else's claim; a 401 is his to mend", _ALL_AT_ONCE, REJECTED, Busy(retry_after=10.0)),
    Case(
        name="then a pause; the first 401 is noted already",
        before=_NOT_HELD,
        event=REJECTED,
        answer=_cooling(10.0),
        after=_NOT_HELD,
    ),
    _spaced("then the throttle", _NOT_PAUSED, 3.0),
    _granted("then the claim is granted", _NOT_PAUSED, CLAIM, evolve(GRANTED, refresh=None)),
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
_SPACED_MINE: Final = evolve(MINE, rejected_at=NOW - 5, throttle=4.0, throttled_until=NOW + 3)


def _committed(name: str, before: Record, event: Commit, after: Record) -> Case:
    return Case(name=name, before=before, event=event, answer=Done(), after=after)


COMMITS: Final = [
    _committed("the holder's token is taken in", MINE, COMMIT, COMMITTED),
    _committed("the first token of all", evolve(EMPTY, claim_id="mine", claim_until=NOW + 10), COMMIT, COMMITTED),
    _committed(
        "an answer without a refresh token", MINE, evolve(COMMIT, refresh=None), evolve(COMMITTED, refresh=None)
    ),
    _committed(
        "a token ends a row of failures",
        evolve(PAUSED, refresh=None, claim_id="mine", claim_until=NOW + 10),
        COMMIT,
        COMMITTED,
    ),
    _committed(
        "a token leaves the throttle of 401s",
        _SPACED_MINE,
        COMMIT,
        evolve(COMMITTED, throttle=4.0, throttled_until=NOW + 3),
    ),
    _committed(
        "tokens that nobody refused go on being trusted",
        evolve(MINE, unrejected_since=NOW - 50),
        COMMIT,
        evolve(COMMITTED, unrejected_since=NOW - 50),
    ),
    _committed(
        "a token in place of a refused one begins anew",
        evolve(MINE, unrejected_since=NOW - 50, rejected_at=NOW - 1),
        COMMIT,
        COMMITTED,
    ),
    _committed("a lease that lapses now, and nobody else claimed", evolve(MINE, claim_until=NOW), COMMIT, COMMITTED),
    _committed(
        "a lease that lapsed long ago, and nobody else claimed", evolve(MINE, claim_until=1.0), COMMIT, COMMITTED
    ),
    _unchanged("somebody else's claim: claim_lost, the token is told", HELD, COMMIT, ClaimLost(token=SHARED)),
    _unchanged(
        "somebody else's claim that has lapsed: claim_lost all the same",
        evolve(HELD, claim_until=NOW - 1),
        COMMIT,
        ClaimLost(token=SHARED),
    ),
    _unchanged("nobody's claim: claim_lost, the token is told", TOKEN, COMMIT, ClaimLost(token=SHARED)),
    _unchanged(
        "claim_lost, the token ends in a moment", _ending_at(NOW + STEP), COMMIT, ClaimLost(token=_shared(STEP))
    ),
    _unchanged("claim_lost, the token ends now", _ending_at(NOW), COMMIT, ClaimLost(token=None)),
    _unchanged(
        "claim_lost, the token is not believed beyond its lifetime",
        _ending_at(NOW + 9000),
        COMMIT,
        ClaimLost(token=_shared(3600.0)),
    ),
    _unchanged("an emptied record takes nothing in", EMPTY, COMMIT, ClaimLost(token=None)),
    _unchanged(
        "the same commit once more, when its first answer was lost",
        COMMITTED,
        COMMIT,
        ClaimLost(token=SharedToken(version="mine", access=b"made-up-access-2", lifetime=3600.0, remaining=3590.0)),
    ),
]

_FAILED_ONCE: Final = evolve(TAKEN, not_before=NOW + 0.25, failure=OUTAGE, failures=1, failing_since=NOW)
_MINE_AFTER_FAILURES: Final = evolve(FAILED, refresh=None, claim_id="mine", claim_until=NOW + 10)


def _failed(name: str, before: Record, event: Release, after: Record) -> Case:
    return Case(name=name, before=before, event=event, answer=Done(), after=after)


FAILS: Final = [
    _failed("the first failure begins a row and a pause", MINE, FAIL, _FAILED_ONCE),
    _failed(
        "a refresh token that was not used is given back",
        MINE,
        evolve(FAIL, refresh=b"made-up-refresh-1"),
        evolve(_FAILED_ONCE, refresh=b"made-up-refresh-1"),
    ),
    _failed("a failure without a pause", MINE, evolve(FAIL, backoff=0.0), evolve(_FAILED_ONCE, not_before=NOW)),
    _failed(
        "the next failure goes on with the row",
        _MINE_AFTER_FAILURES,
        evolve(FAIL, backoff=8.0, failure=LIMITED),
        evolve(FAILED, refresh=None, not_before=NOW + 8, failure=LIMITED, failures=3),
    ),
    _failed(
        "a row of failures keeps its beginning also where that lies in the future",
        evolve(_MINE_AFTER_FAILURES, failing_since=NOW + 100),
        FAIL,
        evolve(FAILED, refresh=None, not_before=NOW + 0.25, failures=3, failing_since=NOW + 100),
    ),
    *(
        _failed(
            f"the cause is kept in full: {failure.kind}",
            MINE,
            evolve(FAIL, backoff=60.0, failure=failure),
            evolve(_FAILED_ONCE, not_before=NOW + 60, failure=failure),
        )
        for failure in FAILURES
    ),
    _failed("a claim that is claim_lost counts as no failure", MINE, Release(id="mine"), TAKEN),
    _failed(
        "a claim that is claim_lost gives its refresh token back",
        MINE,
        Release(id="mine", refresh=b"made-up-refresh-1"),
        TOKEN,
    ),
    _failed(
        "a claim that is claim_lost leaves the row of failures",
        _MINE_AFTER_FAILURES,
        Release(id="mine"),
        evolve(FAILED, refresh=None),
    ),
    _failed(
        "a failure leaves the throttle of 401s",
        _SPACED_MINE,
        FAIL,
        evolve(_FAILED_ONCE, rejected_at=NOW - 5, throttle=4.0, throttled_until=NOW + 3),
    ),
    _failed("a lease that lapses now, and nobody else claimed", evolve(MINE, claim_until=NOW), FAIL, _FAILED_ONCE),
    _failed("a lease that lapsed long ago, and nobody else claimed", evolve(MINE, claim_until=1.0), FAIL, _FAILED_ONCE),
    _unchanged("somebody else's claim: claim_lost, the token is told", HELD, FAIL, ClaimLost(token=SHARED)),
    _unchanged(
        "somebody else's claim: nothing is given back",
        HELD,
        Release(id="mine", refresh=b"made-up-refresh-0"),
        ClaimLost(token=SHARED),
    ),
    _unchanged(
        "somebody else's claim that has lapsed: claim_lost all the same",
        evolve(HELD, claim_until=NOW - 1),
        FAIL,
        ClaimLost(token=SHARED),
    ),
    _unchanged("nobody's claim: claim_lost, the token is told", TOKEN, FAIL, ClaimLost(token=SHARED)),
    _unchanged("claim_lost, the token ends now", _ending_at(NOW), FAIL, ClaimLost(token=None)),
    _unchanged("an emptied record notes nothing", EMPTY, FAIL, ClaimLost(token=None)),
]


def _titled(title: str, cases: list[Case]) -> list[Case]:
    return [evolve(case, name=f"{title}: {case.name}") for case in cases]


CASES: Final = (
    *_titled("read", READS),
    *_titled("claim", CHANGES),
    *_titled("claim, lease", LEASES),
    *_titled("claim, pause", PAUSES),
    *_titled("claim, 401", REJECTIONS),
    *_titled("claim, order", PRECEDENCE),
    *_titled("commit", COMMITS),
    *_titled("fail", FAILS),
)
