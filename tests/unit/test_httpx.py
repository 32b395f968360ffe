"""`apivideo_auth.httpx.BearerAuth` with httpx's clients, against real loopback servers."""

import asyncio
import io
import logging
import socket
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from aiohttp import web

from apivideo_auth import CredentialsRejectedError, Token, TokenManager, TokenRejectedError
from apivideo_auth.emulator import Emulator
from apivideo_auth.events import TokenRejected
from apivideo_auth.httpx import BearerAuth
from tests.support.loopback import serving
from tests.support.sources import Source
from tests.support.tracebacks import shown_with_locals

ONE, TWO = "Bearer made-up-access-1", "Bearer made-up-access-2"


class Server:
    """Accepts these tokens, redirects the paths that are named, and records each request."""

    def __init__(self, *accepted: str, body: bytes = b'{"title": "made-up"}') -> None:
        self.accepted = accepted
        self.body = body
        self.redirects: dict[str, tuple[int, str]] = {}
        self.requests: list[tuple[str, str, str | None, bytes]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        authorization = request.headers.get("Authorization")
        self.requests.append((request.method, request.path, authorization, await request.read()))
        if request.path in self.redirects:
            status, target = self.redirects[request.path]
            return web.Response(status=status, headers={"Location": target})
        if authorization in self.accepted:
            return web.Response(text="fine")
        return web.Response(status=401, body=self.body)

    @property
    def tokens(self) -> list[str | None]:
        """The Authorization header of each request."""
        return [authorization for _, _, authorization, _ in self.requests]


def client_of(bearer: BearerAuth, url: str = "", **kwargs: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, auth=bearer, trust_env=False, **kwargs)


# The allowed origins


async def test_a_redirect_to_another_origin_carries_no_token() -> None:
    """Another port of the same host gets no token, nor does a second request on the way back."""
    home, foreign = Server(ONE), Server()
    async with serving(home) as url, serving(foreign) as foreign_url:
        home.redirects["/start"] = 307, f"{foreign_url}/elsewhere"
        foreign.redirects["/elsewhere"] = 307, f"{url}/end"
        source = Source(url)
        async with client_of(BearerAuth(source), url, follow_redirects=True) as client:
            response = await client.get("/start")
    assert (response.status_code, source.rejected) == (401, [])
    assert foreign.tokens == [None]
    assert home.tokens == [ONE, None]


async def test_a_401_of_another_origin_rejects_no_token() -> None:
    """A 401 of an origin that a redirect led to comes back as it is: the token did not go there."""
    home, foreign, told = Server(), Server(), []
    async with serving(home) as url, serving(foreign) as foreign_url:
        home.redirects["/start"] = 302, f"{foreign_url}/elsewhere"
        source = Source(url)
        async with client_of(BearerAuth(source, on_event=told.append), url, follow_redirects=True) as client:
            assert (await client.get("/start")).status_code == 401
    assert (len(foreign.requests), source.rejected, told) == (1, [], [])


async def test_a_redirect_within_the_origin_keeps_the_token() -> None:
    """A redirect to another path of the origin is authenticated as well."""
    server = Server(ONE)
    server.redirects["/start"] = 302, "/end"
    async with serving(server) as url, client_of(BearerAuth(Source(url)), url, follow_redirects=True) as client:
        assert (await client.get("/start")).status_code == 200
    assert server.tokens == [ONE, ONE]


async def test_another_host_scheme_or_port_gets_no_token() -> None:
    """A client of several hosts sends the token to the named origins alone."""
    server = Server()
    async with serving(server) as url:
        port = url.rpartition(":")[2]
        source = Source()
        bearer = BearerAuth(source, origins=[f"https://127.0.0.1:{port}", "http://127.0.0.1:1"])
        async with client_of(bearer) as client:
            for address in (url, f"http://localhost:{port}"):
                assert (await client.get(address)).status_code == 401
    assert (server.tokens, source.rejected) == ([None, None], [])


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("https://ws.api.video:443", "https://WS.api.video/videos"),
        ("https://ws.api.video", "https://ws.api.video:443/videos"),
        ("http://[::1]:8080", "http://[::1]:8080/videos"),
        ("https://bücher.example", "https://xn--bcher-kva.example/videos"),
    ],
)
async def test_the_spelling_of_an_origin_does_not_matter(origin: str, address: str) -> None:
    """Default ports, upper case, brackets and punycode are the same origin."""
    bearer = BearerAuth(Source(), origins=[origin])
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=request.headers["Authorization"]))
    async with client_of(bearer, transport=transport) as client:
        assert (await client.get(address)).text == ONE


@pytest.mark.parametrize(
    "address",
    [
        "https://ws.api.video@elsewhere.example/",
        "https://elsewhere.example/https://ws.api.video",
        "https://ws.api.video.elsewhere.example/",
        "https://%77s.api.video/",
        "https://ws.api.video./",
        "http://ws.api.video:443/",
        "ftp://ws.api.video/",
    ],
)
async def test_a_similar_address_gets_no_token(address: str) -> None:
    """The host that httpx connects to decides."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=str("Bearer" in str(request.headers.raw))))
    async with client_of(BearerAuth(Source("https://ws.api.video")), transport=transport) as client:
        assert (await client.get(address)).text == "False"


async def test_a_redirect_to_https_needs_leave() -> None:
    """On a redirect from http://h to https://h httpx keeps the header, so both must be allowed."""
    with pytest.raises(ValueError, match="add 'https://localhost' to origins"):
        BearerAuth(Source("http://localhost"))
    with pytest.raises(ValueError, match=r"add 'https://\[::1\]' to origins"):
        BearerAuth(Source(), origins=["http://[::1]:80", "https://localhost"])
    assert BearerAuth(Source("http://localhost:443"))

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(301, headers={"Location": "https://localhost/"})
        return httpx.Response(200, text=request.headers["Authorization"])

    bearer = BearerAuth(Source(), origins=["http://localhost", "https://localhost"])
    transport = httpx.MockTransport(handle)
    async with client_of(bearer, "http://localhost", transport=transport, follow_redirects=True) as client:
        assert (await client.get("/")).text == ONE


async def test_an_authorization_of_the_callers_own_is_left_alone() -> None:
    """A request that brings its own Authorization header is sent with that, and its 401 causes no renewal."""
    server = Server()
    async with serving(server) as url:
        source = Source(url)
        async with client_of(BearerAuth(source), url) as client:
            response = await client.get("/", headers={"authorization": "Basic made-up"})
    assert response.request.headers["Authorization"] == "Basic made-up"
    assert (server.tokens, source.rejected) == (["Basic made-up"], [])


# The replay


async def test_a_401_is_replayed_once_with_another_token() -> None:
    """The caller gets the response to the second request, which had a newer token."""
    server, told = Server(TWO), []
    async with serving(server) as url:
        async with client_of(BearerAuth(Source(url), on_event=told.append), url) as client:
            response = await client.post("/", content=b"made-up body")
            assert (response.status_code, response.text) == (200, "fine")
            assert (await client.get("/")).status_code == 200
    assert server.requests == [
        ("POST", "/", ONE, b"made-up body"),
        ("POST", "/", TWO, b"made-up body"),
        ("GET", "/", TWO, b""),
    ]
    assert told == [TokenRejected(generation=1, replayed=True, why_not=None)]


async def test_a_second_401_is_final() -> None:
    """A second 401 comes back as it is; there is never a third request."""
    server = Server()
    async with serving(server) as url:
        source = Source(url, fresh=5)
        async with client_of(BearerAuth(source), url) as client:
            response = await client.get("/")
            assert (response.status_code, response.json()) == (401, {"title": "made-up"})
    assert server.tokens == [ONE, TWO]
    assert source.rejected == [1]


async def test_without_another_token_the_401_comes_back() -> None:
    """If no other token is available, the 401 comes back readable, and its connection is free."""
    server, told = Server(), []
    async with serving(server) as url:
        bearer = BearerAuth(Source(url, fresh=0), on_event=told.append)
        async with client_of(bearer, url, limits=httpx.Limits(max_connections=1)) as client:
            for _ in range(2):
                response = await client.get("/")
                assert (response.status_code, response.json()) == (401, {"title": "made-up"})
            async with client.stream("GET", "/") as response:
                assert b"".join([part async for part in response.aiter_raw()]) == server.body
    assert len(server.requests) == 3
    assert told == [TokenRejected(generation=1, replayed=False, why_not="no_token", cause="no other yet")] * 3


async def astream() -> AsyncIterator[bytes]:
    yield b"made-up "
    yield b"stream"


class Chunks:
    """An asynchronous stream that can be read again, for all that httpx knows."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return astream()


BODY = bytes(range(256)) * 1000


@pytest.mark.parametrize(
    ("make", "replayed"),
    [
        (dict, True),
        (lambda: {"content": BODY}, True),
        (lambda: {"content": "text"}, True),
        (lambda: {"json": {"a": 1}}, True),
        (lambda: {"data": {"a": "1", "b": ["2", "3"]}}, True),
        (lambda: {"data": {"videoId": "vi-made-up"}, "files": {"file": ("made-up.mp4", BODY, "video/mp4")}}, True),
        (lambda: {"files": [("one", b"bytes"), ("two", ("made-up.txt", "text"))]}, True),
        (lambda: {"content": astream()}, False),
        (lambda: {"content": Chunks()}, False),
        (lambda: {"files": {"file": io.BytesIO(BODY)}}, False),
        (lambda: {"files": {"one": b"bytes", "two": ("made-up.mp4", io.BytesIO(BODY))}}, False),
    ],
    ids=[
        "none",
        "bytes",
        "text",
        "json",
        "form",
        "upload",
        "parts",
        "generator",
        "stream",
        "file",
        "mixed",
    ],
)
async def test_only_bodies_of_bytes_are_sent_again(make: Callable[[], dict[str, Any]], *, replayed: bool) -> None:
    """A body that would be sent in full again is, byte for byte; for the others the 401 comes back. In both cases the
    source gets to know of it.
    """
    server, told = Server(TWO), []
    async with serving(server) as url:
        source = Source(url)
        async with client_of(BearerAuth(source, on_event=told.append), url) as client:
            response = await client.post("/", **make())
    assert source.rejected == [1]
    if replayed:
        assert (response.status_code, told[0].why_not) == (200, None)
        first, second = server.requests
        assert first[3] == second[3]
    else:
        assert (response.status_code, told[0].why_not, response.json()) == (401, "body", {"title": "made-up"})
        assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "again"), [(303, ("GET", b"")), (307, ("POST", b"made-up body"))])
async def test_only_the_last_request_of_a_redirect_is_sent_again(status: int, again: tuple[str, bytes]) -> None:
    """If the request after a redirect gets a 401, that one is sent again, and the one before it is not."""
    server = Server(TWO)
    server.redirects["/start"] = status, "/end"
    async with serving(server) as url, client_of(BearerAuth(Source(url)), url, follow_redirects=True) as client:
        assert (await client.post("/start", content=b"made-up body")).status_code == 200
    method, body = again
    assert server.requests == [
        ("POST", "/start", ONE, b"made-up body"),
        (method, "/end", ONE, body),
        (method, "/end", TWO, body),
    ]


async def test_one_connection_is_enough() -> None:
    """The 401 is read before the replay, also a large one of a streamed request, so that its connection is free."""
    server = Server(TWO, body=b"x" * 1_000_000)
    async with serving(server) as url:
        async with client_of(BearerAuth(Source(url)), url, limits=httpx.Limits(max_connections=1)) as client:
            async with client.stream("GET", "/") as response:
                assert (response.status_code, await response.aread()) == (200, b"fine")


async def test_a_caller_cancelled_during_the_renewal_leaves_no_connection() -> None:
    """If the caller gives up while another token is awaited, the 401's connection is given back."""
    reported = asyncio.Event()

    class Stuck(Source):
        async def get_token(self, *, rejected: Token | None = None) -> Token:
            if rejected is not None:
                reported.set()
                await asyncio.Event().wait()
            return self.current

    limits = httpx.Limits(max_connections=1)
    async with (
        serving(Server(body=b"x" * 1_000_000)) as url,
        client_of(BearerAuth(Stuck(url)), url, limits=limits) as c,
    ):
        request = asyncio.create_task(c.get("/"))
        await reported.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await c.get("/", auth=httpx.BasicAuth("made-up", "made-up"))).status_code == 401


async def test_a_request_object_can_be_sent_twice() -> None:
    """The second sending of one request gets the current token, not the first sending's."""
    server = Server(TWO)
    async with serving(server) as url:
        source = Source(url)
        async with client_of(BearerAuth(source), url) as client:
            request = client.build_request("GET", "/")
            for _ in range(2):
                assert (await client.send(request)).status_code == 200
    assert server.tokens == [ONE, TWO, TWO]


async def test_a_redirect_that_the_caller_follows_gets_the_current_token() -> None:
    """The `next_request` of a response holds no token, and gets one when it is sent."""
    server = Server(ONE)
    server.redirects["/start"] = 302, "/end"
    async with serving(server) as url, client_of(BearerAuth(Source(url)), url) as client:
        response = await client.get("/start")
        assert response.next_request is not None
        assert "Authorization" not in response.next_request.headers
        assert (await client.send(response.next_request)).status_code == 200
    assert server.tokens == [ONE, ONE]


# Errors and secrets


async def test_without_a_token_the_request_raises_the_cause() -> None:
    """If no token can be had at first, the request is not sent and raises the source's `AuthError`."""

    class Empty(Source):
        async def get_token(self, *, rejected: Token | None = None) -> Token:
            raise TokenRejectedError("none yet", retry_after=1.0)

    server = Server()
    async with serving(server) as url, client_of(BearerAuth(Empty(url)), url) as client:
        with pytest.raises(TokenRejectedError, match="none yet"):
            await client.get("/")
    assert server.requests == []


async def test_with_a_manager() -> None:
    """A manager's token is renewed after a revocation, and a wrong API key raises `CredentialsRejectedError`."""
    async with Emulator() as server:
        async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
            async with client_of(BearerAuth(tokens), tokens.base_url) as client:
                await tokens.get_token()
                server.advance(60)
                server.revoke_all()
                assert (await client.get("/videos")).status_code == 200
        assert [(call.path, call.status) for call in server.calls] == [
            ("/auth/api-key", 200),
            ("/videos", 401),
            ("/auth/refresh", 200),
            ("/videos", 200),
        ]
        async with TokenManager("made-up-wrong-key", base_url=server.url) as tokens:
            async with client_of(BearerAuth(tokens), tokens.base_url) as client:
                with pytest.raises(CredentialsRejectedError):
                    await client.get("/videos")


async def test_a_manager_tells_its_subscribers_of_401s() -> None:
    """A 401 reaches the manager's subscribers and the client's own `on_event`, replayed or not, each of them once."""
    told: list[TokenRejected] = []
    own: list[TokenRejected] = []

    async def stream() -> AsyncIterator[bytes]:
        yield b"made-up"

    async with Emulator() as server:
        async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
            tokens.subscribe(lambda event: told.append(event) if isinstance(event, TokenRejected) else None)
            async with client_of(BearerAuth(tokens, on_event=own.append), tokens.base_url) as client:
                await tokens.get_token()
                for seconds, body in ((60, b"made-up"), (60, stream()), (0, b"made-up")):
                    server.advance(seconds)
                    server.revoke_all()
                    await client.post("/videos", content=body)
    assert [event.why_not for event in told] == [None, "body", "no_token"]
    assert own == told


def test_a_synchronous_client_is_told_to_be_asynchronous() -> None:
    """A `Client` raises `RuntimeError` before it sends anything, and the message names `AsyncClient`."""
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    with httpx.Client(auth=BearerAuth(Source("https://ws.api.video")), transport=httpx.MockTransport(handle)) as client:
        for url in ("https://ws.api.video/videos", "https://elsewhere.example/"):
            with pytest.raises(RuntimeError, match="AsyncClient"):
                client.get(url)
    assert sent == []


async def test_no_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Reprs, events, and logs (those of httpx too) contain no token."""
    caplog.set_level(logging.DEBUG)
    shown: list[object] = []
    server = Server(TWO)
    server.redirects["/start"] = 307, "/end"
    async with serving(server) as url:
        bearer = BearerAuth(Source(url), on_event=shown.append)
        async with client_of(bearer, url, follow_redirects=True) as client:
            response = await client.post("/start", content=b"made-up body")
            shown += [bearer, vars(bearer), response, response.request, response.headers, response.history]
    async with client_of(bearer, url) as client:
        with pytest.raises(httpx.ConnectError) as caught:
            await client.get("/")
    shown += traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert server.tokens == [ONE, ONE, TWO]
    assert "/end" in caplog.text
    assert "made-up-access" not in repr(shown) + str(shown) + caplog.text


async def test_the_requests_of_a_response_hold_no_token() -> None:
    """When the response is there, the header is gone from its request and from those of its redirects."""
    server = Server(TWO)
    server.redirects |= {"/start": (307, "/middle"), "/middle": (307, "/end")}
    async with serving(server) as url:
        bearer = BearerAuth(Source(url))
        async with client_of(bearer, url, follow_redirects=True) as client:
            # The first is replayed at its end, the second is redirected with a token that is accepted.
            responses = [await client.get("/start") for _ in range(2)]
    assert server.tokens == [ONE, ONE, ONE, TWO, TWO, TWO, TWO]
    for response in responses:
        assert response.status_code == 200
        for each in (*response.history, response):
            assert "Authorization" not in each.request.headers


@pytest.mark.parametrize("broken", [ONE, TWO], ids=["first", "replay"])
async def test_the_request_of_an_error_holds_no_token(broken: str) -> None:
    """If the connection breaks, at the first request or at the replay, the error's request does not have the header."""
    server = Server()

    async def handle(request: web.Request) -> web.Response:
        response = await server(request)
        if server.tokens[-1] == broken:
            assert request.transport is not None
            request.transport.close()
        return response

    async with serving(handle) as url, client_of(BearerAuth(Source(url)), url) as client:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.get("/")
    assert server.tokens[-1] == broken
    assert "Authorization" not in caught.value.request.headers


@pytest.mark.parametrize("body", [None, b"made-up body"], ids=["none", "bytes"])
@pytest.mark.parametrize("fails", [1, 2], ids=["first", "replay"])
async def test_a_connection_that_breaks_shows_no_token(body: bytes | None, fails: int) -> None:
    """If a connection breaks at the write, at the first request or at the replay, no frame of the exception or of its
    chain shows the token: not those of httpcore and asyncio, which hold the bytes of the header.
    """
    server = Server()
    connected = 0

    async def trace(name: str, info: dict[str, Any]) -> None:
        nonlocal connected
        if name == "connection.connect_tcp.complete":
            connected += 1
            if connected == fails:
                info["return_value"].get_extra_info("socket").shutdown(socket.SHUT_WR)

    # Each request has a connection of its own.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with serving(server) as url, client_of(BearerAuth(Source(url)), url, limits=limits) as client:
        with pytest.raises(httpx.TransportError) as caught:
            await client.post("/", content=body, extensions={"trace": trace})
    assert connected == fails
    shown = shown_with_locals(caught.value)
    assert "httpx/_client.py" in shown
    assert "made-up-access" not in shown
    assert "Authorization" not in caught.value.request.headers


async def test_a_header_that_cannot_be_sent_shows_no_token() -> None:
    """If another header of the request is invalid, no frame of the exception shows the token beside it."""
    async with serving(Server()) as url, client_of(BearerAuth(Source(url)), url) as client:
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await client.get("/", headers={"Made-Up": "two\nlines"})
    shown = shown_with_locals(caught.value)
    assert "httpx/_client.py" in shown
    assert "made-up-access" not in shown


async def test_the_frames_of_the_programs_own_generator_stay() -> None:
    """If a generator that makes a body fails, the traceback shows where, and no token."""

    async def failing_generator() -> AsyncIterator[bytes]:
        yield b"made-up"
        raise LookupError

    async with serving(Server()) as url, client_of(BearerAuth(Source(url)), url) as client:
        with pytest.raises(LookupError) as caught:
            await client.post("/", content=failing_generator())
    shown = shown_with_locals(caught.value)
    assert "in failing_generator" in shown
    assert "made-up-access" not in shown


async def test_a_cancelled_request_shows_no_token() -> None:
    """The frames of a cancellation show no token either."""
    sending = asyncio.Event()

    async def handle(_request: web.Request) -> web.Response:
        sending.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handle) as url, client_of(BearerAuth(Source(url)), url) as client:
        request = asyncio.create_task(client.get("/"))
        await sending.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await request
    shown = shown_with_locals(caught.value)
    assert "made-up-access" not in shown


@pytest.mark.parametrize("most", [0, 20], ids=["too many redirects", "broken"])
async def test_the_request_of_an_error_after_a_redirect_holds_no_token(most: int) -> None:
    """If a redirect within the origin fails, the request of the exception does not have the header."""
    server = Server(ONE)
    server.redirects["/start"] = 302, "/end"

    async def handle(request: web.Request) -> web.Response:
        if request.path == "/end":
            assert request.transport is not None
            request.transport.close()
        return await server(request)

    async with (
        serving(handle) as url,
        client_of(BearerAuth(Source(url)), url, follow_redirects=True, max_redirects=most) as client,
    ):
        with pytest.raises(httpx.RequestError) as caught:
            await client.get("/start")
    assert caught.value.request.url.path == "/end"
    assert "Authorization" not in caught.value.request.headers


async def test_the_response_of_a_hooks_error_holds_no_token() -> None:
    """If an event hook raises for a status, the requests of its exception do not have the header, and an exception
    without a request is raised as it is.
    """
    bare = httpx.HTTPStatusError("made up", request=None, response=httpx.Response(404))  # type: ignore[arg-type]

    async def hook(response: httpx.Response) -> None:
        if response.request.url.path == "/bare":
            raise bare
        if response.request.url.path == "/end":
            response.raise_for_status()

    server = Server()
    server.redirects["/start"] = 302, "/end"
    hooks = {"response": [hook]}
    async with (
        serving(server) as url,
        client_of(BearerAuth(Source(url)), url, follow_redirects=True, event_hooks=hooks) as client,
    ):
        with pytest.raises(httpx.HTTPStatusError) as caught:
            await client.get("/start")
        assert server.tokens == [ONE, ONE]
        assert caught.value.request.url.path == "/end"
        for each in (caught.value, caught.value.response):
            assert "Authorization" not in each.request.headers
        with pytest.raises(httpx.HTTPStatusError) as caught:
            await client.get("/bare")
        assert caught.value is bare


async def test_a_replay_that_is_redirected_leaves_no_token() -> None:
    """A replay that is redirected is followed by httpx, and leaves the header in none of its requests."""
    server = Server(TWO)

    async def handle(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == TWO:
            server.redirects["/start"] = 307, "/end"
        return await server(request)

    async with serving(handle) as url:
        async with client_of(BearerAuth(Source(url)), url, follow_redirects=True) as client:
            response = await client.get("/start")
    assert server.tokens == [ONE, TWO, TWO]
    assert response.status_code == 200
    assert all("Authorization" not in each.request.headers for each in (*response.history, response))


async def test_a_401_that_breaks_off_is_an_error() -> None:
    """If the body of a 401 breaks off, httpx raises its error, and no event says that the request was replayed."""
    told: list[object] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=401, headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"cut")
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(handle) as url:
        source = Source(url)
        async with client_of(BearerAuth(source, on_event=told.append), url) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/")
    assert (source.rejected, told) == ([1], [])


def test_a_missing_httpx_is_named() -> None:
    """Without httpx the import says what to install."""
    code = "import sys; sys.modules['httpx'] = None; import apivideo_auth.httpx"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last = "ImportError: apivideo_auth.httpx needs httpx: pip install 'apivideo-auth[httpx]'"
    assert run.stderr.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"source": object()}, TypeError),
        ({"source": Source()}, ValueError),
        ({"source": Source(), "origins": []}, ValueError),
        ({"source": Source(), "origins": "https://ws.api.video"}, TypeError),
        ({"source": Source(), "origins": ["http://elsewhere.example"]}, ValueError),
        ({"source": Source("https://ws.api.video"), "on_event": "made up"}, TypeError),
    ],
)
def test_invalid_arguments_are_errors(kwargs: dict[str, Any], error: type[Exception]) -> None:
    """Invalid arguments raise the same errors as those of the aiohttp middleware."""
    with pytest.raises(error):
        BearerAuth(**kwargs)
