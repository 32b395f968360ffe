"""The pytest plugin: a fixture `apivideo`, a local api.video in the test's own event loop.

    async def test_upload(apivideo):
        async with TokenManager(apivideo.api_key, base_url=apivideo.url) as tokens: ...

It works with pytest-asyncio in strict and in auto mode, and with anyio's plugin. What it needs is imported when a test
asks for it.
"""

from typing import TYPE_CHECKING

import pytest

try:
    from pytest_asyncio import fixture
except ImportError:
    # anyio's plugin takes plain fixtures.
    fixture = pytest.fixture  # type: ignore[assignment]  # called in the same way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from apivideo_auth.emulator import Emulator


@fixture
async def apivideo() -> "AsyncGenerator[Emulator]":
    """Give a local api.video: `url`, `api_key`, `calls`, `inject(Fault(…))`, `revoke_all()`, `clock`."""
    from apivideo_auth.emulator import Emulator  # noqa: PLC0415  imported when asked for

    async with Emulator() as server:
        yield server
