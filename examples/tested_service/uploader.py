"""Part of a service: creates a video and uploads its file in chunks."""

import os
from pathlib import Path

import aiohttp

CHUNK = 5 * 2**20
"""Bytes. api.video accepts chunks of 5 MiB or more; the last one may be smaller."""


async def upload(session: aiohttp.ClientSession, title: str, path: Path, *, chunk: int = CHUNK) -> str:
    """Upload a file and return the id of its video. `session` comes from `TokenManager.session()`.

    Each chunk is sent as bytes, so that it can be sent again in full if its token was revoked. The token may be renewed
    any number of times during the upload.
    """
    async with session.post("/videos", json={"title": title}) as response:
        response.raise_for_status()
        video_id: str = (await response.json())["videoId"]
    # Reading blocks the event loop for a few milliseconds per chunk, if the disk is a local one.
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        for first in range(0, size, chunk):
            data = file.read(chunk)
            await _send(session, video_id, path.name, data, f"bytes {first}-{first + len(data) - 1}/{size}")
    return video_id


async def _send(session: aiohttp.ClientSession, video_id: str, name: str, data: bytes, content_range: str) -> None:
    # A multipart body of bytes can be sent again after a 401; one with an open file cannot.
    form = aiohttp.FormData()
    form.add_field("file", data, filename=name, content_type="application/octet-stream")
    async with session.post(
        f"/videos/{video_id}/source", data=form, headers={"Content-Range": content_range}
    ) as response:
        response.raise_for_status()
