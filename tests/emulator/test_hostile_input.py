"""What crashes naive servers: each is a 4xx, and nothing is written to the log."""

import asyncio
import contextlib
import io
import json
import logging
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError

from apivideo_auth.emulator._routes import Routes
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
async def test_what_is_no_payload_is_refused(
    client: Client, path: str, name: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is no JSON object of storable text is a 400."""
    reply = await client.post(path, client.basic, data=body.replace(b"%s", name))
    assert (reply.status, reply.slug) == (400, "invalid-payload")
    assert [record for record in caplog.records if record.name != "asyncio"] == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
async def test_compressed_bodies_stay_so(client: Client, encoding: str) -> None:
    """A compressed body is not inflated, since a small one could become a very large one."""
    headers = {"Content-Encoding": encoding}
    reply = await client.post("/auth/api-key", data=b"\x1f\x8b\x08\x00" + bytes(100), headers=headers)
    assert (reply.status, reply.slug) == (400, "invalid-payload")


@pytest.mark.parametrize(("path", "name"), TARGETS)
async def test_a_large_payload_is_refused(client: Client, path: str, name: bytes) -> None:
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


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
async def test_what_is_hardly_http_is_answered(
    client: Client, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken request gets a 4xx in the API's form, is not logged, and does not disturb the others."""
    caplog.set_level(logging.INFO)
    host, port = client.server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request_)
    async with asyncio.timeout(5):
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["Content-Length"]))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert status_line.startswith(("HTTP/1.1 4", "HTTP/1.0 4"))
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["status"] == int(status_line.split()[1])
    assert [record for record in caplog.records if record.name != "asyncio"] == []
    assert (await client.authenticate()).status == 200


async def test_a_body_that_is_broken_halfway_disturbs_nobody(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A chunked body that goes wrong after its beginning has no effect, and others are served meanwhile."""
    host, port = client.server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, port)
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
    await until(lambda: client.server._listener._requests)
    writer.write(b"nonsense\r\n")
    assert (await client.authenticate()).document["expires_in"] == 3600
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await until(lambda: len(client.server.calls) == 2)
    assert {call.outcome for call in client.server.calls} <= {"authenticated", "abandoned", "invalid"}
    assert [record for record in caplog.records if record.name != "asyncio"] == []


@pytest.mark.parametrize("error", [web.RequestPayloadError, TransferEncodingError])
async def test_a_body_that_cannot_be_decoded_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """What aiohttp says of a body that is not framed as its headers say is a 400.

    Its parser in C says it before the request begins, the one in Python while the body is read.
    """

    def fail(*_args: object) -> None:
        raise error("made up")

    monkeypatch.setattr(Routes, "_work", fail)
    reply = await client.authenticate()
    assert (reply.status, reply.slug) == (400, "bad-request")


async def test_a_parser_that_fails_ends_the_connection_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Should aiohttp's parser crash, the request is a 400 and nothing is logged."""

    def fail(*_args: object) -> None:
        raise ValueError("made up, with a secret")

    with monkeypatch.context() as patch:
        patch.setattr(web.RequestHandler, "data_received", fail)
        async with client.session.get(client.server.url) as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
            assert (await answer.json())["status"] == 400
    assert (await client.authenticate()).status == 200
    assert caplog.text == ""


async def test_a_target_that_is_no_url_is_unknown(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where aiohttp's parser lets a broken target through, as older versions do, the answer is a 404."""

    class Picky(web.BaseRequest):
        def __init__(self, message: Any, *args: Any) -> None:
            if message.path != "/":
                raise ValueError("Port out of range 0-65535")
            super().__init__(message, *args)

    monkeypatch.setattr(web, "BaseRequest", Picky)
    reply = await client.authenticate()
    assert (reply.status, reply.slug) == (404, "unrecognized-request-url")


async def test_a_defect_is_answered_without_a_traceback(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Should the emulator fail itself, the answer is a 500 in the API's form, and the log has no request in it."""

    def fail(*_args: object) -> None:
        raise ValueError("made up, with a secret")

    monkeypatch.setattr(Routes, "_work", fail)
    reply = await client.authenticate()
    assert (reply.status, reply.slug) == (500, "internal-server-error")
    assert "the emulator failed: ValueError" in caplog.text
    assert "secret" not in caplog.text
    assert client.server.calls[0].outcome == "failed"
