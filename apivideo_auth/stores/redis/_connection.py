"""The connections of a `RedisStore`: per event loop, the clients that run the script, and a subscription."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast
from weakref import ref

from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._errors import TokenStoreError
from apivideo_auth.stores.redis._client import (
    BUDGET,
    MAX_COMMANDS,
    Client,
    address_of,
    close_idle,
    describe_error,
    is_read_only,
    is_unknown_script,
    max_connections,
)
from apivideo_auth.stores.redis._script import Answer, Arguments, UnreadableError, load_script, parse_answer
from apivideo_auth.stores.redis._subscription import Listener, Subscription, cancel

MAX_IDLE: Final = 30.0
"""A connection that was idle for this many seconds is not used again: the network may have forgotten it."""
GRACE_STEPS: Final = 20
"""Steps of the event loop in which a late answer still counts: the loop may have been blocked."""


class Connection:
    """The clients of one event loop, and the subscription for all slots.

    A client that is `owned` has one connection, which is closed after a failure, when it was idle, and at the end. A
    client that was passed in is used for all commands and for the subscription, and stays open. Only if it has met a
    replica, its idle connections are closed: after a failover behind one name they lead to the old primary.
    """

    def __init__(self, new_client: Callable[[], Client], *, owned: bool, max_commands: int) -> None:
        self._new_client = new_client
        self._owned = owned
        # The first client has the subscription.
        self._client = new_client()
        self._turns = asyncio.Semaphore(max_commands)
        # The owned clients that no command uses, and since when; the last one is used first.
        self._free: list[tuple[Client, float]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = False
        self.subscription = Subscription(self._client, on_end=self._end)

    async def run(self, key: bytes, arguments: Arguments, *, now: bytes) -> Answer:
        """Run the script once. Raises `TokenStoreError` within the budget; the script may have run even then.

        Waiting for a free connection does not count against the budget.
        """
        operation, *values = arguments
        async with self._turns:
            outcome = await self._outcome(key, operation, now, *values)
        if isinstance(outcome, str):
            # Raised here, where neither the client's error nor an answer is context or a local: they may hold secrets.
            raise TokenStoreError(f"the token store at {address_of(self._client)} failed: {outcome}")
        return outcome

    async def close(self) -> None:
        """End the subscription, and close the clients that are owned."""
        await self.subscription.stop()

    async def _outcome(self, *keys_and_args: bytes) -> Answer | str:
        """Return the answer, or the reason for its absence."""
        client = self._take_client()
        # In its own task: the budget and the caller's cancellation hold, whatever the client does when it is cancelled.
        command = asyncio.Task(
            _eval(client, *keys_and_args), loop=asyncio.get_running_loop(), name="apivideo-auth-command"
        )
        try:
            await _within_budget(command)
        except asyncio.CancelledError:
            # Closed here and not by another task: the event loop may be about to end.
            await cancel(command)
            await self._close_client(client)
            raise
        await cancel(command)
        error = None if command.cancelled() else command.exception()
        if command.cancelled() or error is not None:
            self._discard(client)
            if error is not None and not self._owned and is_read_only(error):
                await close_idle(client)
            return f"no answer within {BUDGET:g} seconds" if error is None else describe_error(error)
        self._put_back(client)
        try:
            return parse_answer(command.result())
        except UnreadableError:
            return "its answer cannot be read"

    def _take_client(self) -> Client:
        if not self._owned:
            return self._client
        if self._free and SYSTEM_CLOCK.monotonic() - self._free[-1][1] > MAX_IDLE:
            # The others were idle for even longer.
            self._discard()
        return self._free.pop()[0] if self._free else self._new_client()

    def _put_back(self, client: Client) -> None:
        if self._ended:
            self._discard(client)
        elif self._owned:
            self._free.append((client, SYSTEM_CLOCK.monotonic()))

    def _discard(self, *clients: Client) -> None:
        """Close these clients and all that no command uses, so that the next command connects again.

        Whatever went wrong, another connection may lead to a server that works: after a failover behind one name the
        old connections lead to a replica.
        """
        for client in (*clients, *(client for client, _ in self._free)):
            closing = asyncio.Task(self._close_client(client), loop=asyncio.get_running_loop())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._free.clear()

    async def _end(self) -> None:
        self._ended = True
        self._discard(self._client)
        await asyncio.wait(self._closing)

    async def _close_client(self, client: Client) -> None:
        if self._owned:
            closing = asyncio.Task(cast("Any", client).aclose(), loop=asyncio.get_running_loop())
            await asyncio.wait({closing}, timeout=BUDGET)
            await cancel(closing)


async def _eval(client: Client, *keys_and_args: bytes) -> object:
    script = load_script()
    try:
        return await client.evalsha(script.sha, 1, *keys_and_args)
    except Exception as error:
        if not is_unknown_script(error):
            raise
    return await client.eval(script.text, 1, *keys_and_args)


async def _within_budget(command: "asyncio.Task[object]") -> None:
    """Return when the command is done, or when the budget is used up."""
    await asyncio.wait({command}, timeout=BUDGET)
    for _ in range(GRACE_STEPS):
        if command.done():
            return
        await asyncio.sleep(0)


class Connections:
    """The connections of a store, one per event loop: a client's connections belong to the loop that opened them."""

    def __init__(self, new_client: Callable[[], Client], *, owned: bool) -> None:
        self._new_client = new_client
        self._owned = owned
        self._by_loop: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        # The event loop that uses the client that was passed in.
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None
        client = new_client()
        self.address = address_of(client)
        # Commands that are sent at a time, each on its own connection. The subscription has one for itself.
        self.max_commands = MAX_COMMANDS if owned else min(MAX_COMMANDS, max_connections(client) - 1)

    def join(self, key: bytes, slot: Listener) -> Connection:
        """Return the connection of the running event loop, and call `slot` back when the record of `key` changes."""
        loop = asyncio.get_running_loop()
        connection = self._by_loop.get(loop)
        if connection is None:
            self._check_loop(loop)
            # A loop that ended before its managers were closed has nothing open any more.
            self._by_loop = {other: kept for other, kept in self._by_loop.items() if not other.is_closed()}
            connection = self._by_loop[loop] = Connection(
                self._new_client, owned=self._owned, max_commands=self.max_commands
            )
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

    def _check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._owned:
            return
        other = self._loop()
        if other is not None and other is not loop and not other.is_closed():
            raise TokenStoreError(
                "the client of this RedisStore is used in another event loop: "
                "pass a URL, or use a store with its own client in each event loop"
            )
        self._loop = ref(loop)
