"""An emulator, a session, and a client that joins them."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from apivideo_auth.emulator import Emulator
from tests.emulator.client import Client


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
    """An emulator, made with the arguments that a test is parametrized with, if it is."""
    async with Emulator(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that opens a connection for each request, since virtual time and keep-alive timers do not mix."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@pytest.fixture
async def client(server: Emulator, session: aiohttp.ClientSession) -> Client:
    return Client(server, session)
