"""How tokens revoke each other. Each way may be that of the real service."""

import pytest

from tests.emulator.client import Client, bearer_of


async def test_a_refresh_token_is_accepted_once(client: Client) -> None:
    """The second use of a refresh token is rejected; the tokens issued by the first use stay valid."""
    first = await client.authenticate()
    second = await client.refresh(first.document["refresh_token"])
    again = await client.refresh(first.document["refresh_token"])
    assert (again.status, again.slug) == (400, "authentication-invalid-user-credentials")
    assert (await client.get("/videos", bearer_of(second))).status == 200
    assert (await client.refresh(second.document["refresh_token"])).status == 200


@pytest.mark.parametrize("server", [{"single_use": False}], indirect=True)
async def test_a_refresh_token_can_be_reusable(client: Client) -> None:
    """Without `single_use` a refresh token is accepted repeatedly, and a new one is issued each time."""
    first = await client.authenticate()
    replies = [await client.refresh(first.document["refresh_token"]) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert len({reply.document["refresh_token"] for reply in (first, *replies)}) == 4


async def test_a_refresh_leaves_the_access_token(client: Client) -> None:
    """By default the access token from before a refresh stays good."""
    first = await client.authenticate()
    await client.refresh(first.document["refresh_token"])
    assert (await client.get("/videos", bearer_of(first))).status == 200


@pytest.mark.parametrize("server", [{"refresh_revokes": True}], indirect=True)
async def test_a_refresh_can_revoke_the_access_token(client: Client) -> None:
    """With `refresh_revokes` a refresh ends the access token that came with the refresh token used, and no other."""
    first, other = await client.authenticate(), await client.authenticate()
    second = await client.refresh(first.document["refresh_token"])
    assert (await client.get("/videos", bearer_of(first))).status == 401
    assert (await client.get("/videos", bearer_of(other))).status == 200
    assert (await client.get("/videos", bearer_of(second))).status == 200


async def test_authenticating_leaves_the_refresh_tokens(client: Client) -> None:
    """By default a call for a token by API key disturbs nobody."""
    first = await client.authenticate()
    await client.authenticate()
    assert (await client.refresh(first.document["refresh_token"])).status == 200


@pytest.mark.parametrize("server", [{"authenticate_invalidates": True}], indirect=True)
async def test_authenticating_can_invalidate_the_refresh_tokens(client: Client) -> None:
    """With `authenticate_invalidates` the earlier refresh tokens end, the access tokens do not."""
    first = await client.authenticate()
    second = await client.authenticate()
    assert (await client.refresh(first.document["refresh_token"])).status == 400
    assert (await client.get("/videos", bearer_of(first))).status == 200
    assert (await client.refresh(second.document["refresh_token"])).status == 200


@pytest.mark.parametrize("server", [{"authenticate_invalidates": True}], indirect=True)
async def test_a_rejected_api_key_invalidates_nothing(client: Client) -> None:
    """A wrong API key invalidates no refresh token."""
    first = await client.authenticate()
    await client.post("/auth/api-key", json={"apiKey": "another"})
    assert (await client.refresh(first.document["refresh_token"])).status == 200


async def test_access_tokens_can_be_revoked(client: Client) -> None:
    """`revoke_all` ends every access token issued so far; refresh tokens and later tokens are good."""
    first, other = await client.authenticate(), await client.authenticate()
    client.server.revoke_all()
    for reply in (first, other):
        assert (await client.get("/videos", bearer_of(reply))).slug == "authentication-invalid-access-token"
    second = await client.refresh(first.document["refresh_token"])
    assert (await client.get("/videos", bearer_of(second))).status == 200


async def test_refresh_tokens_can_be_revoked(client: Client) -> None:
    """`revoke_all(refresh=True)` ends the refresh tokens too, and the API key still gives new ones."""
    first = await client.authenticate()
    client.server.revoke_all(refresh=True)
    assert (await client.get("/videos", bearer_of(first))).status == 401
    assert (await client.refresh(first.document["refresh_token"])).status == 400
    assert (await client.authenticate()).status == 200
