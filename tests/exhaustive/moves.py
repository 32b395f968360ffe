"""What one worker does next: the real `renew` asks, and the real transitions of the record answer.

All records have the same clock, which stands at `NOW`; the moments of a state lie before, at or after it.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from attrs import evolve, field, frozen

from apivideo_auth import AccessToken, _record
from apivideo_auth._failure import Failure
from apivideo_auth._policy import LEASE_MARGIN
from apivideo_auth._record import (
    Backoff,
    Busy,
    Changed,
    Claim,
    Commit,
    Done,
    Granted,
    Record,
    Release,
    RenewalRequest,
    SharedToken,
    Throttled,
)
from apivideo_auth._renewal import Adopted, ClaimLapsed, Failed, RefreshRejected, Renewed
from tests.exhaustive.replay import POLICY, Call, Cancelled, Replayed, Reply, replay
from tests.exhaustive.state import DEAD, NOBODY, OLD, Rec, Worker

NOW: Final = 1000.0
LIFETIME: Final = 3600
ME: Final = 0
OTHER: Final = 1
"""The holders in the records of this module, which looks at one worker only."""

MY_CLAIM: Final = "my-claim"
_CLAIM_IDS: Final = {NOBODY: None, DEAD: "claim-of-a-dead-worker", ME: MY_CLAIM, OTHER: "claim-of-another-worker"}
_HOLDERS: Final = {claim_id: holder for holder, claim_id in _CLAIM_IDS.items()}

LOST: Final = "loses the answer"
FAILURES: Final = {
    "cannot connect": Failure(kind="connection", message="made-up: refused", sent=False),
    "gets 429": Failure(kind="rate_limited", message="made-up: 429", status=429),
    "gets 500": Failure(kind="response", message="made-up: 500", status=500),
    "is rejected": Failure(kind="credentials", message="made-up: 400", status=400),
    LOST: Failure(kind="connection", message="made-up: reset"),
}
CANCELLED: Final = "is cancelled"
ARRIVES: Final = "gets the answer"
ARRIVES_WITHOUT_REFRESH: Final = "gets the answer, without a refresh token"
DELAYED: Final = "finds that its lease is nearly over, and sends nothing"


class BrokenError(Exception):
    """A promise is broken."""


@frozen
class Transitions:
    """The transitions of the record."""

    claim: Callable[[Record, Claim, float], tuple[Record, Any]] = _record.claim
    commit: Callable[[Record, Commit, float], tuple[Record, Any]] = _record.commit
    release: Callable[[Record, Release, float], tuple[Record, Any]] = _record.release


class Move(NamedTuple):
    """The record and the worker after a move, and what happened, in words."""

    record: Rec
    worker: Worker
    words: str


@frozen
class Moves:
    """The moves of one worker. Each is computed once, since it depends on its arguments alone."""

    transitions: Transitions
    _known: dict[tuple[Any, ...], Move] = field(factory=dict[tuple[Any, ...], Move])
    _served: dict[tuple[Rec, int], bool] = field(factory=dict[tuple[Rec, int], bool])

    def claim(self, record: Rec, ended: int, worker: Worker) -> Move:
        """Return the outcome of a claim."""
        key = (record, ended, worker)
        if key not in self._known:
            self._known[key] = self._claim(record, ended, worker)
        return self._known[key]

    def end(self, record: Rec, ended: int, worker: Worker, how: str, fresh: int) -> Move:
        """Return the outcome of the end of a claim; `fresh` is the number of a new refresh token."""
        key = (record, ended, worker, how, fresh)
        if key not in self._known:
            self._known[key] = self._end(record, ended, worker, how, fresh)
        return self._known[key]

    def look(self, record: Rec, ended: int, worker: Worker) -> Worker:
        """Return the worker after another worker's commit was pushed to it."""
        token, request = _record.shared_token(_real(record, ended), NOW), _request(worker, ended)
        if token is not None and token.version != request.version and request.should_adopt(token):
            return Worker(token=record.version, seen=record.version)
        return worker

    def newcomer_is_served(self, record: Rec, ended: int) -> bool:
        """Return whether a new worker gets a token or a claim once every lease and every backoff is over."""
        key = (record, ended)
        if key not in self._served:
            later = _real(record._replace(leased=False, failing=min(record.failing, 1)), ended)
            _, answer = self.transitions.claim(later, Claim(id=MY_CLAIM, seen=None, lease=POLICY.lease), NOW)
            self._served[key] = isinstance(answer, Granted | Changed)
        return self._served[key]

    def _claim(self, record: Rec, ended: int, worker: Worker) -> Move:
        request = _request(worker, ended)
        replies = []
        if worker.phase == "again":
            unwanted = SharedToken(
                version=_version(worker.named) or "",
                access=b"a0",
                lifetime=LIFETIME,
                remaining=-1.0,
                committed_at=NOW - 10,
            )
            replies = [Reply(Changed(token=unwanted))]
        asked = replay(request, *replies)
        assert isinstance(asked.step, Claim)
        before = _real(record, ended)
        after, answer = self.transitions.claim(before, evolve(asked.step, id=MY_CLAIM), NOW)
        replayed = replay(request, *replies, Reply(answer))
        because = " because of a 401" if worker.reason else ""
        if isinstance(answer, Granted):
            if worker.reason == "401" and record.throttled:
                raise BrokenError("is granted a claim because of a 401, although that is throttled")
            assert isinstance(replayed.step, Call)
            number = _number(replayed.step.refresh)
            granted = worker._replace(phase="granted", named=0, refresh=number, leased=True)
            means = f"refresh token {number}" if number else "the API key"
            return Move(_abstract(after), granted, f"claims{because}, and is to use {means}")
        if evolve(after, rejected_at=None) != before:
            raise BrokenError("is granted nothing, and changed the record")
        if worker.reason and isinstance(answer, Changed) and not isinstance(replayed.step, Adopted):
            raise BrokenError(f"had its token rejected, and is not given token {record.version} of the record")
        if isinstance(replayed.step, Claim):
            assert isinstance(answer, Changed)
            again = worker._replace(phase="again", named=record.version)
            return Move(record, again, f"claims{because}, is answered token {record.version}, and does not want it")
        return Move(record, _idle(worker, replayed), f"claims{because}: {type(replayed.step).__name__}")

    def _end(self, record: Rec, ended: int, worker: Worker, how: str, fresh: int) -> Move:
        request = _request(worker, ended)
        granted = Granted(
            refresh=b"r%d" % worker.refresh if worker.refresh else None,
            committed_at=None,
            failures=0,
            failing_for=0.0,
        )
        replies = [Reply(granted, LEASE_MARGIN)] if how == DELAYED else [Reply(granted)]
        if how == CANCELLED:
            replies.append(Reply(Cancelled()))
        elif how in (ARRIVES, ARRIVES_WITHOUT_REFRESH):
            token = AccessToken(f"a{worker.number}", "bearer", LIFETIME, f"r{fresh}" if how == ARRIVES else None)
            replies.append(Reply(token, LIFETIME if worker.number <= ended else 0.0))
        elif how != DELAYED:
            replies.append(Reply(FAILURES[how]))
        event = replay(request, *replies).step
        before = _real(record, ended)
        if isinstance(event, Commit):
            event = evolve(event, id=MY_CLAIM, remaining=_remaining(worker.number, ended))
            after, answer = self.transitions.commit(before, event, NOW)
        else:
            assert isinstance(event, Release)
            after, answer = self.transitions.release(before, evolve(event, id=MY_CLAIM), NOW)
        if worker.overtaken and after != before:
            raise BrokenError(f"{how}; it no longer holds the claim, and changed the record")
        if not worker.overtaken and not isinstance(answer, Done):
            raise BrokenError(f"{how}; it holds the claim, and its end did not count")
        replayed = replay(request, *replies, Reply(answer))
        words = f"{type(event).__name__.lower()} {type(answer).__name__.lower()}, {type(replayed.step).__name__}"
        return Move(_abstract(after), _idle(worker, replayed), f"{how}: {words}")


def _idle(worker: Worker, replayed: Replayed) -> Worker:
    """Return the worker after its renewal: it has a token or a cause, or claims again."""
    match replayed.step:
        case Renewed() as renewed:
            number = _number(renewed.access.encode())
            return Worker(token=number, seen=number if renewed.version == replayed.claim_id else worker.seen)
        case Adopted(token=token):
            number = _number(token.access)
            return Worker(token=number, seen=number)
        case Failed(backoff=Backoff(failure=Failure())) | Backoff(failure=Failure()) | Throttled():
            return Worker(token=worker.token, seen=worker.seen)
        case RefreshRejected() | ClaimLapsed() | Busy() | Cancelled():
            return Worker(token=worker.token, seen=worker.seen)
        case other:
            raise BrokenError(f"ends with {type(other).__name__}")


def _real(record: Rec, ended: int) -> Record:
    return Record(
        version=_version(record.version),
        access=b"a%d" % record.version if record.version else None,
        lifetime=float(LIFETIME),
        committed_at=NOW - 10 if record.version else None,
        ends_at=NOW + _remaining(record.version, ended) if record.version else 0.0,
        refresh=b"r%d" % record.refresh if record.refresh else None,
        claim_id=_CLAIM_IDS[record.holder],
        claimed_at=NOW if record.holder != NOBODY else 0.0,
        claim_until=NOW + POLICY.lease if record.leased else NOW,
        not_before=NOW + 1 if record.failing == 2 else NOW,
        failure=FAILURES[LOST] if record.failing else None,
        failures=1 if record.failing else 0,
        failing_since=NOW,
        throttled_until=NOW + 1 if record.throttled else NOW,
    )


def _abstract(record: Record) -> Rec:
    is_young = record.committed_at == NOW
    return Rec(
        version=_number(record.access),
        refresh=_number(record.refresh),
        holder=_HOLDERS[record.claim_id],
        leased=record.claim_id is not None and record.claim_until > NOW,
        failing=(2 if record.not_before > NOW else 1) if record.failures else 0,
        throttled=record.throttled_until > NOW or is_young,
    )


def _request(worker: Worker, ended: int) -> RenewalRequest:
    usable = worker.token > ended
    return RenewalRequest(
        policy=POLICY,
        version=_version(worker.seen),
        access=f"a{worker.token}" if usable else None,
        remaining=_remaining(worker.token, ended) if usable else None,
        rejected=worker.reason != "" and usable,
        may_be_throttled=worker.reason == "401" and usable,
    )


def _remaining(number: int, ended: int) -> float:
    return 10.0 * (number - ended)


def _version(number: int) -> str | None:
    return None if number == 0 else "an-old-version" if number == OLD else f"version-{number}"


def _number(name: bytes | None) -> int:
    return 0 if name is None else int(name[1:])
