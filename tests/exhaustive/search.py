"""Breadth-first search: the first broken invariant that is found is the one with the shortest way there."""

from collections import deque
from typing import Any, NamedTuple

from tests.exhaustive.model import BrokenError, World, canonical, check, normal, start, steps


class Visited(NamedTuple):
    """How much was visited."""

    states: int
    steps: int
    depth: int


def explore(*, workers: int = 3, renewals: int = 2, deaths: int = 1) -> Visited:
    """Visit every state; raise `AssertionError` with the shortest way to one that breaks an invariant.

    The space is bounded by the tokens that the server issues and by how many workers die; within these bounds every
    interleaving is visited.
    """
    first = start(workers)
    came_by: dict[tuple[Any, ...], tuple[tuple[Any, ...] | None, str]] = {canonical(first): (None, "")}
    queue: deque[tuple[World, tuple[Any, ...], int]] = deque([(first, canonical(first), 0)])
    taken = deepest = 0
    while queue:
        world, key, depth = queue.popleft()
        deepest = max(deepest, depth)
        at = key
        try:
            for name, after in steps(world, renewals=renewals, deaths=deaths):
                taken += 1
                reached = canonical(after)
                if reached not in came_by:
                    came_by[reached] = (key, name)
                    at = reached
                    check(after)
                    at = key
                    queue.append((normal(after), reached, depth + 1))
        except BrokenError as broken:
            raise AssertionError(_story(came_by, at, str(broken))) from None
    return Visited(len(came_by), taken, deepest)


def _story(came_by: dict[tuple[Any, ...], tuple[tuple[Any, ...] | None, str]], key: tuple[Any, ...], why: str) -> str:
    way: list[str] = []
    at: tuple[Any, ...] | None = key
    while at is not None:
        at, name = came_by[at]
        way.insert(0, name)
    return f"{why}, by the shortest way:\n" + "\n".join(f"  {number}. {name}" for number, name in enumerate(way[1:], 1))
