"""The JSON object in the body of a request."""

import json
import re
from typing import Final, NoReturn, TypeVar, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from apivideo_auth.emulator._responses import Problem, invalid_attribute, malformed_request, too_large

T = TypeVar("T", str, bool, list[object])
Payload = dict[str, object]

PAYLOAD_LIMIT: Final = 2**20
"""The most bytes of a JSON body."""

_EXPECTED: Final = {str: "a string", bool: "a boolean", list: "an array"}
_ESCAPED_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


async def read_payload(request: web.Request) -> Payload:
    """Return the JSON object in the body, whatever the content type says. Raises `Problem`: a 400 or a 413."""
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(PAYLOAD_LIMIT) from None
    except (web.RequestPayloadError, HttpProcessingError):
        # aiohttp has two parsers: one raises the first, the other raises the second.
        raise malformed_request() from None
    return parse_payload(body)


def parse_payload(body: bytes) -> Payload:
    """Return the JSON object that `body` is.

    Raises a 400 if it is not one in UTF-8, or has text that cannot be stored: a lone surrogate or a NUL.
    """
    try:
        # From str: given bytes, `json` guesses the encoding and accepts a byte-order mark.
        value: object = json.loads(body.decode("utf-8"), parse_constant=_reject_constant)
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except (ValueError, RecursionError):
        # Without a cause: the text of a `JSONDecodeError` contains the body, and so the secrets in it.
        raise _invalid_payload() from None
    if not isinstance(value, dict) or _ESCAPED_NUL.search(text):
        raise _invalid_payload()
    return cast("Payload", value)


def attribute(payload: Payload, name: str, kind: type[T]) -> T | None:
    """Return an attribute, None if it is missing or null. Raises a 400 if it has another type than `kind`."""
    value = payload.get(name)
    if value is not None and not isinstance(value, kind):
        raise invalid_attribute(name, _EXPECTED[kind])
    return value


def required_text(payload: Payload, name: str) -> str:
    """Return a string attribute. Raises a 400 if it is missing, null or empty."""
    text = attribute(payload, name, str)
    if not text:
        raise Problem(400, "attribute-required", "This attribute is required.", name=name)
    return text


def _invalid_payload() -> Problem:
    return Problem(400, "invalid-payload", "The payload is invalid.")


def _reject_constant(_name: str) -> NoReturn:
    raise ValueError
