"""An answer before it is put on the wire."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web
from attrs import evolve, frozen

from apivideo_auth.emulator._calls import Outcome
from apivideo_auth.emulator._problems import Problem

CONTENT_TYPE: Final = "application/json"
"""Exactly this, since there are clients that take nothing else, not even a charset behind it."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@frozen
class Answer:
    """A JSON document with a status, and what the record of the call says of it."""

    document: Mapping[str, object]
    outcome: Outcome
    status: int = 200
    generation: int | None = None
    headers: Mapping[str, str] = _NOTHING

    @property
    def body(self) -> bytes:
        """The document in ASCII."""
        return json.dumps(dict(self.document)).encode()

    def with_document(self, document: Mapping[str, object]) -> "Answer":
        """Return the same answer with another body."""
        return evolve(self, document=document)


def answer_of(problem: Problem, headers: Mapping[str, str] = _NOTHING) -> Answer:
    """Return the answer that a problem is, with `headers` added."""
    return Answer(
        problem.document,
        problem.outcome,
        status=problem.status,
        generation=problem.generation,
        headers={**headers, **problem.headers},
    )


def response_of(answer: Answer, headers: Mapping[str, str] = _NOTHING) -> web.Response:
    """Put an answer into an HTTP response, with `headers` added."""
    return json_response(answer.status, answer.body, {**headers, **answer.headers})


def json_response(status: int, body: bytes, headers: Mapping[str, str] = _NOTHING) -> web.Response:
    """Return a response whose content type is `application/json`, unless `headers` name another."""
    names = {name.lower() for name in headers}
    content_type = {} if "content-type" in names else {"Content-Type": CONTENT_TYPE}
    return web.Response(status=status, body=body, headers={**content_type, **headers})
