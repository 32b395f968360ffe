"""The API's responses and errors. An error is raised where it is found, and answered in one place."""

import json
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from apivideo_auth.emulator._calls import Outcome

_REFERENCE: Final = "https://docs.api.video/reference/"


class Response(web.Response):
    """A JSON response, with the facts about it that `Call` records.

    `fault` is the kind of the fault that hit the request. A response that is `lost` is recorded and never sent.
    """

    def __init__(
        self,
        content: Mapping[str, object] | bytes,
        outcome: Outcome,
        *,
        status: int = 200,
        generation: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # Without a charset: some clients accept exactly this content type only.
        all_headers = CIMultiDict({"Content-Type": "application/json"})
        all_headers.update(headers or {})
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        super().__init__(body=body, status=status, headers=all_headers)
        self.outcome: Outcome = outcome
        self.generation = generation
        self.fault: str | None = None
        self.lost = False


class Problem(Exception):  # noqa: N818  the API's word for an error
    """An error of the API, which `response` answers. `slug` is the last part of its `type`."""

    def __init__(  # noqa: PLR0913  the fields of the body and of the record
        self,
        status: int,
        slug: str,
        title: str,
        *,
        name: str = "",
        outcome: Outcome = "invalid",
        generation: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {slug}")
        self.status = status
        self.slug = slug
        document = {"type": f"{_REFERENCE}{slug}", "title": title, "name": name, "status": status}
        self.response = Response(document, outcome, status=status, generation=generation, headers=headers)


def invalid_attribute(name: str, expected: str) -> Problem:
    """Return the 400 for an attribute or a query parameter that is not what is `expected`."""
    return Problem(400, "invalid-attribute", f"This attribute must be {expected}.", name=name)


def malformed_request() -> Problem:
    """Return the 400 for a request whose body is not framed or encoded as its headers say."""
    return Problem(400, "bad-request", "The request is malformed.")


def too_large(limit: int) -> Problem:
    """Return the 413 for a body of more than `limit` bytes."""
    return Problem(413, "request-entity-too-large", f"The request entity is larger than {limit} bytes.")


def too_many_requests(generation: int | None = None) -> Problem:
    """Return the 429 for a rate limit that is used up."""
    return Problem(429, "too-many-requests", "Too many requests.", outcome="limited", generation=generation)
