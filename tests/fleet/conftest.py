"""Redis servers for the tests, and scenarios that run at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.redis_server import RedisServer, own_server

Scenarios = dict[str, Callable[[], Awaitable[Any]]]


@pytest.fixture(scope="module")
def module_redis() -> Iterator[RedisServer]:
    """A server that the tests of a module share; each has an account of its own there."""
    with own_server() as server:
        yield server


@pytest.fixture(scope="module")
def own_redis_of_module() -> Iterator[RedisServer]:
    """A server for one test of a module, to be killed, stopped, emptied and started again."""
    with own_server() as server:
        yield server


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, which does not exist yet, that the tests of a module share in the same way."""
    return tmp_path_factory.mktemp("fleet") / "tokens"


class Outcomes:
    """The outcomes of independent scenarios, which ran at the same time."""

    def __init__(self, scenarios: Scenarios) -> None:
        self._outcomes = asyncio.run(self._run(scenarios))

    @staticmethod
    async def _run(scenarios: Scenarios) -> dict[str, Any]:
        outcomes = await asyncio.gather(*(run() for run in scenarios.values()), return_exceptions=True)
        return dict(zip(scenarios, outcomes, strict=True))

    def __getitem__(self, name: str) -> Any:
        """Return the outcome of a scenario, or raise its exception."""
        outcome = self._outcomes[name]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
