"""The subscription of a `RedisStore`: one connection that receives commits and releases."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Protocol

from apivideo_auth.stores.redis._client import BUDGET, Client, PubSub, describe_error

INITIAL_RECONNECT_DELAY: Final = 0.5
MAX_RECONNECT_DELAY: Final = 30.0
"""Seconds before a lost subscription is made again. The delay doubles after each failure."""
RECONNECT_RESET_AFTER: Final = 60.0
"""A subscription that lasted this many seconds resets the delay."""
PING_AFTER: Final = 30.0
"""Seconds without a message after which a PING checks the connection, and keeps the network from forgetting it."""
PING_TIMEOUT: Final = 10.0
"""Seconds that the server has to answer a PING."""
CANCEL_INTERVAL: Final = 0.02
"""Seconds until a task that ignored its cancellation is cancelled again."""

_logger: Final = logging.getLogger("apivideo_auth.stores")


class Listener(Protocol):
    """A slot, as the subscription sees it."""

    def on_committed(self, version: str) -> None: ...
    def on_released(self) -> None: ...
    def on_subscribed(self, *, missed: bool) -> None: ...


class _NoPongError(Exception):
    """The server did not answer a ping."""


class Subscription:
    """Receives the messages of every channel that has listeners, and calls them.

    The first `add` starts it, `stop` ends it, and it reconnects by itself. `on_subscribed` is called each time the
    channel is subscribed to. `missed` is True except for the first time, since messages may have been missed.

    `on_end` is awaited at the end, also if the event loop ends before `stop`: `asyncio.run` cancels every task.
    """

    def __init__(self, client: Client, *, on_end: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._on_end = on_end
        self._listeners: dict[bytes, set[Listener]] = {}
        # The channels that have been subscribed to at least once.
        self._known: set[bytes] = set()
        self._wait: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        # Cancelling the task is not enough, see `cancel`.
        self._stopping = False

    @property
    def channels(self) -> AbstractSet[bytes]:
        """The channels that have listeners."""
        return self._listeners.keys()

    def add(self, channel: bytes, listener: Listener) -> None:
        """Call `listener` when a message of this channel comes in."""
        self._listeners.setdefault(channel, set()).add(listener)
        if self._task is None:
            # In an empty context: the subscription outlives the caller's context.
            self._task = asyncio.Task(
                self._run(), loop=asyncio.get_running_loop(), name="apivideo-auth-subscription", context=Context()
            )
        self._interrupt()

    def remove(self, channel: bytes, listener: Listener) -> None:
        """Undo `add`."""
        self._listeners[channel].discard(listener)
        if not self._listeners[channel]:
            del self._listeners[channel]
            self._known.discard(channel)
            self._interrupt()

    async def stop(self) -> None:
        """End the subscription and its connection."""
        self._stopping = True
        if self._task is not None:
            await cancel(self._task, interval=2 * BUDGET)

    def _interrupt(self) -> None:
        """Let the task look at the channels again."""
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(asyncio.get_running_loop().time())

    async def _run(self) -> None:
        try:
            await self._subscribe()
        finally:
            await self._on_end()

    async def _subscribe(self) -> None:
        loop = asyncio.get_running_loop()
        delay = INITIAL_RECONNECT_DELAY / 2
        while True:
            began = loop.time()
            try:
                await self._receive()
            except Exception as error:  # noqa: BLE001  whatever it is, the slots poll until there is a subscription again
                _logger.debug("the subscription of a token store was lost: %s", describe_error(error))
            if self._stopping:
                return
            lasted = loop.time() - began
            delay = INITIAL_RECONNECT_DELAY if lasted >= RECONNECT_RESET_AFTER else min(2 * delay, MAX_RECONNECT_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  not a secret; spreads the workers

    async def _receive(self) -> None:
        """Receive messages until `stop`; raises when the connection is lost."""
        pubsub = self._client.pubsub()
        subscribed: set[bytes] = set()
        pinged = False
        try:
            while await self._adjust(pubsub, subscribed):
                message = await self._next(pubsub, PING_TIMEOUT if pinged else PING_AFTER)
                if message is not None:
                    pinged = False
                    self._dispatch(message)
                    continue
                if pinged:
                    raise _NoPongError
                async with asyncio.timeout(BUDGET):
                    await pubsub.ping()
                pinged = True
        finally:
            await _close(pubsub)

    async def _next(self, pubsub: PubSub, timeout: float) -> dict[str, object] | None:
        """Return a message, `None` after `timeout` seconds, and an empty one after `_interrupt`."""
        try:
            async with asyncio.timeout(None) as self._wait:
                return await pubsub.get_message(timeout=timeout)
        except TimeoutError:
            if self._wait is None or not self._wait.expired():
                raise
            return {}
        finally:
            self._wait = None

    async def _adjust(self, pubsub: PubSub, subscribed: set[bytes]) -> bool:
        """Subscribe to exactly the channels that have listeners; return whether to go on."""
        while subscribed != self.channels and not self._stopping:
            missing, surplus = self.channels - subscribed, subscribed - self.channels
            async with asyncio.timeout(BUDGET):
                if missing:
                    await pubsub.subscribe(*missing)
                if surplus:
                    await pubsub.unsubscribe(*surplus)
            subscribed |= missing
            subscribed -= surplus
        return not self._stopping

    def _dispatch(self, message: dict[str, object]) -> None:
        """Call the listeners; anything but a message of one of their channels is ignored."""
        channel, data = message.get("channel"), message.get("data")
        if not isinstance(channel, bytes) or channel not in self._listeners:
            return
        # A copy, because a listener may remove itself.
        listeners = [*self._listeners[channel]]
        if message.get("type") == "subscribe":
            missed = channel in self._known
            self._known.add(channel)
            for listener in listeners:
                listener.on_subscribed(missed=missed)
        elif isinstance(data, bytes):
            change, _, claim_id = data.partition(b" ")
            for listener in listeners:
                if change == b"commit":
                    listener.on_committed(claim_id.decode("ascii", "replace"))
                else:
                    listener.on_released()


async def _close(pubsub: PubSub) -> None:
    with suppress(Exception):
        async with asyncio.timeout(BUDGET):
            if pubsub.connection is not None:
                # `aclose` alone does not wait until the connection is closed.
                await pubsub.connection.disconnect()
            await pubsub.aclose()


async def cancel(task: "asyncio.Task[Any]", *, interval: float = CANCEL_INTERVAL) -> None:
    """Cancel a task until it ends: `asyncio.wait_for` may lose a cancellation before Python 3.12."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=interval)
    if not task.cancelled():
        # Retrieved, so that asyncio does not report it as unretrieved.
        task.exception()
