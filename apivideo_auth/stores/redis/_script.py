"""The script that Redis runs: what goes into it, and what is believed of its answers."""

import hashlib
import math
from importlib.resources import files
from typing import Final, TypeAlias

from attrs import frozen

from apivideo_auth import _policy
from apivideo_auth._record import (
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimAnswer,
    ClaimLost,
    Commit,
    Done,
    EndAnswer,
    Granted,
    Release,
    SharedToken,
    Throttled,
)
from apivideo_auth._secrets import Secret, SecretBytes
from apivideo_auth.stores._json import MAX_COUNT, failure_from_json, failure_to_json

KEPT: Final = 8 * 86_400.0
"""Seconds that Redis keeps a record after its last change: a week after the longest-lived token has ended."""

BROKEN: Final = b"broken"
"""The stamp of a record that cannot be read."""

Arguments: TypeAlias = tuple[bytes, ...]
"""The operation, and what it needs."""


def _script() -> str:
    numbers = {
        name: getattr(_policy, name)
        for name in (
            "MAX_LIFETIME",
            "MAX_LEASE",
            "MAX_BACKOFF",
            "INITIAL_THROTTLE",
            "MAX_THROTTLE",
            "CLOCK_TOLERANCE",
            "REJECTION_RESET_AFTER",
            "MIN_REJECTION_AGE",
        )
    }
    constants = [f"local {name} = {value!r}\n" for name, value in numbers.items()]
    constants.append(f"local KEPT_MS = '{KEPT * 1000:.0f}'\n")
    return "".join(constants) + files(__package__ or "").joinpath("_record.lua").read_text("utf-8")


SCRIPT: Final = _script()
SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""By which Redis knows the script once it has run it."""


class UnreadableError(Exception):
    """An answer that the script does not give."""


READ: Final[Arguments] = (b"read",)
LOOK: Final[Arguments] = (b"look",)
FORGET: Final[Arguments] = (b"forget",)


def claim_arguments(event: Claim) -> Arguments:
    """Return what the script needs for a claim."""
    seen = _marked(None if event.seen is None else event.seen.encode())
    return b"claim", event.id.encode(), seen, exact(event.lease), b"1" if event.rejected else b"0"


def commit_arguments(event: Commit) -> Arguments:
    """Return what the script needs for a commit."""
    refresh = _marked(event.refresh)
    return b"commit", event.id.encode(), event.access, refresh, exact(event.lifetime), exact(event.remaining)


def release_arguments(event: Release) -> Arguments:
    """Return what the script needs for a fail."""
    failure = _marked(None if event.failure is None else failure_to_json(event.failure).encode())
    return b"release", event.id.encode(), exact(event.backoff), failure, _marked(event.refresh)


def exact(number: float) -> bytes:
    """Return a number so that none of its digits is lost."""
    return repr(float(number)).encode()


@frozen(repr=False)
class Answer:
    """What the script said: a word, the stamp of the record, and what belongs to the word. Shows nothing of it."""

    word: bytes
    stamp: bytes
    items: tuple[SecretBytes, ...]


# What follows raises `UnreadableError` for anything that the script does not say, and `TokenStoreError` for a stored
# failure that is none.


def answer_of(answer: object) -> Answer:
    """Return an answer of whatever sort."""
    if not isinstance(answer, list):
        raise UnreadableError
    parts: list[SecretBytes] = []
    for part in answer:  # pyright: ignore[reportUnknownVariableType]  looked at right here
        if not isinstance(part, bytes):
            raise UnreadableError
        parts.append(SecretBytes(part))
    if len(parts) < 2:  # noqa: PLR2004  the word and the stamp
        raise UnreadableError
    return Answer(bytes(parts[0]), bytes(parts[1]), tuple(parts[2:]))


def read_answer(answer: Answer) -> SharedToken | None:
    """Return the answer to a read."""
    if answer.word == b"none" and not answer.items:
        return None
    if answer.word != b"token":
        raise UnreadableError
    return _token(answer.items)


def claim_answer(answer: Answer) -> ClaimAnswer:
    """Return the answer to a claim."""
    match answer.word, answer.items:
        case b"granted", (refresh, version, remaining, failures, failing_for):
            known = _unmarked(version)
            return Granted(
                refresh=_unmarked(refresh),
                version=None if known is None else _name(known),
                remaining=_number(remaining),
                failures=_count(failures),
                failing_for=_number(failing_for),
            )
        case b"changed", items:
            return Changed(token=_token(items))
        case b"busy", (wait,):
            return Busy(retry_after=_number(wait))
        case b"backoff", (wait, failure, failures, failing_for):
            return Backoff(
                retry_after=_number(wait),
                failure=failure_from_json(Secret(failure.decode("utf-8", "replace"))),
                failures=_count(failures),
                failing_for=_number(failing_for),
            )
        case b"throttled", (wait,):
            return Throttled(retry_after=_number(wait))
        case _:
            raise UnreadableError


def end_answer(answer: Answer) -> EndAnswer:
    """Return the answer to a commit or a fail."""
    match answer.word, answer.items:
        case b"done", ():
            return Done()
        case b"claim_lost", ():
            return ClaimLost(token=None)
        case b"claim_lost", items:
            return ClaimLost(token=_token(items))
        case _:
            raise UnreadableError


def _token(items: tuple[SecretBytes, ...]) -> SharedToken:
    match items:
        case (version, access, lifetime, remaining):
            return SharedToken(
                version=_name(version), access=access, lifetime=_number(lifetime), remaining=_number(remaining)
            )
        case _:
            raise UnreadableError


def _marked(value: bytes | None) -> SecretBytes:
    """Tell none from empty, as the script does."""
    return SecretBytes(b"" if value is None else b"=" + value)


def _unmarked(value: bytes) -> SecretBytes | None:
    if not value:
        return None
    if not value.startswith(b"="):
        raise UnreadableError
    return SecretBytes(value[1:])


def _number(value: bytes) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UnreadableError
    return number


def _count(value: bytes) -> int:
    number = _number(value)
    if not (0 <= number <= MAX_COUNT and number.is_integer()):
        raise UnreadableError
    return int(number)


def _name(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise UnreadableError from None
