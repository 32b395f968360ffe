"""What the slots of a `RedisStore` share in one event loop: a client that runs the script, and a subscription."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from apivideo_auth._errors import TokenStoreError
from apivideo_auth.stores.redis._client import BUDGET, Client, address_of, describe_error
from apivideo_auth.stores.redis._script import Answer, Arguments, UnreadableError, load_script, parse_answer
from apivideo_auth.stores.redis._subscription import Listener, Subscription, cancel


class Connection:
    """A client in one event loop, closed in the end if it is `owned`, and the subscription for all slots."""

    def __init__(self, client: Client, *, owned: bool) -> None:
        self._client = client
        self._owned = owned
        self.subscription = Subscription(client)

    async def run(self, key: bytes, arguments: Arguments, *, now: bytes) -> Answer:
        """Run the script once. Raises `TokenStoreError` within the budget; the script may have run even then."""
        operation, *values = arguments
        outcome = await self._outcome(key, operation, now, *values)
        if isinstance(outcome, str):
            # Raised here, where neither the client's error nor an answer is context or a local: they may hold secrets.
            raise TokenStoreError(f"the token store at {address_of(self._client)} failed: {outcome}")
        return outcome

    async def close(self) -> None:
        """End the subscription, and close the client if it is owned."""
        await self.subscription.stop()
        if self._owned:
            closing = asyncio.Task(cast("Any", self._client).aclose(), loop=asyncio.get_running_loop())
            await asyncio.wait({closing}, timeout=BUDGET)
            await cancel(closing)

    async def _outcome(self, *keys_and_args: bytes) -> Answer | str:
        """Return the answer, or the reason why there is none."""
        # In a task of its own: the budget and the caller's cancellation hold, whatever the client does when cancelled.
        command = asyncio.Task(
            self._eval(*keys_and_args), loop=asyncio.get_running_loop(), name="apivideo-auth-command"
        )
        try:
            await asyncio.wait({command}, timeout=BUDGET)
        finally:
            await cancel(command)
        if command.cancelled():
            return f"no answer within {BUDGET:g} seconds"
        error = command.exception()
        if error is not None:
            return describe_error(error)
        try:
            return parse_answer(command.result())
        except UnreadableError:
            return "its answer cannot be read"

    async def _eval(self, *keys_and_args: bytes) -> object:
        from redis.exceptions import NoScriptError  # noqa: PLC0415  an optional package

        script = load_script()
        with suppress(NoScriptError):
            return await self._client.evalsha(script.sha, 1, *keys_and_args)
        return await self._client.eval(script.text, 1, *keys_and_args)


class Connections:
    """The connections of a store, one per event loop: a client's connections belong to the loop that opened them."""

    def __init__(self, new_client: Callable[[], Client], *, owned: bool) -> None:
        self._new_client = new_client
        self._owned = owned
        self._by_loop: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.address = address_of(new_client())

    def join(self, key: bytes, slot: Listener) -> Connection:
        """Return the connection of the running event loop, and call `slot` back when the record of `key` changes."""
        loop = asyncio.get_running_loop()
        connection = self._by_loop.get(loop)
        if connection is None:
            # A loop that ended before its managers were closed: nothing of it can be closed any more.
            self._by_loop = {other: kept for other, kept in self._by_loop.items() if not other.is_closed()}
            connection = self._by_loop[loop] = Connection(self._new_client(), owned=self._owned)
        connection.subscription.add(key, slot)
        return connection

    async def leave(self, connection: Connection, key: bytes, slot: Listener) -> None:
        """Undo `join`; the last slot closes the connection. Cancelling skips only the waiting."""
        connection.subscription.remove(key, slot)
        if connection.subscription.channels:
            return
        self._by_loop = {loop: kept for loop, kept in self._by_loop.items() if kept is not connection}
        closing = asyncio.Task(connection.close(), loop=asyncio.get_running_loop(), name="apivideo-auth-closing")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)
