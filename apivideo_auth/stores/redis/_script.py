"""The script that Redis runs: its arguments, and the strict parsing of its answers."""

import hashlib
import math
from functools import cache
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

KEPT_FOR: Final = 8 * 86_400.0
"""Seconds that Redis keeps a record after its last change: a week after the longest-lived token has expired."""

Arguments: TypeAlias = tuple[bytes, ...]
"""An operation of the script, and its arguments."""


@frozen
class Script:
    """The text of the script, and the hash by which Redis knows it after the first call."""

    text: str
    sha: str


@cache
def load_script() -> Script:
    """Return the script with the constants of the policy."""
    names = (
        "MAX_LIFETIME",
        "MAX_LEASE",
        "MAX_BACKOFF",
        "INITIAL_THROTTLE",
        "MAX_THROTTLE",
        "CLOCK_TOLERANCE",
        "REJECTION_RESET_AFTER",
        "MIN_REJECTION_AGE",
    )
    constants = [f"local {name} = {getattr(_policy, name)!r}\n" for name in names]
    constants.append(f"local KEPT_FOR_MS = '{KEPT_FOR * 1000:.0f}'\n")
    text = "".join(constants) + files(__package__ or "").joinpath("_record.lua").read_text("utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class UnreadableError(Exception):
    """The script does not give such an answer."""


class UnreadableFailureError(Exception):
    """The failure in the record is damaged, or another program wrote it."""


READ: Final[Arguments] = (b"read",)
STAMP: Final[Arguments] = (b"stamp",)
FORGET: Final[Arguments] = (b"forget",)


def claim_arguments(event: Claim, *, without_failure: bool = False) -> Arguments:
    """Return the arguments for a claim; `without_failure` ignores the failure of the record."""
    seen = _marked(None if event.seen is None else event.seen.encode())
    return b"claim", event.id.encode(), seen, exact(event.lease), _flag(event.may_be_throttled), _flag(without_failure)


def commit_arguments(event: Commit) -> Arguments:
    """Return the arguments for a commit."""
    ends_after = event.lifetime if event.ends_after is None else event.ends_after
    numbers = exact(event.lifetime), exact(event.remaining), exact(ends_after)
    return b"commit", event.id.encode(), event.access, _marked(event.refresh), *numbers


def release_arguments(event: Release) -> Arguments:
    """Return the arguments for a release."""
    failure = _marked(None if event.failure is None else failure_to_json(event.failure).encode())
    return b"release", event.id.encode(), exact(event.retry_after), failure, _marked(event.refresh)


def _flag(value: bool) -> bytes:  # noqa: FBT001  the value is what it is about
    return b"1" if value else b"0"


def exact(number: float) -> bytes:
    """Return a number with all of its digits."""
    return repr(float(number)).encode()


@frozen(repr=False)
class Answer:
    """An answer of the script. Its `repr` shows nothing of it.

    - `stamp`: changes whenever the record does.
    - `damage`: a digest of the record if it could not be read, else empty.
    """

    word: bytes
    stamp: bytes
    damage: bytes
    items: tuple[SecretBytes, ...]


# The parsers raise `UnreadableError` if the script does not give such an answer.


def parse_answer(answer: object) -> Answer:
    """Return an answer to any operation."""
    if not isinstance(answer, list):
        raise UnreadableError
    parts: list[SecretBytes] = []
    for part in answer:  # pyright: ignore[reportUnknownVariableType]  checked right here
        if not isinstance(part, bytes):
            raise UnreadableError
        parts.append(SecretBytes(part))
    match parts:
        case word, stamp, damage, *items:
            return Answer(bytes(word), bytes(stamp), bytes(damage), tuple(items))
        case _:
            raise UnreadableError


def parse_read(answer: Answer) -> SharedToken | None:
    """Return the answer to a read."""
    if answer.word == b"none" and not answer.items:
        return None
    if answer.word != b"token":
        raise UnreadableError
    return _token(answer.items)


def parse_claim(answer: Answer) -> ClaimAnswer:
    """Return the answer to a claim. Raises `UnreadableFailureError` as well."""
    match answer.word, answer.items:
        case b"granted", (refresh, committed_at, failures, failing_for):
            return Granted(
                refresh=_unmarked(refresh),
                committed_at=_moment(committed_at),
                failures=_count(failures),
                failing_for=_number(failing_for),
            )
        case b"changed", items:
            return Changed(token=_token(items))
        case b"busy", (retry_after,):
            return Busy(retry_after=_number(retry_after))
        case b"backoff", (retry_after, failure, failures, failing_for, committed_at):
            known = failure_from_json(Secret(failure.decode("utf-8", "replace")))
            if known is None:
                raise UnreadableFailureError
            return Backoff(
                retry_after=_number(retry_after),
                failure=known,
                failures=_count(failures),
                failing_for=_number(failing_for),
                committed_at=_moment(committed_at),
            )
        case b"throttled", (retry_after,):
            return Throttled(retry_after=_number(retry_after))
        case _:
            raise UnreadableError


def parse_end(answer: Answer) -> EndAnswer:
    """Return the answer to a commit or a release."""
    match answer.word, answer.items:
        case b"done", ():
            return Done()
        case b"done", (committed_at,):
            return Done(committed_at=_number(committed_at))
        case b"claim_lost", ():
            return ClaimLost(token=None)
        case b"claim_lost", items:
            return ClaimLost(token=_token(items))
        case _:
            raise UnreadableError


def _token(items: tuple[SecretBytes, ...]) -> SharedToken:
    match items:
        case version, access, lifetime, remaining, committed_at:
            return SharedToken(
                version=_ascii(version),
                access=access,
                lifetime=_number(lifetime),
                remaining=_number(remaining),
                committed_at=_number(committed_at),
            )
        case _:
            raise UnreadableError


def _marked(value: bytes | None) -> SecretBytes:
    """Distinguish `None` from an empty value, as the script does."""
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


def _moment(value: bytes) -> float | None:
    number = _unmarked(value)
    return None if number is None else _number(number)


def _count(value: bytes) -> int:
    number = _number(value)
    if not (0 <= number <= MAX_COUNT and number.is_integer()):
        raise UnreadableError
    return int(number)


def _ascii(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise UnreadableError from None
