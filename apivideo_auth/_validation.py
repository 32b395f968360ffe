"""Checks of arguments, made when an object is constructed."""

import inspect


def check_methods(what: str, value: object, *names: str) -> None:
    """Raise `TypeError` if `value` lacks one of these methods."""
    if isinstance(value, type):
        raise TypeError(f"{what} must be an object, not the class {value.__name__}; write {value.__name__}(…)")
    for name in names:
        if not callable(getattr(value, name, None)):
            raise TypeError(f"{what} must have {' and '.join(names)}; {type(value).__name__} has no {name}")


def check_callable(what: str, value: object) -> None:
    """Raise `TypeError` if `value` cannot be called, or is a coroutine function."""
    if not callable(value):
        raise TypeError(f"{what} must be callable, not {type(value).__name__}")
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{what} must be an ordinary function, not a coroutine function: nobody would await it")


def check_instance(what: str, value: object, cls: type) -> None:
    """Raise `TypeError` if `value` is not a `cls`."""
    if not isinstance(value, cls):
        raise TypeError(f"{what} must be of type {cls.__name__}, not {type(value).__name__}")
