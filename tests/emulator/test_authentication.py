"""The two authentication endpoints."""

import json
import re

import pytest

from tests.emulator.client import Client, bearer_of

ENDPOINTS = ["/auth/api-key", "/auth/refresh"]
ATTRIBUTES = [("/auth/api-key", "apiKey"), ("/auth/refresh", "refreshToken")]


async def test_an_api_key_gives_a_token(client: Client) -> None:
    """The right API key is answered 200 and the four fields of an access token."""
    reply = await client.authenticate()
    assert reply.status == 200
    assert reply.document.keys() == {"token_type", "expires_in", "access_token", "refresh_token"}
    assert reply.document["token_type"] == "Bearer"
    assert reply.document["expires_in"] == 3600


async def test_the_tokens_look_like_the_real_ones(client: Client) -> None:
    """The access token has three parts like a JWT; the refresh token is about 700 characters that begin with def502."""
    reply = await client.authenticate()
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", reply.document["access_token"])
    assert re.fullmatch(r"def502[0-9a-f]{694}", reply.document["refresh_token"])


async def test_a_refresh_token_gives_a_token(client: Client) -> None:
    """A refresh token is answered like an API key, with new tokens that work."""
    first = await client.authenticate()
    second = await client.refresh(first.document["refresh_token"])
    assert second.status == 200
    assert not set(first.document.values()) & set(second.document.values()) - {"Bearer", 3600}
    assert (await client.get("/videos", bearer_of(second))).status == 200


@pytest.mark.parametrize("body", [{"apiKey": "another"}, {"apiKey": "ä\U0001f511"}, {"apiKey": "made-up"}])
async def test_a_wrong_api_key_is_rejected(client: Client, body: object) -> None:
    """Any other API key gets the documented 400."""
    reply = await client.post("/auth/api-key", json=body)
    assert reply.document == {
        "type": "https://docs.api.video/reference/authentication-invalid-user-credentials",
        "title": "The user credentials were incorrect.",
        "name": "",
        "status": 400,
    }
    assert reply.status == 400


async def test_an_unknown_refresh_token_is_rejected(client: Client) -> None:
    """A refresh token that was never issued gets the same 400 as a bad API key."""
    reply = await client.refresh("def502made-up")
    assert (reply.status, reply.slug) == (400, "authentication-invalid-user-credentials")


@pytest.mark.parametrize(
    ("server", "status"), [({"refused_status": status}, status) for status in (400, 401, 403)], indirect=["server"]
)
async def test_the_status_of_a_rejection_can_be_chosen(client: Client, status: int) -> None:
    """`refused_status` is the status of both rejections, in the status line and in the body."""
    for reply in (await client.post("/auth/api-key", json={"apiKey": "x"}), await client.refresh("x")):
        assert reply.status == reply.document["status"] == status


@pytest.mark.parametrize(("path", "name"), ATTRIBUTES)
@pytest.mark.parametrize("value", ["missing", None, ""])
async def test_the_attribute_is_required(client: Client, path: str, name: str, value: str | None) -> None:
    """A missing, null or empty attribute is named in a 400."""
    reply = await client.post(path, json={} if value == "missing" else {name: value})
    assert (reply.status, reply.slug, reply.document["name"]) == (400, "attribute-required", name)
    assert reply.document["title"] == "This attribute is required."


@pytest.mark.parametrize(("path", "name"), ATTRIBUTES)
@pytest.mark.parametrize("value", [1, True, [], {}, 1.5])
async def test_the_attribute_is_a_string(client: Client, path: str, name: str, value: object) -> None:
    """An attribute of another type is named in a 400."""
    reply = await client.post(path, json={name: value})
    assert (reply.status, reply.slug, reply.document["name"]) == (400, "invalid-attribute", name)


@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=utf-8", "", "x"])
async def test_json_is_accepted_whatever_its_content_type(client: Client, content_type: str) -> None:
    """JSON is accepted with any content type: the browser uploader posts it as text/plain."""
    body = json.dumps({"apiKey": client.server.api_key})
    reply = await client.post("/auth/api-key", data=body, headers={"Content-Type": content_type})
    assert reply.status == 200


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_form_is_rejected(client: Client, path: str) -> None:
    """A form-encoded body is a 400."""
    reply = await client.post(path, data={"apiKey": client.server.api_key, "refreshToken": "x"})
    assert (reply.status, reply.slug, reply.document["title"]) == (400, "invalid-payload", "The payload is invalid.")


@pytest.mark.parametrize("authorization", ["Bearer expired", "Basic !", "nonsense"])
async def test_the_authorization_and_accept_headers_are_ignored(client: Client, authorization: str) -> None:
    """The endpoints ignore Authorization and Accept."""
    headers = {"Authorization": authorization, "Accept": "image/png"}
    reply = await client.post("/auth/api-key", json={"apiKey": client.server.api_key}, headers=headers)
    assert reply.status == 200


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_endpoints_have_no_rate_limit(client: Client, path: str) -> None:
    """No response of the endpoints has rate-limit headers."""
    for reply in (await client.authenticate(), await client.post(path, json={}), await client.get(path)):
        assert not [name for name in reply.headers if name.startswith("X-RateLimit")]


async def test_the_origin_headers_are_accepted(client: Client) -> None:
    """The headers in which the vendor's clients name themselves change nothing."""
    headers = {"AV-Origin-Client": "python:1.4.5", "AV-Origin-App": "a:1.2.3", "AV-Origin-Sdk": "b:1"}
    reply = await client.post("/auth/api-key", json={"apiKey": client.server.api_key}, headers=headers)
    assert reply.status == 200
