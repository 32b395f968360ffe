"""A local api.video, and the environment of the command."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apivideo_auth.emulator import Emulator
from tests.cli.process import clean_environment

API_KEY = "made-up-key-of-the-test"


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    """A local api.video that accepts a key of the test's own."""
    async with Emulator(api_key=API_KEY) as emulator:
        yield emulator


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with a store of the test's own, without an API key and a base URL."""
    return clean_environment() | {"APIVIDEO_TOKEN_STORE": f"file://{tmp_path}/store", "PYTHONWARNINGS": "error"}


@pytest.fixture
def environment(bare: dict[str, str], server: Emulator) -> dict[str, str]:
    """An environment for the local api.video."""
    return bare | {"APIVIDEO_API_KEY": API_KEY, "APIVIDEO_BASE_URL": server.url}
