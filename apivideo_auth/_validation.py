"""Checks of arguments: a wrong type is a `TypeError`, a wrong value is a `ValueError`."""

import functools
import inspect
import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from attrs import Attribute


def check_methods(what: str, value: object, *names: str) -> None:
    """Raise `TypeError` if `value` lacks one of these methods."""
    if isinstance(value, type):
        raise TypeError(f"{what} must be an object, not the class {value.__name__}; write {value.__name__}(…)")
    for name in names:
        if not callable(getattr(value, name, None)):
            raise TypeError(f"{what} must have {' and '.join(names)}; {type(value).__name__} has no {name}")


def check_callable(what: str, value: object) -> None:
    """Raise `TypeError` if `value` cannot be called, or if calling it only makes a coroutine."""
    if not callable(value):
        raise TypeError(f"{what} must be callable, not {type(value).__name__}")
    function = value.func if isinstance(value, functools.partial) else value
    # The method that a call uses is the class's.
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise TypeError(f"{what} must be an ordinary function, not a coroutine function: nobody would await it")


def check_instance(what: str, value: object, cls: type) -> None:
    """Raise `TypeError` if `value` is not a `cls`."""
    if not isinstance(value, cls):
        raise TypeError(f"{what} must be of type {cls.__name__}, not {type(value).__name__}")


def valid(
    check: Callable[..., None], *bounds: object, optional: bool = False
) -> Callable[[Any, "Attribute[Any]", Any], None]:
    """Return an attrs validator: `check` with the field's name, its value and `bounds`. `optional` allows None."""

    def validate(_instance: object, attribute: "Attribute[Any]", value: object) -> None:
        if value is not None or not optional:
            check(attribute.name, value, *bounds)

    return validate


def check_int(what: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise unless `value` is an int from `low` to `high`. A boolean is not an int here."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{what} must be {low:g} or more" if high == math.inf else f"{what} must be {low} to {high}")


def check_number(what: str, value: object, above: float | None = None, high: float = math.inf) -> None:
    """Raise unless `value` is finite and 0 or more, or greater than `above`; and `high` at most."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} must be a number, not {type(value).__name__}")
    low_enough = value < math.inf and value <= high
    if not (low_enough and (value >= 0 if above is None else value > above)):
        bounds = "0 or more" if above is None else f"greater than {above:g}"
        raise ValueError(f"{what} must be {bounds}{'' if high == math.inf else f' and at most {high:g}'}, not {value}")


def check_text(what: str, value: object) -> None:
    """Raise unless `value` is a printable string that is not empty. The message never shows it: it may be a secret."""
    check_instance(what, value, str)
    text = cast("str", value)
    if not text or not text.isprintable():
        raise ValueError(f"{what} must be printable and not empty")


def check_choice(what: str, value: object, choices: Collection[object]) -> None:
    """Raise unless `value` is one of `choices`, which have one type."""
    kind = type(next(iter(choices)))
    if type(value) is not kind:
        raise TypeError(f"{what} must be a {kind.__name__}, not {type(value).__name__}")
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(str, choices))}, not {value!r}")
