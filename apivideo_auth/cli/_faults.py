"""Faults as text: the option `--fault` of `serve`, and its help."""

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from apivideo_auth.emulator import Fault

_SYNTAX: Final = """\
A fault says what goes wrong, and where and how often, separated by commas: 503,on=/auth/refresh,times=2,retry_after=5

what goes wrong (one of these, or only a delay):
  503, status=503         respond with this status
  hang                    never respond
  reset=before            close the connection before the work is done
  reset=after             close it after the work is done: the response is lost
  malformed               respond with invalid JSON
  omit=NAME+NAME          leave these fields out of the response
  override.NAME=VALUE     replace a field by JSON, or by text; repeatable
  oversized=BYTES         make the response at least this long
  redirect=URL            redirect to this URL, with status 307 or the one of status=

settings:
  delay=SECONDS           wait first
  retry_after=SECONDS     add the header Retry-After; needs a status
  header.NAME=VALUE       add any header; needs a status; repeatable
  body=TEXT               use this body; needs a status; must be last, and may contain commas
  on=PATH                 this path and everything below it (default: /auth)
  times=N                 for this many requests (default: 1), or forever
  probability=P           for each request with this probability
  seed=N                  makes the probability repeatable
"""

_BODY: Final = re.compile(r"(?:^|,)\s*body\s*=")
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def parse_fault(spec: str) -> "Fault":
    """Return the fault that a text describes; `_SYNTAX` explains the syntax.

    Raises `ValueError` if the text cannot be parsed, or if `Fault` rejects it.
    """
    from apivideo_auth import emulator  # noqa: PLC0415  imports aiohttp, which --help does without

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
    return emulator.Fault(**arguments)


def _add(arguments: dict[str, Any], name: str, value: str) -> None:
    """Add one part of the text to the arguments of `Fault`."""
    group, dot, key = name.partition(".")
    if dot and group in _GROUPS:
        argument, parse = _GROUPS[group]
        target = arguments.setdefault(argument, {})
    elif name in _SETTINGS:
        key, parse, target = name, _SETTINGS[name], arguments
    else:
        raise ValueError(f"a fault has no {name!r}")
    if key in target:
        raise ValueError(f"a fault may have {name!r} only once")
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


class ServeCommand(click.Command):
    """Shows the syntax of faults below the options, not wrapped."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the syntax of faults."""
        with formatter.section("Faults"):
            for line in _SYNTAX.splitlines():
                formatter.write(f"  {line}\n" if line else "\n")


def faults_option(_context: click.Context, _parameter: click.Parameter, specs: tuple[str, ...]) -> "tuple[Fault, ...]":
    """Return the faults that the values of the option describe."""
    try:
        return tuple(parse_fault(spec) for spec in specs)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error)) from None
