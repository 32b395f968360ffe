"""A slot that cannot fail: when its store does, it goes on with a private record.

A store that is down, slow, emptied or damaged costs one operation's budget and an event, never a token. While it is
away the worker renews for itself, starting without a refresh token, since the one it knew is the account's. When the
store is back, the worker offers what it has by a claim and a commit, without a call.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._policy import LEASE_MARGIN, MAX_LEASE, store_backoff
from apivideo_auth._record import (
    Claim,
    ClaimAnswer,
    Commit,
    Done,
    EndAnswer,
    Granted,
    Release,
    SharedToken,
)
from apivideo_auth._secrets import SecretBytes
from apivideo_auth.stores._base import Slot
from apivideo_auth.stores._memory import MemoryStore

BUDGET: Final = 0.5
"""Seconds that one operation of a store may take."""

_T = TypeVar("_T")


class FailoverSlot:
    """The record of one account in a store that may fail.

    `open_slot` opens the store's own slot, on first use. `emit` takes `StoreDegraded` and `StoreRecovered`; `look` is
    called when the store is worth looking at again. `draw` returns a random number in [0, 1).
    """

    def __init__(
        self,
        open_slot: Callable[[], Slot],
        *,
        clock: Clock,
        emit: Callable[[events.Event], None],
        look: Callable[[], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._open_slot = open_slot
        self._now = clock.monotonic
        self._emit = emit
        self._look = look
        self._draw = draw
        self._shared: Slot | None = None
        self._private = MemoryStore().open("private", clock=clock, on_commit=_nothing)
        # The private record's token and the refresh token that belongs to it, to offer when the store is back.
        self._own: Commit | None = None
        self._own_ends_at = 0.0
        # The claim that the store granted; without it nothing is ended there.
        self._shared_claim: str | None = None
        # A claim whose answer was lost may stand in the store, and would hold the account up for its whole lease.
        self._lost_claim: str | None = None
        self._down_since: float | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def read(self) -> SharedToken | None:
        """Return the token of the account; none while the store is away."""
        await self._end_lost_claim()
        answered, token = await self._ask(lambda slot: slot.read())
        if not answered:
            return None
        if self._own is not None:
            return await self._offer(token)
        return token

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew: in the store, or while it is away in the private record."""
        self._shared_claim = None
        await self._end_lost_claim()
        answered, answer = await self._ask(lambda slot: slot.claim(event))
        if not answered or answer is None:
            # Kept where it was asked for; while the breaker is open nothing was.
            self._lost_claim = self._lost_claim or event.id
            return await self._private.claim(event)
        if isinstance(answer, Granted):
            self._shared_claim = event.id
        return answer

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token."""
        if self._shared_claim == event.id:
            answered, answer = await self._ask(lambda slot: slot.commit(event))
            if answered and answer is not None:
                await self._forget_own()
                return answer
            # It may have been stored all the same, so that its refresh token is no longer this worker's alone.
            event = Commit(
                id=event.id,
                access=event.access,
                refresh=None,
                lifetime=event.lifetime,
                remaining=event.remaining,
            )
            await self._hold_privately(event.id)
        self._own, self._own_ends_at = event, self._now() + event.remaining
        return await self._private.commit(event)

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        if self._shared_claim == event.id:
            answered, answer = await self._ask(lambda slot: slot.release(event))
            if answered and answer is not None:
                return answer
            event = Release(id=event.id, backoff=event.backoff, failure=event.failure)
            await self._hold_privately(event.id)
        return await self._private.release(event)

    async def changed(self, wait: float) -> None:
        """Return when somebody has committed or failed, or when `wait` seconds are over."""
        if self._down_since is None:
            await self._ask(lambda slot: _patiently(slot, wait), budget=None)
        else:
            await self._private.changed(wait)

    async def forget(self) -> None:
        """Delete the record, in the store and here."""
        self._own = None
        await self._private.forget()
        await self._ask(lambda slot: slot.forget())

    async def close(self) -> None:
        """Let go of the store; a store that cannot be reached is let go of all the same."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._private.close()
        if self._shared is not None:
            try:
                async with asyncio.timeout(BUDGET):
                    await self._shared.close()
            except Exception:  # noqa: BLE001  nothing depends on it any more
                return

    async def _end_lost_claim(self) -> None:
        """End a claim that may stand although its answer was lost. Its refresh token, not known, is not given back."""
        lost = self._lost_claim
        if lost is not None:
            answered, _ = await self._ask(lambda slot: slot.release(Release(id=lost)))
            if answered:
                self._lost_claim = None

    async def _ask(
        self, operation: Callable[[Slot], Awaitable[_T]], *, budget: float | None = BUDGET
    ) -> tuple[bool, _T | None]:
        """Return whether the store answered, and what. It is not asked while the breaker is open."""
        if self._down_since is not None and self._now() < self._retry_at:
            return False, None
        try:
            if self._shared is None:
                # Before the time runs: opening does no I/O, but it may import and derive a key.
                self._shared = self._open_slot()
            async with asyncio.timeout(budget):
                answer = await operation(self._shared)
        except Exception as error:  # noqa: BLE001  whatever a store raises, it is down
            self._degrade(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            return False, None
        self._recover()
        return True, answer

    def _degrade(self, message: str) -> None:
        """Open the breaker; look again after a pause, by a timer, since nobody else may ask."""
        now = self._now()
        self._failures += 1
        pause = store_backoff(self._failures, draw=self._draw())
        self._retry_at = now + pause
        self._arm(pause)
        if self._down_since is None:
            self._down_since = now
            self._emit(events.StoreDegraded(cause=message, next_try_in=pause))

    def _arm(self, pause: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + pause, self._wake, pause)

    def _wake(self, pause: float) -> None:
        self._retry_at = self._now()
        self._arm(pause)
        self._look()

    def _recover(self) -> None:
        """Close the breaker."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._failures = 0
        if self._down_since is not None:
            seconds, self._down_since = self._now() - self._down_since, None
            self._emit(events.StoreRecovered(seconds=seconds))

    async def _offer(self, theirs: SharedToken | None) -> SharedToken | None:
        """Give the store the private token if it is the newer one; return what the store has then."""
        own, left = self._own, self._own_ends_at - self._now()
        assert own is not None
        if left <= 0 or (theirs is not None and (theirs.version == own.id or theirs.remaining >= left)):
            await self._forget_own()
            return theirs
        seen = None if theirs is None else theirs.version
        answered, answer = await self._ask(lambda slot: slot.claim(Claim(id=own.id, seen=seen, lease=LEASE_MARGIN)))
        if not answered:
            return None
        if not isinstance(answer, Granted):
            return theirs
        await self._forget_own()
        offer = Commit(
            id=own.id,
            access=own.access,
            refresh=None if own.refresh is None else SecretBytes(own.refresh),
            lifetime=own.lifetime,
            remaining=left,
        )
        answered, ended = await self._ask(lambda slot: slot.commit(offer))
        return None if answered and isinstance(ended, Done) else theirs

    async def _hold_privately(self, claim_id: str) -> None:
        """Let the private record go on where the store was lost in the middle of a renewal."""
        await self._private.forget()
        await self._private.claim(Claim(id=claim_id, seen=None, lease=MAX_LEASE))

    async def _forget_own(self) -> None:
        """From now on the refresh token is the account's, or is not used again."""
        self._own = None
        await self._private.forget()


async def _patiently(slot: Slot, wait: float) -> None:
    """Wait for a change. That it took longer, as when the event loop was blocked, tells nothing about the store."""
    try:
        async with asyncio.timeout(wait + BUDGET):
            await slot.changed(wait)
    except TimeoutError:
        return


def _nothing() -> None:
    """Ignore a commit: a private record has no other worker."""
