"""Every response to every request has the form that the API documents."""

import json
import os
import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from apivideo_auth.emulator import RateLimits
from tests.emulator.client import REFERENCE, Client, Reply

CASES = os.environ.get("APIVIDEO_EMULATOR_CASES")
"""The number of requests to try, other ones in each run. By default a few, the same in each run."""

RATE_HEADERS = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Retry-After"}
TOKEN = {"token_type": str, "expires_in": int, "access_token": str, "refresh_token": str}
PROBLEM = {"type": str, "title": str, "name": str, "status": int}
ASSETS = dict.fromkeys(("hls", "iframe", "player", "thumbnail", "mp4"), str)
VIDEO = {
    **dict.fromkeys(("videoId", "title"), str),
    **dict.fromkeys(("public", "panoramic", "mp4Support", "discarded"), bool),
    "tags": [str],
    "metadata": [{"key": str, "value": str}],
    **dict.fromkeys(("createdAt", "publishedAt", "updatedAt"), datetime),
    "source": {"uri": str},
    "assets": ASSETS,
}
OPTIONAL = {"description": str, "playerId": str}
COUNTS = ("currentPage", "pageSize", "pagesTotal", "itemsTotal", "currentPageItems")
PAGE = {"data": [VIDEO], "pagination": {**dict.fromkeys(COUNTS, int), "links": [{"rel": str, "uri": str}]}}
ERRORS = {400, 401, 404, 413, 429}
OPERATIONS: dict[str, dict[str, tuple[int, Any, set[int]]]] = {
    "/auth/api-key": {"POST": (200, TOKEN, {400, 401, 403, 413})},
    "/auth/refresh": {"POST": (200, TOKEN, {400, 401, 403, 413})},
    "/videos": {"GET": (200, PAGE, ERRORS - {404, 413}), "POST": (201, VIDEO, ERRORS - {404})},
    "/videos/[^/]+": {"GET": (200, VIDEO, ERRORS - {400, 413})},
    "/videos/[^/]+/source": {"POST": (201, VIDEO, ERRORS)},
}
"""By path and method: the status and the form of a good response, and the statuses of errors."""


def check_form(form: Any, value: Any) -> None:
    """Fail unless a JSON value has the form: a type, a list of a form, or an object with exactly these members."""
    if isinstance(form, list):
        assert isinstance(value, list)
        for item in value:
            check_form(form[0], item)
    elif isinstance(form, dict):
        members = form | ({name: OPTIONAL[name] for name in OPTIONAL if name in value} if form is VIDEO else {})
        assert value.keys() == members.keys()
        for name, member in members.items():
            check_form(member, value[name])
    elif form is datetime:
        assert datetime.fromisoformat(value).tzinfo is not None
    else:
        assert type(value) is form


def check_response(method: str, path: str, reply: Reply) -> None:
    """Fail unless the API may give this response to a request with this method and path."""
    if method == "OPTIONS":
        assert (reply.status, reply.document) == (204, None)
        return
    operations = next((found for pattern, found in OPERATIONS.items() if re.fullmatch(pattern, path)), None)
    status, form, errors = (operations or {}).get(method, (None, None, {405 if operations else 404}))
    rate_headers = {name for name in reply.headers if name.startswith("X-RateLimit")}
    assert rate_headers == (RATE_HEADERS if path.startswith("/videos") and status is not None else set())
    assert all(int(reply.headers[name]) >= 0 for name in rate_headers)
    if reply.status == status:
        check_form(form, reply.document)
    else:
        assert reply.status in errors
        check_form(PROBLEM, reply.document)
        assert reply.document["status"] == reply.status
        assert reply.document["type"].startswith(REFERENCE)


TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NAMES = ["apiKey", "refreshToken", "title", "description", "playerId"]
NAMES += ["public", "panoramic", "mp4Support", "tags", "metadata"]
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NAMES, JSON | st.just("KEY") | st.just("REFRESH")),
        "title": st.just("t") | JSON,
        "tags": st.lists(TEXT, max_size=2) | JSON,
        "metadata": st.lists(st.fixed_dictionaries({"key": TEXT, "value": TEXT}), max_size=2) | JSON,
    },
)
PARTS = st.builds(
    lambda before, disposition, content, end: (
        before + b"\r\n--b\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + end
    ),
    before=st.sampled_from([b"", b"preamble", b"--b\r\n\r\nplain"]),
    disposition=st.sampled_from([b'form-data; name="file"; filename="f"', b'form-data; name="file"'])
    | st.binary(max_size=9),
    content=st.binary(max_size=20),
    end=st.sampled_from([b"\r\n--b--\r\n", b"\r\n--b\r\n", b""]),
)
RANGES = st.sampled_from(["part 1/1", "part 1/2", "part 2/2", "part 1/*", "bytes 0-9/20", "bytes 10-19/20", "nonsense"])
SEGMENTS = st.sampled_from(["videos", "auth", "api-key", "refresh", "source", "VIDEO", ""]) | TEXT.map(
    lambda text: quote(text, safe="")
)
KNOWN = ["/auth/api-key", "/auth/refresh", "/videos", "/videos/VIDEO", "/videos/VIDEO/source"]
PAGES = st.sampled_from(["1", "2", "100", "0", "-1", "", "x"]) | TEXT


@frozen
class Asked:
    """A request, with stand-ins for what only the running emulator knows: KEY, REFRESH, VIDEO, BEARER, BASIC."""

    method: str
    path: str
    query: dict[str, str]
    authorization: str | None
    body: bytes
    headers: dict[str, str]


REQUESTS = st.builds(
    Asked,
    method=st.sampled_from(["GET", "POST"] * 5 + ["PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]),
    path=st.sampled_from(KNOWN) | st.lists(SEGMENTS, max_size=4).map(lambda segments: "/" + "/".join(segments)),
    query=st.dictionaries(st.sampled_from(["currentPage", "pageSize", "title"]) | TEXT, PAGES, max_size=3)
    | st.sampled_from(["currentPage", "pageSize"]).map(lambda name: {name: "9" * 5000}),
    authorization=st.sampled_from(["BEARER", "BASIC", "BEARER", "Bearer x", "Basic eA==", "Basic", None])
    | st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs", "Cc"]), max_size=20),
    body=st.binary(max_size=50)
    | JSON.map(json.dumps).map(str.encode)
    | OBJECTS.map(json.dumps).map(str.encode)
    | PARTS,
    headers=st.fixed_dictionaries(
        {},
        optional={
            "Content-Type": st.sampled_from(["application/json", "text/plain", "multipart/form-data; boundary=b"]),
            "Content-Range": RANGES,
            "Accept": st.just("text/html"),
        },
    ),
)


@settings(
    max_examples=int(CASES or 150),
    derandomize=CASES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=REQUESTS)
@pytest.mark.parametrize("server", [{"limits": RateLimits(uploads=30, writes=30, reads=30)}, {}], indirect=True)
async def test_every_response_has_its_form(client: Client, asked: Asked) -> None:
    """Whatever the request, the response has one of the statuses and the form that belong to its path and method."""
    tokens = (await client.authenticate()).document
    created = await client.post("/videos", client.basic, json={"title": "t"})
    path = asked.path.replace("VIDEO", created.document.get("videoId", "none-any-more"))
    body = asked.body.replace(b"KEY", client.server.api_key.encode())
    body = body.replace(b"REFRESH", tokens["refresh_token"].encode())
    headers = dict(asked.headers)
    if asked.authorization is not None:
        known = {"BEARER": f"Bearer {tokens['access_token']}", "BASIC": client.basic}
        headers["Authorization"] = known.get(asked.authorization, asked.authorization)
    url = URL(client.server.url + path, encoded=True).with_query(asked.query)
    async with client.session.request(asked.method, url, data=body, headers=headers, allow_redirects=False) as answer:
        content = await answer.read()
        assert answer.headers["Content-Type"] == "application/json"
        reply = Reply(answer.status, answer.headers, json.loads(content) if content else None)
    check_response(asked.method, url.path, reply)


@pytest.mark.parametrize("server", [{"refused_status": status} for status in (400, 401, 403)], indirect=True)
async def test_rejections_have_their_form(client: Client) -> None:
    """Each status of a rejection by the two endpoints is an error in the API's form."""
    check_response("POST", "/auth/api-key", await client.post("/auth/api-key", json={"apiKey": "x"}))
    check_response("POST", "/auth/refresh", await client.refresh("x"))
