"""The subscription of a RedisStore, over connections that do what a test says."""

import asyncio
import logging
from collections import deque
from typing import Any

import pytest

from apivideo_auth.stores.redis import _client as _redis_client
from apivideo_auth.stores.redis import _subscription as _redis_feed
from apivideo_auth.stores.redis._subscription import Subscription
from tests.stores.redis_workers import eventually

CHANNEL = b"channel"


class Script:
    """A client whose one subscription after the other delivers messages, raises errors, then is quiet."""

    def __init__(self, *subscriptions: list[Any]) -> None:
        self._subscriptions = deque(subscriptions)
        self.made = 0
        self.closed = 0
        self.told: list[object] = []
        self.connection = None
        self.messages: deque[Any] = deque()
        self.questions = 0
        self.deaf = False

    def feed(self) -> Subscription:
        """Return a feed of this client that writes down what it tells."""
        feed = Subscription(
            self,  # type: ignore[arg-type]
            lambda channel, message: self.told.append((channel, message)),
            lambda channel, again: self.told.append((channel, again)),
        )
        feed.start()
        feed.add(CHANNEL)
        return feed

    def pubsub(self) -> "Script":
        self.made += 1
        self.messages = deque(self._subscriptions.popleft() if self._subscriptions else [])
        return self

    async def subscribe(self, *channels: bytes) -> None:
        self.messages.extendleft({"type": "subscribe", "channel": channel, "data": 1} for channel in channels)

    unsubscribe = subscribe

    async def ping(self) -> None:
        self.questions += 1

    async def get_message(self, *, timeout: float) -> Any:  # noqa: ASYNC109  as in redis-py
        if not self.messages:
            try:
                await asyncio.sleep(timeout)
            except asyncio.CancelledError:
                if not self.deaf:
                    raise
                await asyncio.sleep(0)
            return None
        message = self.messages.popleft()
        if isinstance(message, Exception):
            raise message
        return message

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a subscription again at once."""
    monkeypatch.setattr(_redis_feed, "INITIAL_RECONNECT_DELAY", 0.001)


async def test_only_messages_of_wanted_channels_are_told(no_pauses):
    """What is no message of an open account's channel is passed over, whatever it looks like."""
    script = Script(
        [
            {"type": "message", "channel": b"another", "data": b"x"},
            {"type": "message", "channel": CHANNEL, "data": 7},
            {"type": "pong", "channel": None, "data": b""},
            {},
            {"type": "message", "channel": CHANNEL, "data": b"commit c"},
        ]
    )
    feed = script.feed()
    await eventually(lambda: len(script.told) >= 2)
    await feed.stop()
    assert script.told == [(CHANNEL, False), (CHANNEL, b"commit c")]


@pytest.mark.parametrize("error", [TimeoutError(), OSError("made-up-secret"), RuntimeError("made-up-secret")])
async def test_after_any_error_the_subscription_is_made_again(error, no_pauses, caplog):
    """A subscription that was cut is closed and made again, which is told; its log shows no text of the error."""
    caplog.set_level(logging.DEBUG, "apivideo_auth")
    script = Script([error], [error], [])
    feed = script.feed()
    await eventually(lambda: len(script.told) >= 3)
    await feed.stop()
    assert script.told == [(CHANNEL, False), (CHANNEL, True), (CHANNEL, True)]
    assert script.made == script.closed == 3
    assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG"]
    assert "made-up-secret" not in caplog.text


async def test_silence_after_a_question_is_an_error(no_pauses):
    """A quiet connection is asked whether it is still there; an answer is enough, silence ends it."""
    asked = {"type": "pong", "channel": None, "data": b""}
    script = Script([None, asked, None, None])
    feed = script.feed()
    await eventually(lambda: script.made == 2 and script.told)
    await feed.stop()
    assert script.questions == 2


async def test_pauses_grow_and_fall_back(monkeypatch):
    """The pauses between failing subscriptions double to a bound, and start anew after one that lasted."""
    pauses: list[float] = []
    sleep, loop = asyncio.sleep, asyncio.get_running_loop()
    now = loop.time()

    async def sleeping(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def listening(_feed: Subscription) -> None:
        nonlocal now
        now += 60.0 if len(pauses) == 8 else 0.0
        raise OSError

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(_redis_feed.random, "uniform", lambda _low, high: high)
    monkeypatch.setattr(_redis_feed.asyncio, "sleep", sleeping)
    monkeypatch.setattr(Subscription, "_listen", listening)
    feed = Script().feed()
    while len(pauses) < 10:
        await sleep(0)
    monkeypatch.undo()
    await feed.stop()
    assert pauses[:10] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 0.5, 1.0]


@pytest.mark.parametrize("quiet", [True, False])
async def test_a_lost_cancellation_does_not_keep_it(quiet, monkeypatch):
    """A subscription whose cancellation gets lost ends all the same."""
    monkeypatch.setattr(_redis_client, "BUDGET", 0.05)
    script = Script()
    script.deaf = True
    feed = script.feed()
    if quiet:
        await eventually(lambda: script.told)
        await asyncio.sleep(0)
    await feed.stop()
    assert script.made == script.closed


async def test_a_subscription_that_cannot_be_closed_is_left(monkeypatch):
    """What a connection raises when it is closed disturbs nobody."""

    class Stubborn(Script):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError

    script = Stubborn()
    feed = script.feed()
    await eventually(lambda: script.told)
    await feed.stop()
    assert script.closed == 1
