"""Every step that may come next, and the promises that hold in every state.

A worker renews at any time and for any reason. Because of a 401 it renews only while it has a usable token.
"""

from collections.abc import Iterator

from tests.exhaustive.moves import (
    ARRIVES,
    ARRIVES_WITHOUT_REFRESH,
    CANCELLED,
    DELAYED,
    FAILURES,
    LOST,
    ME,
    OTHER,
    BrokenError,
    Moves,
)
from tests.exhaustive.state import DEAD, Reason, Rec, State, Worker, anchors, refresh_tokens, with_worker

NAMES = "ABCDEFG"


def steps(state: State, moves: Moves) -> Iterator[tuple[str, State]]:
    """Yield every step that may come next, with its name; raise `BrokenError` if a step breaks a promise."""
    yield from _time_passes(state)
    seen = set()
    for place, worker in enumerate(state.workers):
        if (like := (worker, state.record.holder == place)) in seen:
            continue  # an equal worker has the same steps
        seen.add(like)
        name = NAMES[place]
        if worker != Worker():
            yield f"{name} dies and comes back", _without_claim(with_worker(state, place, Worker()), place)
        try:
            for words, after in _steps_of(state, place, worker, moves):
                yield f"{name} {words}", after
        except BrokenError as broken:
            raise BrokenError(f"{name} {broken}") from None


def _time_passes(state: State) -> Iterator[tuple[str, State]]:
    record = state.record
    if record.holder == DEAD and record.leased:
        yield "the lease of a dead worker is over", state._replace(record=record._replace(leased=False))
    for place, worker in enumerate(state.workers):
        if worker.leased:
            after = with_worker(state, place, worker._replace(leased=False))
            if record.holder == place:
                after = after._replace(record=record._replace(leased=False))
            yield f"the lease of {NAMES[place]} is over", after
    if record.failing == 2:
        yield "the backoff is over", state._replace(record=record._replace(failing=1))
    if record.throttled:
        yield "the throttle is over", state._replace(record=record._replace(throttled=False))
    alive = [number for number in anchors(state) if number > state.ended]
    if alive and state.ends:
        yield f"token {min(alive)} ends", state._replace(ended=min(alive))


def _steps_of(state: State, place: int, worker: Worker, moves: Moves) -> Iterator[tuple[str, State]]:
    record = _as_seen_by(place, state.record)
    if worker.phase in ("idle", "again"):
        yield from _claims(state, place, moves)
        return
    hows = [CANCELLED]
    if worker.phase == "granted":
        hows += [DELAYED]
        if worker.leased:
            number = max(state.ended, *anchors(state), *(other.token for other in state.workers)) + 1
            sent = worker._replace(phase="sent", number=number)
            yield f"sends, to get token {number}", with_worker(state, place, sent)
    elif worker.phase == "sent":
        hows += FAILURES
        yield from _server_executes(state, place)
    else:
        hows += [ARRIVES, ARRIVES_WITHOUT_REFRESH, LOST]
    fresh = max(refresh_tokens(state) | state.used, default=0) + 1
    for how in hows:
        move = moves.end(record, state.ended, worker, how, fresh)
        after = with_worker(state, place, move.worker)._replace(
            record=_as_seen_by_all(place, move.record, record, state)
        )
        yield move.words, _without_claim(after, place)


def _claims(state: State, place: int, moves: Moves) -> Iterator[tuple[str, State]]:
    worker = state.workers[place]
    record = _as_seen_by(place, state.record)
    reasons: tuple[Reason, ...] = (worker.reason,)
    if worker.phase == "idle":
        looked = moves.look(record, state.ended, worker)
        if looked != worker:
            yield f"is told of token {record.version}, and adopts it", with_worker(state, place, looked)
        reasons = ("", "401", "401 again") if worker.token > state.ended else ("",)
    for reason in reasons:
        move = moves.claim(record, state.ended, worker._replace(reason=reason))
        after = with_worker(state, place, move.worker)
        if move.worker.phase == "granted":
            overtaken = tuple(
                other._replace(overtaken=other.has_claim and at != place) for at, other in enumerate(after.workers)
            )
            after = after._replace(workers=overtaken, record=_as_seen_by_all(place, move.record, record, state))
        if after != state:
            yield move.words, after


def _server_executes(state: State, place: int) -> Iterator[tuple[str, State]]:
    worker = state.workers[place]
    executed = with_worker(state, place, worker._replace(phase="answered"))
    if not worker.refresh:
        yield "reaches the server", executed
    elif worker.refresh not in state.used:
        words = f"reaches the server with refresh token {worker.refresh}"
        yield words, executed._replace(used=state.used | {worker.refresh})
    else:
        raise BrokenError(f"uses refresh token {worker.refresh}, which the server has taken before")


def _as_seen_by(place: int, record: Rec) -> Rec:
    """Return the record as a move needs it: held by me, by another worker, or by nobody."""
    if record.holder < 0:
        return record
    return record._replace(holder=ME if record.holder == place else OTHER)


def _as_seen_by_all(place: int, after: Rec, before: Rec, state: State) -> Rec:
    """Return the record after the move of a worker, with the holder's place."""
    if after == before:
        return state.record
    if after.holder < 0:
        return after
    return after._replace(holder=place if after.holder == ME else state.record.holder)


def _without_claim(state: State, place: int) -> State:
    """Return the state in which this worker's claim, if the record still carries it, belongs to a dead worker."""
    if state.record.holder == place:
        return state._replace(record=state.record._replace(holder=DEAD))
    return state


def check(state: State, moves: Moves) -> None:
    """Raise `BrokenError` if a state must not occur."""
    record = state.record
    if not moves.newcomer_is_served(_as_seen_by(0, record), state.ended):
        raise BrokenError("nobody would ever be granted a renewal again")
    leases = sum(worker.leased for worker in state.workers) + (record.holder == DEAD and record.leased)
    if leases > 1:
        raise BrokenError("two claims are live")
    unsent = [worker.refresh for worker in state.workers if worker.phase in ("granted", "sent")]
    # While a claim stands the refresh token in the record is reserved for the holder, who may have sent it.
    if record.holder == -1:
        if record.refresh in state.used:
            raise BrokenError(f"the record has refresh token {record.refresh}, which the server has taken")
        unsent.append(record.refresh)
    known = [number for number in unsent if number]
    if len(known) != len(set(known)):
        raise BrokenError(f"refresh token {max(known, key=known.count)} is in two places")
