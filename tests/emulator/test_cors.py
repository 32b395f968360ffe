"""CORS: what a browser needs."""

import pytest

from apivideo_auth.emulator import Fault
from tests.emulator.client import Client


@pytest.mark.parametrize("path", ["/auth/api-key", "/auth/refresh", "/videos", "/videos/x/source", "/nope"])
async def test_a_preflight_is_answered(client: Client, path: str) -> None:
    """OPTIONS needs no authorization and allows any origin, the methods, and the headers that were asked for."""
    headers = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-range, x-made-up",
    }
    reply = await client.ask("OPTIONS", path, headers=headers)
    assert (reply.status, reply.document) == (204, None)
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert {"GET", "POST"} <= set(reply.headers["Access-Control-Allow-Methods"].split(", "))
    allowed = {name.lower() for name in reply.headers["Access-Control-Allow-Headers"].split(", ")}
    assert {"authorization", "content-type", "content-range", "av-origin-client", "x-made-up"} <= allowed


@pytest.mark.parametrize("requested", [None, "", ",,", "a b", "x" * 5000, "\xe4", "a,\xe4"])
async def test_invalid_header_names_are_not_repeated(client: Client, requested: str | None) -> None:
    """Only valid header names are repeated."""
    headers = {} if requested is None else {"Access-Control-Request-Headers": requested}
    reply = await client.ask("OPTIONS", "/videos", headers=headers)
    assert reply.status == 204
    assert len(reply.headers["Access-Control-Allow-Headers"]) < 200


async def test_responses_can_be_read_by_a_page(client: Client) -> None:
    """Every response allows any origin, errors and faults too, and exposes the rate-limit headers."""
    client.server.inject(Fault(status=503), Fault(malformed=True, on="/videos"), Fault(oversized=10))
    replies = [await client.authenticate(), await client.authenticate(), await client.get("/nope")]
    assert [reply.status for reply in replies] == [503, 200, 404]
    for reply in replies:
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert "X-RateLimit-Retry-After" in reply.headers["Access-Control-Expose-Headers"]
