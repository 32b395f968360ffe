"""The world of the exhaustive check: a record, three workers, and a server that takes each refresh token once.

Time is abstract. It stands still, a token of a later number lives longer, and that a lease is over or a pause has ended
is a step of its own that may come at any moment. What workers do between two steps is what `_renewal` does; the
transitions of the record, and what a worker welcomes, are the package's own code.
"""

from collections.abc import Iterator
from itertools import permutations
from typing import Any, NamedTuple

from attrs import evolve

from apivideo_auth import _record
from apivideo_auth._errors import Failure
from apivideo_auth._record import Changed, Claim, Commit, Dropped, Fail, Granted, Record, SharedToken
from apivideo_auth._renewal import Wish

NOW = 1000.0
LEASE = 15.0
OUTAGE = Failure(kind="connection", message="made-up outage")


class BrokenError(Exception):
    """An invariant does not hold."""


class Worker(NamedTuple):
    """One worker.

    `phase`: "idle", "again" (its claim was answered by a token that it does not want, whose version is `named`),
    "claimed" (may send), "answered", "dead". `own` is the number of its token, 0 for none, and `seen` the version that
    it knows. `refresh` is what it is about to use, or has just used; `answer` what came of the call.
    """

    phase: str = "idle"
    own: int = 0
    seen: str | None = None
    named: str | None = None
    claim: str | None = None
    refresh: int = 0
    answer: str = ""
    number: int = 0


class World(NamedTuple):
    """A state: the record, the workers, how many tokens were issued, and the refresh tokens that are used up."""

    record: Record
    workers: tuple[Worker, ...]
    issued: int
    used: frozenset[int]
    deaths: int


def start(workers: int) -> World:
    """Return the first state."""
    return World(_record.EMPTY, (Worker(),) * workers, 0, frozenset(), 0)


def steps(world: World, *, renewals: int, deaths: int) -> Iterator[tuple[str, World]]:
    """Yield every step that may come next, with its name; raise `BrokenError` where one breaks an invariant."""
    record = world.record
    if record.claim_id is not None and record.claim_until > NOW:
        yield "the lease is over", world._replace(record=evolve(record, claim_until=NOW - 1))
    if record.not_before > NOW:
        yield "the pause has ended", world._replace(record=evolve(record, not_before=0.0))
    for place, worker in enumerate(world.workers):
        name = "ABCDEFG"[place]
        if worker.phase == "dead":
            yield f"{name} comes back", _with(world, place, Worker())
            continue
        if world.deaths < deaths:
            yield f"{name} dies", _with(world, place, Worker(phase="dead"))._replace(deaths=world.deaths + 1)
        if worker.phase in ("idle", "again") and world.issued < renewals:
            yield from _claim(world, place, name)
        elif worker.phase == "claimed":
            yield from _send(world, place, name)
        elif worker.phase == "answered":
            yield _finish(world, place, name)


def _with(world: World, place: int, worker: Worker) -> World:
    return world._replace(workers=(*world.workers[:place], worker, *world.workers[place + 1 :]))


def _wish(worker: Worker) -> Wish:
    return Wish(seen=worker.seen, remaining=_life(worker.own) if worker.own else None)


def _life(number: int) -> float:
    return 100.0 + number


def _adopted(worker: Worker, token: SharedToken) -> Worker:
    return Worker(own=int(token.access), seen=token.version)


def _claim(world: World, place: int, name: str) -> Iterator[tuple[str, World]]:
    worker = world.workers[place]
    claim_id = f"new-{place}"
    seen = worker.named if worker.phase == "again" else worker.seen
    record, answer = _record.claim(world.record, Claim(id=claim_id, seen=seen, lease=LEASE), NOW)
    world = world._replace(record=record)
    if isinstance(answer, Changed):
        if _wish(worker).welcomes(answer.token):
            yield (
                f"{name} claims and adopts token {int(answer.token.access)}",
                _with(world, place, _adopted(worker, answer.token)),
            )
        else:
            again = worker._replace(phase="again", named=answer.token.version)
            yield f"{name} claims and does not want token {int(answer.token.access)}", _with(world, place, again)
    elif isinstance(answer, Granted):
        refresh = 0 if answer.refresh is None or _wish(worker).outlives(answer) else int(answer.refresh)
        claimed = worker._replace(phase="claimed", named=None, claim=claim_id, refresh=refresh)
        yield (
            f"{name} claims, with {f'refresh token {refresh}' if refresh else 'the API key'}",
            _with(world, place, claimed),
        )
    elif worker.phase == "again":
        yield f"{name} claims in vain", _with(world, place, worker._replace(phase="idle", named=None))


def _send(world: World, place: int, name: str) -> Iterator[tuple[str, World]]:
    """Yield what may come of a call: a stalled worker may send late, and too late."""
    worker = world.workers[place]
    what = f"refresh token {worker.refresh}" if worker.refresh else "the API key"
    if worker.refresh and worker.refresh in world.used:
        raise BrokenError(f"{name} sends refresh token {worker.refresh}, which the server has taken before")
    used = world.used | {worker.refresh} if worker.refresh else world.used
    number = world.issued + 1
    processed = world._replace(issued=number, used=used)
    yield (
        f"{name} sends {what}: token {number}",
        _with(processed, place, worker._replace(phase="answered", answer="token", number=number)),
    )
    yield (
        f"{name} sends {what}: token {number}, and the answer is lost",
        _with(processed, place, worker._replace(phase="answered", answer="lost")),
    )
    yield f"{name} cannot connect", _with(world, place, worker._replace(phase="answered", answer="unsent"))
    refused = world._replace(used=used)
    yield f"{name} sends {what}: refused", _with(refused, place, worker._replace(phase="answered", answer="refused"))
    # Held up between claim and call: the holder gives the claim up unsent.
    yield f"{name} is too late to send", _with(world, place, worker._replace(phase="answered", answer="late"))


def _finish(world: World, place: int, name: str) -> tuple[str, World]:
    worker, before = world.workers[place], world.record
    assert worker.claim is not None
    holds = before.claim_id == worker.claim
    if worker.answer == "token":
        event: Commit | Fail = Commit(
            id=worker.claim,
            access=b"%d" % worker.number,
            refresh=b"%d" % worker.number,
            lifetime=3600.0,
            remaining=_life(worker.number),
        )
        record, ended = _record.commit(before, event, NOW)
    else:
        back = b"%d" % worker.refresh if worker.refresh and worker.answer in ("unsent", "late") else None
        counts = worker.answer in ("lost", "unsent") or (worker.answer == "refused" and not worker.refresh)
        event = Fail(id=worker.claim, pause=5.0 if counts else 0.0, failure=OUTAGE if counts else None, refresh=back)
        record, ended = _record.fail(before, event, NOW)
    if not holds and record != before:
        raise BrokenError(f"{name} no longer holds the claim, and its end changed the record")
    if record.access is not None and before.access is not None and int(record.access) < int(before.access):
        raise BrokenError(f"{name} put token {int(record.access)} in place of token {int(before.access)}")
    after = Worker(own=worker.own, seen=worker.seen)
    if isinstance(ended, Dropped):
        if worker.answer == "token":
            after = after._replace(own=worker.number)
        if ended.token is not None and _wish(worker).welcomes(ended.token):
            after = _adopted(worker, ended.token)
    elif worker.answer == "token":
        after = Worker(own=worker.number, seen=worker.claim)
    outcome = "dropped" if isinstance(ended, Dropped) else "done"
    return f"{name} ends its claim ({worker.answer}): {outcome}", _with(world._replace(record=record), place, after)


def check(world: World) -> None:
    """Raise `BrokenError` if the state is one that must not be."""
    record = world.record
    holders = [worker for worker in world.workers if worker.claim is not None and worker.claim == record.claim_id]
    if len(holders) > 1:
        raise BrokenError("two workers hold the claim")
    about_to_use = [worker.refresh for worker in world.workers if worker.phase == "claimed" and worker.refresh]
    in_record = [] if record.refresh is None else [int(record.refresh)]
    everywhere = about_to_use + in_record
    if len(everywhere) != len(set(everywhere)):
        raise BrokenError(f"refresh token {max(everywhere, key=everywhere.count)} is in two places")
    if any(number in world.used for number in in_record):
        raise BrokenError(f"the record has refresh token {in_record[0]}, which the server has taken")


def canonical(world: World) -> tuple[Any, ...]:
    """Return the state up to the names of claims and the order of workers, without what only counts."""
    return min(
        (
            _renamed(world, [world.workers[place] for place in order])
            for order in permutations(range(len(world.workers)))
        ),
        key=repr,
    )


def _renamed(world: World, workers: list[Worker]) -> tuple[Any, ...]:
    names: dict[str | None, int] = {None: 0}

    def short(name: str | None) -> int:
        return names.setdefault(name, len(names))

    record = world.record
    return (
        short(record.version),
        short(record.claim_id),
        record.claim_until > NOW,
        record.not_before > NOW,
        record.access,
        record.refresh,
        tuple(
            (w.phase, w.own, short(w.seen), short(w.named), short(w.claim), w.refresh, w.answer, w.number)
            for w in workers
        ),
        world.issued,
        tuple(sorted(world.used)),
        world.deaths,
    )


def normal(world: World) -> World:
    """Return the state with unique claim names and without counters that grow for ever."""
    names: dict[str, str] = {}

    def short(name: str | None) -> str | None:
        return None if name is None else names.setdefault(name, f"c{len(names)}")

    record = evolve(
        world.record,
        version=short(world.record.version),
        claim_id=short(world.record.claim_id),
        failures=min(world.record.failures, 1),
    )
    workers = tuple(w._replace(seen=short(w.seen), named=short(w.named), claim=short(w.claim)) for w in world.workers)
    return world._replace(record=record, workers=workers)
