"""The vendor's own Python client against the emulator."""

import asyncio
import os
import sys
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apivideo_auth.emulator import Emulator
from tests.emulator.client import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    apivideo = pytest.importorskip("apivideo", reason="the vendor's client is not installed")
    from apivideo import auth_api_client
    from apivideo.apis import VideosApi
    from apivideo.auth_api_client import AuthenticatedApiClient
    from apivideo.exceptions import ApiException

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
def client_time(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The client's clock, which stands still until a test moves it. Its polling thread hardly sleeps."""
    clock = SimpleNamespace(now=0.0)
    stand_in = SimpleNamespace(time=lambda: clock.now, sleep=lambda _seconds: time.sleep(0.001))
    monkeypatch.setattr(auth_api_client, "time", stand_in)
    return clock


@asynccontextmanager
async def connected(server: Emulator) -> AsyncIterator[Any]:
    """Provide the vendor's client, connected to the emulator. It blocks, so it runs in threads."""
    client = AuthenticatedApiClient(server.api_key)
    client.configuration.host = server.url
    await asyncio.to_thread(client.__enter__)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.__exit__, None, None, None)


def endpoints(server: Emulator) -> list[tuple[str, int]]:
    """Return path and status of each call."""
    return [(call.path, call.status) for call in server.calls]


async def test_it_connects_lists_and_creates() -> None:
    """It authenticates, creates a video, and finds it again in the list and by its id."""
    async with Emulator() as server, connected(server) as client:
        videos = VideosApi(client)
        made = await asyncio.to_thread(videos.create, {"title": "Holidays"})
        listed = await asyncio.to_thread(videos.list)
        found = await asyncio.to_thread(videos.get, made.video_id)
    assert [video.title for video in listed.data] == [found.title] == ["Holidays"]
    assert listed.pagination.items_total == 1


@pytest.mark.parametrize(("size", "calls"), [(1000, 1), (11 * MEBIBYTE, 3)])
async def test_it_uploads_in_one_and_in_several_chunks(tmp_path: Path, size: int, calls: int) -> None:
    """A small file is uploaded as one part, a larger one in chunks."""
    path = tmp_path / "holidays.mp4"
    path.write_bytes(b"x" * size)

    def upload(videos: Any, video_id: str) -> Any:
        with path.open("rb") as file:
            return videos.upload(video_id, file)

    async with Emulator() as server, connected(server) as client:
        client.configuration.chunk_size = 5 * MEBIBYTE
        videos = VideosApi(client)
        made = await asyncio.to_thread(videos.create, {"title": "Holidays"})
        uploaded = await asyncio.to_thread(upload, videos, made.video_id)
        assert uploaded.video_id == made.video_id
        with pytest.raises(ApiException):
            await asyncio.to_thread(upload, videos, made.video_id)
    uploads = [status for path, status in endpoints(server) if path.endswith("/source")]
    assert uploads[:calls] == [201] * calls
    assert uploads[calls] == 400


async def test_it_outlives_its_token(client_time: SimpleNamespace) -> None:
    """Its refresh thread gets new tokens, and it goes on working after the first token has expired."""
    async with Emulator() as server, connected(server) as client:
        videos = VideosApi(client)
        await asyncio.to_thread(videos.list)
        first = client._access_token
        server.advance(1800)
        # It refreshes ten seconds before the end.
        client_time.now = 3591.0
        await until(lambda: client._access_token != first)
        server.advance(1800)
        await asyncio.to_thread(videos.list)
        assert endpoints(server) == [
            ("/auth/api-key", 200),
            ("/videos", 200),
            ("/auth/refresh", 200),
            ("/videos", 200),
        ]


async def test_it_understands_errors() -> None:
    """A wrong key and an unknown video raise its own exceptions."""
    async with Emulator() as server:
        client = AuthenticatedApiClient("made-up-wrong-key")
        client.configuration.host = server.url
        with pytest.raises(ApiException):
            await asyncio.to_thread(client.connect)
        client.close()
        async with connected(server) as client:
            with pytest.raises(ApiException) as caught:
                await asyncio.to_thread(VideosApi(client).get, "made-up-id")
    assert caught.value.status == 404


async def test_it_works_with_the_server_of_the_command(tmp_path: Path) -> None:
    """Pointed at `apivideo-auth serve`, another process, it does all of this as well."""
    path = tmp_path / "holidays.mp4"
    path.write_bytes(b"x" * 11 * MEBIBYTE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "apivideo_auth", "serve", "--ttl", "11"),
        env=environment | {"APIVIDEO_API_KEY": "made-up-key-of-the-test"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()

        def work() -> list[str]:
            client = AuthenticatedApiClient("made-up-key-of-the-test")
            client.configuration.host = url
            client.configuration.chunk_size = 5 * MEBIBYTE
            client.connect()
            videos = VideosApi(client)
            made = videos.create({"title": "Holidays"})
            with path.open("rb") as file:
                videos.upload(made.video_id, file)
            client.refresh_token()
            titles = [video.title for video in videos.list().data]
            client.close()
            return titles

        assert await asyncio.to_thread(work) == ["Holidays"]
    finally:
        process.terminate()
        assert await process.wait() == 0
