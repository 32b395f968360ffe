"""The JSON object in the body of a request, or the problem with it."""

import json
from typing import NoReturn, cast

from apivideo_auth.emulator._problems import attribute_invalid, attribute_required, payload_invalid

Payload = dict[str, object]


def parse_payload(body: bytes) -> Payload:
    """Return the object that `body` holds, whatever its content type says.

    Raises a 400 for what is no JSON object in UTF-8, and for text that could not be stored as such: a lone surrogate,
    a NUL.
    """
    try:
        # `str` and not `bytes`: for bytes `json` guesses the encoding and takes a byte-order mark.
        value: object = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        # Without a cause: the text of a `JSONDecodeError` is the body, and in it the secrets.
        raise payload_invalid() from None
    if not isinstance(value, dict) or not _storable(cast("object", value)):
        raise payload_invalid()
    return cast("Payload", value)


def required_text(payload: Payload, name: str) -> str:
    """Return a string that has to be there and not to be empty."""
    text = optional_text(payload, name)
    if not text:
        raise attribute_required(name)
    return text


def optional_text(payload: Payload, name: str) -> str | None:
    """Return a string, or None where it is missing or null."""
    value = payload.get(name)
    if value is not None and not isinstance(value, str):
        raise attribute_invalid(name, "a string")
    return value


def optional_flag(payload: Payload, name: str, *, default: bool) -> bool:
    """Return a boolean, or `default` where it is missing or null."""
    value = payload.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise attribute_invalid(name, "a boolean")
    return value


def optional_list(payload: Payload, name: str) -> list[object]:
    """Return a list, empty where it is missing or null."""
    value = payload.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise attribute_invalid(name, "an array")
    return cast("list[object]", value)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


def _storable(value: object) -> bool:
    """Tell whether all text in a document can be written as UTF-8 and holds no NUL.

    A loop and not a recursion: `json` reads documents that are nested deeper than Python's stack is by now.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\0" in item or any("\ud800" <= character <= "\udfff" for character in item):
                return False
        elif isinstance(item, dict):
            mapping = cast("dict[str, object]", item)
            waiting += mapping.keys()
            waiting += mapping.values()
        elif isinstance(item, list):
            waiting += cast("list[object]", item)
    return True
