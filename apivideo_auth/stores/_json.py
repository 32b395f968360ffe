"""A record as JSON, as stores write and read it.

Reading is strict: exactly the fields that were written, each with its own type, every number finite. Anything else
cannot be read, and counts as missing. The texts of a failure end up in messages. They are cleaned, because anyone with
access to the store could have written them.
"""

import base64
import json
import math
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, cast

from attrs import evolve, fields_dict
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn

from apivideo_auth._failure import Failure, clean_text
from apivideo_auth._record import Record
from apivideo_auth._secrets import SecretBytes

FORMAT: Final = 2
"""Increase it when the fields of `Record` or `Failure` change. A record of another format cannot be read."""
MAX_SIZE: Final = 1 << 20
"""The most bytes of a record. Two tokens of the largest response that is read, in base64, take less than a fifth."""
MAX_COUNT: Final = 1 << 53
"""Every JSON parser reads counts up to this exactly."""
MAX_MESSAGE_LENGTH: Final = 1000
"""Characters of a failure's message."""

_Value = TypeVar("_Value")


def record_to_json(record: Record) -> SecretBytes:
    """Return the record as JSON, in ASCII."""
    return SecretBytes(_dumped({"format": FORMAT, "record": _CONVERTER.unstructure(record)}).encode())


def record_from_json(data: bytes) -> Record | None:
    """Return the record that `record_to_json` wrote, or `None` for anything else."""
    return _read(lambda: _record_of(SecretBytes(data)))


def failure_to_json(failure: Failure) -> str:
    """Return the failure as JSON, in ASCII."""
    return _dumped(_CONVERTER.unstructure(failure))


def failure_from_json(text: str) -> Failure | None:
    """Return the failure that `failure_to_json` wrote, or `None` for anything else."""
    return _read(lambda: _CONVERTER.structure(_parsed(text), Failure))


def _read(reader: Callable[[], _Value]) -> _Value | None:
    try:
        return reader()
    except Exception:  # noqa: BLE001  cattrs raises bare `Exception` too
        return None


def _dumped(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _parsed(text: str) -> object:
    return cast("object", json.loads(text, parse_constant=_reject_constant, object_pairs_hook=_unique))


def _record_of(data: bytes) -> Record:
    if len(data) > MAX_SIZE:
        raise ValueError("too large")
    value = _parsed(data.decode())
    if not isinstance(value, dict):
        raise TypeError("not an object")
    envelope = cast("dict[str, object]", value)
    if envelope.keys() != {"format", "record"} or type(envelope["format"]) is not int or envelope["format"] != FORMAT:
        raise ValueError("another format")
    return _CONVERTER.structure(envelope["record"], Record)


def _reject_constant(_name: str) -> NoReturn:
    raise ValueError("not a finite number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a duplicate field")
    return found


# cattrs converts by default ("1" to a number, 1 to a string); these hooks accept only the type itself.


def _number(value: object, _type: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise TypeError("not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _count(value: object, _type: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError("not a count")
    return value


def _text(value: object, _type: object = str) -> str:
    if type(value) is not str:
        raise TypeError("not a string")
    return value


def _flag(value: object, _type: object) -> bool:
    if type(value) is not bool:
        raise TypeError("not a boolean")
    return value


def _part(value: object, _type: object) -> SecretBytes:
    return SecretBytes(base64.b64decode(_text(value), validate=True))


def _part_as_text(part: bytes) -> str:
    return base64.b64encode(part).decode()


def _strict(converter: Converter, cls: type[_Value]) -> Callable[[object, object], _Value]:  # pragma: no mutate block
    """Return a hook that accepts exactly the fields of `cls`."""
    names = fields_dict(cast("Any", cls)).keys()
    structure = make_dict_structure_fn(cls, converter, _cattrs_detailed_validation=False)

    def hook(value: object, _type: object) -> _Value:
        if not isinstance(value, dict):
            raise TypeError("not an object")
        found = cast("dict[str, Any]", value)
        if found.keys() != names:
            raise ValueError("other fields")
        return structure(found, cls)

    return hook


def _cleaned(failure: Failure) -> Failure:
    """Return a failure that can be shown; raise `ValueError` if one of its numbers is out of range."""
    if failure.status is not None and not 100 <= failure.status <= 599:  # noqa: PLR2004  as in HTTP
        raise ValueError("not a status")
    if failure.retry_after is not None and failure.retry_after < 0:
        raise ValueError("not a duration")
    return evolve(
        failure,
        message=clean_text(failure.message, limit=MAX_MESSAGE_LENGTH),
        type=None if failure.type is None else clean_text(failure.type),
        title=None if failure.title is None else clean_text(failure.title),
        name=None if failure.name is None else clean_text(failure.name),
    )


def _converter() -> Converter:  # pragma: no mutate block
    converter = Converter(detailed_validation=False)
    for kind, hook in ((float, _number), (int, _count), (str, _text), (bool, _flag), (bytes, _part)):
        converter.register_structure_hook(kind, hook)
    converter.register_unstructure_hook(bytes, _part_as_text)
    failure_of = _strict(converter, Failure)
    converter.register_structure_hook(Failure, lambda value, cls: _cleaned(failure_of(value, cls)))
    converter.register_structure_hook(Record, _strict(converter, Record))
    return converter


_CONVERTER: Final = _converter()
