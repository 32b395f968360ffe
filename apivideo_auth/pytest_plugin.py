"""The pytest plugin: fixtures with a local api.video in the test's own event loop.

    async def test_upload(apivideo):
        async with TokenManager(apivideo.api_key, base_url=apivideo.url, clock=apivideo.clock) as tokens: ...

The fixtures run under pytest-asyncio, in strict and in auto mode; where it is not installed, under anyio's plugin.
Loading this plugin imports neither aiohttp nor the emulator: the first test that uses a fixture does.
"""

from typing import TYPE_CHECKING

import pytest

try:
    from pytest_asyncio import fixture
except ImportError:
    # anyio's plugin takes ordinary fixtures.
    fixture = pytest.fixture  # type: ignore[assignment]  # called in the same way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from apivideo_auth.emulator import Emulator


@fixture
async def apivideo() -> "AsyncGenerator[Emulator]":
    """Provide a local api.video: a started `apivideo_auth.emulator.Emulator`."""
    from apivideo_auth.emulator import Emulator  # noqa: PLC0415  see above

    async with Emulator() as server:
        yield server


@pytest.fixture
def apivideo_env(apivideo: "Emulator", monkeypatch: pytest.MonkeyPatch) -> "Emulator":
    """Provide the same server, and an environment in which `TokenManager.from_env()` uses it with a private store.

    Sets `APIVIDEO_API_KEY` and `APIVIDEO_BASE_URL`, and removes `APIVIDEO_TOKEN_STORE`.
    """
    monkeypatch.setenv("APIVIDEO_API_KEY", apivideo.api_key)
    monkeypatch.setenv("APIVIDEO_BASE_URL", apivideo.url)
    monkeypatch.delenv("APIVIDEO_TOKEN_STORE", raising=False)
    return apivideo
