"""A breadth-first search: the first broken promise that it finds has the shortest way there."""

from collections import deque
from typing import NamedTuple

from tests.exhaustive.moves import BrokenError, Moves, Transitions
from tests.exhaustive.state import State, Worker, canonical
from tests.exhaustive.steps import check, steps


class Visited(NamedTuple):
    """What was visited."""

    states: int
    steps: int
    depth: int


def explore(*, workers: int = 3, ends: bool = True, transitions: Transitions | None = None) -> Visited:
    """Visit every state; raise `AssertionError` with the shortest way to a state that breaks a promise.

    Nothing else is bounded: workers renew, fail, stall, die and come back for ever, in every order. Without `ends` no
    token ever ends, which leaves out answers that arrive too late, and a small part of the states remains.
    """
    moves = Moves(transitions or Transitions())
    first = canonical(State(workers=(Worker(),) * workers, ends=ends))
    came_from: dict[State, State | None] = {first: None}
    queue, taken, depth = deque([(first, 0)]), 0, 0
    while queue:
        state, depth = queue.popleft()
        try:
            check(state, moves)
            for after in dict.fromkeys(after for _, after in steps(state, moves)):
                taken += 1
                reached = canonical(after)
                if reached not in came_from:
                    came_from[reached] = state
                    queue.append((reached, depth + 1))
        except BrokenError:
            raise AssertionError(_story(state, came_from, moves)) from None
    return Visited(len(came_from), taken, depth)


def _story(last: State, came_from: dict[State, State | None], moves: Moves) -> str:
    """Describe the way to a state and what breaks there. Workers and tokens keep their names on the way."""
    way: list[State] = []
    at: State | None = last
    while at is not None:
        way.insert(0, at)
        at = came_from[at]
    state, lines = way[0], ["the shortest way to a broken promise:"]
    for number, towards in enumerate(way[1:], 1):
        words, state = next(found for found in steps(state, moves) if canonical(found[1]) == towards)
        lines.append(f"  {number}. {words}")
    try:
        check(state, moves)
        for _ in steps(state, moves):
            pass
    except BrokenError as broken:
        lines.append(f"  then {broken}")
    return "\n".join(lines)
