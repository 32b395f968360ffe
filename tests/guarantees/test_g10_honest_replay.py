"""G10: after a 401 the request is sent once more with another token, or the 401 comes back as it is."""

import asyncio
import gzip
import io
import logging
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from apivideo_auth import BearerAuth, Token, TokenManager
from apivideo_auth._middleware import MAX_READ_AHEAD
from apivideo_auth.emulator import Emulator
from apivideo_auth.events import TokenRejected
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock
from tests.support.loopback import serving
from tests.support.sources import Source


class Server:
    """Accepts these tokens, and records the header and body of each request."""

    def __init__(self, *accepted: str, body: bytes = b'{"title": "made-up"}') -> None:
        self.accepted = {f"Bearer {token}" for token in accepted}
        self.body = body
        self.requests: list[tuple[str | None, bytes]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        if authorization in self.accepted:
            self.requests.append((authorization, await request.read()))
            return web.Response(text="fine")
        self.requests.append((authorization, await request.read()))
        return web.Response(status=401, body=self.body)


async def test_g10_a_401_is_replayed_once_with_another_token() -> None:
    """The caller gets the response to the second request, which had a newer token."""
    server, told = Server("made-up-access-2"), []
    async with serving(server) as url:
        bearer = BearerAuth(Source(url), on_event=told.append)
        async with (
            aiohttp.ClientSession(url, middlewares=(bearer,)) as session,
            session.post("/", data=b"made-up body") as response,
        ):
            assert response.status == 200
            assert await response.text() == "fine"
    assert server.requests == [
        ("Bearer made-up-access-1", b"made-up body"),
        ("Bearer made-up-access-2", b"made-up body"),
    ]
    assert told == [TokenRejected(generation=1, replayed=True, why_not=None)]


async def test_g10_a_second_401_is_final() -> None:
    """A second 401 comes back as it is; there is never a third request."""
    server = Server()
    async with serving(server) as url:
        source = Source(url, fresh=5)
        async with (
            aiohttp.ClientSession(url, middlewares=(BearerAuth(source),)) as session,
            session.get("/") as response,
        ):
            assert response.status == 401
            assert await response.json(content_type=None) == {"title": "made-up"}
    assert len(server.requests) == 2
    assert source.rejected == [1]


async def test_g10_without_another_token_the_401_comes_back() -> None:
    """If no other token is available, the 401 comes back readable, and its connection is free."""
    server, told = Server(), []
    async with serving(server) as url:
        bearer = BearerAuth(Source(url, fresh=0), on_event=told.append)
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(url, middlewares=(bearer,), connector=connector) as session:
            for _ in range(2):
                response = await session.get("/")
                assert response.status == 401
                assert await response.json(content_type=None) == {"title": "made-up"}
    assert len(server.requests) == 2
    assert told == [TokenRejected(generation=1, replayed=False, why_not="no_token", cause="no other yet")] * 2


BODY = bytes(range(256)) * 250


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("size", [0, 140, len(BODY)])
@pytest.mark.parametrize("read_bufsize", [1024, 65_536])
async def test_g10_a_401_that_comes_back_reads_like_an_untouched_response(
    encoding: str, size: int, read_bufsize: int
) -> None:
    """By read() and by stream, compressed or not, with a small buffer too, the body of a 401 is the same as without
    BearerAuth, and its connection is free before it is read.
    """
    compress = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding]

    async def handle(_request: web.Request) -> web.Response:
        headers = {"Content-Encoding": encoding}
        return web.Response(status=401, body=compress(BODY[:size]), headers=headers)

    async def by_read(response: aiohttp.ClientResponse) -> bytes:
        return await response.read()

    async def by_iter_chunked(response: aiohttp.ClientResponse) -> bytes:
        return b"".join([chunk async for chunk in response.content.iter_chunked(100)])

    async def by_iter_any(response: aiohttp.ClientResponse) -> bytes:
        return b"".join([chunk async for chunk in response.content.iter_any()])

    async def by_pieces(response: aiohttp.ClientResponse) -> bytes:
        return await response.content.read(7) + await response.content.read()

    async with serving(handle) as url:
        bearer = BearerAuth(Source(url, fresh=0))
        connector = aiohttp.TCPConnector(limit=1)
        async with (
            asyncio.timeout(20),
            aiohttp.ClientSession(
                url, middlewares=(bearer,), connector=connector, read_bufsize=read_bufsize
            ) as session,
        ):
            for read in (by_read, by_iter_chunked, by_iter_any, by_pieces):
                response = await session.get("/")
                assert not connector._acquired
                assert await read(response) == BODY[:size]
                assert response.content.at_eof()


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_g10_a_large_401_is_streamed_to_the_caller(encoding: str) -> None:
    """A 401 that is too large to read ahead, or is so once decompressed, comes back to be streamed in full."""
    large = b"x" * 3_000_000
    body = gzip.compress(large) if encoding == "gzip" else large

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=401, body=body, headers={"Content-Encoding": encoding})

    async with (
        serving(handle) as url,
        aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url, fresh=0)),)) as session,
        session.get("/") as response,
    ):
        assert b"".join([chunk async for chunk in response.content.iter_chunked(10_000)]) == large


async def generator() -> AsyncIterator[bytes]:
    yield b"made-up "
    yield b"stream"


def multipart(*parts: object) -> aiohttp.MultipartWriter:
    writer = aiohttp.MultipartWriter("form-data")
    for part in ("made-up part", b"bytes" * 1000, *parts):
        writer.append(part)
    return writer


def upload(video: object) -> aiohttp.FormData:
    form = aiohttp.FormData({"videoId": "vi-made-up"})
    form.add_field("file", video, filename="made-up.mp4", content_type="video/mp4")
    return form


@pytest.mark.parametrize(
    ("kwargs", "replayed"),
    [
        ({}, True),
        ({"data": b"bytes"}, True),
        ({"data": "text"}, True),
        ({"json": {"a": 1}}, True),
        ({"data": {"a": "1", "b": "2"}}, True),
        ({"data": b"bytes" * 1000, "compress": True}, True),
        ({"data": b"bytes", "chunked": True}, True),
        ({"data": generator}, False),
        ({"data": lambda: io.BytesIO(b"file")}, False),
        ({"data": multipart}, True),
        ({"data": lambda: upload(bytes(range(256)) * 4000)}, True),
        ({"data": lambda: upload(b"video"), "expect100": True}, True),
        ({"data": lambda: upload(b"video"), "compress": True}, True),
        ({"data": lambda: upload(io.BytesIO(b"video"))}, False),
        ({"data": lambda: multipart(io.TextIOWrapper(io.BytesIO(b"text")))}, False),
        ({"data": lambda: multipart(generator())}, False),
        ({"data": lambda: multipart(multipart(io.BytesIO(b"file")))}, False),
    ],
    ids=[
        "none",
        "bytes",
        "text",
        "json",
        "form",
        "compressed",
        "chunked",
        "generator",
        "file",
        "multipart",
        "upload",
        "upload-expect",
        "upload-compressed",
        "upload-file",
        "multipart-text-file",
        "multipart-generator",
        "multipart-nested",
    ],
)
async def test_g10_only_what_goes_out_in_full_is_sent_again(kwargs: dict, *, replayed: bool) -> None:
    """Bodies of bytes, multipart ones too, are sent again byte for byte; with any other the 401 comes back, and the
    token is reported all the same.
    """
    server = Server("made-up-access-2")
    kwargs = {name: value() if callable(value) else value for name, value in kwargs.items()}
    async with serving(server) as url:
        source = Source(url)
        async with (
            aiohttp.ClientSession(url, middlewares=(BearerAuth(source),)) as session,
            session.post("/", **kwargs) as response,
        ):
            assert response.status == (200 if replayed else 401)
    assert source.rejected == [1]
    assert len(server.requests) == (2 if replayed else 1)
    if replayed:
        assert server.requests[0][1] == server.requests[1][1]


async def test_g10_an_open_file_is_not_sent_again(tmp_path: Path) -> None:
    """A file, which a thread of the first attempt may still be reading, is not sent again."""
    path = tmp_path / "video"
    path.write_bytes(b"made-up video" * 100_000)
    server = Server("made-up-access-2")
    with path.open("rb") as file:
        async with serving(server) as url:
            source = Source(url)
            async with (
                aiohttp.ClientSession(url, middlewares=(BearerAuth(source),)) as session,
                session.post("/", data=file) as response,
            ):
                assert response.status == 401
            async with aiohttp.ClientSession(url, middlewares=(BearerAuth(source),)) as session:
                file_again = path.read_bytes()
                async with session.post("/", data=io.BytesIO(file_again)) as response:
                    assert response.status == 200
    assert server.requests[-1] == ("Bearer made-up-access-2", file_again)


async def test_g10_expect_100_continue_is_sent_again() -> None:
    """A request that waits for 100 Continue is replayed like any other."""
    server = Server("made-up-access-2")
    async with (
        serving(server) as url,
        aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url)),)) as session,
        session.post("/", data=b"made-up", expect100=True) as response,
    ):
        assert response.status == 200
    assert [body for _, body in server.requests] == [b"made-up", b"made-up"]


async def test_g10_one_connection_is_enough() -> None:
    """With a pool of one connection that the token call shares, a 401 with a small body is replayed."""
    server = Server("made-up-access-2", body=b"x" * 65_536)
    async with serving(server) as url:
        connector = aiohttp.TCPConnector(limit=1)

        class SharingSource(Source):
            async def get_token(self, *, rejected: Token | None = None) -> Token:
                if rejected is not None:
                    async with (
                        aiohttp.ClientSession(connector=connector, connector_owner=False) as session,
                        session.get(f"{url}/token"),
                    ):
                        pass
                return await super().get_token(rejected=rejected)

        async with (
            aiohttp.ClientSession(url, middlewares=(BearerAuth(SharingSource(url)),), connector=connector) as session,
            asyncio.timeout(10),
            session.get("/") as response,
        ):
            assert response.status == 200


async def test_g10_a_manager_and_its_session_can_share_one_connection() -> None:
    """With `connector=TCPConnector(limit=1)`, token calls, requests of many tasks and replays take turns."""
    async with (
        Emulator() as server,
        aiohttp.TCPConnector(limit=1) as connector,
        TokenManager(server.api_key, base_url=server.url, connector=connector, clock=server.clock) as tokens,
        tokens.session() as session,
    ):

        async def list_videos() -> int:
            async with session.get("/videos") as response:
                await response.read()
                return response.status

        async with asyncio.timeout(30):
            for seconds in (60, 3000, 3600):
                assert await asyncio.gather(*(list_videos() for _ in range(20))) == [200] * 20
                server.advance(seconds)
                server.revoke_all()
            assert await list_videos() == 200
    assert [call.path for call in server.calls].count("/auth/api-key") == 1


@pytest.mark.virtual_time
async def test_g10_a_large_401_on_the_only_connection_comes_back() -> None:
    """A 401 that is too large to read ahead and keeps the only connection comes back when the token call gives up."""
    server = Server(body=b"x" * 5_000_000)
    rejected: list[TokenRejected] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/auth/api-key":
            grant = {"access_token": "made-up-access", "token_type": "Bearer", "expires_in": 3600}
            return web.json_response(grant | {"refresh_token": "made-up-refresh"})
        return await server(request)

    async with (
        serving(handle) as url,
        aiohttp.TCPConnector(limit=1) as connector,
        TokenManager(API_KEY, base_url=url, connector=connector, clock=LoopClock()) as tokens,
        tokens.session() as session,
    ):
        tokens.subscribe(lambda event: rejected.append(event) if isinstance(event, TokenRejected) else None)
        await tokens.get_token()
        await asyncio.sleep(60)
        async with asyncio.timeout(10), session.get("/") as response:
            assert (response.status, len(await response.read())) == (401, 5_000_000)
    assert [event.why_not for event in rejected] == ["no_token"]
    assert "connector's limit" in rejected[0].message


async def test_g10_a_large_401_is_released_before_the_replay() -> None:
    """A 401 whose body is too large to read ahead is released, and the second request gets through."""
    server = Server("made-up-access-2", body=b"x" * 5_000_000)
    async with serving(server) as url:
        connector = aiohttp.TCPConnector(limit=1)
        async with (
            aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url)),), connector=connector) as session,
            asyncio.timeout(10),
            session.get("/") as response,
        ):
            assert response.status == 200


async def test_g10_a_broken_401_is_still_a_401() -> None:
    """A 401 whose body breaks off is replayed as well; without another token its status comes back."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=401, headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"cut")
        request.transport.close()
        return response

    async with serving(handle) as url:
        bearer = BearerAuth(Source(url, fresh=0))
        async with aiohttp.ClientSession(url, middlewares=(bearer,)) as session, session.get("/") as response:
            assert response.status == 401


async def test_g10_a_caller_cancelled_during_the_renewal_leaves_no_connection() -> None:
    """If the caller gives up while another token is awaited, the 401's connection is closed."""
    reported = asyncio.Event()

    class Stuck(Source):
        async def get_token(self, *, rejected: Token | None = None) -> Token:
            if rejected is not None:
                reported.set()
                await asyncio.Event().wait()
            return self.current

    async with serving(Server(body=b"x" * 5_000_000)) as url:
        async with aiohttp.ClientSession(url, middlewares=(BearerAuth(Stuck(url)),)) as session:
            request = asyncio.create_task(session.get("/"))
            await reported.wait()
            request.cancel()
            # The exception keeps the frames, and with them the response: it is closed, not just forgotten.
            with pytest.raises(asyncio.CancelledError) as caught:
                await request
            assert not session.connector._acquired
    assert caught.tb is not None


async def test_g10_a_websocket_is_authenticated() -> None:
    """A websocket's handshake carries the token, and is replayed after a 401."""
    seen = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        if len(seen) == 1:
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async with serving(handle) as url:
        middlewares = (BearerAuth(Source(url)),)
        async with (
            aiohttp.ClientSession(middlewares=middlewares) as session,
            session.ws_connect(url.replace("http", "ws") + "/live"),
        ):
            pass
    assert seen == ["Bearer made-up-access-1", "Bearer made-up-access-2"]


@pytest.mark.parametrize("own", [False, True], ids=["session()", "BearerAuth"])
async def test_g10_a_manager_tells_its_subscribers_of_401s(*, own: bool) -> None:
    """A 401 reaches the manager's subscribers once, from its own session and from a session of the user's."""
    told: list[TokenRejected] = []
    async with Emulator() as server:
        async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
            tokens.subscribe(lambda event: told.append(event) if isinstance(event, TokenRejected) else None)
            session = aiohttp.ClientSession(server.url, middlewares=(BearerAuth(tokens),)) if own else tokens.session()
            async with session:
                await tokens.get_token()
                for data in (b"made-up", generator()):
                    server.advance(60)
                    server.revoke_all()
                    async with session.post("/videos", data=data):
                        pass
    assert [event.why_not for event in told] == [None, "body"]


async def test_g10_a_401_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A 401 that is not replayed is a warning with the cause, a replayed one a debug message; both as in the event."""
    caplog.set_level(logging.DEBUG, "apivideo_auth")
    told: list[TokenRejected] = []
    async with serving(Server("made-up-access-2")) as url:
        for fresh, data in ((1, b"bytes"), (1, io.BytesIO(b"file")), (0, b"bytes")):
            bearer = BearerAuth(Source(url, fresh=fresh), on_event=told.append)
            async with aiohttp.ClientSession(url, middlewares=(bearer,)) as session, session.post("/", data=data):
                pass
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", told[0].message),
        ("WARNING", told[1].message),
        ("WARNING", told[2].message),
    ]
    assert "sent again with another token" in told[0].message
    assert "its body cannot be sent twice" in told[1].message
    assert "not sent again: no other yet" in told[2].message


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Length": str(MAX_READ_AHEAD + 1)}, b"made-up"),
        ({"Content-Length": "10000000"}, b"made-up"),
        ({"Transfer-Encoding": "chunked"}, b"made-up"),
        ({"Content-Length": "60000", "Content-Encoding": "gzip"}, gzip.compress(bytes(30_000_000))[:20_000]),
    ],
    ids=["long", "longer", "chunked", "large-once-decompressed"],
)
async def test_g10_nobody_waits_for_the_end_of_a_large_401(headers: dict[str, str], body: bytes) -> None:
    """A 401 whose body is large, or of unknown length, comes back before its body has arrived."""
    done = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=401, headers=headers)
        await response.prepare(request)
        await response.write(body)
        await done.wait()
        request.transport.close()
        return response

    async with serving(handle) as url:
        bearer = BearerAuth(Source(url, fresh=0))
        async with asyncio.timeout(20), aiohttp.ClientSession(url, middlewares=(bearer,)) as session:
            response = await session.get("/")
            assert response.status == 401
            response.close()
            done.set()


async def test_g10_a_connection_that_breaks_during_the_replay_is_told() -> None:
    """If the connection breaks when the request is sent again, aiohttp does not send it a third and a fourth time."""
    seen = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        if len(seen) > 1:
            request.transport.close()
        return web.Response(status=401)

    async with serving(handle) as url:
        async with aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url)),)) as session:
            with pytest.raises(
                aiohttp.ClientConnectionError, match=r"sent again \((ServerDisconnected|ClientOS)Error\)$"
            ) as caught:
                await session.get("/")
    assert type(caught.value) is aiohttp.ClientConnectionError
    assert seen == ["Bearer made-up-access-1", "Bearer made-up-access-2"]


async def test_g10_a_replay_without_a_connection_raises_the_usual_error() -> None:
    """If no connection can be made when the request is sent again, the error is aiohttp's own, with the host in it."""
    refused = OSError(111, "made-up: refused")

    class OneConnection(aiohttp.TCPConnector):
        connections = 0

        async def _create_connection(self, req: aiohttp.ClientRequest, *args: Any) -> Any:
            self.connections += 1
            if self.connections > 1:
                raise aiohttp.ClientConnectorError(req.connection_key, refused)
            return await super()._create_connection(req, *args)

    server = Server("made-up-access-2")
    async with serving(server) as url:
        connector = OneConnection(force_close=True)
        async with aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url)),), connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get("/")
    assert caught.value.os_error is refused
    assert len(server.requests) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_g10_a_401_of_the_largest_size_is_read_ahead(encoding: str) -> None:
    """It comes back when its whole body has arrived, so that its connection is free."""
    order = []
    content = (bytes(range(256)) * MAX_READ_AHEAD)[:MAX_READ_AHEAD]
    body = gzip.compress(content) if encoding == "gzip" else content

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Length": str(len(body)), "Content-Encoding": encoding}
        response = web.StreamResponse(status=401, headers=headers)
        await response.prepare(request)
        await response.write(body[:-1])
        # Time for a client that does not wait.
        await asyncio.sleep(0.1)
        order.append("last byte")
        await response.write(body[-1:])
        return response

    async with serving(handle) as url:
        bearer = BearerAuth(Source(url, fresh=0))
        async with aiohttp.ClientSession(url, middlewares=(bearer,)) as session, session.get("/") as response:
            order.append("response")
            assert await response.read() == content
    assert order == ["last byte", "response"]


async def head_of_request(reader: asyncio.StreamReader) -> bytes | None:
    """Return the head of the next request on a connection, if there is another one."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def test_g10_a_replay_waits_for_100_continue_as_well() -> None:
    """The body is sent only when the server asks for it, the second time too."""
    early: list[bytes] = []
    statuses = ["200 OK", "401 Unauthorized"]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The second request may come on another connection.
        while statuses and await head_of_request(reader):
            # Time for a client that does not wait.
            await asyncio.sleep(0.1)
            early.append(bytes(reader._buffer))
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await reader.readexactly(7) == b"made-up"
            writer.write(f"HTTP/1.1 {statuses.pop()}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url)),)) as session,
            session.post("/", data=b"made-up", expect100=True) as response,
        ):
            assert response.status == 200
    assert early == [b"", b""]
