"""A slot that cannot fail: while its store is down, the worker goes on with a private record.

A store that is down, slow, emptied or damaged costs a bounded delay and an event, never a token. While the store is
down, the worker renews for itself, first with the API key, because the refresh token that it knew belongs to all
workers. When the store is back, the worker offers its token by a claim and a commit.

The managers of one process and event loop that use one account of one store are one worker: they share a
`FailoverAccount`, so that the store sees one claim of them at a time, and so that one look at the record serves all.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from attrs import evolve

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._policy import LEASE_MARGIN
from apivideo_auth._record import (
    Busy,
    Changed,
    Claim,
    ClaimAnswer,
    Commit,
    Done,
    EndAnswer,
    Granted,
    Release,
    SharedToken,
)
from apivideo_auth._tasks import finish, run_to_end, start, within
from apivideo_auth.stores._base import Slot, TokenStore, Waiters
from apivideo_auth.stores._breaker import CircuitBreaker
from apivideo_auth.stores._private import PrivateRecord

OPERATION_TIMEOUT: Final = 0.5
"""Seconds that one operation of a store may take."""
MAX_CONCURRENT: Final = 8
"""Operations that one store gets at a time; the others wait for their turn, which is not the store's fault."""

_T = TypeVar("_T")


class OpenSlot(Protocol):
    """Opens the store's own slot; see `TokenStore.open`."""

    def __call__(self, *, on_commit: Callable[[], None], on_damage: Callable[[str], None]) -> Slot: ...


class _DownError(Exception):
    """The store gave no answer, or is not asked before its backoff is over."""


class FailoverSlot:
    """One manager's view of a `FailoverAccount`. No method raises.

    `emit` takes `StoreDegraded` and `StoreRecovered`. `on_commit` takes the token that another manager or worker has
    committed, and when the store was asked for it.
    """

    def __init__(
        self,
        account: "FailoverAccount",
        *,
        emit: Callable[[events.Event], None],
        on_commit: Callable[[SharedToken, float], None],
    ) -> None:
        self.emit = emit
        self.on_commit = on_commit
        self._account = account
        # Where the last claim was granted: a claim of the private record does not exist in the store.
        self.holds_shared_claim = False
        # `changed` must not miss a change between the last answer and its own call.
        self.seen = 0
        account.slots.append(self)

    async def read(self) -> SharedToken | None:
        """Return the token of the account; `None` while the store is down."""
        return await run_to_end(self._account.read(self))

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask for the right to renew: in the store, or while it is down in the private record."""
        task = start(self._account.claim(event, self), name="apivideo-auth-claim")
        try:
            await finish(task)
        except asyncio.CancelledError:
            answer = task.result()
            if isinstance(answer, Granted):
                # Nobody will use the refresh token, and no other worker needs to wait for the lease.
                await self.release(Release(id=event.id, refresh=answer.refresh))
            raise
        return task.result()

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token."""
        return await run_to_end(self._account.commit(event, self))

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        return await run_to_end(self._account.release(event, self))

    async def changed(self, timeout: float) -> None:
        """Return after a commit or release, or after `timeout` seconds; early if in doubt."""
        await self._account.changed(timeout, self)

    async def forget(self) -> None:
        """Delete the record."""
        await run_to_end(self._account.forget())

    async def close(self) -> None:
        """Leave the account; the last one to leave closes the store's slot, even if the store is down."""
        if self in self._account.slots:
            self._account.slots.remove(self)
            if not self._account.slots:
                await run_to_end(self._account.close())


class FailoverAccount:
    """One account in a store that may fail, as the managers of this process and event loop see it.

    `turns` limits the operations that the store gets at a time.
    """

    def __init__(
        self,
        open_slot: OpenSlot,
        *,
        clock: Clock,
        turns: asyncio.Semaphore,
        private: PrivateRecord,
    ) -> None:
        self.slots: list[FailoverSlot] = []
        self.loop = asyncio.get_running_loop()
        self.turns = turns
        self.private = private
        self._open_slot = open_slot
        self._now = clock.monotonic
        self._slot: Slot | None = None
        # Guards `private`: an operation begins when the one before it has been answered.
        self._lock = asyncio.Lock()
        self._waiters = Waiters()
        self._is_watched = False
        # The claim that a manager of this process holds, and the end of its lease.
        self._holder: tuple[str, float] | None = None
        self._breaker = CircuitBreaker(clock=clock, emit=self._emit)
        self._timer: asyncio.TimerHandle | None = None
        self._look_task: asyncio.Task[None] | None = None
        self._look_again = False

    # The operations. Each runs to its end, and takes the lock.

    async def read(self, slot: FailoverSlot | None = None) -> SharedToken | None:
        """Return the token of the account; `None` while the store is down."""
        async with self._lock:
            token = None
            if slot is not None:
                slot.seen = self._waiters.wakes
            with suppress(_DownError):
                token = await self._ask(lambda slot: slot.read())
                if token is not None:
                    self.private.note_commit(token.committed_at)
                await self._settle()
                token = await self._offer(token)
            return token

    async def claim(self, event: Claim, slot: FailoverSlot) -> ClaimAnswer:
        """Claim in the store, or while it is down in the private record."""
        slot.holds_shared_claim = False
        async with self._lock:
            slot.seen = self._waiters.wakes
            holder, now = self._holder, self._now()
            if holder is not None and now < holder[1]:
                return Busy(retry_after=holder[1] - now)
            try:
                await self._settle()
                answer = await self._ask(lambda slot: slot.claim(event), event)
                slot.holds_shared_claim = isinstance(answer, Granted)
            except _DownError:
                answer = self.private.claim(event, self._now())
            if isinstance(answer, Changed):
                self.private.note_commit(answer.token.committed_at)
            elif isinstance(answer, Granted):
                self._holder = (event.id, now + event.lease)
                return self.private.use_refresh(answer)
            return answer

    async def commit(self, event: Commit, slot: FailoverSlot) -> EndAnswer:
        """Commit where the claim was granted. If the store does not answer, the token is kept in the private record."""
        began_at = self._now()
        async with self._lock:
            answer: EndAnswer | None = None
            if slot.holds_shared_claim:
                try:
                    answer = await self._ask(lambda slot: slot.commit(event), event)
                    self.private.clear()
                    if isinstance(answer, Done):
                        self.private.note_commit(answer.committed_at)
                    self._breaker.on_repair()
                except _DownError:
                    # The store may have it, so the refresh token is not this worker's alone.
                    self.private.take_over(event.id, self._now())
                    event = evolve(event, refresh=None)
            if answer is None:
                answer = self.private.commit(event, self._now())
            self._end_of_claim(event.id)
        if isinstance(answer, Done):
            token = SharedToken(
                version=event.id,
                access=event.access,
                lifetime=event.lifetime,
                remaining=event.remaining,
                committed_at=0.0,
            )
            self._tell(token, began_at, besides=slot)
        return answer

    async def release(self, event: Release, slot: FailoverSlot) -> EndAnswer:
        """Release where the claim was granted."""
        async with self._lock:
            self.private.give_back(event.refresh)
            answer: EndAnswer | None = None
            if slot.holds_shared_claim:
                try:
                    answer = await self._ask(lambda slot: slot.release(event), event)
                except _DownError:
                    self.private.take_over(event.id, self._now())
                    event = evolve(event, refresh=None)
            if answer is None:
                answer = self.private.release(event, self._now())
            self._end_of_claim(event.id)
        return answer

    async def changed(self, timeout: float, slot: FailoverSlot) -> None:
        """Wait for another manager of this process, or for the store."""
        if self._waiters.wakes != slot.seen:
            return
        if self._is_watched or self._holder is not None or not self._breaker.can_read:
            await self._waiters.wait(timeout)
            return
        self._is_watched = True
        try:
            # A wait that took longer, because the event loop was blocked, says nothing about the store.
            await self._ask(lambda slot: _wait_for_change(slot, timeout), limit=None)
        except _DownError:
            return
        finally:
            self._is_watched = False
            self._waiters.wake()

    async def forget(self) -> None:
        """Delete the record, in the store and here."""
        async with self._lock:
            self.private.clear()
            self.private.unconfirmed = None
            try:
                await self._ask(lambda slot: slot.forget())
            except _DownError:
                return

    async def close(self) -> None:
        """Close the store's slot, even if the store is down."""
        self._cancel_timer()
        self._waiters.wake()
        if self._look_task is not None:
            await finish(self._look_task)
        with suppress(_DownError):
            await self._settle()
        self._cancel_timer()
        slot, self._slot = self._slot, None
        if slot is not None:
            try:
                async with asyncio.timeout(OPERATION_TIMEOUT):
                    await slot.close()
            except Exception:  # noqa: BLE001  nothing depends on it any more
                return

    def _end_of_claim(self, claim_id: str) -> None:
        if self._holder is not None and self._holder[0] == claim_id:
            self._holder = None
        self._waiters.wake()

    # The store is back.

    async def _settle(self) -> None:
        """Send the event again that the store may not have executed. Each event has the same effect once or twice."""
        event = self.private.unconfirmed
        if event is None:
            return
        if isinstance(event, Claim):
            answer = await self._ask(lambda slot: slot.claim(event), event)
            self.private.unconfirmed = None
            if isinstance(answer, Granted):
                unused = Release(id=event.id, refresh=answer.refresh)
                await self._ask(lambda slot: slot.release(unused), unused)
        elif isinstance(event, Commit):
            ended = await self._ask(lambda slot: slot.commit(event), event)
            self.private.unconfirmed = None
            if isinstance(ended, Done) and self.private.record.version == event.id:
                self.private.clear()
        else:
            await self._ask(lambda slot: slot.release(event), event)
            self.private.unconfirmed = None

    async def _offer(self, theirs: SharedToken | None) -> SharedToken | None:
        """Commit the private token if it is better than the record's; return what the record holds then."""
        own = self.private.token(self._now())
        if own is None:
            return theirs
        if theirs is not None and (theirs.version == own.version or theirs.remaining >= own.remaining):
            self.private.clear()
            return theirs
        claim = Claim(id=own.version, seen=None if theirs is None else theirs.version, lease=LEASE_MARGIN)
        answer = await self._ask(lambda slot: slot.claim(claim), claim)
        if isinstance(answer, Changed):
            return answer.token
        if not isinstance(answer, Granted):
            self._look_in(answer.retry_after)
            return theirs
        # This claim came after the call, so that the token ends sooner after it than its lifetime.
        remaining = self.private.record.ends_at - self._now()
        commit = Commit(
            id=own.version,
            access=own.access,
            refresh=self.private.take_refresh(),
            lifetime=own.lifetime,
            remaining=remaining,
            ends_after=remaining,
        )
        await self._ask(lambda slot: slot.commit(commit), commit)
        self.private.clear()
        return None

    # Asking the store.

    async def _ask(
        self,
        operation: Callable[[Slot], Coroutine[Any, Any, _T]],
        event: Claim | Commit | Release | None = None,
        *,
        limit: float | None = OPERATION_TIMEOUT,
    ) -> _T:
        """Return the store's answer. Raises `_DownError` if there is none; then `event` is sent again later."""
        write = event is not None
        if not self._breaker.allows(write=write):
            raise _DownError
        try:
            if self._slot is None:
                self._slot = self._open_slot(on_commit=self._look, on_damage=self._breaker.on_damage)
            if limit is None:
                answer = await operation(self._slot)
            else:
                async with self.turns:
                    answer = await within(limit, operation(self._slot))
        except Exception as error:  # noqa: BLE001  whatever a store raises, it is down
            self.private.unconfirmed = event or self.private.unconfirmed
            cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            # It may be long until a manager asks, so a timer looks again.
            self._look_in(self._breaker.on_failure(cause, write=write))
            raise _DownError from None
        self._breaker.on_success(write=write)
        return answer

    def _look_in(self, seconds: float) -> None:
        self._cancel_timer()
        if self.slots:
            self._timer = self.loop.call_at(self.loop.time() + seconds, self._look, context=Context())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What other workers commit.

    def _look(self) -> None:
        """Look at the record for all managers, after another worker's commit and when the store may be back."""
        self._breaker.allow_now()
        self._look_again = True
        if self.slots and (self._look_task is None or self._look_task.done()):
            self._look_task = start(self._look_and_tell(), name="apivideo-auth-look")

    async def _look_and_tell(self) -> None:
        # Bounded: one round for each commit, however many come while a round lasts.
        while self._look_again and self.slots:
            self._look_again = False
            asked_at = self._now()
            token = await self.read()
            if token is not None:
                self._tell(token, asked_at, besides=None)

    def _tell(self, token: SharedToken, asked_at: float, *, besides: FailoverSlot | None) -> None:
        self._waiters.wake()
        for slot in [*self.slots]:
            if slot is not besides:
                slot.on_commit(token, asked_at)

    def _emit(self, event: events.Event) -> None:
        for slot in [*self.slots]:
            slot.emit(event)


_Accounts: TypeAlias = "WeakValueDictionary[tuple[str, int, int], FailoverAccount]"
# What the managers of this process share, by store. The lock guards it: event loops may run in several threads.
_accounts_of: "WeakKeyDictionary[TokenStore, _Accounts]" = WeakKeyDictionary()
_accounts_lock: Final = Lock()


def shared_account(
    store: TokenStore, name: str, open_slot: OpenSlot, *, clock: Clock, previous: FailoverAccount | None
) -> FailoverAccount:
    """Return the account that the managers of the running event loop share. `name` and `clock` tell accounts apart.

    `previous` is the manager's account in an event loop that was closed.
    """
    loop = asyncio.get_running_loop()
    key = (name, id(clock), id(loop))
    with _accounts_lock:
        try:
            accounts: _Accounts = _accounts_of.setdefault(store, WeakValueDictionary())
        except TypeError:
            # A store without a hash or weak references: its managers do not share.
            accounts = WeakValueDictionary()
        account = accounts.get(key)
        if account is None:
            turns = next((other.turns for other in accounts.values() if other.loop is loop), None)
            private = PrivateRecord()
            if previous is not None:
                private = previous.private
                previous.slots.clear()
            account = accounts[key] = FailoverAccount(
                open_slot, clock=clock, turns=turns or asyncio.Semaphore(MAX_CONCURRENT), private=private
            )
    return account


async def _wait_for_change(slot: Slot, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout + OPERATION_TIMEOUT):
            await slot.changed(timeout)
    except TimeoutError:
        return
