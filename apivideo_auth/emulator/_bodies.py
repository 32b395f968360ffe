"""Reading the body of a request: bounded where it is kept, counted where it is not."""

from typing import Final

from aiohttp import web

from apivideo_auth.emulator._multipart import FileCounter, boundary_of
from apivideo_auth.emulator._payload import Payload, parse_payload
from apivideo_auth.emulator._problems import body_too_large

PAYLOAD_LIMIT: Final = 1_048_576
"""Bytes of a JSON body that are taken."""
FILE_LIMIT: Final = 200 * 1_048_576
"""Bytes of a file that is uploaded whole."""
CHUNK_LIMIT: Final = 128 * 1_048_576
"""Bytes of a chunk."""


async def read_payload(request: web.BaseRequest) -> Payload:
    """Return the JSON object in the body of a request, or raise a 400 or a 413."""
    body = bytearray()
    while piece := await request.content.readany():
        body += piece
        if len(body) > PAYLOAD_LIMIT:
            raise body_too_large(PAYLOAD_LIMIT)
    return parse_payload(bytes(body))


async def count_file(request: web.BaseRequest, limit: int) -> int:
    """Return how many bytes the uploaded file has, or raise a 400 or a 413. Reads no further than to its end."""
    counter = FileCounter(boundary_of(request.headers.get("Content-Type", "")), limit)
    while not counter.counted and (piece := await request.content.readany()):
        counter.feed(piece)
    counter.finish()
    return counter.size
