"""The meaning of a response: tables of status, headers and body."""

import gzip
import json
import time
import tracemalloc
import zlib

import pytest
from multidict import CIMultiDict

from apivideo_auth import SANDBOX
from apivideo_auth._failure import Failure
from apivideo_auth._models import AccessToken
from apivideo_auth._response import MAX_BODY_SIZE, http_date, parse_response, retry_after

ORIGIN = "https://ws.api.video"
GOOD = {
    "token_type": "Bearer",
    "expires_in": 3600,
    "access_token": "made-up-access",
    "refresh_token": "made-up-refresh",
}
# 2026-01-01T00:00:00Z
NOW = 1_767_225_600.0


def read(body: object, *, status: int = 200, headers: dict[str, str] | None = None, path: str = "/auth/api-key"):
    """Parse one response."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_response(path, ORIGIN, status, headers or {}, raw, utc=NOW, sent="")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, AccessToken("made-up-access", "Bearer", 3600, "made-up-refresh")),
        ({"token_type": "bEaReR"}, AccessToken("made-up-access", "bEaReR", 3600, "made-up-refresh")),
        ({"expires_in": "3599"}, AccessToken("made-up-access", "Bearer", 3599, "made-up-refresh")),
        ({"expires_in": 11}, AccessToken("made-up-access", "Bearer", 11, "made-up-refresh")),
        ({"expires_in": 10**18}, AccessToken("made-up-access", "Bearer", 10**18, "made-up-refresh")),
        ({"refresh_token": None}, AccessToken("made-up-access", "Bearer", 3600, None)),
        ({"refresh_token": ""}, AccessToken("made-up-access", "Bearer", 3600, None)),
        ({"unknown": [1, 2]}, AccessToken("made-up-access", "Bearer", 3600, "made-up-refresh")),
    ],
    ids=str,
)
def test_a_good_response_is_a_token(changes: dict, expected: AccessToken) -> None:
    """The documented response is accepted, and so are harmless variations of it."""
    assert read(GOOD | changes) == expected


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("expires_in", AccessToken("made-up-access", "Bearer", 3600, "made-up-refresh")),
        ("token_type", AccessToken("made-up-access", "bearer", 3600, "made-up-refresh")),
        ("refresh_token", AccessToken("made-up-access", "Bearer", 3600, None)),
    ],
)
def test_missing_fields_have_documented_defaults(missing: str, expected: AccessToken) -> None:
    """Only the access token is required; an assumed lifetime is marked as assumed."""
    token = read({name: value for name, value in GOOD.items() if name != missing})
    assert token == expected
    assert token.lifetime_assumed == (missing == "expires_in")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"access_token": None}, "a string is expected"),
        ({"access_token": 5}, "a string is expected"),
        ({"access_token": {"a": 1}}, "a string is expected"),
        ({"access_token": ["x"]}, "a string is expected"),
        ({"access_token": ""}, "access_token is empty"),
        ({"access_token": "made up"}, "cannot carry"),
        ({"access_token": "made-up\r\nX-Evil: 1"}, "cannot carry"),
        ({"access_token": "made-up\x00"}, "cannot carry"),
        ({"access_token": "made-up-é"}, "cannot carry"),
        ({"access_token": "made-up\n"}, "cannot carry"),
        ({"refresh_token": 5}, "string"),
        ({"refresh_token": "made up"}, "cannot carry"),
        ({"token_type": "mac"}, "not bearer"),
        ({"token_type": None}, "a string is expected"),
        ({"token_type": 1}, "a string is expected"),
        ({"expires_in": None}, "an integer is expected"),
        ({"expires_in": 0}, "more than 0"),
        ({"expires_in": -1}, "more than 0"),
        ({"expires_in": 3599.9}, "an integer is expected"),
        ({"expires_in": True}, "an integer is expected"),
        ({"expires_in": "soon"}, "an integer is expected"),
        ({"expires_in": "-5"}, "an integer is expected"),
        ({"expires_in": ""}, "an integer is expected"),
        ({"expires_in": "9" * 21}, "an integer is expected"),
        ({"expires_in": [3600]}, "an integer is expected"),
    ],
)
def test_a_wrong_field_is_an_invalid_response(changes: dict, why: str) -> None:
    """A field of a wrong type or value is a failure that names the field and does not show its value."""
    failure = read(GOOD | changes)
    assert isinstance(failure, Failure)
    assert failure.kind == "invalid"
    assert why in failure.message
    assert "made-up-access" not in failure.message


BOMB = gzip.compress(b" " * 100_000_000)[:MAX_BODY_SIZE]


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        (b"", {}, "empty"),
        (b"  \n", {}, "empty"),
        (b"null", {}, "not a JSON object"),
        (b"[]", {}, "not a JSON object"),
        (b'"made-up"', {}, "not a JSON object"),
        (b"{}", {}, "access_token is missing"),
        (b"<html>made-up</html>", {"Content-Type": "text/html; charset=utf-8"}, "HTML"),
        (b"made-up", {"Content-Type": "application/json"}, "not JSON"),
        (b'{"access_token": "made-up', {}, "not JSON"),
        (b'{"access_token": NaN}', {}, "not JSON"),
        (b'{"expires_in": ' + b"9" * 5000 + b"}", {}, "not JSON"),
        (b"[" * 60_000, {}, "not JSON"),
        (b'{"a":' * 10_000, {}, "not JSON"),
        (b"\xff\xfe{\x00}\x00", {}, "not UTF-8"),
        ("{}".encode("utf-16-le"), {}, "not JSON"),
        (b"\xef\xbb\xbf{}", {}, "not JSON"),
        (b'{"access_token": "\xff"}', {}, "not UTF-8"),
        (b" " * (MAX_BODY_SIZE + 1), {}, "longer than 65536"),
        (BOMB, {"Content-Encoding": "gzip"}, "longer than 65536"),
        (b"made-up", {"Content-Encoding": "gzip"}, "content encoding"),
        (b"made-up", {"Content-Encoding": "br"}, "content encoding"),
    ],
    ids=range(21),
)
def test_a_body_that_is_not_json_is_an_invalid_response(body: bytes, headers: dict, why: str) -> None:
    """The failure says what is wrong with the body and shows none of it."""
    failure = read(body, headers=headers)
    assert isinstance(failure, Failure)
    assert failure.kind == "invalid"
    assert why in failure.message
    assert "made-up" not in failure.message


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_a_compressed_response_is_read(encoding: str, compress) -> None:
    """A response that is compressed without having been asked for is read."""
    assert isinstance(read(compress(json.dumps(GOOD).encode()), headers={"Content-Encoding": encoding}), AccessToken)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "credentials"),
        (401, "credentials"),
        (403, "credentials"),
        (429, "rate_limited"),
        (404, "response"),
        (405, "response"),
        (408, "response"),
        (500, "response"),
        (503, "response"),
        (599, "response"),
        (101, "invalid"),
        (201, "invalid"),
        (204, "invalid"),
        (302, "invalid"),
        (307, "invalid"),
        (308, "invalid"),
    ],
)
def test_each_status_has_its_kind_of_failure(status: int, kind: str) -> None:
    """400, 401 and 403 reject credentials, 429 is a rate limit, other errors are the service's, the rest is invalid."""
    failure = read(GOOD, status=status, path="/auth/refresh")
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.status) == (kind, status)
    assert ORIGIN in failure.message
    assert ("not followed" in failure.message) == (300 <= status < 400)


def test_a_rejection_has_the_documented_fields() -> None:
    """The fields of the error response are kept, and the message gives advice."""
    link = "https://docs.api.video/reference/authentication-invalid-user-credentials"
    body = {"type": link, "title": "The user credentials were incorrect.", "name": "", "status": 400}
    failure = read(body, status=400)
    assert isinstance(failure, Failure)
    assert (failure.type, failure.title, failure.name) == (link, "The user credentials were incorrect.", None)
    assert "is it a sandbox key" in failure.message


def test_texts_of_the_service_are_clipped_and_printable() -> None:
    """A hostile title can neither flood a log nor move a cursor."""
    failure = read({"title": "x" * 10_000 + "\x1b[2J", "type": "a\nb"}, status=500)
    assert isinstance(failure, Failure)
    assert len(failure.message) < 300
    assert failure.type == "ab"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        (CIMultiDict([("Retry-After", "3"), ("Retry-After", "9"), ("Retry-After", "5")]), 9.0),
        (CIMultiDict([("retry-after", "3"), ("RETRY-AFTER", "Thu, 01 Jan 2026 00:00:30 GMT")]), 30.0),
        (CIMultiDict([("X-RateLimit-Retry-After", "8"), ("x-ratelimit-retry-after", "9")]), 9.0),
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": " 5 "}, 5.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "9" * 5000}, None),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"Retry-After": "Wed, 31 Dec 2025 23:59:00 GMT"}, 0.0),
        ({"Retry-After": "Thu Jan  1 00:00:30 2026"}, 30.0),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:30 -0000"}, 30.0),
        ({"Retry-After": "Thu, 99 Jan 2026 00:00:30 GMT"}, None),
        ({"X-RateLimit-Retry-After": "7"}, 7.0),
        ({"X-RateLimit-Retry-After": "7", "Retry-After": "3"}, 7.0),
        ({"X-RateLimit-Retry-After": "x", "Retry-After": "3"}, 3.0),
        ({"Retry-After": "86400"}, 86_400.0),
    ],
    ids=str,
)
def test_what_the_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds and dates are understood, anything else is ignored, and the longest of several headers counts."""
    assert retry_after(headers, utc=NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", NOW),
        ("Thu, 01 Jan 2026 00:00:00 -0000", NOW),
        ("Thu, 01 Jan 2026 00:00:00", NOW),
        ("Thu, 01 Jan 2026 02:00:00 +0200", NOW),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999", None),
        ("", None),
        ("made-up", None),
    ],
)
def test_a_date_is_utc_without_a_zone(text: str, seconds: float | None) -> None:
    """A date of a header without a zone is UTC, whatever the zone of this machine; an invalid one is None."""
    assert http_date(text) == seconds


def test_a_body_that_is_large_once_decompressed_takes_little_memory() -> None:
    """Not more than the limit is decompressed, so that a small body cannot fill the memory."""
    body = gzip.compress(bytes(50_000_000), compresslevel=9)
    assert len(body) <= MAX_BODY_SIZE
    tracemalloc.start()
    try:
        failure = read(body, headers={"Content-Encoding": "gzip"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(failure, Failure)
    assert "longer than 65536 bytes" in failure.message
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("status", "path", "origin", "headers", "kind", "message"),
    [
        (400, "/auth/api-key", ORIGIN, {}, "credentials", f"{ORIGIN} rejected the API key: is it a sandbox key, or"),
        (403, "/auth/api-key", SANDBOX, {}, "credentials", f"{SANDBOX} rejected the API key: is it a production key,"),
        (401, "/auth/refresh", ORIGIN, {}, "credentials", f"{ORIGIN} rejected the refresh token: it was used before"),
        (429, "/auth/refresh", ORIGIN, {}, "rate_limited", "responded with status 429, too many requests"),
        (429, "/auth/refresh", ORIGIN, {"Retry-After": "0"}, "rate_limited", "status 429, too many requests"),
        (429, "/auth/refresh", ORIGIN, {"Retry-After": "0.5"}, "rate_limited", "requests; try again in 1 seconds"),
        (429, "/auth/refresh", ORIGIN, {"Retry-After": "7.5"}, "rate_limited", "requests; try again in 8 seconds"),
        (402, "/auth/refresh", ORIGIN, {}, "response", f"{ORIGIN}/auth/refresh responded with status 402"),
        (503, "/auth/refresh", ORIGIN, {"Retry-After": "3"}, "response", "status 503; try again in 3 seconds"),
        (404, "/auth/refresh", ORIGIN, {}, "response", "404: no token endpoint is there; check the base URL"),
        (300, "/auth/refresh", ORIGIN, {}, "invalid", "300; redirects are not followed, check the base URL"),
        (399, "/auth/refresh", ORIGIN, {}, "invalid", "399; redirects are not followed, check the base URL"),
        (204, "/auth/refresh", ORIGIN, {}, "invalid", "responded with status 204, not 200"),
        (299, "/auth/refresh", ORIGIN, {}, "invalid", "responded with status 299, not 200"),
    ],
)
def test_a_status_has_a_kind_and_a_sentence(  # noqa: PLR0917
    status: int, path: str, origin: str, headers: dict[str, str], kind: str, message: str
) -> None:
    """The sentence says what happened, and what to do or how long to wait."""
    failure = parse_response(path, origin, status, headers, b"", utc=NOW, sent="")
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.status) == (kind, status)
    assert message in failure.message
    if kind != "credentials":
        assert failure.message.endswith(message)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 01 Jan 2026 00:00:30 -0000", 30.0),
        ("Thu Jan  1 00:00:30 2026", 30.0),
        ("Thu, 01 Jan 2026 02:00:30 +0200", 30.0),
    ],
)
def test_a_date_to_wait_for_does_not_depend_on_the_machines_zone(
    monkeypatch: pytest.MonkeyPatch, date: str, seconds: float
) -> None:
    """A date without a zone is in UTC, and one with a zone counts in that."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        wait = retry_after({"Retry-After": date}, utc=NOW)
    time.tzset()
    assert wait == seconds


@pytest.mark.parametrize("value", [True, "made-up", None, [1]])
def test_a_response_cannot_say_that_its_lifetime_is_assumed(value: object) -> None:
    """A field of that name is ignored, as any unknown field is."""
    token = read(GOOD | {"lifetime_assumed": value})
    assert isinstance(token, AccessToken)
    assert token.lifetime_assumed is False


def test_an_error_response_becomes_one_failure() -> None:
    """Every field of the documented body is kept, without the secret that was sent; a date is measured from now."""
    secret = "made-up-secret-0123456789"
    described = {"type": f"https://made.up/{secret}", "title": f"A {secret}.", "name": f"the {secret}", "status": 400}
    headers = {"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}
    failure = parse_response(
        "/auth/refresh", ORIGIN, 503, headers, json.dumps(described).encode(), utc=NOW, sent=secret
    )
    assert failure == Failure(
        kind="response",
        message=f"{ORIGIN}/auth/refresh responded with status 503; try again in 30 seconds (A ***.)",
        status=503,
        type="https://made.up/***",
        title="A ***.",
        name="the ***",
        retry_after=30.0,
    )


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (b"", "application/json", "the body is empty"),
        (b"\xff", "application/json", "the body is not UTF-8"),
        (b"{", "application/json", "the body is not JSON"),
        (b"{", None, "the body is not JSON"),
        (b"<p>", "application/json; profile=html", "the body is not JSON"),
        (b"<p>", "Text/HTML; charset=utf-8", "the body is HTML, not JSON; is the base URL correct?"),
        (b"<p>", "text/html", "the body is HTML, not JSON; is the base URL correct?"),
    ],
    ids=["empty", "not-utf-8", "cut", "no-type", "parameter", "html-with-charset", "html"],
)
def test_a_response_without_a_token_says_why(body: bytes, content_type: str | None, why: str) -> None:
    """The failure names the URL, the status and the reason."""
    failure = read(body, headers={} if content_type is None else {"Content-Type": content_type})
    message = f"{ORIGIN}/auth/api-key responded without a token: {why}"
    assert failure == Failure(kind="invalid", status=200, message=message)


def test_a_body_of_exactly_the_limit_is_read() -> None:
    """One byte more is too many."""
    body = json.dumps(GOOD).encode().ljust(MAX_BODY_SIZE)
    assert isinstance(read(body), AccessToken)
    assert isinstance(read(body + b" "), Failure)


def test_an_old_name_of_gzip_is_understood() -> None:
    """`x-gzip` is the same encoding."""
    assert isinstance(
        read(gzip.compress(json.dumps(GOOD).encode()), headers={"Content-Encoding": "x-gzip"}), AccessToken
    )
