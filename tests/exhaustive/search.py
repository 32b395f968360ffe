"""Breadth-first search: the first broken promise that is found is the one with the shortest way there."""

from collections import deque
from typing import NamedTuple

from tests.exhaustive.moves import BrokenError, Moves, Rules
from tests.exhaustive.player import Player
from tests.exhaustive.steps import check, steps
from tests.exhaustive.world import Worker, World, canonical


class Visited(NamedTuple):
    """How much was visited."""

    states: int
    steps: int
    depth: int


def explore(*, workers: int = 3, ends: bool = True, losses: int = 0, rules: Rules | None = None) -> Visited:
    """Visit every state there is; raise `AssertionError` with the shortest way to one that breaks a promise.

    Nothing else is bounded: workers renew, fail, stall, die and come back for ever, in every order. Without `ends` no
    token ever ends, which leaves out answers that arrive too late, and a twentieth of the states is left. The store
    falls back to an earlier record of its own up to `losses` times.
    """
    with Player() as player:
        moves = Moves(rules or Rules(), player)
        first = canonical(World(workers=(Worker(),) * workers, ends=ends, losses=losses))
        came_from: dict[World, World | None] = {first: None}
        queue, taken, depth = deque([(first, 0)]), 0, 0
        while queue:
            world, depth = queue.popleft()
            try:
                check(world, moves)
                for after in dict.fromkeys(after for _, after in steps(world, moves)):
                    taken += 1
                    reached = canonical(after)
                    if reached not in came_from:
                        came_from[reached] = world
                        queue.append((reached, depth + 1))
            except BrokenError:
                raise AssertionError(_story(world, came_from, moves)) from None
        return Visited(len(came_from), taken, depth)


def _story(last: World, came_from: dict[World, World | None], moves: Moves) -> str:
    """Tell the way to a state and what breaks there. Workers and tokens keep their names on the way."""
    way: list[World] = []
    at: World | None = last
    while at is not None:
        way.insert(0, at)
        at = came_from[at]
    world, lines = way[0], ["the shortest way to a broken promise:"]
    for number, towards in enumerate(way[1:], 1):
        words, world = next(found for found in steps(world, moves) if canonical(found[1]) == towards)
        lines.append(f"  {number}. {words}")
    try:
        check(world, moves)
        for _ in steps(world, moves):
            pass
    except BrokenError as broken:
        lines.append(f"  then {broken}")
    return "\n".join(lines)
