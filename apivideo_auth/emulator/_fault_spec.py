"""Faults as text, for a command line."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from apivideo_auth._validation import check_instance
from apivideo_auth.emulator._faults import Fault

_BODY: Final = re.compile(r"(?:^|,)\s*body\s*=")
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def parse_fault(spec: str) -> Fault:
    """Return the fault that a text describes. `apivideo-auth serve --help` explains the syntax.

    Raises `ValueError` if the text cannot be parsed, or if `Fault` rejects it.
    """
    check_instance("a fault", spec, str)
    settings, *body = _BODY.split(spec, maxsplit=1)
    arguments: dict[str, Any] = {}
    for part in settings.split(","):
        name, equals, value = (text.strip() for text in part.partition("="))
        if not equals and _NUMBER.fullmatch(name):
            name, value = "status", name
        elif not equals and name not in ("hang", "malformed"):
            raise ValueError(f"a fault has no {name!r}; write NAME=VALUE, a status, hang or malformed")
        _add(arguments, "header.Retry-After" if name == "retry_after" else name, value)
    if body:
        arguments["body"] = body[0]
    return Fault(**arguments)


def _add(arguments: dict[str, Any], name: str, value: str) -> None:
    """Add what one part of the text says to the arguments of `Fault`."""
    group, dot, key = name.partition(".")
    if dot and group in _GROUPS:
        argument, parse = _GROUPS[group]
        target = arguments.setdefault(argument, {})
    elif name in _SETTINGS:
        key, parse, target = name, _SETTINGS[name], arguments
    else:
        raise ValueError(f"a fault has no {name!r}")
    if key in target:
        raise ValueError(f"a fault has {name!r} once")
    try:
        target[key] = parse(value)
    except ValueError:
        raise ValueError(f"{name}={value} cannot be parsed") from None


def _times(text: str) -> int | None:
    return None if text == "forever" else int(text)


def _flag(text: str) -> bool:
    if text:
        raise ValueError
    return True


def _json_or_text(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _names(text: str) -> list[str]:
    return text.split("+")


_SETTINGS: Final[Mapping[str, Callable[[str], object]]] = {
    "on": str,
    "times": _times,
    "probability": float,
    "seed": int,
    "delay": float,
    "hang": _flag,
    "status": int,
    "reset": str,
    "malformed": _flag,
    "omit": _names,
    "oversized": int,
    "redirect": str,
}
_GROUPS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "header": ("headers", str),
    "override": ("override", _json_or_text),
}
