"""The subscription of a `RedisStore`: one connection that hears of commits and failures."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Final

from apivideo_auth.stores.redis._client import BUDGET, Client, PubSub, end, what_happened

INITIAL_RECONNECT_DELAY: Final = 0.5
MAX_RECONNECT_DELAY: Final = 30.0
"""A subscription that cannot be made or was cut is made again after pauses that double from one to the other."""
STEADY: Final = 60.0
"""After a subscription that lasted so many seconds the pauses start again from the first."""
QUIET: Final = 300.0
"""After so many seconds without a message the server is asked whether it is still there."""
PATIENCE: Final = 10.0
"""Seconds that it then has to answer."""

_logger: Final = logging.getLogger("apivideo_auth.stores")


class _SilentError(Exception):
    """The server no longer answers."""


class Subscription:
    """Hears of what happens on channels, from `start` to `stop`, reconnecting by itself.

    - `on_message` is called with the channel and the message.
    - `on_subscribed` is called with the channel when it is heard from now on, and with True if it was before: in
      between, messages may have been missed.
    """

    def __init__(
        self,
        client: Client,
        on_message: Callable[[bytes, bytes], None],
        on_subscribed: Callable[[bytes, bool], None],
    ) -> None:
        self._client = client
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._wanted: set[bytes] = set()
        self._heard: set[bytes] = set()
        self._nap: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        # A cancellation may get lost on its way, see `end`.
        self._stopping = False

    def start(self) -> None:
        """Start listening, in the running event loop."""
        # In a context of its own: it is_newer_than whoever came first.
        self._task = asyncio.Task(
            self._run(), loop=asyncio.get_running_loop(), name="apivideo-auth-subscription", context=Context()
        )

    async def stop(self) -> None:
        """Stop listening, and let go of the connection."""
        assert self._task is not None, "start comes first"
        self._stopping = True
        await end(self._task, again=2 * BUDGET)

    def add(self, channel: bytes) -> None:
        """Listen to this channel too."""
        self._wanted.add(channel)
        self._interrupt()

    def remove(self, channel: bytes) -> None:
        """Listen to this channel no longer."""
        self._wanted.discard(channel)
        self._heard.discard(channel)
        self._interrupt()

    def _interrupt(self) -> None:
        if self._nap is not None:
            self._nap.reschedule(asyncio.get_running_loop().time())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = INITIAL_RECONNECT_DELAY / 2
        while True:
            began = loop.time()
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001  whatever it is: listening is no use now, and polling goes on
                _logger.debug("the subscription of a token store was cut: %s", what_happened(error))
            if self._stopping:
                return
            pause = INITIAL_RECONNECT_DELAY if loop.time() - began >= STEADY else min(2 * pause, MAX_RECONNECT_DELAY)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  to spread workers, not to hide

    async def _listen(self) -> None:
        """Listen until the connection is lost, which raises, or until `stop`."""
        pubsub = self._client.pubsub()
        subscribed: set[bytes] = set()
        asked = False
        try:
            while await self._adjust(pubsub, subscribed):
                message = await self._next(pubsub, PATIENCE if asked else QUIET)
                if message is not None:
                    asked = False
                    self._take(message)
                    continue
                if asked:
                    raise _SilentError
                async with asyncio.timeout(BUDGET):
                    await pubsub.ping()
                asked = True
        finally:
            await _close(pubsub)

    async def _next(self, pubsub: PubSub, patience: float) -> dict[str, object] | None:
        """Return a message, none after so many seconds, and an empty one when there are channels to adjust."""
        try:
            async with asyncio.timeout(None) as self._nap:
                return await pubsub.get_message(timeout=patience)
        except TimeoutError:
            if self._nap is None or not self._nap.expired():
                raise
            return {}
        finally:
            self._nap = None

    async def _adjust(self, pubsub: PubSub, subscribed: set[bytes]) -> bool:
        """Subscribe to the channels that are wanted, and to no other; say whether to go on."""
        # Bounded: channels come and go with managers.
        while subscribed != self._wanted and not self._stopping:
            missing, surplus = self._wanted - subscribed, subscribed - self._wanted
            async with asyncio.timeout(BUDGET):
                if missing:
                    await pubsub.subscribe(*missing)
                if surplus:
                    await pubsub.unsubscribe(*surplus)
            subscribed |= missing
            subscribed -= surplus
        return not self._stopping

    def _take(self, message: dict[str, object]) -> None:
        channel, data = message.get("channel"), message.get("data")
        if not isinstance(channel, bytes) or channel not in self._wanted:
            return
        if message.get("type") == "subscribe":
            again = channel in self._heard
            self._heard.add(channel)
            self._on_subscribed(channel, again)
        elif isinstance(data, bytes):
            self._on_message(channel, data)


async def _close(pubsub: PubSub) -> None:
    with suppress(Exception):
        async with asyncio.timeout(BUDGET):
            if pubsub.connection is not None:
                # By itself, `aclose` does not wait until the connection is closed.
                await pubsub.connection.disconnect()
            await pubsub.aclose()
