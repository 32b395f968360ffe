"""One account's record in Redis, as one worker sees it."""

import asyncio
import random
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from attrs import define, field

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Claim, ClaimAnswer, Commit, Done, EndAnswer, Granted, Release, SharedToken
from apivideo_auth.stores.redis import _script as script
from apivideo_auth.stores.redis._client import run
from apivideo_auth.stores.redis._connection import Connection, Listener

INITIAL_POLL_INTERVAL: Final = 1.0
POLL_GROWTH: Final = 1.5
MAX_POLL_INTERVAL: Final = 5.0
"""`changed` looks at the record at growing intervals, in seconds. A subscription, where there is one, is faster."""

_Answer = TypeVar("_Answer")


class Place(Protocol):
    """What a slot needs of its store."""

    def link(self) -> Connection:
        """Return what the slots share in the running event loop."""
        ...

    async def let_go(self, link: Connection) -> None:
        """Close what the slots shared, if none is left."""
        ...


@define(eq=False)
class _Waiter:
    """Somebody in `changed`: stirred to look at the record, or told that there is news."""

    stirred: asyncio.Event = field(factory=asyncio.Event)
    told: bool = False


class RedisSlot:
    """One manager's view of an account in a `RedisStore`. It is connected from its first operation on.

    An operation that raises may have been done. A commit that is made again is answered *claim_lost* with the token of
    that very id if the first one counted.
    """

    def __init__(self, store: Place, key: bytes, on_commit: Callable[[], None]) -> None:
        self._store = store
        self._key = key
        self._on_commit = on_commit
        self._link: Connection | None = None
        self._closed = False
        self._waiting: set[_Waiter] = set()
        # The version of the last commit that the manager made or was told of: it is told once.
        self._known: str | None = None
        self._stamp: bytes | None = None
        self._reported = False
        # For tests: the time, in place of the server's.
        self._now = b""

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        return await self._run(script.READ, script.read_answer)

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew. A claim that is cancelled is given back."""
        # In a task of its own, so that its answer, which may hold the refresh token, is not lost by cancelling.
        sent = asyncio.Task(
            self._run(script.claim_arguments(event), script.claim_answer), loop=asyncio.get_running_loop()
        )
        try:
            return await asyncio.shield(sent)
        except asyncio.CancelledError:
            await self._give_back(event, sent)
            raise

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        # Known before it is sent: the subscription may tell of it before the answer is here.
        self._known = event.id
        answer = await self._run(script.commit_arguments(event), script.end_answer)
        if isinstance(answer, Done):
            for slot in self._neighbours():
                slot.hear_commit(event.id)
        return answer

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        answer = await self._run(script.release_arguments(event), script.end_answer)
        for slot in self._neighbours():
            slot.hear_fail()
        return answer

    async def changed(self, wait: float) -> None:
        """Return when the record is another than in this slot's last answer, or when `wait` seconds are over.

        The subscription tells at once; without it, looking at growing intervals does. Raises `TokenStoreError` when
        the store does not answer such a look.
        """
        waiter = _Waiter()
        self._waiting.add(waiter)
        pause = INITIAL_POLL_INTERVAL
        try:
            async with asyncio.timeout(wait):
                seen = self._stamp if self._stamp is not None else await self._look()
                while not (self._closed or waiter.told):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause * random.uniform(0.75, 1.25)):  # noqa: S311  spreads workers
                            await waiter.stirred.wait()
                    waiter.stirred.clear()
                    if self._closed or waiter.told or await self._look() != seen:
                        return
                    pause = min(pause * POLL_GROWTH, MAX_POLL_INTERVAL)
        except TimeoutError:
            return
        finally:
            self._waiting.discard(waiter)

    async def forget(self) -> None:
        """Delete the record."""
        await self._run(script.FORGET, script.end_answer)

    async def close(self) -> None:
        """Let go of the record. The last slot to do so closes what the store opened itself."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._link is not None:
            self._link.leave(self._key, self)
            await self._store.let_go(self._link)

    # What the subscription and neighbours tell.

    def hear_commit(self, version: str) -> None:
        """Take in that a claim of this id was committed."""
        self._wake()
        if version != self._known:
            self._known = version
            self._on_commit()

    def hear_fail(self) -> None:
        """Take in that a claim has failed."""
        self._wake()

    def hear_again(self, *, missed: bool) -> None:
        """Take in that the subscription is there, and that something may have been missed before."""
        for waiter in self._waiting:
            waiter.stirred.set()
        if missed:
            self._on_commit()

    def _wake(self) -> None:
        for waiter in self._waiting:
            waiter.told = True
            waiter.stirred.set()

    def _neighbours(self) -> AbstractSet[Listener]:
        return frozenset() if self._link is None else self._link.slots(self._key)

    async def _look(self) -> bytes:
        answer = await self._run(script.LOOK, lambda answer: answer)
        return answer.stamp

    async def _give_back(self, event: Claim, sent: "asyncio.Task[ClaimAnswer]") -> None:
        """Undo a claim that nobody waits for any more: its refresh token is unused, and others need not wait for it."""
        try:
            await asyncio.wait({sent})
            with suppress(TokenStoreError):
                answer = sent.result()
                if isinstance(answer, Granted):
                    await self.release(Release(id=event.id, refresh=answer.refresh))
        finally:
            sent.cancel()

    async def _run(self, arguments: script.Arguments, read: Callable[[script.Answer], _Answer]) -> _Answer:
        if self._closed:
            raise TokenStoreError(f"this slot of {self._store!r} is closed")
        if self._link is None:
            self._link = self._store.link()
            self._link.join(self._key, self)
        heal = self._reported or arguments is script.FORGET
        answer = await run(self._link.client, self._key, arguments, now=self._now, heal=heal)
        self._stamp = answer.stamp
        self._reported = answer.stamp == script.BROKEN
        try:
            if answer.word != script.BROKEN:
                return read(answer)
        except script.UnreadableError:
            pass
        raise TokenStoreError(
            f"the record in {self._store!r} cannot be read: it is damaged, or was written by something else"
        )
