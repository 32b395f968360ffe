"""Putting an answer on the wire, or failing to, as a fault wants it."""

import socket
import struct
import sys
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from apivideo_auth.emulator._answers import CONTENT_TYPE, Answer, json_response, response_of
from apivideo_auth.emulator._connection import Connection
from apivideo_auth.emulator._faults import Fault

_MALFORMED: Final = b'{"token_type": "Bearer", "expires_in": 36'
_PIECE: Final = b" " * 65_536
_NO_LINGERING: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_GOOD: Final = range(200, 300)


async def refuse_work(request: web.BaseRequest, fault: Fault, headers: Mapping[str, str]) -> web.StreamResponse:
    """Misbehave in the way of a fault that comes instead of the work."""
    if fault.hang:
        connection = request.protocol
        assert isinstance(connection, Connection), "the listener makes no other"
        await connection.gone.wait()
        return web.Response()
    if fault.reset is not None:
        return cut(request)
    if fault.redirect is not None:
        return json_response(fault.redirect_status, b"{}", {**headers, "Location": fault.redirect})
    assert fault.status is not None, "the kinds of fault that are left"
    return json_response(fault.status, fault.answer_body(), {**headers, **fault.headers})


async def spoil(
    request: web.BaseRequest, fault: Fault, answer: Answer, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Misbehave in the way of a fault that comes after the work, whose `answer` is lost or spoiled."""
    if fault.reset is not None:
        return cut(request)
    if fault.malformed:
        return json_response(200, _MALFORMED, {**headers, **answer.headers})
    if fault.oversized is not None:
        return await _padded(request, fault.oversized, answer, headers)
    if answer.status in _GOOD and (fault.omit or fault.override):
        return response_of(answer.with_document(fault.edited(answer.document)), headers)
    return response_of(answer, headers)


def cut(request: web.BaseRequest) -> web.Response:
    """Cut the connection with a reset, and return a response that goes nowhere."""
    transport = request.transport
    if transport is not None:
        # Without lingering, closing sends RST and not FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        transport.abort()
    return web.Response()


async def _padded(
    request: web.BaseRequest, size: int, answer: Answer, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send the document behind so many spaces that the body has `size` bytes, piece by piece."""
    body = answer.body
    padding = max(0, size - len(body))
    response = web.StreamResponse(
        status=answer.status, headers={"Content-Type": CONTENT_TYPE, **headers, **answer.headers}
    )
    response.content_length = padding + len(body)
    try:
        await response.prepare(request)
        while padding > 0:
            await response.write(_PIECE[:padding])
            padding -= len(_PIECE)
        await response.write(body)
    except ConnectionError:
        # The client has seen enough.
        return response
    return response
