"""Faults: what goes wrong, on which requests, and how often."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from apivideo_auth.emulator import Emulator, Fault
from tests.emulator.client import Client, bearer_of

DROPPED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


async def raw(client: Client, path: str = "/auth/api-key") -> tuple[aiohttp.ClientResponse, bytes]:
    """Get a token, and return the raw response."""
    async with client.session.post(
        client.server.url + path, json={"apiKey": client.server.api_key}, allow_redirects=False
    ) as answer:
        return answer, await answer.read()


async def test_a_status_comes_instead_of_the_work(client: Client) -> None:
    """A status fault is answered with an error of the API, and no token is used or issued."""
    first = await client.authenticate()
    client.server.inject(Fault(status=503))
    reply = await client.refresh(first.document["refresh_token"])
    assert (reply.status, reply.document["status"]) == (503, 503)
    assert reply.document["title"] == "Service Unavailable"
    assert (await client.refresh(first.document["refresh_token"])).status == 200
    assert [call.generation for call in client.server.calls] == [1, None, 2]


async def test_a_429_is_the_apis_own(client: Client) -> None:
    """A 429 has the documented body."""
    client.server.inject(Fault(status=429, headers={"Retry-After": "7", "X-RateLimit-Retry-After": "5"}))
    reply = await client.authenticate()
    assert (reply.status, reply.slug, reply.document["title"]) == (429, "too-many-requests", "Too many requests.")
    assert (reply.headers["Retry-After"], reply.headers["X-RateLimit-Retry-After"]) == ("7", "5")


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (None, {}),
        ("text", b"text"),
        (b"\xff\x00", b"\xff\x00"),
        ({"a": [1]}, {"a": [1]}),
        ("", b""),
        ("\ud800", b"\xed\xa0\x80"),
    ],
)
async def test_the_body_can_be_anything(client: Client, body: Any, sent: object) -> None:
    """A body is text, bytes or an object; a good status without one has an empty object."""
    client.server.inject(Fault(status=299, body=body))
    answer, received = await raw(client)
    assert answer.status == 299
    assert (json.loads(received) if isinstance(sent, dict) else received) == sent
    assert answer.headers["Content-Type"] == "application/json"


async def test_the_headers_can_be_anything(client: Client) -> None:
    """Headers of the fault take the place of the server's own, the content type too."""
    client.server.inject(Fault(status=502, body="<html>", headers={"content-type": "text/html", "X-Made": "up"}))
    answer, _ = await raw(client)
    assert answer.headers.getall("Content-Type") == ["text/html"]
    assert answer.headers["X-Made"] == "up"


@pytest.mark.parametrize("status", [599, 444])
async def test_a_status_may_be_unassigned(client: Client, status: int) -> None:
    """A status without a standard name is sent as well."""
    client.server.inject(Fault(status=status))
    reply = await client.authenticate()
    assert (reply.status, reply.document["title"]) == (status, "Fault")


async def test_a_connection_is_cut_before_the_work(client: Client) -> None:
    """`reset="before"` drops the connection, and the refresh token is still good."""
    first = await client.authenticate()
    client.server.inject(Fault(reset="before"))
    with pytest.raises(DROPPED):
        await client.refresh(first.document["refresh_token"])
    assert (await client.refresh(first.document["refresh_token"])).status == 200


async def test_a_response_is_lost(client: Client) -> None:
    """`reset="after"` drops the connection when the work is done: the refresh token is used up."""
    first = await client.authenticate()
    client.server.inject(Fault(reset="after"))
    with pytest.raises(DROPPED):
        await client.refresh(first.document["refresh_token"])
    assert (await client.refresh(first.document["refresh_token"])).status == 400
    lost = client.server.calls[1]
    assert (lost.status, lost.outcome, lost.generation, lost.fault) == (None, "refreshed", 2, "reset")


@pytest.mark.virtual_time
async def test_a_response_is_delayed(client: Client) -> None:
    """A delay alone waits by the event loop's time; then the request is served."""
    client.server.inject(Fault(delay=30))
    loop = asyncio.get_running_loop()
    start = loop.time()
    reply = await client.authenticate()
    assert loop.time() - start == pytest.approx(30, abs=1)
    assert (await client.get("/videos", bearer_of(reply))).status == 200


@pytest.mark.virtual_time
async def test_delayed_work_is_done_after_the_client_has_disconnected(client: Client) -> None:
    """The refresh token of a client that stops waiting is used all the same."""
    first = await client.authenticate()
    client.server.inject(Fault(delay=30))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await client.refresh(first.document["refresh_token"])
    await asyncio.sleep(30)
    assert [call.outcome for call in client.server.calls] == ["authenticated", "refreshed"]
    assert (await client.refresh(first.document["refresh_token"])).status == 400


@pytest.mark.virtual_time
@pytest.mark.parametrize("status", [201, 500])
async def test_an_upload_is_delayed(client: Client, status: int) -> None:
    """An upload, which is read as it comes, is waited for as well."""
    video_id = await client.video()
    client.server.inject(Fault(delay=30, on="/videos", status=None if status == 201 else status))
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await client.upload(video_id, b"x" * 1000)).status == status
    assert loop.time() - start == pytest.approx(30, abs=1)


@pytest.mark.virtual_time
async def test_a_client_that_asks_before_it_sends_is_delayed(client: Client) -> None:
    """`Expect: 100-continue` is answered at once, so that the body arrives during the delay."""
    client.server.inject(Fault(delay=30))
    payload = {"apiKey": client.server.api_key}
    async with asyncio.timeout(60):
        assert (await client.post("/auth/api-key", json=payload, expect100=True)).status == 200


@pytest.mark.virtual_time
async def test_a_delay_goes_with_the_other_kinds(client: Client) -> None:
    """Any other fault comes after its delay."""
    client.server.inject(Fault(delay=5, status=500), Fault(delay=7, reset="before"))
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await client.authenticate()).status == 500
    with pytest.raises(DROPPED):
        await client.authenticate()
    assert loop.time() - start == pytest.approx(12, abs=1)


@pytest.mark.virtual_time
async def test_a_request_hangs(client: Client) -> None:
    """`hang` never answers and does no work; the next request is served."""
    client.server.inject(Fault(hang=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(86_400):
            await client.authenticate()
    assert (await client.authenticate()).status == 200
    assert [(call.outcome, call.status, call.fault) for call in client.server.calls] == [
        ("faulted", None, "hang"),
        ("authenticated", 200, None),
    ]


async def test_a_response_is_malformed(client: Client) -> None:
    """`malformed` answers 200 with malformed JSON, and the work is done."""
    client.server.inject(Fault(malformed=True))
    answer, body = await raw(client)
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    assert client.server.calls[0].outcome == "authenticated"


async def test_fields_are_left_out_and_absurd(client: Client) -> None:
    """`omit` and `override` change the fields of a response, also together."""
    client.server.inject(
        Fault(omit="refresh_token"),
        Fault(omit=["refresh_token", "expires_in"], override={"token_type": None, "new": [1e999]}),
        Fault(override={"access_token": "a\r\nb\ud800", "expires_in": -(10**30)}),
    )
    replies = [await client.authenticate() for _ in range(3)]
    assert replies[0].document.keys() == {"token_type", "expires_in", "access_token"}
    assert replies[1].document.keys() == {"token_type", "access_token", "new"}
    assert replies[1].document["token_type"] is None
    assert replies[2].document["access_token"] == "a\r\nb\ud800"
    assert replies[2].document["expires_in"] == -(10**30)
    assert [call.fault for call in client.server.calls] == ["omit", "omit", "override"]


async def test_errors_are_not_edited(client: Client) -> None:
    """An error is sent unchanged under `override`."""
    client.server.inject(Fault(override={"access_token": "x"}))
    reply = await client.refresh("unknown")
    assert (reply.status, reply.document.keys()) == (400, {"type", "title", "name", "status"})


@pytest.mark.parametrize("size", [1, 100_000, 1_000_000])
async def test_a_body_is_oversized(client: Client, size: int) -> None:
    """The body is valid JSON of at least that many bytes, with the document at its end."""
    client.server.inject(Fault(oversized=size))
    answer, body = await raw(client)
    assert len(body) == int(answer.headers["Content-Length"]) == max(size, len(body.lstrip()))
    assert json.loads(body)["token_type"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/json"


async def test_an_oversized_body_need_not_be_read(client: Client) -> None:
    """A client may disconnect in the middle of a terabyte, and the next request is served."""
    client.server.inject(Fault(oversized=2**40))
    payload = {"apiKey": client.server.api_key}
    async with client.session.post(f"{client.server.url}/auth/api-key", json=payload) as answer:
        assert await answer.content.read(10) == b" " * 10
    assert (await client.authenticate()).status == 200


@pytest.mark.parametrize(("status", "sent"), [(None, 307), (308, 308), (302, 302)])
async def test_a_client_is_redirected(client: Client, status: int | None, sent: int) -> None:
    """A redirect has the URL as its Location, and no work is done."""
    client.server.inject(Fault(redirect="https://elsewhere.example/x", status=status))
    reply = await client.authenticate()
    assert (reply.status, reply.headers["Location"]) == (sent, "https://elsewhere.example/x")
    call = client.server.calls[0]
    assert (call.status, call.outcome, call.fault) == (sent, "faulted", "redirect")


@pytest.mark.parametrize(
    ("on", "hit"),
    [
        (None, ["/auth/api-key", "/auth/refresh"]),
        ("/auth", ["/auth/api-key", "/auth/refresh"]),
        ("/auth/refresh", ["/auth/refresh"]),
        ("/videos", ["/videos", "/videos/x"]),
        ("/videos/", ["/videos", "/videos/x"]),
        ("/vid", []),
        ("/", ["/auth/api-key", "/auth/refresh", "/videos", "/videos/x"]),
    ],
)
async def test_a_fault_is_for_a_path(client: Client, on: str | None, hit: list[str]) -> None:
    """`on` is a path and all below it, by whole segments; by default both endpoints."""
    client.server.inject(Fault(status=599, times=None, **({} if on is None else {"on": on})))
    replies = {
        "/auth/api-key": await client.authenticate(),
        "/auth/refresh": await client.refresh("x"),
        "/videos": await client.get("/videos"),
        "/videos/x": await client.get("/videos/x"),
    }
    assert [path for path, reply in replies.items() if reply.status == 599] == hit


async def test_a_fault_is_for_so_many_requests(client: Client) -> None:
    """`times` requests are hit, one by default; None hits for ever; faults come in the order of their injection."""
    client.server.inject(Fault(status=500), Fault(status=501, times=2), Fault(status=502, times=None))
    client.server.inject(Fault(status=503))
    assert [(await client.authenticate()).status for _ in range(5)] == [500, 501, 501, 502, 502]


async def test_faults_can_be_removed(client: Client) -> None:
    """After `clear_faults` requests are served."""
    client.server.inject(Fault(status=500, times=None))
    assert (await client.authenticate()).status == 500
    client.server.clear_faults()
    assert (await client.authenticate()).status == 200


async def test_faults_can_be_injected_before_the_start(session: aiohttp.ClientSession) -> None:
    """Faults that are injected before the start hit the first requests."""
    server = Emulator()
    server.inject(Fault(status=500))
    async with server:
        client = Client(server, session)
        assert [(await client.authenticate()).status for _ in range(2)] == [500, 200]


async def test_a_seed_repeats_the_hits(session: aiohttp.ClientSession) -> None:
    """The same seed hits the same requests, about as many as the probability says, and only hits count."""
    runs = []
    for _ in range(2):
        async with Emulator() as server:
            client = Client(server, session)
            server.inject(Fault(status=500, times=20, probability=0.3, seed=7))
            runs.append([(await client.authenticate()).status for _ in range(100)])
    assert runs[0] == runs[1]
    assert runs[0].count(500) == 20
    assert 40 < 100 - runs[0][::-1].index(500) < 100


async def test_a_preflight_is_not_hit(client: Client) -> None:
    """A browser's preflight uses no fault up."""
    client.server.inject(Fault(status=500, on="/"))
    assert (await client.ask("OPTIONS", "/auth/api-key")).status == 204
    assert (await client.authenticate()).status == 500


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "needs a kind"),
        ({"delay": 0}, ValueError, "needs a kind"),
        ({"on": 1, "hang": True}, TypeError, "on must be of type str, not int"),
        ({"on": "auth", "hang": True}, ValueError, "begins with a slash"),
        ({"on": "", "hang": True}, ValueError, "on must be"),
        ({"times": 0, "hang": True}, ValueError, "times must be"),
        ({"times": 1.5, "hang": True}, TypeError, "times must be"),
        ({"times": True, "hang": True}, TypeError, "times must be"),
        ({"probability": 0, "hang": True}, ValueError, "greater than 0 and at most 1"),
        ({"probability": 1.1, "hang": True}, ValueError, "greater than 0 and at most 1"),
        ({"probability": "1", "hang": True}, TypeError, "probability must be a number"),
        ({"seed": "x", "hang": True}, TypeError, "seed must be an int"),
        ({"delay": -1}, ValueError, "delay must be 0 or more"),
        ({"delay": float("nan")}, ValueError, "delay must be"),
        ({"delay": float("inf")}, ValueError, "delay must be"),
        ({"delay": "1"}, TypeError, "delay must be a number"),
        ({"delay": True}, TypeError, "delay must be a number"),
        ({"hang": 1}, TypeError, "hang must be of type bool, not int"),
        ({"malformed": "yes"}, TypeError, "malformed must be of type bool, not str"),
        ({"status": 99}, ValueError, "status must be 200 to 599"),
        ({"status": 600}, ValueError, "status must be 200 to 599"),
        ({"status": "500"}, TypeError, "status must be an int"),
        ({"status": 500, "headers": "x"}, TypeError, "headers must be of type Mapping, not str"),
        ({"status": 500, "headers": {"a": 1}}, TypeError, "headers must be a mapping of strings"),
        ({"status": 500, "headers": {1: "a"}}, TypeError, "headers must be a mapping of strings"),
        ({"status": 500, "headers": {"a": "b\r\nc: d"}}, ValueError, "printable ASCII"),
        ({"status": 500, "headers": {"a": "ä"}}, ValueError, "printable ASCII"),
        ({"status": 500, "headers": {"": "a"}}, ValueError, "not a valid header name"),
        ({"status": 500, "headers": {"a b": "c"}}, ValueError, "not a valid header name"),
        ({"status": 500, "body": 1}, TypeError, "body must be"),
        ({"status": 500, "body": {"a": object()}}, TypeError, "JSON"),
        ({"headers": {"a": "b"}, "hang": True}, ValueError, "go with a status only"),
        ({"body": "x", "delay": 1}, ValueError, "go with a status only"),
        ({"body": "x", "redirect": "/x"}, ValueError, "go with a status only"),
        ({"reset": "never"}, ValueError, "one of before, after"),
        ({"reset": True}, TypeError, "reset must be a str"),
        ({"reset": []}, TypeError, "reset must be a str"),
        ({"omit": (1,)}, TypeError, "omit"),
        ({"omit": 1}, TypeError, "iterable"),
        ({"override": [1]}, TypeError, "override must be of type Mapping, not list"),
        ({"override": {"a": object()}}, TypeError, "JSON"),
        ({"oversized": 0}, ValueError, "oversized must be"),
        ({"oversized": 1.5}, TypeError, "oversized must be"),
        ({"redirect": 1}, TypeError, "redirect must be"),
        ({"redirect": "/x\n"}, ValueError, "printable ASCII"),
        ({"redirect": "/x", "status": 200}, ValueError, "status of a redirect"),
        ({"hang": True, "status": 500}, ValueError, "not hang and status"),
        ({"malformed": True, "reset": "after"}, ValueError, "not reset and malformed"),
        ({"omit": "a", "oversized": 5}, ValueError, "not omit and oversized"),
    ],
)
def test_an_invalid_fault_is_rejected(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """A wrong type is a `TypeError`, a wrong value or combination a `ValueError`, when the fault is made."""
    with pytest.raises(error, match=message):
        Fault(**arguments)


def test_a_fault_is_a_value() -> None:
    """Faults are frozen, compare by value, and copy their arguments."""
    headers = {"A": "b"}
    fault = Fault(status=500, headers=headers)
    headers["A"] = "c"
    assert fault == Fault(status=500, headers={"A": "b"})
    with pytest.raises(AttributeError):
        fault.status = 501


@pytest.mark.parametrize("fault", [None, "503", Fault, {"status": 503}])
async def test_only_faults_are_injected(fault: Any) -> None:
    """Anything else is a `TypeError`, and then no fault is injected."""
    server = Emulator()
    with pytest.raises(TypeError, match="must be of type Fault"):
        server.inject(Fault(hang=True), fault)
    assert server._faults.hit("/auth/api-key") is None
