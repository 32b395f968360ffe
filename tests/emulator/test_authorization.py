"""The Authorization header of requests for resources."""

import pytest

from tests.emulator.client import Client, basic

RESOURCES = [("GET", "/videos"), ("POST", "/videos"), ("GET", "/videos/x"), ("POST", "/videos/x/source")]


@pytest.mark.parametrize(("method", "path"), RESOURCES)
async def test_every_resource_requires_authorization(client: Client, method: str, path: str) -> None:
    """Without an Authorization header each resource answers a 401 that says so."""
    reply = await client.ask(method, path)
    assert (reply.status, reply.slug) == (401, "authentication-missing-authorization-header")
    assert reply.document["title"] == 'The "Authorization" header is missing.'
    assert (reply.document["name"], reply.document["status"]) == ("", 401)


@pytest.mark.parametrize(("method", "path"), RESOURCES)
@pytest.mark.parametrize("token", ["unknown", "a.b.c", "eyJ0", "\xe4", "a b"])
async def test_an_unknown_token_is_rejected(client: Client, method: str, path: str, token: str) -> None:
    """A token that was never issued is a 401."""
    reply = await client.ask(method, path, headers={"Authorization": f"Bearer {token}"})
    assert (reply.status, reply.slug) == (401, "authentication-invalid-access-token")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "token", "Digest x", "Basic", "Basic !!!", "Basic \xe4"])
async def test_an_invalid_header_is_rejected(client: Client, header: str) -> None:
    """A header of another scheme, or with an empty or unreadable value, is a 401 that says so."""
    reply = await client.get("/videos", header)
    assert (reply.status, reply.slug) == (401, "authentication-invalid-authorization-header-value")
    assert reply.document["title"] == 'The "Authorization" header value is invalid.'


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_bearer_is_accepted_in_any_case(client: Client, scheme: str) -> None:
    """The name of the scheme is case-insensitive."""
    token = (await client.bearer()).removeprefix("Bearer ")
    assert (await client.get("/videos", f"{scheme} {token}")).status == 200
    assert (await client.get("/videos", f"{scheme}   {token}")).status == 200


@pytest.mark.parametrize("scheme", ["Basic", "basic", "bAsIc"])
async def test_the_api_key_is_accepted_as_basic(client: Client, scheme: str) -> None:
    """The API key as the user, without a password, is accepted like a token: the Node client sends nothing else."""
    header = client.basic.replace("Basic", scheme)
    assert (await client.get("/videos", header)).status == 200


@pytest.mark.parametrize("credentials", ["another:", "{key}", "{key}:password", ":{key}", ":", "x{key}:", "\x00"])
async def test_another_api_key_is_rejected(client: Client, credentials: str) -> None:
    """Any other user or password is a 401."""
    reply = await client.get("/videos", basic(credentials.format(key=client.server.api_key)))
    assert (reply.status, reply.slug) == (401, "authentication-invalid-api-key")
    assert reply.document["title"] == "The API key is invalid."


async def test_a_refresh_token_opens_no_resource(client: Client) -> None:
    """A refresh token is rejected where an access token is expected."""
    reply = await client.authenticate()
    reply = await client.get("/videos", f"Bearer {reply.document['refresh_token']}")
    assert (reply.status, reply.slug) == (401, "authentication-invalid-access-token")


@pytest.mark.parametrize("path", ["/", "/nope", "/videos/", "//videos", "/auth", "/auth/", "/videos/x/", "/Videos"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_other_paths_are_unknown(client: Client, method: str, path: str) -> None:
    """Any other path is a 404, with or without authorization."""
    for headers in ({}, {"Authorization": client.basic}):
        reply = await client.ask(method, path, headers=headers)
        assert (reply.status, reply.slug) == (404, "unrecognized-request-url")
        assert reply.document["title"] == "Unrecognized request URL."


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/auth/api-key", "POST"),
        ("DELETE", "/auth/refresh", "POST"),
        ("PATCH", "/videos", "GET,POST"),
        ("DELETE", "/videos/x", "GET"),
        ("GET", "/videos/x/source", "POST"),
        ("PROPFIND", "/videos", "GET,POST"),
    ],
)
async def test_other_methods_are_rejected(client: Client, method: str, path: str, allowed: str) -> None:
    """A method that a path does not support is a 405 that names the supported ones."""
    reply = await client.ask(method, path)
    assert (reply.status, reply.slug, reply.headers["Allow"]) == (405, "method-not-allowed", allowed)
    assert reply.document["title"] == "Method is not allowed for this route."
