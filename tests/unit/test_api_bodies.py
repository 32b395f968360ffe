"""AuthenticationApi: whatever a server writes, a call ends in time, with a token or a typed error."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from contextlib import nullcontext, suppress

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses

from apivideo_auth import (
    SANDBOX,
    AuthConnectionError,
    AuthenticationApi,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshTokenPayload,
)
from apivideo_auth._response import MAX_BODY_SIZE
from tests.support.answers import ANSWER, KEY, TOKEN
from tests.support.loopback import serving


async def raw_server(answer: bytes, *, then_hang: bool = False) -> tuple[asyncio.Server, str]:
    """Send these bytes to every client."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(answer)
            await writer.drain()
            if then_hang:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", AuthConnectionError),
        (b"made-up nonsense\r\n\r\n", InvalidResponseError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", AuthConnectionError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\r\n", AuthConnectionError),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n", InvalidResponseError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b" " * 200_000, InvalidResponseError),
        (b"HTTP/1.1 204 No Content\r\n\r\n", InvalidResponseError),
    ],
    ids=["nothing", "no-http", "cut", "cut-chunk", "long-header", "large", "no-content"],
)
async def test_bytes_of_any_kind_are_a_typed_error(answer: bytes, error: type[Exception]) -> None:
    """Whatever a server writes, valid HTTP or not, the caller gets one typed error."""
    server, url = await raw_server(answer)
    async with server, AuthenticationApi(url) as api:
        with pytest.raises(error) as caught:
            await api.authenticate(KEY)
        assert type(caught.value) is error


@pytest.mark.virtual_time
@pytest.mark.parametrize("then_hang", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [(503, AuthResponseError), (429, RateLimitedError), (401, CredentialsRejectedError), (201, InvalidResponseError)],
)
@pytest.mark.parametrize("framing", ["Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\nff\r\n{"])
async def test_an_error_whose_body_is_cut_short_keeps_its_status(
    status: int, error: type[AuthResponseError], framing: str, *, then_hang: bool
) -> None:
    """The status and Retry-After of a response count, also if its body breaks off or never ends. Of several
    Retry-After headers the longest wait counts.
    """
    headers = f"HTTP/1.1 {status} Made Up\r\nRetry-After: 9\r\nRetry-After: 30\r\nRetry-After: 3\r\n"
    server, url = await raw_server(f"{headers}{framing}".encode(), then_hang=then_hang)
    async with server, AuthenticationApi(url) as api:
        with pytest.raises(error) as caught:
            await api.refresh(RefreshTokenPayload("made-up-refresh"))
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.retry_after) == (status, 30.0)


async def test_an_endless_response_is_cut_off() -> None:
    """At most 64 KiB of a response are read, even if it never ends."""
    written = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while written < 2**30:
                await response.write(b" " * 65_536)
                written += 65_536
        except ConnectionError:
            pass
        return response

    async with serving(handle) as url, AuthenticationApi(url) as api:
        with pytest.raises(InvalidResponseError, match="longer than 65536"):
            await api.authenticate(KEY)
    assert written < 2**26


@pytest.mark.virtual_time
async def test_a_server_that_hangs_is_timed_out() -> None:
    """One call takes at most attempt_timeout as a whole."""
    server, url = await raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", then_hang=True)
    loop = asyncio.get_running_loop()
    async with server, AuthenticationApi(url, attempt_timeout=7) as api:
        # aiohttp rounds longer timeouts up to whole seconds of the loop's time.
        await asyncio.sleep(0.4)
        before = loop.time()
        with pytest.raises(AuthConnectionError, match="within 7 seconds"):
            await api.authenticate(KEY)
        assert loop.time() - before == pytest.approx(7, abs=0.1)


async def test_a_connection_with_an_endless_response_is_not_kept() -> None:
    """A connector that was passed keeps no connection on which the rest of a response would still arrive."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" " * 65_536)
        return response

    async with serving(handle) as url, aiohttp.TCPConnector() as connector:
        async with AuthenticationApi(url, connector=connector) as api:
            with pytest.raises(InvalidResponseError, match="longer than 65536"):
                await api.authenticate(KEY)
        assert not connector._acquired
        assert not any(connector._conns.values())


@pytest.mark.parametrize(("size", "accepted"), [(MAX_BODY_SIZE, True), (MAX_BODY_SIZE + 1, False)])
async def test_a_response_of_the_largest_size_is_read(mocked: aioresponses, size: int, *, accepted: bool) -> None:
    """A body of 64 KiB is read to its last byte, and one more byte makes it invalid."""
    mocked.post(f"{SANDBOX}/auth/api-key", body=json.dumps(ANSWER).rjust(size).encode())
    async with AuthenticationApi(SANDBOX) as api:
        with nullcontext() if accepted else pytest.raises(InvalidResponseError, match="longer than 65536"):
            assert await api.authenticate(KEY) == TOKEN


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_response_is_read(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """A server that compresses although nobody asked for it is understood."""

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=compress(json.dumps(ANSWER).encode()), headers={"Content-Encoding": encoding})

    async with serving(handle) as url, AuthenticationApi(url) as api:
        assert await api.authenticate(KEY) == TOKEN
