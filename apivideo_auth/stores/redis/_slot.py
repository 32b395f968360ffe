"""The record of one account in Redis, as one worker sees it."""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final, TypeVar

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Claim, ClaimAnswer, Commit, Done, EndAnswer, Granted, Release, SharedToken
from apivideo_auth.stores._base import Waiters
from apivideo_auth.stores.redis import _script
from apivideo_auth.stores.redis._connection import Connection, Connections
from apivideo_auth.stores.redis._subscription import Listener

POLL_INTERVAL: Final = 1.0
MAX_POLL_INTERVAL: Final = 5.0
"""`changed` polls at growing intervals (seconds), in case that the subscription is cut."""

_Answer = TypeVar("_Answer")


class RedisSlot:
    """One manager's view of an account in a `RedisStore`. Its first operation connects.

    An operation that raises may have been done. A commit that is repeated after it was done is answered `ClaimLost`,
    with the token of that very claim.
    """

    def __init__(self, connections: Connections, key: bytes, on_commit: Callable[[], None]) -> None:
        self._connections = connections
        self._key = key
        self._on_commit = on_commit
        self._connection: Connection | None = None
        self._closed = False
        self._waiters = Waiters()
        # The version of the last commit that the manager knows of: `on_commit` is called once for each.
        self._version: str | None = None
        # The record's stamp in the last answer to this slot.
        self._stamp: bytes | None = None
        # For tests: a time that replaces the server's.
        self._now = b""

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it has not expired."""
        return await self._run(_script.READ, _script.parse_read)

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew. A claim that is cancelled is given back."""
        # In a task of its own, so that cancelling does not lose the answer, which may hold the refresh token.
        running = asyncio.Task(
            self._run(_script.claim_arguments(event), _script.parse_claim), loop=asyncio.get_running_loop()
        )
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await self._give_back(event, running)
            raise

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        # Set before the command: the subscription may receive the commit before the answer comes.
        self._version = event.id
        answer = await self._run(_script.commit_arguments(event), _script.parse_end)
        if isinstance(answer, Done):
            for slot in self._neighbours():
                slot.on_committed(event.id)
        return answer

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        answer = await self._run(_script.release_arguments(event), _script.parse_end)
        for slot in self._neighbours():
            slot.on_released()
        return answer

    async def changed(self, timeout: float) -> None:
        """Return when the record has changed since the last answer to this slot, or after `timeout` seconds.

        The subscription reports changes at once; polling finds them if the subscription is cut. Raises
        `TokenStoreError` if polling fails.
        """
        if not self._closed:
            await self._waiters.poll(timeout, self._has_changed, interval=POLL_INTERVAL, max_interval=MAX_POLL_INTERVAL)

    async def forget(self) -> None:
        """Delete the record."""
        await self._run(_script.FORGET, _script.parse_end)

    async def close(self) -> None:
        """Release the slot. The last slot to close closes the connections that the store opened itself."""
        if self._closed:
            return
        self._closed = True
        self._waiters.wake()
        if self._connection is not None:
            await self._connections.leave(self._connection, self._key, self)

    def on_committed(self, version: str) -> None:
        """Wake the waiters after a commit, and call the manager unless it knows of it."""
        self._waiters.wake()
        if version != self._version:
            self._version = version
            self._on_commit()

    def on_released(self) -> None:
        """Wake the waiters after a release."""
        self._waiters.wake()

    def on_subscribed(self, *, missed: bool) -> None:
        """Wake the waiters, and call the manager if it may have missed a commit."""
        self._waiters.wake()
        if missed:
            self._on_commit()

    def _neighbours(self) -> AbstractSet[Listener]:
        connection = self._connection
        return frozenset() if connection is None else connection.subscription.listeners(self._key)

    async def _has_changed(self) -> bool:
        before = self._stamp
        answer = await self._run(_script.STAMP, lambda answer: answer)
        return before is not None and before != answer.stamp

    async def _give_back(self, event: Claim, running: "asyncio.Task[ClaimAnswer]") -> None:
        """Undo a claim whose answer nobody received: its refresh token is unused, and its lease would block others."""
        try:
            await asyncio.wait({running})
            with suppress(TokenStoreError):
                answer = running.result()
                if isinstance(answer, Granted):
                    await self.release(Release(id=event.id, refresh=answer.refresh))
        finally:
            running.cancel()

    async def _run(self, arguments: _script.Arguments, parse: Callable[[_script.Answer], _Answer]) -> _Answer:
        if self._closed:
            raise TokenStoreError(f"this manager has closed its token store at {self._connections.address}")
        if self._connection is None:
            self._connection = self._connections.join(self._key, self)
        # A damaged record is reported once and then replaced.
        reported = self._stamp == _script.DAMAGED
        answer = await self._connection.run(
            self._key, arguments, now=self._now, replace_damaged=reported or arguments is _script.FORGET
        )
        self._stamp = answer.stamp
        with suppress(_script.UnreadableError):
            if answer.word != _script.DAMAGED:
                return parse(answer)
        address = self._connections.address
        raise TokenStoreError(f"the record at {address} cannot be read: it is damaged, or another program wrote it")
