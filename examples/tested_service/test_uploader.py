"""Tests of the uploader with the fixture `apivideo` of apivideo-auth's pytest plugin.

pytest examples/tested_service
"""

from pathlib import Path

import pytest
from uploader import upload

from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator, Fault


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of three chunks."""
    path = tmp_path / "holidays.mp4"
    path.write_bytes(b"made-up video" * 1000)
    return path


async def test_an_upload_arrives(apivideo: Emulator, file: Path) -> None:
    """A file is uploaded in chunks, with one token."""
    async with TokenManager(apivideo.api_key, base_url=apivideo.url) as tokens, tokens.session() as session:
        video_id = await upload(session, "Holidays", file, chunk=5000)
        async with session.get(f"/videos/{video_id}") as response:
            assert (await response.json())["title"] == "Holidays"
    assert [call.status for call in apivideo.calls] == [200, 201, 201, 201, 201, 200]


async def test_an_upload_outlives_its_token(apivideo: Emulator, file: Path) -> None:
    """A token that is revoked between two chunks is replaced, and the chunk is sent again in full."""
    async with TokenManager(apivideo.api_key, base_url=apivideo.url, clock=apivideo.clock) as tokens:
        async with tokens.session() as session:
            await tokens.get_token()
            # A token that is rejected in its first second is not replaced.
            apivideo.advance(1)
            apivideo.revoke_all()
            await upload(session, "Holidays", file, chunk=5000)
    assert [call.path for call in apivideo.calls].count("/auth/refresh") == 1


async def test_an_upload_survives_an_outage_of_the_token_endpoint(apivideo: Emulator, file: Path) -> None:
    """While the token endpoint is down, the current token remains in use."""
    async with TokenManager(apivideo.api_key, base_url=apivideo.url) as tokens, tokens.session() as session:
        await tokens.get_token()
        apivideo.inject(Fault(reset="before", times=None))
        assert await upload(session, "Holidays", file, chunk=5000)
