"""The API's messages: JSON payloads of requests, JSON responses, and errors.

An error is raised where it is found, and one middleware sends its response.
"""

import json
import re
from collections.abc import Mapping
from typing import Final, NoReturn, TypeVar, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict

from apivideo_auth.emulator._calls import CallOutcome

Payload = dict[str, object]
_T = TypeVar("_T", str, bool, list[object])

PAYLOAD_LIMIT: Final = 2**20
"""The most bytes of a JSON body."""

ANY_ORIGIN: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": (
        "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Retry-After, Retry-After, Location"
    ),
}
"""The headers that let the pages of any origin read a response."""

_EXPECTED: Final = {str: "a string", bool: "a boolean", list: "an array"}
_ESCAPED_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_REFERENCE: Final = "https://docs.api.video/reference/"


class Response(web.Response):
    """A JSON response that the pages of any origin can read, with the facts about it that `Call` records.

    `fault` is the kind of the fault that hit the request. A response that is `lost` is recorded and never sent.
    """

    def __init__(
        self,
        content: Mapping[str, object] | bytes,
        outcome: CallOutcome,
        *,
        status: int = 200,
        generation: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # Without a charset: some clients accept exactly this content type only.
        all_headers = CIMultiDict({"Content-Type": "application/json"} | ANY_ORIGIN)
        all_headers.update(headers or {})
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        super().__init__(body=body, status=status, headers=all_headers)
        self.outcome: CallOutcome = outcome
        self.generation = generation
        self.fault: str | None = None
        self.lost = False


class Problem(Exception):  # noqa: N818  the API's word for an error
    """An error of the API, with its `response`. `slug` is the last part of its `type`."""

    def __init__(  # noqa: PLR0913  the fields of the body and of the record
        self,
        status: int,
        slug: str,
        title: str,
        *,
        name: str = "",
        outcome: CallOutcome = "invalid",
        generation: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {slug}")
        self.status = status
        self.slug = slug
        document = {"type": f"{_REFERENCE}{slug}", "title": title, "name": name, "status": status}
        self.response = Response(document, outcome, status=status, generation=generation, headers=headers)


def invalid_attribute(name: str, expected: str) -> Problem:
    """Return the 400 for an attribute or a query parameter that is not `expected`."""
    return Problem(400, "invalid-attribute", f"This attribute must be {expected}.", name=name)


def malformed_request() -> Problem:
    """Return the 400 for a request whose body does not match its headers."""
    return Problem(400, "bad-request", "The request is malformed.")


def too_large(limit: int) -> Problem:
    """Return the 413 for a body of more than `limit` bytes."""
    return Problem(413, "request-entity-too-large", f"The request entity is larger than {limit} bytes.")


def too_many_requests(generation: int | None = None) -> Problem:
    """Return the 429 for a rate limit that is used up."""
    return Problem(429, "too-many-requests", "Too many requests.", outcome="limited", generation=generation)


async def read_payload(request: web.Request) -> Payload:
    """Return the JSON object in the body, whatever the content type says.

    Raises a 413 if it is too large, and a 400 if it is not a JSON object in UTF-8, or has text that cannot be stored: a
    lone surrogate or a NUL.
    """
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(PAYLOAD_LIMIT) from None
    except (web.RequestPayloadError, HttpProcessingError):
        # aiohttp has two parsers: one raises the first, the other raises the second.
        raise malformed_request() from None
    try:
        # From str: given bytes, `json` guesses the encoding and accepts a byte-order mark.
        value: object = json.loads(body.decode("utf-8"), parse_constant=_reject_constant)
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except (ValueError, RecursionError):
        value, text = None, ""
    # Raised outside of the handler: the text of a `JSONDecodeError` contains the body, and so the secrets in it.
    if not isinstance(value, dict) or _ESCAPED_NUL.search(text):
        raise Problem(400, "invalid-payload", "The payload is invalid.")
    return cast("Payload", value)


def attribute(payload: Payload, name: str, kind: type[_T]) -> _T | None:
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


def _reject_constant(_name: str) -> NoReturn:
    raise ValueError
