"""What the emulator remembers of each request: enough to assert on, and no secret."""

from typing import Final, Literal

from attrs import frozen

Outcome = Literal[
    "authenticated",  # an API key was taken, a token given
    "refreshed",  # a refresh token was taken, a token given
    "refused",  # an API key or a refresh token was not taken
    "served",  # a resource answered
    "unauthorized",  # a resource answered 401
    "limited",  # a resource answered 429
    "invalid",  # the request was at fault
    "missing",  # nothing is there
    "preflight",  # a browser asked what it may send
    "faulted",  # a fault came instead of the work
    "abandoned",  # the client left before its request was complete
    "failed",  # the emulator has a defect
]

_KEPT: Final = 100_000
_SEGMENT_LIMIT: Final = 100
_MASK: Final = "***"


@frozen
class Call:
    """One request and what became of it.

    `at` is when it arrived, in seconds of the emulator's monotonic clock. `status` is None if no answer went out.
    `outcome` tells what was done even if the answer was lost or spoiled on its way. `generation` numbers, from 1, the
    tokens that this server has issued: the one that was given, else the one that came, else None. `fault` is the name
    of the fault that was at work, if any. `path` is without the query.
    """

    at: float
    method: str
    path: str
    status: int | None
    outcome: Outcome
    generation: int | None = None
    fault: str | None = None


def record(calls: list[Call], call: Call) -> None:
    """Append a call. The oldest are forgotten where there are very many, so that a server can run for weeks."""
    if len(calls) >= 2 * _KEPT:
        del calls[:_KEPT]
    calls.append(call)


def printable_path(path: str, api_key: str) -> str:
    """Return a path that can be shown, also if a client has put a key or a token into it."""
    return "/".join(
        _MASK if len(segment) > _SEGMENT_LIMIT or api_key in segment else segment for segment in path.split("/")
    )
