"""Input that crashes naive servers: each is a 4xx, and no secret is logged."""

import asyncio
import contextlib
import io
import json
import logging

import aiohttp
import pytest
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError

from tests.emulator.client import Client, until

BODIES = {
    "a lone surrogate": rb'{"%s": "\ud800"}',
    "a lone surrogate in a name": rb'{"%s": "x", "\udfff": 1}',
    "a lone surrogate deep inside": rb'{"%s": "x", "y": [{"z": ["\ud800"]}]}',
    "a NUL": rb'{"%s": "a\u0000b"}',
    "a raw NUL": b'{"%%s": "\x00"}',
    "100,000 levels of arrays": b"[" * 100_000,
    "100,000 levels of objects": b'{"a":' * 100_000,
    "100,000 levels that end": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "5,000 digits": b'{"%s": "x", "n": ' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"%s": "\xff\xfe"}',
    "UTF-16": '{"%s": "x"}'.encode("utf-16"),
    "a byte-order mark": b'\xef\xbb\xbf{"%s": "x"}',
    "NaN": b'{"%s": "x", "n": NaN}',
    "Infinity": b'{"%s": "x", "n": -Infinity}',
    "an array": b'["%s"]',
    "a string": b'"%s"',
    "null": b"null",
    "nothing": b"",
    "white space": b"  \n",
    "half an object": b'{"%s": ',
    "two objects": b'{"%s": "x"}{}',
    "gzip": b"\x1f\x8b\x08\x00",
}
TARGETS = [("/auth/api-key", b"apiKey"), ("/auth/refresh", b"refreshToken"), ("/videos", b"title")]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize(("path", "name"), TARGETS)
async def test_an_invalid_payload_is_rejected(
    client: Client, path: str, name: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is not a JSON object of storable text is a 400."""
    reply = await client.post(path, client.basic, data=body.replace(b"%s", name))
    assert (reply.status, reply.slug) == (400, "invalid-payload")
    assert [record for record in caplog.records if record.name != "asyncio"] == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
async def test_compressed_bodies_are_rejected(client: Client, encoding: str) -> None:
    """A compressed body is not inflated, since a small one could become a very large one."""
    headers = {"Content-Encoding": encoding}
    reply = await client.post("/auth/api-key", data=b"\x1f\x8b\x08\x00" + bytes(100), headers=headers)
    assert (reply.status, reply.slug) == (400, "invalid-payload")


@pytest.mark.parametrize(("path", "name"), TARGETS)
async def test_a_large_payload_is_rejected(client: Client, path: str, name: bytes) -> None:
    """A JSON body of more than 1 MiB is a 413."""
    body = io.BytesIO(json.dumps({name.decode(): "x" * 2**20}).encode())
    reply = await client.post(path, client.basic, data=body)
    assert (reply.status, reply.slug) == (413, "request-entity-too-large")


POST = b"POST /auth/api-key HTTP/1.1\r\nHost: x\r\n"
REQUESTS = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
    "an unknown method": b"BREW /videos HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown version": b"GET /videos HTTP/9.9\r\nHost: x\r\n\r\n",
    "a broken target": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a broken port": b"GET http://x:99999999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in the target": b"GET /videos\xff\xfe?a=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a broken header": b"GET /videos HTTP/1.1\r\nHost: x\r\nAuthorization Bearer secret\r\n\r\n",
    "a NUL in a header": b"GET /videos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \x00secret\r\n\r\n",
    "a huge header": b"GET /videos HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "a huge target": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": b"GET /videos HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n{}",
    "a 5,000-digit length": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "a broken chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "no host": b"GET /nope HTTP/1.1\r\n\r\n",
    "HTTP/1.0": b"GET /nope HTTP/1.0\r\n\r\n",
    "an asterisk": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "another host": b"GET http://elsewhere.example/nope HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade": b"GET /nope HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another expectation": POST + b"Expect: tea\r\nContent-Length: 0\r\n\r\n",
    "multipart without boundary": POST + b"Content-Type: multipart/form-data\r\nContent-Length: 2\r\n\r\n{}",
    "a broken content type": POST + b"Content-Type: ;;;=\r\nContent-Length: 2\r\n\r\n{}",
}


OLDER = tuple(map(int, aiohttp.__version__.split(".")[:2])) < (3, 14)
"""Older versions of aiohttp close the connection for a broken target, and never answer a broken port."""


@pytest.mark.parametrize("name", REQUESTS)
async def test_malformed_http_is_a_4xx_or_a_closed_connection(
    client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A malformed request gets a 4xx or a closed connection, is logged without its content, and disturbs no other."""
    if OLDER and name == "a broken port":
        pytest.skip("fixed in newer versions of aiohttp")
    caplog.set_level(logging.DEBUG)
    host, port = client.server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(REQUESTS[name])
    async with asyncio.timeout(30):
        status_line = await reader.readline()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert status_line.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")) or (OLDER and status_line == b"")
    assert "secret" not in caplog.text
    assert OLDER or "Traceback" not in caplog.text
    assert (await client.authenticate()).status == 200


async def test_a_body_that_breaks_off_disturbs_no_other(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A chunked body that becomes malformed has no effect, and other requests are answered meanwhile."""
    host, port = client.server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, port)
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
    await until(lambda: client.server._service.running)
    writer.write(b"nonsense\r\n")
    assert (await client.authenticate()).document["expires_in"] == 3600
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await until(lambda: len(client.server.calls) == 2)
    assert {call.outcome for call in client.server.calls} <= {"authenticated", "abandoned", "invalid"}
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("error", [web.RequestPayloadError, TransferEncodingError])
async def test_a_body_that_cannot_be_decoded_is_rejected(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A body that is not framed as its headers say is a 400, whichever of aiohttp's two parsers finds out."""

    async def fail(_request: object) -> None:
        raise error("made up")

    monkeypatch.setattr(web.Request, "read", fail)
    reply = await client.authenticate()
    assert (reply.status, reply.slug) == (400, "bad-request")


async def test_a_defect_is_answered_without_a_traceback(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the emulator itself fails, the answer is a 500 in the API's form, and the log does not show the request."""

    async def fail(_request: object) -> None:
        raise ValueError("made up, with a secret")

    monkeypatch.setattr(web.Request, "read", fail)
    reply = await client.authenticate()
    assert (reply.status, reply.slug) == (500, "internal-server-error")
    assert "the emulator failed: ValueError" in caplog.text
    assert "secret" not in caplog.text
    assert client.server.calls[0].outcome == "failed"
