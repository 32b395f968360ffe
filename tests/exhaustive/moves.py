"""What one worker does next: the real `renew` asks, the real transitions of the record answer.

Records have one clock that stands at `NOW`, and the moments of a state lie before, at or after it.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from attrs import evolve, field, frozen

from apivideo_auth import AccessToken, _record
from apivideo_auth._failure import Failure
from apivideo_auth._policy import LEASE_MARGIN
from apivideo_auth._record import Backoff, Busy, Changed, Claim, Commit, Done, Granted, Record, Release, SharedToken
from apivideo_auth._renewal import Adopted, ClaimLapsed, Failed, RefreshRejected, RenewalRequest, Renewed
from tests.exhaustive.player import POLICY, Call, Cancelled, Played, Player, Reply
from tests.exhaustive.world import GONE, NOBODY, OLD, Rec, Worker

NOW: Final = 1000.0
LIFETIME: Final = 3600
ME: Final = 0
OTHER: Final = 1
"""The places in the records of this module, where only one worker is of interest."""

MY_CLAIM: Final = "claim-of-mine"
_HOLDERS: Final = {NOBODY: None, GONE: "claim-of-one-that-died", ME: MY_CLAIM, OTHER: "claim-of-another"}
_PLACES: Final = {claim_id: place for place, claim_id in _HOLDERS.items()}

LOST: Final = "loses the answer"
FAILURES: Final = {
    "cannot connect": Failure(kind="connection", message="made-up: refused", sent=False),
    "is answered 429": Failure(kind="rate_limited", message="made-up: 429", status=429),
    "is answered 500": Failure(kind="response", message="made-up: 500", status=500),
    "is refused": Failure(kind="credentials", message="made-up: 400", status=400),
    LOST: Failure(kind="connection", message="made-up: reset"),
}
CANCELLED: Final = "is cancelled"
ARRIVES: Final = "gets the answer"
ARRIVES_BARE: Final = "gets the answer, without a refresh token"
DAWDLES: Final = "finds that its lease is nearly over, and sends nothing"


class BrokenError(Exception):
    """A promise was broken."""


@frozen
class Rules:
    """The transitions of the record."""

    claim: Callable[[Record, Claim, float], tuple[Record, Any]] = _record.claim
    commit: Callable[[Record, Commit, float], tuple[Record, Any]] = _record.commit
    fail: Callable[[Record, Release, float], tuple[Record, Any]] = _record.release


class Move(NamedTuple):
    """The record and the worker after a move, and what happened, in words."""

    record: Rec
    worker: Worker
    words: str


@frozen
class Moves:
    """The moves of one worker. Each is made once and then remembered: it depends on nothing but its arguments."""

    rules: Rules
    player: Player
    _known: dict[tuple[Any, ...], Move] = field(factory=dict[tuple[Any, ...], Move])
    _served: dict[tuple[Rec, int], bool] = field(factory=dict[tuple[Rec, int], bool])

    def claim(self, record: Rec, ended: int, worker: Worker) -> Move:
        """Return what comes of a claim."""
        key = (record, ended, worker)
        if key not in self._known:
            self._known[key] = self._claim(record, ended, worker)
        return self._known[key]

    def end(self, record: Rec, ended: int, worker: Worker, how: str, fresh: int) -> Move:
        """Return what comes of the end of a claim; `fresh` is the number of a new refresh token."""
        key = (record, ended, worker, how, fresh)
        if key not in self._known:
            self._known[key] = self._end(record, ended, worker, how, fresh)
        return self._known[key]

    def look(self, record: Rec, ended: int, worker: Worker) -> Worker:
        """Return the worker after somebody else's commit was told to it."""
        token, wish = _record.shared_token(_real(record, ended), NOW), _wish(worker, ended)
        if token is not None and token.version != wish.seen and wish.should_adopt(token):
            return Worker(token=record.version, seen=record.version)
        return worker

    def newcomer_is_served(self, record: Rec, ended: int) -> bool:
        """Say whether a worker that comes new has something to do once every lease and every pause is over."""
        key = (record, ended)
        if key not in self._served:
            later = _real(record._replace(leased=False, failing=min(record.failing, 1)), ended)
            _, answer = self.rules.claim(later, Claim(id=MY_CLAIM, seen=None, lease=POLICY.lease), NOW)
            self._served[key] = isinstance(answer, Granted | Changed)
        return self._served[key]

    def _claim(self, record: Rec, ended: int, worker: Worker) -> Move:
        wish = _wish(worker, ended)
        replies = []
        if worker.phase == "again":
            assert wish.remaining is not None, "a worker without a token wants any"
            unwanted = SharedToken(
                version=_version(worker.named) or "", access=b"a0", lifetime=LIFETIME, remaining=wish.remaining - 1
            )
            replies = [Reply(Changed(token=unwanted))]
        asked = self.player.play(wish, *replies)
        assert isinstance(asked.step, Claim)
        before = _real(record, ended)
        after, answer = self.rules.claim(before, evolve(asked.step, id=MY_CLAIM), NOW)
        played = self.player.play(wish, *replies, Reply(answer))
        if isinstance(answer, Granted):
            assert isinstance(played.step, Call)
            number = _number(played.step.refresh)
            granted = worker._replace(phase="granted", named=0, refresh=number, leased=True)
            means = f"refresh token {number}" if number else "the API key"
            return Move(_abstract(after), granted, f"claims, and is to use {means}")
        if after != before:
            raise BrokenError("was granted nothing, and changed the record")
        if isinstance(played.step, Claim):
            assert isinstance(answer, Changed)
            again = worker._replace(phase="again", named=record.version)
            return Move(record, again, f"claims, is told token {record.version} and does not want it")
        return Move(record, _idle(worker, played), f"claims: {type(played.step).__name__}")

    def _end(self, record: Rec, ended: int, worker: Worker, how: str, fresh: int) -> Move:
        wish = _wish(worker, ended)
        granted = Granted(
            refresh=b"r%d" % worker.refresh if worker.refresh else None,
            version=wish.seen,
            remaining=0.0,
            failures=0,
            failing_for=0.0,
        )
        replies = [Reply(granted, LEASE_MARGIN)] if how == DAWDLES else [Reply(granted)]
        if how == CANCELLED:
            replies.append(Reply(Cancelled()))
        elif how in (ARRIVES, ARRIVES_BARE):
            token = AccessToken(f"a{worker.number}", "bearer", LIFETIME, f"r{fresh}" if how == ARRIVES else None)
            replies.append(Reply(token, LIFETIME if worker.number <= ended else 0.0))
        elif how != DAWDLES:
            replies.append(Reply(FAILURES[how]))
        event = self.player.play(wish, *replies).step
        before = _real(record, ended)
        if isinstance(event, Commit):
            event = evolve(event, id=MY_CLAIM, remaining=_remaining(worker.number, ended))
            after, answer = self.rules.commit(before, event, NOW)
        else:
            assert isinstance(event, Release)
            after, answer = self.rules.fail(before, evolve(event, id=MY_CLAIM), NOW)
        if worker.overtaken and after != before:
            raise BrokenError(f"{how}; it no longer holds the claim, and changed the record")
        if not worker.overtaken and not isinstance(answer, Done):
            raise BrokenError(f"{how}; it holds the claim, and its end did not count")
        played = self.player.play(wish, *replies, Reply(answer))
        words = f"{type(event).__name__.lower()} {type(answer).__name__.lower()}, {type(played.step).__name__}"
        return Move(_abstract(after), _idle(worker, played), f"{how}: {words}")


def _idle(worker: Worker, played: Played) -> Worker:
    """Return the worker after its renewal: it has a token or a cause, or claims again."""
    match played.step:
        case Renewed() as renewed:
            number = _number(renewed.access.encode())
            return Worker(token=number, seen=number if renewed.version == played.claim_id else worker.seen)
        case Adopted(token=token):
            number = _number(token.access)
            return Worker(token=number, seen=number)
        case Failed(cooling=Backoff(failure=Failure())) | Backoff(failure=Failure()):
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
        ends_at=NOW + _remaining(record.version, ended) if record.version else 0.0,
        refresh=b"r%d" % record.refresh if record.refresh else None,
        claim_id=_HOLDERS[record.holder],
        claim_until=NOW + POLICY.lease if record.leased else NOW,
        not_before=NOW + 1 if record.failing == 2 else NOW,
        failure=FAILURES[LOST] if record.failing else None,
        failures=1 if record.failing else 0,
        failing_since=NOW,
    )


def _abstract(record: Record) -> Rec:
    return Rec(
        version=_number(record.access),
        refresh=_number(record.refresh),
        holder=_PLACES[record.claim_id],
        leased=record.claim_id is not None and record.claim_until > NOW,
        failing=(2 if record.not_before > NOW else 1) if record.failures else 0,
    )


def _wish(worker: Worker, ended: int) -> RenewalRequest:
    return RenewalRequest(
        seen=_version(worker.seen), remaining=_remaining(worker.token, ended) if worker.token else None
    )


def _remaining(number: int, ended: int) -> float:
    return 10.0 * (number - ended)


def _version(number: int) -> str | None:
    return None if number == 0 else "a-version-of-old" if number == OLD else f"version-{number}"


def _number(name: bytes | None) -> int:
    return 0 if name is None else int(name[1:])
