"""The states of the exhaustive check: a record, some workers, and what the server has seen.

Tokens are numbers in the order in which they were asked for, and a token of a higher number lives longer. Refresh
tokens are numbers too, of a row of their own. How far away a moment lies is left out of a state: a lease runs or is
over, a pause is kept or has ended, and the tokens up to `ended` have ended. So a state counts nothing, and although
renewals and deaths go on for ever there are only so many states.
"""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

OLD = -1
"""A version that is gone and cannot come back."""


class Worker(NamedTuple):
    """One worker: what its manager knows, and where its renewal is.

    - `token` and `seen`: its token, and the version of the record that it knows; 0 for none. A version is the number of
      the token that came with it.
    - `phase`: "idle"; "again", when it claims for the second time, naming the version `named`; "granted", before it
      sends; "sent"; "answered", when the server has taken the request and the answer is on its way.
    - `refresh` is what it sends, 0 for the API key; `number` the token that it asks for.
    - `leased`: its lease runs. `overtaken`: somebody else has claimed since, or the record has been lost.
    """

    phase: str = "idle"
    token: int = 0
    seen: int = 0
    named: int = 0
    refresh: int = 0
    number: int = 0
    leased: bool = False
    overtaken: bool = False

    @property
    def claims(self) -> bool:
        """Say whether a claim was granted to it that it has not ended."""
        return self.phase in ("granted", "sent", "answered")


NOBODY, GONE = -1, -2
"""Who holds the claim, if none of the workers: nobody, or one that died."""


class Rec(NamedTuple):
    """The record: `version` is the number of its token, `holder` the place of a worker, `NOBODY` or `GONE`.

    `failing`: 0 if the last renewal did not fail, 1 after the pause, 2 during it.
    """

    version: int = 0
    refresh: int = 0
    holder: int = NOBODY
    leased: bool = False
    failing: int = 0


class World(NamedTuple):
    """A state.

    - `ends`: whether tokens end at all; those up to `ended` have.
    - `spent`: the refresh tokens that the server has taken, as far as anybody still has them.
    - `backup`: a record that the store may fall back to; `losses`: how often it still may; `lost`: it did.
    """

    record: Rec = Rec()
    workers: tuple[Worker, ...] = ()
    ends: bool = True
    ended: int = 0
    spent: frozenset[int] = frozenset()
    backup: Rec | None = None
    losses: int = 0
    lost: bool = False


def records(world: World) -> list[Rec]:
    """Return the record, and the one that the store may fall back to."""
    return [world.record] if world.backup is None else [world.record, world.backup]


def anchors(world: World) -> list[int]:
    """Return the numbers of the tokens that a record has or may get, in order: with these others are compared."""
    found = {record.version for record in records(world)} | {worker.number for worker in world.workers}
    return sorted(found - {0})


def refresh_tokens(world: World) -> set[int]:
    """Return the numbers of all refresh tokens that somebody has."""
    found = {record.refresh for record in records(world)} | {worker.refresh for worker in world.workers}
    return found - {0}


def put(world: World, place: int, worker: Worker) -> World:
    """Return the world with another worker in this place."""
    return world._replace(workers=(*world.workers[:place], worker, *world.workers[place + 1 :]))


def canonical(world: World) -> World:
    """Return the same state under the lowest numbers, and with the workers in an order of their own.

    Anchors get even numbers. A token that only its worker has is compared with anchors alone, so that nothing but the
    gap matters in which it lies; below all of them it is as good as none.
    """
    fixed = anchors(world)
    versions = {record.version for record in records(world)}
    rank = {0: 0}
    for number in sorted(refresh_tokens(world)):
        rank[number] = len(rank)

    def token(number: int) -> int:
        below = bisect_left(fixed, number)
        if below < len(fixed) and fixed[below] == number:
            return 2 * below + 2
        return 2 * below + 1 if below else 0

    def version(number: int) -> int:
        if number in versions:
            return token(number)
        return OLD if number or 0 not in versions else 0

    def renumbered(record: Rec) -> Rec:
        holder = order.index(record.holder) if record.holder >= 0 else record.holder
        return Rec(token(record.version), rank[record.refresh], holder, record.leased, record.failing)

    workers = [
        Worker(
            worker.phase,
            token(worker.token) or int(worker.phase == "again"),  # who claims again has a token
            version(worker.seen),
            version(worker.named) if worker.named else 0,
            rank[worker.refresh],
            token(worker.number),
            worker.leased,
            worker.overtaken,
        )
        for worker in world.workers
    ]
    order = sorted(range(len(workers)), key=lambda place: (workers[place], world.record.holder == place))
    return World(
        renumbered(world.record),
        tuple([workers[place] for place in order]),
        world.ends,
        2 * bisect_right(fixed, world.ended),
        frozenset([rank[number] for number in world.spent if number in rank]),
        None if world.backup is None else renumbered(world.backup),
        world.losses,
        world.lost,
    )
