"""One misbehaviour of the service, as a value."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Literal

from attrs import field, frozen

from apivideo_auth.emulator._checks import (
    check_choice,
    check_flag,
    check_headers,
    check_int,
    check_number,
    check_text,
    check_type,
)
from apivideo_auth.emulator._problems import Problem, too_many_requests

FaultName = Literal["delay", "hang", "status", "reset", "malformed", "omit", "override", "oversized", "redirect"]

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_DEFAULT_REDIRECT: Final = 307
_MALFORMED_STATUS: Final = 200
_ERRORS_BEGIN: Final = 400
_MOST: Final = 2**63


_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


def _copied(value: Mapping[str, object]) -> Mapping[str, object]:
    check_type("override", value, Mapping, "a mapping of names to JSON values")
    return MappingProxyType(dict(value))


def _copied_headers(value: Mapping[str, str]) -> Mapping[str, str]:
    check_headers("headers", value)
    return MappingProxyType(dict(value))


def _encoded(value: Mapping[str, object] | str | bytes | None) -> bytes | None:
    if isinstance(value, Mapping):
        return json.dumps(dict(value)).encode()
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class Fault:
    """What goes wrong, where, how often.

    `on` is a path, and everything below it: "/auth/refresh", "/auth" (both endpoints, the default), "/videos", "/". A
    browser's preflight is never hit. `times` is for how many requests, None for ever. `probability` is drawn for each
    request that the fault could hit, from a generator seeded with `seed`; only hits count for `times`. A request is
    hit by one fault, the first injected that applies to it.

    One of these says what goes wrong. The server does **not** do the work, so that no token is used or given:

    - `status`: answer this status, with `headers` and `body` (text, bytes or a JSON object; by default an error of the
      API's form).
    - `redirect`: send the client to this URL, by `status` (307 by default, or 301, 302, 303, 308).
    - `hang`: never answer, until the client leaves or the server closes.
    - `reset="before"`: cut the TCP connection.

    The server does the work, and the client gets no good answer:

    - `reset="after"`: cut the TCP connection instead of answering: the lost answer.
    - `malformed`: answer 200 with something that is no JSON.
    - `omit`, `override`: leave fields out of a good answer, or put anything absurd in their place. An answer that is
      an error goes out as it is.
    - `oversized`: make the body at least so many bytes long, by spaces before the document.

    `delay` is waited for first, in seconds of the event loop's time, with any of them or alone. With `delay` alone
    the work is done after it, and answered as always, also if the client has left.
    """

    on: str = "/auth"
    times: int | None = 1
    probability: float = 1.0
    seed: int | None = None
    delay: float = 0.0
    hang: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default=_NO_HEADERS, converter=_copied_headers)
    body: bytes | None = field(default=None, converter=_encoded)
    reset: Literal["before", "after"] | None = None
    malformed: bool = False
    omit: tuple[str, ...] = field(default=(), converter=_listed)
    override: Mapping[str, object] = field(default=_NOTHING, converter=_copied)
    oversized: int | None = None
    redirect: str | None = None

    def __attrs_post_init__(self) -> None:
        self._check_reach()
        self._check_parts()
        self._check_whole()

    @property
    def name(self) -> FaultName:
        """The word for what goes wrong, as it stands in the record of a call."""
        return (self._kinds() or ["delay"])[0]

    @property
    def does_the_work(self) -> bool:
        """Whether the server does what the request asks for, although the client gets no good answer."""
        return not (self.hang or self.status is not None or self.redirect is not None or self.reset == "before")

    @property
    def redirect_status(self) -> int:
        """The status of a `redirect` fault."""
        return _DEFAULT_REDIRECT if self.status is None else self.status

    @property
    def status_sent(self) -> int | None:
        """The status that a fault answers which comes instead of the work, None where nothing is answered."""
        return self.redirect_status if self.redirect is not None else self.status

    def status_of(self, status: int) -> int | None:
        """Return the status of a spoiled answer that would have had this one, None where it is lost."""
        return None if self.reset is not None else _MALFORMED_STATUS if self.malformed else status

    def answer_body(self) -> bytes:
        """Return the body of a `status` fault."""
        if self.body is not None:
            return self.body
        assert self.status is not None, "asked of status faults alone"
        return json.dumps(_problem_of(self.status).document if self.status >= _ERRORS_BEGIN else {}).encode()

    def edited(self, document: Mapping[str, object]) -> dict[str, object]:
        """Return a document with fields left out and overridden."""
        return {name: value for name, value in document.items() if name not in self.omit} | dict(self.override)

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
        return [kind for kind, wanted in kinds.items() if wanted]

    def _check_reach(self) -> None:
        check_text("on", self.on)
        if not self.on.startswith("/"):
            raise ValueError(f"on must be a path that begins with a slash, such as /auth/refresh, not {self.on!r}")
        if self.times is not None:
            check_int("times", self.times, 1, _MOST)
        check_number("probability", self.probability, above=0, most=1)
        if self.seed is not None:
            check_type("seed", self.seed, int, "an int")

    def _check_parts(self) -> None:
        check_number("delay", self.delay)
        check_flag("hang", self.hang)
        if self.status is not None:
            check_int("status", self.status, 200, 599)
        if self.body is not None:
            check_type("body", self.body, bytes, "text, bytes or a JSON object")
        if self.reset is not None:
            check_choice("reset", self.reset, ("before", "after"))
        check_flag("malformed", self.malformed)
        for name in self.omit:
            check_type("omit", name, str, "names of fields")
        json.dumps(dict(self.override))
        if self.oversized is not None:
            check_int("oversized", self.oversized, 1, _MOST)

    def _check_whole(self) -> None:
        kinds = self._kinds()
        if len(kinds) > 1:
            raise ValueError(f"a fault is one misbehaviour, not {' and '.join(kinds)}; inject one fault for each")
        if not kinds and not self.delay:
            raise ValueError("a fault says what goes wrong: delay, hang, status, reset, malformed, ...")
        if self.redirect is not None:
            check_headers("redirect", {"Location": self.redirect})
            check_choice("the status of a redirect", self.redirect_status, _REDIRECTS)
        if (self.headers or self.body is not None) and kinds != ["status"]:
            raise ValueError("headers and body belong to a fault with a status")


def _problem_of(status: int) -> Problem:
    """Return the error that the API answers with this status, or something of its form."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return too_many_requests()
    phrases = {known.value: known.phrase for known in HTTPStatus}
    return Problem(status, "injected-fault", phrases.get(status, "Fault"))
