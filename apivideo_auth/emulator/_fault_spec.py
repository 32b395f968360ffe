"""Faults as text, for a command line."""

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from apivideo_auth.emulator._checks import check_type
from apivideo_auth.emulator._faults import Fault

_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def parse_fault(spec: str) -> Fault:
    """Return the fault that a text describes. `apivideo-auth serve --help` explains the syntax.

    Raises `ValueError` for what cannot be read, and for what `Fault` refuses.
    """
    check_type("a fault", spec, str, "a str")
    arguments: dict[str, Any] = {}
    rest: str | None = spec
    while rest is not None:
        name, equals, text = rest.partition("=")
        if equals and name.strip() == "body":
            _add(arguments, "body", text)
            break
        part, comma, behind = rest.partition(",")
        rest = behind if comma else None
        _add(arguments, *_named(part.strip()))
    return Fault(**arguments)


def _named(part: str) -> tuple[str, str]:
    """Return the name and the value of a part; some parts stand for themselves."""
    name, equals, value = part.partition("=")
    if equals:
        return name.strip(), value.strip()
    if _NUMBER.fullmatch(part):
        return "status", part
    if part in ("hang", "malformed"):
        return part, ""
    raise ValueError(f"a fault has no {part!r}; write NAME=VALUE, a status, hang or malformed")


def _add(arguments: dict[str, Any], name: str, value: str) -> None:
    kind, dot, member = name.partition(".")
    if kind == "retry_after" and not dot:
        kind, dot, member = "header", ".", "Retry-After"
    if kind in _GROUPS and dot:
        argument, read = _GROUPS[kind]
        group = arguments.setdefault(argument, {})
        if member in group:
            raise ValueError(f"a fault has {name!r} once")
        group[member] = read(value)
        return
    if name not in _SINGLE:
        raise ValueError(f"a fault has no {name!r}")
    if name in arguments:
        raise ValueError(f"a fault has {name!r} once")
    try:
        arguments[name] = _SINGLE[name](value)
    except ValueError:
        raise ValueError(f"{name}={value} cannot be read") from None


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


_SINGLE: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {
        "on": str,
        "times": _times,
        "probability": float,
        "seed": int,
        "delay": float,
        "hang": _flag,
        "status": int,
        "body": str,
        "reset": str,
        "malformed": _flag,
        "omit": _names,
        "oversized": int,
        "redirect": str,
    }
)
_GROUPS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = MappingProxyType(
    {"header": ("headers", str), "override": ("override", _json_or_text)}
)
