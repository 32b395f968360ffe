"""Reading the body of a request: bounded where it is kept, counted where it is not."""

from contextlib import suppress
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from apivideo_auth.emulator._multipart import FileCounter, boundary_of
from apivideo_auth.emulator._payload import Payload, parse_payload
from apivideo_auth.emulator._problems import body_too_large

PAYLOAD_LIMIT: Final = 1_048_576
"""Bytes of a JSON body that are taken: aiohttp's own limit for bodies that are kept."""
FILE_LIMIT: Final = 200 * 1_048_576
"""Bytes of a file that is uploaded whole."""
CHUNK_LIMIT: Final = 128 * 1_048_576
"""Bytes of a chunk."""
BROKEN_BODY: Final = (web.RequestPayloadError, HttpProcessingError)
"""What reading a body raises that is not framed as its headers say, by the one or the other of aiohttp's parsers."""


async def read_payload(request: web.BaseRequest) -> Payload:
    """Return the JSON object in the body of a request, or raise a 400 or a 413."""
    try:
        return parse_payload(await request.read())
    except web.HTTPRequestEntityTooLarge:
        raise body_too_large(PAYLOAD_LIMIT) from None


async def read_ahead(request: web.BaseRequest) -> None:
    """Read a body that is no upload now, so that it is there also when the client has left."""
    length = request.content_length
    is_upload = request.headers.get("Content-Type", "").lower().startswith("multipart/")
    if length is not None and length <= PAYLOAD_LIMIT and not is_upload:
        with suppress(*BROKEN_BODY):
            await request.read()


async def count_file(request: web.BaseRequest, limit: int) -> int:
    """Return how many bytes the uploaded file has, or raise a 400 or a 413. Reads no further than to its end."""
    counter = FileCounter(boundary_of(request.headers.get("Content-Type", "")), limit)
    while not counter.counted and (piece := await request.content.readany()):
        counter.feed(piece)
    counter.finish()
    return counter.size
