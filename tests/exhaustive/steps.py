"""Every step that may come next, and the promises that hold after each.

A worker renews whenever it likes, for whatever reason; what is left out are 401s, whose throttle changes only who may
renew when, and which the table of cases holds.
"""

from collections.abc import Iterator

from tests.exhaustive.moves import (
    ARRIVES,
    ARRIVES_BARE,
    CANCELLED,
    DAWDLES,
    FAILURES,
    LOST,
    ME,
    OTHER,
    BrokenError,
    Moves,
)
from tests.exhaustive.world import GONE, Rec, Worker, World, anchors, put, records, refresh_tokens

NAMES = "ABCDEFG"


def steps(world: World, moves: Moves) -> Iterator[tuple[str, World]]:
    """Yield every step that may come next, with its name; raise `BrokenError` where one breaks a promise."""
    yield from _time_passes(world)
    if world.losses:
        yield from _store_loses(world)
    seen = set()
    for place, worker in enumerate(world.workers):
        if (like := (worker, *(record.holder == place for record in records(world)))) in seen:
            continue  # what it may do, another may as well
        seen.add(like)
        name = NAMES[place]
        if worker != Worker():
            yield f"{name} dies and comes back", _left(put(world, place, Worker()), place)
        try:
            for words, after in _moves_of(world, place, worker, moves):
                yield f"{name} {words}", after
        except BrokenError as broken:
            raise BrokenError(f"{name} {broken}") from None


def _time_passes(world: World) -> Iterator[tuple[str, World]]:
    record = world.record
    if record.holder == GONE and record.leased:
        yield "the lease of one that died is over", world._replace(record=record._replace(leased=False))
    for place, worker in enumerate(world.workers):
        if worker.leased:
            after = put(world, place, worker._replace(leased=False))
            if record.holder == place:
                after = after._replace(record=record._replace(leased=False))
            if world.backup is not None and world.backup.holder == place:
                after = after._replace(backup=world.backup._replace(leased=False))
            yield f"the lease of {NAMES[place]} is over", after
    if record.failing == 2:
        yield "the pause has ended", world._replace(record=record._replace(failing=1))
    alive = [number for number in anchors(world) if number > world.ended]
    if alive and world.ends:
        yield f"token {min(alive)} ends", world._replace(ended=min(alive))


def _store_loses(world: World) -> Iterator[tuple[str, World]]:
    if world.backup != world.record:
        yield "the store copies its record", world._replace(backup=world.record)
    if world.backup is not None:
        workers = tuple(
            worker._replace(overtaken=worker.claims and world.backup.holder != place)
            for place, worker in enumerate(world.workers)
        )
        fallen = world._replace(record=world.backup, workers=workers, backup=None, losses=world.losses - 1, lost=True)
        yield "the store falls back to its copy", fallen


def _moves_of(world: World, place: int, worker: Worker, moves: Moves) -> Iterator[tuple[str, World]]:
    record = _seen_by(place, world.record)
    if worker.phase in ("idle", "again"):
        yield from _claims(world, place, moves)
        return
    hows = [CANCELLED]
    if worker.phase == "granted":
        hows += [DAWDLES]
        if worker.leased:
            number = max(world.ended, *anchors(world), *(other.token for other in world.workers)) + 1
            yield f"sends, to get token {number}", put(world, place, worker._replace(phase="sent", number=number))
    elif worker.phase == "sent":
        hows += FAILURES
        yield from _server_takes(world, place)
    else:
        hows += [ARRIVES, ARRIVES_BARE, LOST]
    fresh = max(refresh_tokens(world) | world.spent, default=0) + 1
    for how in hows:
        move = moves.end(record, world.ended, worker, how, fresh)
        after = put(world, place, move.worker)._replace(record=_seen_by_all(place, move.record, world.record))
        yield move.words, _left(after, place)


def _claims(world: World, place: int, moves: Moves) -> Iterator[tuple[str, World]]:
    worker = world.workers[place]
    record = _seen_by(place, world.record)
    if worker.phase == "idle":
        looked = moves.look(record, world.ended, worker)
        if looked != worker:
            yield f"is told of token {record.version} and adopts it", put(world, place, looked)
    move = moves.claim(record, world.ended, worker)
    after = put(world, place, move.worker)
    if move.worker.phase == "granted":
        if move.worker.refresh in world.spent and worker.token > record.version:
            raise BrokenError(
                f"has token {worker.token}, the record has token {record.version}, and its refresh token "
                f"{move.worker.refresh}, which the server has taken, is to be used"
            )
        overtaken = tuple(
            other._replace(overtaken=other.claims and at != place) for at, other in enumerate(after.workers)
        )
        after = after._replace(workers=overtaken, record=_seen_by_all(place, move.record, world.record))
    if after != world:
        yield move.words, after


def _server_takes(world: World, place: int) -> Iterator[tuple[str, World]]:
    worker = world.workers[place]
    taken = put(world, place, worker._replace(phase="answered"))
    if not worker.refresh:
        yield "reaches the server", taken
    elif worker.refresh not in world.spent:
        yield (
            f"reaches the server with refresh token {worker.refresh}",
            taken._replace(spent=world.spent | {worker.refresh}),
        )
    elif not world.lost:
        raise BrokenError(f"uses refresh token {worker.refresh}, which the server has taken before")


def _seen_by(place: int, record: Rec) -> Rec:
    """Return the record as a move wants it: held by me, by somebody else, or by nobody."""
    if record.holder < 0:
        return record
    return record._replace(holder=ME if record.holder == place else OTHER)


def _seen_by_all(place: int, after: Rec, before: Rec) -> Rec:
    """Return the record after the move of a worker, with the place of the holder."""
    if after.holder < 0:
        return after
    return after._replace(holder=place if after.holder == ME else before.holder)


def _left(world: World, place: int) -> World:
    """Return the world where the claim of this worker, if a record still carries it, is that of nobody who lives."""
    if world.record.holder == place:
        world = world._replace(record=world.record._replace(holder=GONE))
    if world.backup is not None and world.backup.holder == place:
        world = world._replace(backup=world.backup._replace(holder=GONE))
    return world


def check(world: World, moves: Moves) -> None:
    """Raise `BrokenError` if the state is one that must not be."""
    record = world.record
    if not moves.newcomer_is_served(_seen_by(0, record), world.ended):
        raise BrokenError("nobody would ever be granted a renewal again")
    if world.lost:
        return
    leases = sum(worker.leased for worker in world.workers) + (record.holder == GONE and record.leased)
    if leases > 1:
        raise BrokenError("two claims are live")
    if record.refresh in world.spent:
        raise BrokenError(f"the record has refresh token {record.refresh}, which the server has taken")
    unsent = [worker.refresh for worker in world.workers if worker.phase in ("granted", "sent")] + [record.refresh]
    known = [number for number in unsent if number]
    if len(known) != len(set(known)):
        raise BrokenError(f"refresh token {max(known, key=known.count)} is in two places")
