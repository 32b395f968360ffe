"""A record as JSON: what a store writes down, and what it believes when it reads it back.

Reading is strict: exactly the fields that were written, each of its own type, every number finite. All else is one
`TokenStoreError`, whose text and chain hold nothing of what was read.
"""

import base64
import json
import math
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias, TypeVar, cast

from attrs import fields_dict
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._failure import Failure
from apivideo_auth._record import Record
from apivideo_auth._secrets import SecretBytes

FORMAT: Final = 1
"""Goes up when the fields of `Record` or `Failure` change; see `FileStore` for how two formats live side by side."""
MAX_SIZE: Final = 1 << 20
"""Bytes of a record at most. Two tokens of the largest answer that is read, in base64, are less than a fifth of it."""
MAX_COUNT: Final = 1 << 53
"""Counts stay exact in every reader of JSON."""

_Value = TypeVar("_Value")
_Pairs: TypeAlias = list[tuple[str, Any]]


def record_to_json(record: Record) -> SecretBytes:
    """Return the record as JSON, in ASCII."""
    return SecretBytes(_dumped({"format": FORMAT, "record": _CONVERTER.unstructure(record)}).encode("ascii"))


def record_from_json(data: bytes) -> Record:
    """Return the record that `record_to_json` wrote; raise `TokenStoreError` for anything else."""
    record = _read(lambda: _record_of(_loaded(SecretBytes(data))))
    if record is None:
        raise TokenStoreError("the stored record cannot be read: it is damaged, or was written by something else")
    return record


def failure_to_json(failure: Failure) -> str:
    """Return the failure as JSON, in ASCII."""
    return _dumped(_CONVERTER.unstructure(failure))


def failure_from_json(text: str) -> Failure:
    """Return the failure that `failure_to_json` wrote; raise `TokenStoreError` for anything else."""
    failure = _read(lambda: _CONVERTER.structure(_parsed(text), Failure))
    if failure is None:
        raise TokenStoreError("the stored failure cannot be read: it is damaged, or was written by something else")
    return failure


def _read(reader: Callable[[], _Value]) -> _Value | None:
    """Return what was read, or none: an error that is raised while one of these is handled would carry it along."""
    try:
        return reader()
    except Exception:  # noqa: BLE001  cattrs raises bare `Exception` too, and what cannot be read is unreadable
        return None


def _dumped(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _loaded(data: bytes) -> object:
    if len(data) > MAX_SIZE:
        raise ValueError("too large")
    return _parsed(data.decode("utf-8"))


def _parsed(text: str) -> object:
    return cast("object", json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique))


def _record_of(value: object) -> Record:
    if not isinstance(value, dict):
        raise TypeError("no object")
    envelope = cast("dict[str, object]", value)
    if envelope.keys() != {"format", "record"} or type(envelope["format"]) is not int or envelope["format"] != FORMAT:
        raise ValueError("another format")
    return _CONVERTER.structure(envelope["record"], Record)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("no finite number")


def _unique(pairs: _Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field twice")
    return found


# cattrs converts by default ("1" is a number, 1 is a string); these hooks take each type for itself.


def _number(value: object, _type: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise TypeError("no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("no finite number")
    return number


def _count(value: object, _type: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError("no count")
    return value


def _text(value: object, _type: object) -> str:
    if type(value) is not str:
        raise TypeError("no text")
    return value


def _flag(value: object, _type: object) -> bool:
    if type(value) is not bool:
        raise TypeError("no truth value")
    return value


def _part(value: object, _type: object) -> SecretBytes:
    return SecretBytes(base64.b64decode(_text(value, str).encode("ascii"), validate=True))


def _part_as_text(part: bytes) -> str:
    return base64.b64encode(part).decode("ascii")


def _all_fields(converter: Converter, cls: type[_Value]) -> Callable[[object, object], _Value]:
    """Return a hook that wants every field of `cls` and no other."""
    names = fields_dict(cast("Any", cls)).keys()
    structure = make_dict_structure_fn(cls, converter, _cattrs_detailed_validation=False)

    def hook(value: object, _type: object) -> _Value:
        if not isinstance(value, dict):
            raise TypeError("no object")
        found = cast("dict[str, Any]", value)
        if found.keys() != names:
            raise ValueError("other fields")
        return structure(found, cls)

    return hook


def _converter() -> Converter:
    converter = Converter(detailed_validation=False)
    for kind, hook in ((float, _number), (int, _count), (str, _text), (bool, _flag), (bytes, _part)):
        converter.register_structure_hook(kind, hook)
    converter.register_unstructure_hook(bytes, _part_as_text)
    converter.register_unstructure_hook(SecretBytes, _part_as_text)
    for cls in (Failure, Record):
        converter.register_structure_hook(cls, _all_fields(converter, cls))
    return converter


_CONVERTER: Final = _converter()
