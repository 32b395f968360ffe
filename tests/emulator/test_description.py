"""The OpenAPI description, and whether it is true."""

import json
import os
import re
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from yarl import URL

from apivideo_auth.emulator import Emulator
from apivideo_auth.emulator._description import description
from apivideo_auth.emulator._limits import RateLimits
from tests.emulator.client import Client, Reply

CASES = os.environ.get("APIVIDEO_EMULATOR_CASES")
"""How many requests the property is tried with; each run tries others then. By default a few, always the same."""

DESCRIPTION: dict[str, Any] = description()
PATHS = {re.compile(re.sub(r"\{\w+\}", "[^/]+", path)): operations for path, operations in DESCRIPTION["paths"].items()}
PROBLEM = {"$ref": "#/components/schemas/Problem"}


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference within the description."""
    if "$ref" not in part:
        return part
    found = DESCRIPTION
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def check_schema(schema: dict[str, Any], value: object) -> None:
    Draft202012Validator({**schema, "components": DESCRIPTION["components"]}).validate(value)


def check_described(method: str, path: str, reply: Reply) -> None:
    """Release unless the description says that this may be answered to a request of this method and path."""
    assert reply.status < 500
    operations = next((operations for pattern, operations in PATHS.items() if pattern.fullmatch(path)), None)
    if method == "OPTIONS":
        assert (reply.status, reply.document) == (204, None)
    elif operations is None:
        assert reply.status == 404
        check_schema(PROBLEM, reply.document)
    elif method.lower() not in operations:
        assert reply.status == 405
        check_schema(PROBLEM, reply.document)
    else:
        responses = operations[method.lower()]["responses"]
        assert str(reply.status) in responses
        response = resolved(responses[str(reply.status)])
        check_schema(response["content"]["application/json"]["schema"], reply.document)
        assert reply.document.get("status", reply.status) == reply.status
        headers = response.get("headers", {})
        for name, header in headers.items():
            check_schema(resolved(header)["schema"], int(reply.headers[name]))
        assert {name for name in reply.headers if name.startswith("X-RateLimit")} == headers.keys()


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
KNOWN = ["/auth/api-key", "/auth/refresh", "/videos", "/videos/VIDEO", "/videos/VIDEO/source", "/openapi.json"]
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
async def test_every_answer_is_described(client: Client, asked: Asked) -> None:
    """Whatever is asked, the answer is none of 500 and up, and is one that the description has for it."""
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
    check_described(asked.method, url.path, reply)


def test_the_schemas_are_schemas() -> None:
    """Each schema of the description is one."""
    for schema in DESCRIPTION["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("server", [{"refused_status": status} for status in (400, 401, 403)], indirect=True)
async def test_refusals_are_described(client: Client) -> None:
    """Each status of a refusal is in the description of both endpoints."""
    check_described("POST", "/auth/api-key", await client.post("/auth/api-key", json={"apiKey": "x"}))
    check_described("POST", "/auth/refresh", await client.refresh("x"))


async def test_the_description_is_served(session: aiohttp.ClientSession) -> None:
    """`GET /openapi.json` answers the description to anybody, with no rate limit."""
    async with Emulator() as server:
        reply = await Client(server, session).get("/openapi.json")
    assert (reply.status, reply.document) == (200, DESCRIPTION)
    assert "X-RateLimit-Limit" not in reply.headers
