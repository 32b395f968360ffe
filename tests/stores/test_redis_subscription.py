"""The subscription of a RedisStore, with a client that does what a test says, in virtual time."""

import asyncio
import logging
from collections import deque
from typing import Any

import pytest

from apivideo_auth.stores.redis import _subscription
from apivideo_auth.stores.redis._subscription import Subscription
from tests.stores.redis_workers import eventually

pytestmark = pytest.mark.virtual_time

CHANNEL = b"channel"


class FakeClient:
    """A client whose subscriptions, one after the other, deliver messages or raise errors, and then stay silent."""

    def __init__(self, *subscriptions: list[Any]) -> None:
        self._subscriptions = deque(subscriptions)
        self.made_at: list[float] = []
        self.closed = 0
        self.connection = None
        self.messages: deque[Any] = deque()
        self.pings: list[float] = []
        self.ignores_cancelling = False

    def pubsub(self) -> "FakeClient":
        self.made_at.append(asyncio.get_running_loop().time())
        self.messages = deque(self._subscriptions.popleft() if self._subscriptions else [])
        return self

    async def subscribe(self, *channels: bytes) -> None:
        self.messages.extendleft({"type": "subscribe", "channel": channel, "data": 1} for channel in channels)

    unsubscribe = subscribe

    async def ping(self) -> None:
        self.pings.append(asyncio.get_running_loop().time())

    async def get_message(self, *, timeout: float) -> Any:
        if not self.messages:
            try:
                await asyncio.sleep(timeout)
            except asyncio.CancelledError:
                if not self.ignores_cancelling:
                    raise
                await asyncio.sleep(0)
            return None
        message = self.messages.popleft()
        if isinstance(message, Exception):
            raise message
        return message

    async def aclose(self) -> None:
        self.closed += 1


class RecordingListener:
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def on_committed(self, version: str) -> None:
        self.calls.append(f"commit {version}")

    def on_released(self) -> None:
        self.calls.append("release")

    def on_subscribed(self, *, missed: bool) -> None:
        self.calls.append("subscribed again" if missed else "subscribed")


@pytest.fixture
def listener() -> RecordingListener:
    """A listener of one channel."""
    return RecordingListener()


async def nothing() -> None:
    """Do nothing at the end of a subscription."""


def subscription(client: FakeClient, listener: RecordingListener) -> Subscription:
    """Return a subscription to one channel."""
    subscription = Subscription(client, on_end=nothing)
    subscription.add(CHANNEL, listener)
    return subscription


async def test_only_messages_of_subscribed_channels_are_reported(listener):
    """Whatever is not a message of a channel that has listeners is ignored."""
    client = FakeClient(
        [
            {"type": "message", "channel": b"another", "data": b"commit x"},
            {"type": "message", "channel": CHANNEL, "data": 7},
            {"type": "pong", "channel": None, "data": b""},
            {},
            {"type": "message", "channel": CHANNEL, "data": b"commit c"},
            {"type": "message", "channel": CHANNEL, "data": b"release c"},
        ]
    )
    running = subscription(client, listener)
    await eventually(lambda: len(listener.calls) >= 3)
    await running.stop()
    assert listener.calls == ["subscribed", "commit c", "release"]


@pytest.mark.parametrize("turns", range(4))
async def test_channels_can_be_added_in_quick_succession(turns, listener):
    """A channel that is added while the one before it is still being subscribed to is not an error."""
    running = subscription(FakeClient(), listener)
    await eventually(lambda: listener.calls)
    await asyncio.sleep(0.1)
    for number in range(3):
        running.add(b"another %d" % number, listener)
        for _ in range(turns):
            await asyncio.sleep(0)
    await eventually(lambda: len(listener.calls) == 4)
    await running.stop()


@pytest.mark.parametrize("error", [TimeoutError(), OSError("made-up-secret"), RuntimeError("made-up-secret")])
async def test_after_any_error_the_subscription_is_made_again(error, listener, caplog):
    """A lost subscription is closed and made again, and the listeners are called; the log does not contain the text of
    the error.
    """
    caplog.set_level(logging.DEBUG, "apivideo_auth")
    client = FakeClient([error], [error], [])
    running = subscription(client, listener)
    await eventually(lambda: len(listener.calls) >= 3)
    await running.stop()
    assert listener.calls == ["subscribed", "subscribed again", "subscribed again"]
    assert len(client.made_at) == client.closed == 3
    records = [record for record in caplog.records if record.name == "apivideo_auth.stores"]
    assert [record.levelno for record in records] == [logging.DEBUG, logging.DEBUG]
    assert all("was lost" in record.getMessage() for record in records)
    assert "made-up-secret" not in caplog.text


async def test_a_silent_server_is_pinged_and_a_lost_answer_ends_the_subscription(listener):
    """After half a minute without a message the server is pinged. With an answer the subscription goes on; without one
    within ten seconds it is made again.
    """
    pong = {"type": "pong", "channel": None, "data": b""}
    client = FakeClient([None, pong], [])
    running = subscription(client, listener)
    await asyncio.sleep(60)
    await running.stop()
    began = client.made_at[0]
    assert client.pings[1] - began == pytest.approx(30, abs=0.1)
    assert 40 < client.made_at[1] - began < 41


async def test_reconnect_delays_double_and_are_reset(listener, monkeypatch):
    """The delays between failing subscriptions double up to a limit, and start again after one that lasted."""
    monkeypatch.setattr(_subscription.random, "uniform", lambda _low, high: high)
    lasted = [0.0] * 8 + [60.0] + [0.0] * 2

    class FailingClient(FakeClient):
        async def subscribe(self, *channels: bytes) -> None:
            pass

        async def get_message(self, *, timeout: float) -> Any:
            await asyncio.sleep(lasted[len(self.made_at) - 1])
            raise OSError

    client = FailingClient()
    running = subscription(client, listener)
    await asyncio.sleep(200)
    await running.stop()
    made = client.made_at
    delays = [after - before - last for before, after, last in zip(made, made[1:11], lasted, strict=False)]
    assert delays == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.5, 1.0])


@pytest.mark.parametrize("subscribed", [True, False])
async def test_it_stops_even_if_a_cancellation_is_lost(subscribed, listener):
    """A subscription whose cancellation gets lost ends all the same."""
    client = FakeClient()
    client.ignores_cancelling = True
    running = subscription(client, listener)
    if subscribed:
        await eventually(lambda: listener.calls)
        await asyncio.sleep(0)
    await running.stop()
    assert len(client.made_at) == client.closed


async def test_an_error_while_closing_is_ignored(listener):
    """`stop` raises nothing if the connection cannot be closed."""

    class StubbornClient(FakeClient):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError

    client = StubbornClient()
    running = subscription(client, listener)
    await eventually(lambda: listener.calls)
    await running.stop()
    assert client.closed == 1
