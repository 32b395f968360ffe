"""A real Redis for the tests of the stores."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.redis_server import ForeignRedis, RedisServer, any_server, own_server


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer | ForeignRedis]:
    with ExitStack() as stack:
        yield stack.enter_context(any_server())


@pytest.fixture
def redis_server(_shared_redis: RedisServer | ForeignRedis) -> RedisServer | ForeignRedis:
    """A server that other tests use as well: for reading and writing under names of one's own."""
    return _shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server of the test's own, to be killed, stopped, emptied and started again."""
    with own_server() as server:
        yield server
