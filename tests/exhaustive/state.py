"""The states of the exhaustive check: a record, some workers, and what the server has seen.

Tokens are numbers in the order in which they were asked for; a token with a higher number lives longer. Refresh tokens
are numbers of a separate sequence. A state holds no durations: a lease runs or is over, a backoff lasts or is over, and
the tokens up to `ended` have ended. So there is a finite number of states, although renewals go on for ever.
"""

from bisect import bisect_left, bisect_right
from typing import Literal, NamedTuple

OLD = -1
"""A version that no record holds any more, and that cannot come back."""

Reason = Literal["", "401", "401 again"]
"""Why a worker renews. "401": its token was rejected, so the claim is throttled. "401 again": the same after the claim
was granted once, without the throttle. Any other reason is "".
"""


class Worker(NamedTuple):
    """One worker: what its manager knows, and where its renewal is.

    - `token` and `seen`: its token, and the version of the record that it knows; 0 for none. The version of a record is
      the number of its token.
    - `phase`: "idle"; "again", when it claims a second time and names the version `named`; "granted", before it sends;
      "sent"; "answered", when the server has executed the request and the answer is on its way.
    - `reason`: why it renews.
    - `refresh`: the refresh token that it sends, 0 for the API key. `number`: the token that it asks for.
    - `leased`: its lease runs. `overtaken`: another worker has claimed since.
    """

    phase: str = "idle"
    reason: Reason = ""
    token: int = 0
    seen: int = 0
    named: int = 0
    refresh: int = 0
    number: int = 0
    leased: bool = False
    overtaken: bool = False

    @property
    def has_claim(self) -> bool:
        """Return whether it was granted a claim that it has not ended."""
        return self.phase in ("granted", "sent", "answered")


NOBODY, DEAD = -1, -2
"""The holders of a claim that are none of the workers: nobody, or a worker that died."""


class Rec(NamedTuple):
    """The record: `version` is the number of its token, `holder` the place of a worker, `NOBODY` or `DEAD`.

    - `failing`: 0 if the last renewal did not fail, 1 after its backoff, 2 during its backoff.
    - `throttled`: no renewal because of a 401 may be made.
    """

    version: int = 0
    refresh: int = 0
    holder: int = NOBODY
    leased: bool = False
    failing: int = 0
    throttled: bool = False


class State(NamedTuple):
    """A state.

    - `ends`: whether tokens end at all; the tokens up to `ended` have.
    - `used`: the refresh tokens that the server has taken, if anybody still has them.
    """

    record: Rec = Rec()
    workers: tuple[Worker, ...] = ()
    ends: bool = True
    ended: int = 0
    used: frozenset[int] = frozenset()


def anchors(state: State) -> list[int]:
    """Return the numbers of the tokens that the record has or may get, in order; other tokens are compared to them."""
    return sorted({state.record.version, *(worker.number for worker in state.workers)} - {0})


def refresh_tokens(state: State) -> set[int]:
    """Return the numbers of all refresh tokens that anybody has."""
    return {state.record.refresh, *(worker.refresh for worker in state.workers)} - {0}


def with_worker(state: State, place: int, worker: Worker) -> State:
    """Return the state with another worker in this place."""
    return state._replace(workers=(*state.workers[:place], worker, *state.workers[place + 1 :]))


def canonical(state: State) -> State:
    """Return the same state with the lowest numbers, and with the workers in a fixed order.

    Anchors get even numbers. A token that only its worker has is compared to anchors alone, so that only the gap
    between two anchors matters in which it lies. A token that has ended is as good as none.
    """
    fixed = anchors(state)
    rank = {0: 0}
    for number in sorted(refresh_tokens(state)):
        rank[number] = len(rank)

    def token(number: int) -> int:
        below = bisect_left(fixed, number)
        return 2 * below + (2 if number in fixed else 1)

    def own_token(number: int) -> int:
        return token(number) if number > state.ended else 0

    def version(number: int) -> int:
        if number == state.record.version:
            return token(number) if number else 0
        return OLD if number or state.record.version else 0

    workers = [
        worker._replace(
            token=own_token(worker.token),
            seen=version(worker.seen),
            named=version(worker.named) if worker.named else 0,
            refresh=rank[worker.refresh],
            number=token(worker.number) if worker.number else 0,
        )
        for worker in state.workers
    ]
    order = sorted(range(len(workers)), key=lambda place: (workers[place], state.record.holder == place))
    record = state.record
    return State(
        record._replace(
            version=token(record.version) if record.version else 0,
            refresh=rank[record.refresh],
            holder=order.index(record.holder) if record.holder >= 0 else record.holder,
        ),
        tuple([workers[place] for place in order]),
        state.ends,
        2 * bisect_right(fixed, state.ended),
        frozenset([rank[number] for number in state.used if number in rank]),
    )
