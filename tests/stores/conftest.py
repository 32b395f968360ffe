"""A real Redis for the tests of the stores, workers that share it, and managers' slots."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from apivideo_auth import events
from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._record import SharedToken
from apivideo_auth.stores._failover import FailoverSlot, open_failover_slot
from apivideo_auth.stores.redis import _slot, _subscription
from apivideo_auth.stores.redis._slot import RedisSlot
from apivideo_auth.stores.redis._store import RedisStore
from tests.conftest import API_KEY
from tests.support.redis_server import ForeignRedis, RedisServer, any_server, own_server


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer | ForeignRedis]:
    with ExitStack() as stack:
        yield stack.enter_context(any_server())


@pytest.fixture
def redis_server(_shared_redis: RedisServer | ForeignRedis) -> RedisServer | ForeignRedis:
    """A server that other tests use as well; a test uses its own `account` on it."""
    return _shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server of the test's own, which it may kill, stop, empty and start again."""
    with own_server() as server:
        yield server


@pytest.fixture
def account(request: pytest.FixtureRequest) -> str:
    """An account of the test's own on a server that is shared."""
    return f"account-{random.getrandbits(64):x}"


@pytest.fixture
async def store(redis_server: RedisServer) -> RedisStore:
    """A store with connections of its own."""
    return RedisStore(redis_server.url)


@pytest.fixture
async def slots() -> AsyncIterator[Callable[..., RedisSlot]]:
    """Open slots; they are closed after the test."""
    opened: list[RedisSlot] = []

    def open_slot(
        store: RedisStore,
        account: str = "account",
        on_commit: Callable[[], None] = int,
        on_damage: Callable[[str], None] = pytest.fail,
    ) -> RedisSlot:
        opened.append(store.open(account, clock=SYSTEM_CLOCK, on_commit=on_commit, on_damage=on_damage))
        return opened[-1]

    yield open_slot
    for slot in opened:
        await slot.close()


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the subscription wake workers."""
    monkeypatch.setattr(_slot, "POLL_INTERVAL", 1000.0)


@pytest.fixture
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll often, and do not make a lost subscription again."""
    monkeypatch.setattr(_slot, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(_subscription, "INITIAL_RECONNECT_DELAY", 1000.0)
    monkeypatch.setattr(_subscription, "MAX_RECONNECT_DELAY", 1000.0)


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., FailoverSlot]]:
    """Open slots of an account, with lists for their events and for the tokens that they are given.

    They are closed after the test.
    """
    slots: list[FailoverSlot] = []

    def open_one(
        store: Any,
        clock: Clock,
        *,
        emitted: list[events.Event] | None = None,
        pushed: list[tuple[SharedToken, float]] | None = None,
        api_key: str = API_KEY,
    ) -> FailoverSlot:
        slot = open_failover_slot(
            store,
            base_url="https://ws.api.video",
            api_key=api_key,
            clock=clock,
            emit=([] if emitted is None else emitted).append,
            on_commit=lambda token, asked_at: ([] if pushed is None else pushed).append((token, asked_at)),
            previous=None,
        )
        slots.append(slot)
        return slot

    yield open_one
    for slot in slots:
        await slot.close()
