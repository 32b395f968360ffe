"""What an answer of the two endpoints means: status, headers and body in, a token or a failure out.

Nothing here raises: an exception's traceback would hold the body, and with it the secrets, among its locals.
"""

import json
import math
import zlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeAlias

from apivideo_auth._failure import Failure
from apivideo_auth._models import AccessToken, BadRequest, access_token_from, bad_request_from

BODY_LIMIT: Final = 65_536
"""Bytes of an answer that are read, before and after decompression. A real answer has about 2,000."""

_OK = 200
_REFUSED = (400, 401, 403)
_TOO_MANY_REQUESTS = 429
_TEXT_LIMIT = 200

Endpoint: TypeAlias = Literal["/auth/api-key", "/auth/refresh"]


def parse_response(  # noqa: PLR0911, PLR0913  one return for each class of answer, one argument for each part of it
    endpoint: Endpoint, origin: str, status: int, headers: Mapping[str, str], body: bytes, *, utc: float
) -> AccessToken | Failure:
    """Return the token that an endpoint of `origin` answered, or why it is none.

    `headers` are matched without regard to case. `body` holds at most `BODY_LIMIT` bytes and one more, which tells
    that there was more. `utc` is the wall clock, for a `Retry-After` that names a date.
    """
    where = f"{origin}{endpoint}"
    document = _document(headers, body)
    if status == _OK:
        if isinstance(document, _Unreadable):
            return Failure(kind="invalid", status=status, message=f"{where} answered no token: {document.why}")
        try:
            return access_token_from(document.value)
        except (TypeError, ValueError) as error:
            return Failure(kind="invalid", status=status, message=f"{where} answered no token: {error}")
    problem = BadRequest() if isinstance(document, _Unreadable) else bad_request_from(document.value)
    wait = retry_after(headers, utc=utc)
    if status in _REFUSED:
        return _failure("credentials", _refusal(endpoint, origin), status, problem, wait)
    if status == _TOO_MANY_REQUESTS:
        return _failure("rate_limited", f"{where} answered 429, too many requests", status, problem, wait)
    if status >= 400:  # noqa: PLR2004  where errors begin
        return _failure("response", f"{where} answered {status}", status, problem, wait)
    hint = "; redirects are not followed" if 300 <= status < 400 else ""  # noqa: PLR2004  redirects
    return _failure("invalid", f"{where} answered {status}, not 200{hint}", status, problem, wait)


def retry_after(headers: Mapping[str, str], *, utc: float) -> float | None:
    """Return the seconds that the server asks to wait, or None.

    `X-RateLimit-Retry-After` (api.video: seconds) and `Retry-After` (RFC 9110: seconds or a date); the longer one.
    """
    wishes = [
        wish
        for wish in (
            _seconds(headers.get("X-RateLimit-Retry-After")),
            _seconds(headers.get("Retry-After")),
            _seconds_until(headers.get("Retry-After"), utc),
        )
        if wish is not None
    ]
    return max(wishes, default=None)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text is not None and len(text) <= _TEXT_LIMIT else math.nan
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(text: str | None, utc: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text or "").timestamp() - utc)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _refusal(endpoint: Endpoint, origin: str) -> str:
    if endpoint == "/auth/refresh":
        return f"the refresh token was refused by {origin}: it was used before, revoked, or belongs elsewhere"
    kind = "sandbox" if "sandbox" in origin else "production"
    other = "production" if kind == "sandbox" else "sandbox"
    return f"the API key was refused by {origin}: is it a {other} key, or was it deleted?"


def _failure(
    kind: Literal["credentials", "rate_limited", "response", "invalid"],
    message: str,
    status: int,
    problem: BadRequest,
    wait: float | None,
) -> Failure:
    title = _printable(problem.title)
    return Failure(
        kind=kind,
        message=f"{message} ({title})" if title else message,
        status=status,
        type=_printable(problem.type) or None,
        title=title or None,
        name=_printable(problem.name) or None,
        retry_after=wait,
    )


def _printable(text: str) -> str:
    return "".join(character for character in text[:_TEXT_LIMIT] if character.isprintable())


class _Readable:
    def __init__(self, value: object) -> None:
        self.value = value


class _Unreadable:
    def __init__(self, why: str) -> None:
        self.why = why


def _document(headers: Mapping[str, str], body: bytes) -> _Readable | _Unreadable:
    """Return the JSON document of a body, or why there is none."""
    plain = _decompressed(headers.get("Content-Encoding", ""), body)
    if plain is None:
        return _Unreadable("its content encoding is unknown or broken")
    if len(plain) > BODY_LIMIT:
        return _Unreadable(f"it is longer than {BODY_LIMIT} bytes")
    if not plain.strip():
        return _Unreadable("it is empty")
    try:
        return _Readable(json.loads(plain.decode("utf-8"), parse_constant=_refuse_constant))
    except UnicodeDecodeError:
        return _Unreadable("it is not UTF-8")
    except (ValueError, RecursionError):
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return _Unreadable("it is HTML, not JSON; is the base URL right?" if "html" in kind else "it is not JSON")


def _refuse_constant(_name: str) -> Any:  # noqa: ANN401  json's own signature
    raise ValueError


def _decompressed(encoding: str, body: bytes) -> bytes | None:
    """Return the body as it was before compression, at most one byte over the limit, or None."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    try:
        # 32 added to the window size lets zlib tell gzip from zlib by the header.
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, BODY_LIMIT + 1)
    except zlib.error:
        return None
