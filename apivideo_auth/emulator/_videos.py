"""The videos of the account: create, show, list in pages, and upload a source."""

import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from attrs import define, field

from apivideo_auth._clock import Clock
from apivideo_auth.emulator._messages import (
    Payload,
    Problem,
    Response,
    attribute,
    invalid_attribute,
    read_payload,
    required_text,
)
from apivideo_auth.emulator._uploads import CHUNK_LIMIT, FILE_LIMIT, Upload, count_file, parse_content_range

_DEFAULT_PAGE_SIZE: Final = 25
_MAX_PAGE_SIZE: Final = 100
_MAX_PAGE: Final = 10**9
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@define
class Video:
    """A video as the API shows it, and the part of its source that has arrived."""

    document: dict[str, object]
    upload: Upload = field(factory=Upload)


@define(eq=False)
class Videos:
    """All videos of the account, by id. `url` is the emulator's."""

    url: str
    clock: Clock
    _videos: dict[str, Video] = field(factory=dict[str, Video], init=False)

    async def create(self, request: web.Request) -> Response:
        """`POST /videos`."""
        video_id = f"vi{secrets.token_hex(11)}"
        now = self._now()
        media = f"{self.url}/vod/{video_id}"
        document = {
            "videoId": video_id,
            **_details(await read_payload(request)),
            "createdAt": now,
            "publishedAt": now,
            "updatedAt": now,
            "discarded": False,
            "source": {"uri": f"/videos/{video_id}/source"},
            "assets": {
                "hls": f"{media}/hls/manifest.m3u8",
                "iframe": f'<iframe src="{media}" width="100%" height="100%" frameborder="0"></iframe>',
                "player": media,
                "thumbnail": f"{media}/thumbnail.jpg",
                "mp4": f"{media}/mp4/source.mp4",
            },
        }
        self._videos[video_id] = Video(document)
        return Response(document, "served", status=201)

    async def show(self, request: web.Request) -> Response:
        """`GET /videos/{videoId}`."""
        return Response(self._find(request).document, "served")

    async def upload(self, request: web.Request) -> Response:
        """`POST /videos/{videoId}/source`.

        Chunks may be smaller than api.video's minimum of 5 MiB, so that tests need no large files.
        """
        video = self._find(request)
        chunk = parse_content_range(request.headers.get("Content-Range"))
        video.upload.add(chunk, await count_file(request, FILE_LIMIT if chunk is None else CHUNK_LIMIT))
        video.document["updatedAt"] = self._now()
        return Response(video.document, "served", status=201)

    async def list(self, request: web.Request) -> Response:
        """`GET /videos`: a page, the newest video first. A page after the last one is empty."""
        number = _page_parameter(request.query, "currentPage", 1, _MAX_PAGE)
        size = _page_parameter(request.query, "pageSize", _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        documents = [video.document for video in reversed(self._videos.values())]
        data = documents[(number - 1) * size : number * size]
        last = max(1, -(-len(documents) // size))
        links = {"self": number, "first": 1, "last": last}
        links |= {"previous": number - 1} if number > 1 else {}
        links |= {"next": number + 1} if number < last else {}
        pagination = {
            "currentPage": number,
            "pageSize": size,
            "pagesTotal": last,
            "itemsTotal": len(documents),
            "currentPageItems": len(data),
            "links": [
                {"rel": rel, "uri": f"/videos?currentPage={page}&pageSize={size}"} for rel, page in links.items()
            ],
        }
        return Response({"data": data, "pagination": pagination}, "served")

    def _find(self, request: web.Request) -> Video:
        video = self._videos.get(request.match_info["videoId"])
        if video is None:
            title = "The requested resource was not found."
            raise Problem(404, "resource-not-found", title, name="videoId", outcome="missing")
        return video

    def _now(self) -> str:
        return datetime.fromtimestamp(self.clock.utc(), UTC).isoformat(timespec="seconds")


def _details(payload: Payload) -> dict[str, object]:
    """Return the attributes that the client gives a new video. Those without a value are left out. Raises a 400."""
    title = required_text(payload, "title")
    texts = {name: attribute(payload, name, str) for name in ("description", "playerId")}
    flags = {"public": True, "panoramic": False, "mp4Support": True}
    given_flags = {name: attribute(payload, name, bool) for name in flags}
    flags |= {name: flag for name, flag in given_flags.items() if flag is not None}
    tags = attribute(payload, "tags", list) or []
    if not all(isinstance(tag, str) for tag in tags):
        raise invalid_attribute("tags", "an array of strings")
    metadata = [_metadata(entry) for entry in attribute(payload, "metadata", list) or []]
    given_texts = {name: text for name, text in texts.items() if text is not None}
    return {"title": title, **given_texts, **flags, "tags": tags, "metadata": metadata}


def _metadata(entry: object) -> dict[str, str]:
    match entry:
        case {"key": str(key), "value": str(value)}:
            return {"key": key, "value": value}
        case _:
            raise invalid_attribute("metadata", "an array of objects with a key and a value")


def _page_parameter(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise invalid_attribute(name, f"an integer from 1 to {most}")
    return int(text)
