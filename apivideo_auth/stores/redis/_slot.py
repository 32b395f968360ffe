"""The record of one account in Redis, as one worker sees it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken
from apivideo_auth.stores._base import Waiters
from apivideo_auth.stores.redis import _script
from apivideo_auth.stores.redis._connection import Connection, Connections

POLL_INTERVAL: Final = 1.0
MAX_POLL_INTERVAL: Final = 5.0
"""`changed` polls at growing intervals (seconds), in case the subscription is lost."""

_T = TypeVar("_T")


class RedisSlot:
    """One worker's view of an account in a `RedisStore`. Its first operation connects.

    An operation that raises, or that is cancelled, may have had its effect. It can be repeated: each event has the same
    effect once or twice.
    """

    def __init__(
        self, connections: Connections, key: bytes, *, on_commit: Callable[[], None], on_damage: Callable[[str], None]
    ) -> None:
        self._connections = connections
        self._key = key
        self._on_commit = on_commit
        self._on_damage = on_damage
        self._connection: Connection | None = None
        self._closed = False
        self._waiters = Waiters()
        # The version of the last commit that the worker knows of: `on_commit` is called once for each.
        self._version: str | None = None
        # The record's stamp and damage in the last answer to this slot.
        self._stamp: bytes | None = None
        self._damage = b""
        # For tests: a time that replaces the server's.
        self._now = b""

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        return await self._run(_script.READ, _script.parse_read)

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask for the right to renew."""
        with suppress(_script.UnreadableFailureError):
            return await self._run(_script.claim_arguments(event), _script.parse_claim)
        self._on_damage(
            f"the last failure in the token store at {self._connections.address} cannot be read and counts as none: "
            "it is damaged, or another program wrote it"
        )
        return await self._run(_script.claim_arguments(event, without_failure=True), _script.parse_claim)

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        # Set before the command: the subscription may receive the commit before the answer comes.
        self._version = event.id
        return await self._run(_script.commit_arguments(event), _script.parse_end)

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        return await self._run(_script.release_arguments(event), _script.parse_end)

    async def changed(self, timeout: float) -> None:
        """Return when the record has changed since the last answer to this slot, or after `timeout` seconds.

        The subscription reports changes at once; polling finds them if the subscription is lost. Raises
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
        """Wake the waiters after a commit, and call `on_commit` unless this worker made it."""
        self._waiters.wake()
        if version != self._version:
            self._version = version
            self._on_commit()

    def on_released(self) -> None:
        """Wake the waiters after a release."""
        self._waiters.wake()

    def on_subscribed(self, *, missed: bool) -> None:
        """Wake the waiters, and call `on_commit` if one may have been missed."""
        self._waiters.wake()
        if missed:
            self._on_commit()

    async def _has_changed(self) -> bool:
        before = self._stamp
        answer = await self._run(_script.STAMP, lambda answer: answer)
        return before is not None and before != answer.stamp

    async def _run(self, arguments: _script.Arguments, parse: Callable[[_script.Answer], _T]) -> _T:
        address = self._connections.address
        if self._closed:
            raise TokenStoreError(f"this manager has closed its token store at {address}")
        if self._connection is None:
            self._connection = self._connections.join(self._key, self)
        answer = await self._connection.run(self._key, arguments, now=self._now)
        self._stamp = answer.stamp
        if answer.damage != self._damage:
            self._damage = answer.damage
            if answer.damage:
                self._on_damage(
                    f"the record in the token store at {address} cannot be read and counts as empty: "
                    "it is damaged, or another program or version wrote it"
                )
        with suppress(_script.UnreadableError):
            return parse(answer)
        raise TokenStoreError(f"the token store at {address} failed: its answer cannot be read")
