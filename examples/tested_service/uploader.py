"""A piece of a service: makes a video and uploads its file in chunks."""

import os
from pathlib import Path

import aiohttp

CHUNK = 5 * 2**20
"""Bytes; api.video takes chunks from 5 MiB on, but for the last one."""


async def upload(session: aiohttp.ClientSession, title: str, path: Path, *, chunk: int = CHUNK) -> str:
    """Upload a file and return the video's id. `session` is one of `TokenManager.session()`.

    Each chunk is read before it is sent, and sent as bytes, so that a request that meets a revoked token can be sent
    again in full. The token may be renewed any number of times in between.
    """
    async with session.post("/videos", json={"title": title}) as response:
        response.raise_for_status()
        video_id: str = (await response.json())["videoId"]
    # Read in the event loop: a chunk from a local disk takes a few milliseconds.
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        for first in range(0, size, chunk):
            data = file.read(chunk)
            await _send(session, video_id, path.name, data, f"bytes {first}-{first + len(data) - 1}/{size}")
    return video_id


async def _send(session: aiohttp.ClientSession, video_id: str, name: str, data: bytes, content_range: str) -> None:
    boundary = "chunk-of-a-video"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode() + b"%b\r\n--%b--\r\n" % (data, boundary.encode())
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Range": content_range}
    # A payload of bytes can be sent again; aiohttp's own multipart writer cannot.
    async with session.post(f"/videos/{video_id}/source", data=body, headers=headers) as response:
        response.raise_for_status()
