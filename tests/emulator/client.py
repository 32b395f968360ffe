"""A plain client of the emulator. It checks on every response what holds for all of them."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import aiohttp
from attrs import frozen
from multidict import CIMultiDictProxy

from apivideo_auth.emulator import Emulator

REFERENCE = "https://docs.api.video/reference/"


@frozen
class Reply:
    """A response: status, headers, and the JSON document of the body (None without a body)."""

    status: int
    headers: CIMultiDictProxy[str]
    document: Any

    @property
    def slug(self) -> str:
        """The last part of the `type` of an error."""
        return self.document["type"].removeprefix(REFERENCE)


class Client:
    """Sends requests to one emulator."""

    def __init__(self, server: Emulator, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def ask(self, method: str, path: str, **kwargs: Any) -> Reply:
        async with self.session.request(method, f"{self.server.url}{path}", allow_redirects=False, **kwargs) as answer:
            body = await answer.read()
            assert answer.headers.getall("Content-Type") == ["application/json"]
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            return Reply(answer.status, answer.headers, json.loads(body) if body else None)

    async def get(self, path: str, authorization: str | None = None, **kwargs: Any) -> Reply:
        return await self.ask("GET", path, headers=_headers(authorization), **kwargs)

    async def post(self, path: str, authorization: str | None = None, **kwargs: Any) -> Reply:
        headers = _headers(authorization) | kwargs.pop("headers", {})
        return await self.ask("POST", path, headers=headers, **kwargs)

    async def authenticate(self) -> Reply:
        return await self.post("/auth/api-key", json={"apiKey": self.server.api_key})

    async def refresh(self, refresh_token: str) -> Reply:
        return await self.post("/auth/refresh", json={"refreshToken": refresh_token})

    async def bearer(self) -> str:
        """Get a token, as the value of an Authorization header."""
        return bearer_of(await self.authenticate())

    @property
    def basic(self) -> str:
        """The API key, as the value of an Authorization header."""
        return basic(f"{self.server.api_key}:")

    async def video(self) -> str:
        """Create a video and return its id."""
        reply = await self.post("/videos", self.basic, json={"title": "made up"})
        return reply.document["videoId"]

    async def upload(self, video_id: str, data: bytes, place: str | None = None) -> Reply:
        form = aiohttp.FormData()
        form.add_field("file", data, filename="made-up.mp4")
        headers = {} if place is None else {"Content-Range": place}
        return await self.post(f"/videos/{video_id}/source", self.basic, data=form, headers=headers)


def basic(credentials: str) -> str:
    return f"Basic {b64encode(credentials.encode()).decode()}"


def bearer_of(reply: Reply) -> str:
    return f"Bearer {reply.document['access_token']}"


def _headers(authorization: str | None) -> dict[str, str]:
    return {} if authorization is None else {"Authorization": authorization}


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until something has happened."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  what is waited for happens on the other side of a socket
            await asyncio.sleep(0)
