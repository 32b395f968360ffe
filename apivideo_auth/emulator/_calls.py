"""The requests that an emulator has received, without secrets."""

from typing import Final, Literal

from attrs import frozen

CallOutcome = Literal[
    "authenticated",  # an API key was accepted and a token issued
    "refreshed",  # a refresh token was accepted and a token issued
    "rejected",  # an API key or a refresh token was rejected
    "served",  # a resource was served
    "unauthorized",  # a resource responded with 401
    "limited",  # a resource responded with 429
    "invalid",  # the request was invalid
    "missing",  # the path or the video does not exist
    "preflight",  # a browser's CORS preflight
    "faulted",  # a fault was injected instead of doing the work
    "abandoned",  # the client disconnected before its request was complete
    "failed",  # a defect of the emulator
]

_KEPT: Final = 100_000
_MAX_SEGMENT: Final = 100
_MASK: Final = "***"


@frozen
class Call:
    """One request and its outcome.

    - `at`: when the request arrived, in seconds of `Emulator.clock.monotonic()`.
    - `path`: the path without the query. Segments that may be secrets are masked.
    - `status`: the status of the response, None if none was sent.
    - `outcome`: what the emulator did, even if a fault altered the response or lost it.
    - `generation`: the number, from 1, of the token that was issued, else of the token in the request, else None.
    - `fault`: the kind of the fault that hit the request, if any.
    """

    at: float
    method: str
    path: str
    status: int | None
    outcome: CallOutcome
    generation: int | None = None
    fault: str | None = None


def record(calls: list[Call], call: Call) -> None:
    """Append a call, and drop the oldest if there are very many, so that a server can run for weeks."""
    if len(calls) >= 2 * _KEPT:
        del calls[:_KEPT]
    calls.append(call)


def printable_path(path: str, api_key: str) -> str:
    """Return a path in which segments that may be the API key or a token are masked."""
    if len(path) <= _MAX_SEGMENT and api_key not in path:
        return path
    return "/".join(
        _MASK if len(segment) > _MAX_SEGMENT or api_key in segment else segment for segment in path.split("/")
    )
