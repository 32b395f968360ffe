"""Checks of arguments: a wrong type is a `TypeError` at the earliest moment."""

import inspect


def check_methods(what: str, value: object, *names: str) -> None:
    """Raise `TypeError` if `value` lacks one of these methods."""
    if isinstance(value, type):
        raise TypeError(f"{what} must be an object, not the class {value.__name__}; call it")
    for name in names:
        if not callable(getattr(value, name, None)):
            raise TypeError(f"{what} must have {' and '.join(names)}; {type(value).__name__} has no {name}")


def check_callable(what: str, value: object) -> None:
    """Raise `TypeError` if `value` cannot be called."""
    if not callable(value):
        raise TypeError(f"{what} must be callable, not {type(value).__name__}")
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{what} must be an ordinary function: events are told, not awaited")


def check_instance(what: str, value: object, cls: type) -> None:
    """Raise `TypeError` if `value` is no `cls`."""
    if not isinstance(value, cls):
        raise TypeError(f"{what} must be a {cls.__name__}, not {type(value).__name__}")
