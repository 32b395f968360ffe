"""Checks of what is constructed: a wrong type is a `TypeError`, a wrong value a `ValueError`."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Final, cast

_HEADER_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


def check_type(name: str, value: object, kind: type, expected: str) -> None:
    """Raise `TypeError` if `value` is no `kind`; a boolean is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__}")


def check_flag(name: str, value: object) -> None:
    """Raise `TypeError` if `value` is no boolean."""
    check_type(name, value, bool, "True or False")


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Raise if `value` is no int from `low` to `high`."""
    check_type(name, value, int, "an int")
    if not low <= cast("int", value) <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value}")


def check_number(name: str, value: object, *, above: float | None = None, most: float = math.inf) -> None:
    """Raise if `value` is no finite number of 0 or more, `above` this (where given) and at `most` that."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    low_enough = math.isfinite(value) and value <= most
    high_enough = value >= 0 if above is None else value > above
    if not (low_enough and high_enough):
        bounds = "0 or more" if above is None else f"above {above:g}"
        raise ValueError(f"{name} must be {bounds}{'' if math.isinf(most) else f' and at most {most:g}'}, not {value}")


def check_text(name: str, value: object) -> None:
    """Raise if `value` is no printable string, or empty. The value is not shown: it may be a secret."""
    check_type(name, value, str, "a str")
    text = cast("str", value)
    if not text or not text.isprintable():
        raise ValueError(f"{name} must be printable and not empty")


def check_choice(name: str, value: object, choices: Collection[str] | Collection[int]) -> None:
    """Raise if `value` is none of `choices`, which are all texts or all ints."""
    kind = type(next(iter(choices)))
    check_type(name, value, kind, "a str" if kind is str else "an int")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")


def check_headers(name: str, value: object) -> None:
    """Raise if `value` is no mapping of header names to values that can be sent."""
    check_type(name, value, Mapping, "a mapping of strings")
    for header, text in cast("Mapping[object, object]", value).items():
        check_type(name, header, str, "a mapping of strings")
        check_type(name, text, str, "a mapping of strings")
        if not _HEADER_NAME.fullmatch(cast("str", header)):
            raise ValueError(f"{name} must have names; {header!r} is none")
        if not (cast("str", text).isascii() and cast("str", text).isprintable()):
            raise ValueError(f"{name} must be printable ASCII; that of {header} is not")
