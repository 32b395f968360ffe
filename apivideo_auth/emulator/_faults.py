"""Faults: failures that the emulator causes on demand, the requests that they hit, and their effect on a response."""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from random import Random
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, cast

from attrs import define, field, frozen
from attrs.validators import deep_iterable, instance_of

from apivideo_auth._validation import check_choice, check_instance, check_int, check_number, check_text, valid
from apivideo_auth.emulator._messages import Problem, Response, too_many_requests

FaultName = Literal["delay", "hang", "status", "reset", "malformed", "omit", "override", "oversized", "redirect"]
_T = TypeVar("_T")

_HEADER_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MALFORMED: Final = b'{"token_type": "Bearer", "expires_in": 36'
_PADDING: Final = b" " * 65_536


def _check_headers(name: str, value: object) -> None:
    """Raise unless `value` maps names of HTTP headers to values that can be sent."""
    check_instance(name, value, Mapping)
    for header, text in cast("Mapping[object, object]", value).items():
        if not isinstance(header, str) or not isinstance(text, str):
            raise TypeError(f"{name} must be a mapping of strings")
        if not _HEADER_NAME.fullmatch(header):
            raise ValueError(f"{name}: {header!r} is not a valid header name")
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name}: the value of {header} must be printable ASCII")


def _check_path(name: str, value: object) -> None:
    check_text(name, value)
    if not str(value).startswith("/"):
        raise ValueError(f"{name} must be a path that begins with a slash, such as /auth/refresh, not {value!r}")


def _copied(value: Mapping[str, _T]) -> Mapping[str, _T]:
    return MappingProxyType(dict(value)) if isinstance(value, Mapping) else value


def _encoded(value: Mapping[str, object] | str | bytes | None) -> bytes | None:
    if isinstance(value, Mapping):
        return json.dumps(dict(value)).encode()
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class Fault:
    """A failure that the emulator causes, with the requests that it hits and how often.

    - `on`: a path and everything below it: "/auth" (default: both endpoints), "/auth/refresh", "/videos", "/". A
      browser's CORS preflight is never hit.
    - `times`: the number of requests that are hit, 1 by default; None for all.
    - `probability`: each request that the fault applies to is hit with this probability, from a generator
      seeded with `seed`. Only hits count for `times`.

    A request is hit by one fault: the first injected one that applies to it. Exactly one kind of fault is given.

    With these kinds the server does **not** do the work, so no token is used or issued:

    - `status`: respond with this status, `headers` and `body` (text, bytes or a JSON object; by default an API error).
    - `redirect`: redirect the client to this URL. `status` is 307 (default), 301, 302, 303 or 308.
    - `hang`: never respond. The connection stays open until the client disconnects or the server closes.
    - `reset="before"`: reset the TCP connection.

    With these kinds the server does the work, and the client does not get a good response:

    - `reset="after"`: reset the TCP connection instead of sending the response, so that the response is lost.
    - `malformed`: respond with 200 and malformed JSON.
    - `omit`, `override`: leave fields out of a successful response, or replace them. Errors are sent unchanged.
    - `oversized`: make the body at least this many bytes long, with spaces in front of the document.

    `delay` waits first, in seconds of the event loop's time. It goes with any kind, or stands alone. The work is done
    after the delay even if the client has disconnected.
    """

    on: str = field(default="/auth", validator=valid(_check_path))
    times: int | None = field(default=1, validator=valid(check_int, 1, optional=True))
    probability: float = field(default=1.0, validator=valid(check_number, 0, 1))
    seed: int | None = field(default=None, validator=valid(check_int, optional=True))
    delay: float = field(default=0.0, validator=valid(check_number))
    hang: bool = field(default=False, validator=valid(check_instance, bool))
    status: int | None = field(default=None, validator=valid(check_int, 200, 599, optional=True))
    headers: Mapping[str, str] = field(factory=dict[str, str], converter=_copied, validator=valid(_check_headers))
    body: bytes | None = field(default=None, converter=_encoded, validator=valid(check_instance, bytes, optional=True))
    reset: Literal["before", "after"] | None = field(
        default=None, validator=valid(check_choice, ("before", "after"), optional=True)
    )
    malformed: bool = field(default=False, validator=valid(check_instance, bool))
    omit: tuple[str, ...] = field(default=(), converter=_listed, validator=deep_iterable(instance_of(str)))
    override: Mapping[str, object] = field(
        factory=dict[str, object], converter=_copied, validator=valid(check_instance, Mapping)
    )
    oversized: int | None = field(default=None, validator=valid(check_int, 1, optional=True))
    redirect: str | None = field(default=None, validator=valid(check_instance, str, optional=True))

    def __attrs_post_init__(self) -> None:
        json.dumps(dict(self.override))
        kinds = self._kinds()
        if len(kinds) > 1:
            raise ValueError(f"a fault has one kind, not {' and '.join(kinds)}; inject one fault for each")
        if not kinds and not self.delay:
            raise ValueError("a fault needs a kind: delay, hang, status, reset, malformed, ...")
        if self.redirect is not None:
            _check_headers("redirect", {"Location": self.redirect})
            check_choice("the status of a redirect", self.status or 307, _REDIRECTS)
        if (self.headers or self.body is not None) and kinds != ["status"]:
            raise ValueError("headers and body go with a status only")

    @property
    def name(self) -> FaultName:
        """The kind of the fault, as `Call.fault` records it."""
        return (self._kinds() or ["delay"])[0]

    @property
    def replaces_work(self) -> bool:
        """Whether the response is sent instead of doing the work."""
        return self.hang or self.status is not None or self.redirect is not None or self.reset == "before"

    def applies_to(self, path: str) -> bool:
        """Return whether `path` is `on` or below it, by whole segments."""
        prefix = self.on.rstrip("/")
        return path == prefix or path.startswith(f"{prefix}/")

    def replacement(self) -> Response:
        """Return the response that is sent instead of doing the work."""
        if self.redirect is not None:
            return Response(b"{}", "faulted", status=self.status or 307, headers={"Location": self.redirect})
        if self.status is not None:
            body = _default_body(self.status) if self.body is None else self.body
            return Response(body, "faulted", status=self.status, headers=self.headers)
        response = Response(b"", "faulted")
        response.lost = True
        return response

    def alter(self, response: Response) -> None:
        """Alter the response after the work is done."""
        body = response.body
        assert isinstance(body, bytes)
        if self.reset is not None:
            response.lost = True
        elif self.malformed:
            response.set_status(200)
            response.body = _MALFORMED
        elif self.oversized is not None:
            padding = max(0, self.oversized - len(body))
            response.body = _padded(padding, body)
            response.headers["Content-Length"] = str(padding + len(body))
        elif response.status < HTTPStatus.MULTIPLE_CHOICES and (self.omit or self.override):
            document: dict[str, Any] = json.loads(body)
            kept = {name: value for name, value in document.items() if name not in self.omit}
            response.body = json.dumps(kept | dict(self.override)).encode()

    def _kinds(self) -> list[FaultName]:
        kinds: dict[FaultName, bool] = {
            "hang": self.hang,
            "redirect": self.redirect is not None,
            "status": self.status is not None and self.redirect is None,
            "reset": self.reset is not None,
            "malformed": self.malformed,
            "omit": bool(self.omit),
            "override": bool(self.override) and not self.omit,
            "oversized": self.oversized is not None,
        }
        return [kind for kind, given in kinds.items() if given]


@define
class _InjectedFault:
    """A fault with hits left, and its own generator, so that a seed gives the same hits each time."""

    fault: Fault
    random: Random
    hits: int = 0


@define
class FaultPlan:
    """The injected faults, in the order of their injection."""

    _injected: list[_InjectedFault] = field(factory=list[_InjectedFault], init=False)

    def inject(self, *faults: Fault) -> None:
        """Add faults after those that are there."""
        for fault in faults:
            check_instance("a fault", fault, Fault)
        self._injected += [_InjectedFault(fault, Random(fault.seed)) for fault in faults]  # noqa: S311  for tests, not for secrets

    def clear(self) -> None:
        """Remove all faults."""
        self._injected.clear()

    def hit(self, path: str) -> Fault | None:
        """Return the fault that hits a request for `path`, if any, and count the hit."""
        for injected in self._injected:
            fault = injected.fault
            if fault.applies_to(path) and injected.random.random() < fault.probability:
                injected.hits += 1
                if injected.hits == fault.times:
                    self._injected.remove(injected)
                return fault
        return None


def _default_body(status: int) -> bytes:
    """Return the API's error for a status, or one like it; an empty object if the status is not an error."""
    if status < HTTPStatus.BAD_REQUEST:
        return b"{}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        problem = too_many_requests()
    else:
        phrases = {known.value: known.phrase for known in HTTPStatus}
        problem = Problem(status, "injected-fault", phrases.get(status, "Fault"))
    body = problem.response.body
    assert isinstance(body, bytes)
    return body


async def _padded(padding: int, body: bytes) -> AsyncIterator[bytes]:
    while padding > 0:
        yield _PADDING[:padding]
        padding -= len(_PADDING)
    yield body
