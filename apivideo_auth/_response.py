"""Parses responses of the two endpoints: status, headers and body in, a token or a failure out.

No exception leaves this module: its traceback would hold the body, and with it secrets, among its locals.
"""

import json
import math
import zlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal, NoReturn, TypeAlias, cast

from apivideo_auth._failure import WRONG_ADDRESS_STATUSES, Failure, FailureKind, clean_text
from apivideo_auth._models import AccessToken, BadRequest, access_token_from, bad_request_from

MAX_BODY_SIZE: Final = 65_536
"""Bytes of a response that are read, before and after decompression. A normal response has about 2,000."""

Endpoint: TypeAlias = Literal["/auth/api-key", "/auth/refresh"]


def parse_response(  # noqa: PLR0913  one argument for each part of a response
    endpoint: Endpoint,
    origin: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    utc: float,
    sent: str,
) -> AccessToken | Failure:
    """Return the token that an endpoint of `origin` sent, or the failure.

    `headers` must ignore case. `body` holds at most `MAX_BODY_SIZE` bytes; one byte more means that there were more.
    If the status is not 200, the body may be incomplete.
    `utc` is the wall clock, for a `Retry-After` with a date. `sent` is the secret that was sent: a response may repeat
    it, and a failure must not show it.
    """
    described, wait = BadRequest(), retry_after(headers, utc)
    try:
        document = _json_document(headers, body)
        if status == 200:  # noqa: PLR2004
            return access_token_from(document)
        described = bad_request_from(document)
    except (TypeError, ValueError) as error:
        if status == 200:  # noqa: PLR2004
            message = f"{origin}{endpoint} responded without a token: {error}"
            return Failure(kind="invalid", status=status, message=message)
    kind, message = _meaning(status, endpoint, origin, wait)
    title = clean_text(described.title, sent)
    return Failure(
        kind=kind,
        message=f"{message} ({title})" if title else message,
        status=status,
        type=clean_text(described.type, sent) or None,
        title=title or None,
        name=clean_text(described.name, sent) or None,
        retry_after=wait,
    )


def _meaning(status: int, endpoint: Endpoint, origin: str, wait: float | None) -> tuple[FailureKind, str]:
    """Return the kind of failure that a status other than 200 means, and a sentence about it."""
    responded = f"{origin}{endpoint} responded with status {status}"
    match status:
        case 400 | 401 | 403:
            return "credentials", _rejected(endpoint, origin)
        case 429:
            return "rate_limited", f"{responded}, too many requests{_when(wait)}"
        case _ if status in WRONG_ADDRESS_STATUSES:
            return "response", f"{responded}: no token endpoint is there; check the base URL"
        case _ if status < 300:  # noqa: PLR2004
            return "invalid", f"{responded}, not 200"
        case _ if status // 100 == 3:  # noqa: PLR2004
            return "invalid", f"{responded}; redirects are not followed, check the base URL"
        case _:
            return "response", responded + _when(wait)


def _rejected(endpoint: Endpoint, origin: str) -> str:
    if endpoint == "/auth/refresh":
        return f"{origin} rejected the refresh token: it was used before, was revoked, or belongs to another host"
    other = "production" if "sandbox" in origin else "sandbox"
    return f"{origin} rejected the API key: is it a {other} key, or was it deleted?"


def _when(wait: float | None) -> str:
    return f"; try again in {math.ceil(wait)} seconds" if wait is not None and wait > 0 else ""


def retry_after(headers: Mapping[str, str], utc: float) -> float | None:
    """Return the seconds that the server asks to wait, or None. The longest wait of several headers counts.

    `Retry-After` has seconds or a date (RFC 9110), and api.video's `X-RateLimit-Retry-After` has seconds. `utc` is now.
    """
    waits: list[float | None] = []
    # A multidict has an item for each header, also if several have the same name.
    for name, text in headers.items():
        if name.lower() == "retry-after":
            moment = http_date(text)
            waits += [_seconds(text), None if moment is None else max(0.0, moment - utc)]
        elif name.lower() == "x-ratelimit-retry-after":
            waits.append(_seconds(text))
    return max((wait for wait in waits if wait is not None), default=None)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def http_date(text: str) -> float | None:
    """Return the date in a header in seconds since the Unix epoch, or None if the text is not a date."""
    try:
        moment = parsedate_to_datetime(text)
        # HTTP dates are UTC. Without a zone, or with -0000, Python returns a naive datetime.
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _json_document(headers: Mapping[str, str], body: bytes) -> object:
    """Return the JSON document of a body; raise `ValueError`, without text from it, if there is none."""
    plain = _decompressed(headers.get("Content-Encoding", ""), body)
    if plain is None:
        raise ValueError("the content encoding of the body is unknown or broken")
    if len(plain) > MAX_BODY_SIZE:
        raise ValueError(f"the body is longer than {MAX_BODY_SIZE} bytes")
    if not plain.strip():
        raise ValueError("the body is empty")
    try:
        return cast("object", json.loads(plain.decode(), parse_constant=_reject_constant))
    except UnicodeDecodeError:
        why = "the body is not UTF-8"
    except (ValueError, RecursionError):
        html = "html" in headers.get("Content-Type", "").partition(";")[0].lower()
        why = "the body is HTML, not JSON; is the base URL correct?" if html else "the body is not JSON"
    raise ValueError(why)


def _reject_constant(_name: str) -> NoReturn:
    raise ValueError


def _decompressed(encoding: str, body: bytes) -> bytes | None:
    """Return the body before compression, with at most one byte more than allowed, or None if that is impossible."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name in ("gzip", "x-gzip", "deflate"):
        with suppress(zlib.error):
            # 32 added to the window size: zlib detects gzip or zlib by the header.
            return zlib.decompressobj(zlib.MAX_WBITS + 32).decompress(body, MAX_BODY_SIZE + 1)
    return None
