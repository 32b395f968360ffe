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
    boundary = "chunk-of-a-video"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode() + b"%b\r\n--%b--\r\n" % (data, boundary.encode())
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Range": content_range}
    # Bytes can be sent again after a 401.
    async with session.post(f"/videos/{video_id}/source", data=body, headers=headers) as response:
        response.raise_for_status()
