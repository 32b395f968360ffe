"""Checks of arguments: a wrong type is a `TypeError`, a wrong value is a `ValueError`."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from apivideo_auth._validation import check_instance

if TYPE_CHECKING:
    from attrs import Attribute

_HEADER_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


def valid(
    check: Callable[..., None], *bounds: object, optional: bool = False
) -> Callable[[Any, "Attribute[Any]", Any], None]:
    """Return an attrs validator: `check` with the field's name, its value and `bounds`. `optional` allows None."""

    def validate(_instance: object, attribute: "Attribute[Any]", value: object) -> None:
        if value is not None or not optional:
            check(attribute.name, value, *bounds)

    return validate


def check_int(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise unless `value` is an int from `low` to `high`. A boolean is not an int here."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} or more" if high == math.inf else f"{name} must be {low} to {high}")


def check_number(name: str, value: object, above: float | None = None, high: float = math.inf) -> None:
    """Raise unless `value` is finite and 0 or more, or greater than `above`; and `high` at most."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    low_enough = value < math.inf and value <= high
    if not (low_enough and (value >= 0 if above is None else value > above)):
        bounds = "0 or more" if above is None else f"greater than {above:g}"
        raise ValueError(f"{name} must be {bounds}{'' if high == math.inf else f' and at most {high:g}'}, not {value}")


def check_text(name: str, value: object) -> None:
    """Raise unless `value` is a printable string that is not empty. The message never shows it: it may be a secret."""
    check_instance(name, value, str)
    text = cast("str", value)
    if not text or not text.isprintable():
        raise ValueError(f"{name} must be printable and not empty")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise unless `value` is one of `choices`, which have one type."""
    kind = type(next(iter(choices)))
    if type(value) is not kind:
        raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")


def check_headers(name: str, value: object) -> None:
    """Raise unless `value` maps names of HTTP headers to values that can be sent."""
    check_instance(name, value, Mapping)
    for header, text in cast("Mapping[object, object]", value).items():
        if not isinstance(header, str) or not isinstance(text, str):
            raise TypeError(f"{name} must be a mapping of strings")
        if not _HEADER_NAME.fullmatch(header):
            raise ValueError(f"{name}: {header!r} is not a valid header name")
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name}: the value of {header} must be printable ASCII")
