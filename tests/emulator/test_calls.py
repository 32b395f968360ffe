"""The record of calls, and the absence of secrets in it."""

import asyncio
import copy
import logging

import aiohttp
import pytest

from apivideo_auth.emulator import Call, Emulator, Fault, _calls
from tests.emulator.client import Client, bearer_of, until
from tests.support.doubles import ManualClock


async def test_each_call_is_recorded(session: aiohttp.ClientSession) -> None:
    """A call has its time, method, path without query, status, outcome, and the generation of the token."""
    clock = ManualClock(5.0)
    async with Emulator(clock=clock) as server:
        client = Client(server, session)
        first = await client.authenticate()
        clock.now = 6.0
        second = await client.refresh(first.document["refresh_token"])
        await client.refresh(first.document["refresh_token"])
        await client.refresh("unknown")
        await client.get("/videos?pageSize=1", bearer_of(second))
        await client.get("/videos/x", bearer_of(first))
        await client.get("/videos", "Bearer unknown")
        server.revoke_all()
        await client.get("/videos", bearer_of(second))
        await client.get("/nope")
        await client.get("/auth/refresh")
        await client.post("/videos", client.basic, json={})
        await client.ask("OPTIONS", "/videos")
        server.inject(Fault(status=503))
        await client.authenticate()
        assert server.calls == [
            Call(5.0, "POST", "/auth/api-key", 200, "authenticated", 1),
            Call(6.0, "POST", "/auth/refresh", 200, "refreshed", 2),
            Call(6.0, "POST", "/auth/refresh", 400, "rejected", 1),
            Call(6.0, "POST", "/auth/refresh", 400, "rejected", None),
            Call(6.0, "GET", "/videos", 200, "served", 2),
            Call(6.0, "GET", "/videos/x", 404, "missing", 1),
            Call(6.0, "GET", "/videos", 401, "unauthorized", None),
            Call(6.0, "GET", "/videos", 401, "unauthorized", 2),
            Call(6.0, "GET", "/nope", 404, "missing", None),
            Call(6.0, "GET", "/auth/refresh", 405, "invalid", None),
            Call(6.0, "POST", "/videos", 400, "invalid", None),
            Call(6.0, "OPTIONS", "/videos", 204, "preflight", None),
            Call(6.0, "POST", "/auth/api-key", 503, "faulted", None, "status"),
        ]


async def test_a_call_is_recorded_before_its_response(client: Client) -> None:
    """A client that has a response finds its call; the list is live and may be cleared."""
    for _ in range(3):
        await client.authenticate()
        assert len(client.server.calls) == 1
        client.server.calls.clear()


@pytest.mark.virtual_time
async def test_the_moment_is_that_of_arrival(client: Client) -> None:
    """A delayed call is recorded when it is answered, with the time at which it arrived."""
    client.server.inject(Fault(delay=100))
    before = client.server.clock.monotonic()
    await client.authenticate()
    assert client.server.calls[0].at - before < 1


async def test_a_hanging_call_is_recorded_at_once(client: Client) -> None:
    """A request that is never answered is recorded while it hangs."""
    client.server.inject(Fault(hang=True))
    request = asyncio.create_task(client.authenticate())
    await until(lambda: client.server.calls)
    assert client.server.calls[0].outcome == "faulted"
    request.cancel()


@pytest.mark.parametrize("upload", [False, True])
async def test_a_client_that_disconnects_is_recorded(client: Client, upload: bool) -> None:
    """A request whose body never arrived in full is `abandoned`, and has no effect."""
    path = f"/videos/{await client.video()}/source" if upload else "/auth/api-key"
    headers = f"Authorization: {client.basic}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100"
    client.server.calls.clear()
    _, writer = await asyncio.open_connection(*client.server.url.removeprefix("http://").split(":"))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n--b\r\n".encode())
    await until(lambda: client.server._service.running)
    writer.close()
    await writer.wait_closed()
    await until(lambda: client.server.calls)
    (call,) = client.server.calls
    assert (call.path, call.status, call.outcome) == (path, None, "abandoned")


async def test_the_oldest_calls_are_forgotten(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs for weeks keeps a bounded number of calls, the newest."""
    monkeypatch.setattr(_calls, "_KEPT", 3)
    for number in range(8):
        await client.get(f"/{number}")
    assert [call.path for call in client.server.calls] == ["/3", "/4", "/5", "/6", "/7"]


async def test_no_secret_is_shown(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Neither key nor tokens are in the calls, the logs, or the `repr` of the emulator and its parts."""
    caplog.set_level(logging.DEBUG)
    server = client.server
    first = await client.authenticate()
    second = await client.refresh(first.document["refresh_token"])
    tokens = [reply.document[name] for reply in (first, second) for name in ("access_token", "refresh_token")]
    for secret in [server.api_key, *tokens]:
        await client.get(f"/videos/{secret}", f"Bearer {secret}")
        await client.get(f"/videos/x?token={secret}", f"Basic {secret}")
        await client.post("/auth/api-key", data=f'{{"apiKey": "{secret}"')
        await client.post("/auth/refresh", json={"refreshToken": f"{secret}x", secret: secret})
        await client.post("/videos", client.basic, json={"tags": secret})
        await client.post("/videos/x/source", client.basic, headers={"Content-Range": secret})
    server.inject(Fault(reset="after"))
    with pytest.raises(aiohttp.ClientError):
        await client.authenticate()
    shown = [repr(server.calls), repr(server), caplog.text, repr(server._tokens), repr(server._faults)]
    for text in shown:
        for secret in [server.api_key, *tokens, client.basic]:
            assert secret not in text
    assert "/videos/***" in repr(server.calls)


def test_a_call_is_a_value() -> None:
    """Calls are frozen and can be compared and copied."""
    call = Call(1.0, "GET", "/videos", 200, "served")
    assert copy.copy(call) == call
    with pytest.raises(AttributeError):
        call.status = 500
