"""The videos of the account, and how they are shown."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from attrs import define, field, frozen

from apivideo_auth.emulator._content_range import Part, Span
from apivideo_auth.emulator._payload import (
    Payload,
    optional_flag,
    optional_list,
    optional_text,
    required_text,
)
from apivideo_auth.emulator._problems import Problem, attribute_invalid, video_missing
from apivideo_auth.emulator._uploads import Nothing, Upload, received


@frozen
class Details:
    """What a client says of a video. Raises a 400 where it is made of a payload that does not fit."""

    title: str
    description: str | None
    player_id: str | None
    public: bool
    panoramic: bool
    mp4_support: bool
    tags: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, payload: Payload) -> "Details":
        """Return the details in the payload of `POST /videos`."""
        return cls(
            title=required_text(payload, "title"),
            description=optional_text(payload, "description"),
            player_id=optional_text(payload, "playerId"),
            public=optional_flag(payload, "public", default=True),
            panoramic=optional_flag(payload, "panoramic", default=False),
            mp4_support=optional_flag(payload, "mp4Support", default=True),
            tags=tuple(_tag(item) for item in optional_list(payload, "tags")),
            metadata=tuple(_pair(item) for item in optional_list(payload, "metadata")),
        )


@define
class Video:
    """A video that was created. Times are seconds since the epoch."""

    video_id: str
    details: Details
    created_at: float
    updated_at: float
    upload: Upload = field(factory=Nothing)

    def receive(self, place: Part | Span | None, size: int, utc: float) -> None:
        """Take a whole file, or a chunk of it, of `size` bytes. Raises a 400 and stays as it is if it does not fit."""
        self.upload = received(self.upload, place, size)
        self.updated_at = utc

    def document(self, url: str) -> dict[str, object]:
        """Return the video as the API shows it. Fields without a value are left out; `url` is this server's."""
        created_at = _iso(self.created_at)
        media = f"{url}/vod/{self.video_id}"
        shown: dict[str, object | None] = {
            "videoId": self.video_id,
            "title": self.details.title,
            "description": self.details.description,
            "playerId": self.details.player_id,
            "public": self.details.public,
            "panoramic": self.details.panoramic,
            "mp4Support": self.details.mp4_support,
            "tags": list(self.details.tags),
            "metadata": [{"key": key, "value": value} for key, value in self.details.metadata],
            "createdAt": created_at,
            "publishedAt": created_at,
            "updatedAt": _iso(self.updated_at),
            "discarded": False,
            "source": {"uri": f"/videos/{self.video_id}/source"},
            "assets": {
                "hls": f"{media}/hls/manifest.m3u8",
                "iframe": f'<iframe src="{media}" width="100%" height="100%" frameborder="0"></iframe>',
                "player": media,
                "thumbnail": f"{media}/thumbnail.jpg",
                "mp4": f"{media}/mp4/source.mp4",
            },
        }
        return {name: value for name, value in shown.items() if value is not None}


@define
class Library:
    """All videos, by their ids."""

    _videos: dict[str, Video] = field(factory=dict[str, Video], init=False)

    def create(self, details: Details, utc: float) -> Video:
        """Add a video."""
        video = Video(f"vi{secrets.token_hex(11)}", details, created_at=utc, updated_at=utc)
        self._videos[video.video_id] = video
        return video

    def get(self, video_id: str) -> Video:
        """Return a video, or raise a 404."""
        video = self._videos.get(video_id)
        if video is None:
            raise video_missing()
        return video

    def newest_first(self) -> list[Video]:
        """Return all videos."""
        return list(reversed(self._videos.values()))


def _tag(item: object) -> str:
    if not isinstance(item, str):
        raise attribute_invalid("tags", "an array of strings")
    return item


def _pair(item: object) -> tuple[str, str]:
    problem: Problem = attribute_invalid("metadata", "an array of objects with a key and a value")
    if not isinstance(item, Mapping):
        raise problem
    entry = cast("Mapping[str, object]", item)
    key, value = entry.get("key"), entry.get("value")
    if not isinstance(key, str) or not isinstance(value, str):
        raise problem
    return key, value


def _iso(utc: float) -> str:
    return datetime.fromtimestamp(utc, UTC).isoformat(timespec="seconds")
