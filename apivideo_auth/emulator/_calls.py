"""The record of the requests that an emulator has received. It contains no secret."""

from typing import Final, Literal

from attrs import frozen

Outcome = Literal[
    "authenticated",  # an API key was accepted and a token issued
    "refreshed",  # a refresh token was accepted and a token issued
    "refused",  # an API key or a refresh token was rejected
    "served",  # a resource answered
    "unauthorized",  # a resource answered 401
    "limited",  # a resource answered 429
    "invalid",  # the request was invalid
    "missing",  # the path or the video does not exist
    "preflight",  # a browser's CORS preflight
    "faulted",  # a fault took the place of the work
    "abandoned",  # the client disconnected before its request was complete
    "failed",  # the emulator has a defect
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
    - `outcome`: what the emulator did, also if the response was lost or altered by a fault.
    - `generation`: the number, from 1, of the token that was issued, or else of the token that came with the request;
      None if there was neither.
    - `fault`: the kind of the fault that hit the request, if any.
    """

    at: float
    method: str
    path: str
    status: int | None
    outcome: Outcome
    generation: int | None = None
    fault: str | None = None


def record(calls: list[Call], call: Call) -> None:
    """Append a call, and drop the oldest if there are very many, so that a server can run for weeks."""
    if len(calls) >= 2 * _KEPT:
        del calls[:_KEPT]
    calls.append(call)


def printable_path(path: str, api_key: str) -> str:
    """Return a path without the API key or a token that a client may have put into it."""
    return "/".join(
        _MASK if len(segment) > _MAX_SEGMENT or api_key in segment else segment for segment in path.split("/")
    )
