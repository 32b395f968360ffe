"""A slot that cannot fail: while its store is down, the worker goes on with a private record.

A store that is down, slow, emptied or damaged costs a bounded delay and an event, never a token. While the store is
down, the worker renews for itself, first with the API key, because the refresh token that it knew belongs to all
workers. When the store is back, the worker offers its token by a claim and a commit.

The managers of one process and event loop that use one account of one store are one worker: they share a
`FailoverAccount`, so that the store sees one claim of them at a time, and so that one look at the record serves all.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from attrs import define, evolve, field

from apivideo_auth import _record, events
from apivideo_auth._clock import Clock
from apivideo_auth._policy import LEASE_MARGIN, MAX_LEASE, store_backoff
from apivideo_auth._record import (
    EMPTY,
    Busy,
    Changed,
    Claim,
    ClaimAnswer,
    Commit,
    Done,
    EndAnswer,
    Granted,
    Record,
    Release,
    SharedToken,
)
from apivideo_auth._secrets import SecretBytes, fingerprint
from apivideo_auth._tasks import finish, start
from apivideo_auth.stores._base import Slot, TokenStore, Waiters

OPERATION_TIMEOUT: Final = 0.5
"""Seconds that one operation of a store may take."""
MAX_CONCURRENT: Final = 8
"""Operations that one store gets at a time; the others wait for their turn, which is not the store's fault."""
GRACE_STEPS: Final = 20
"""Steps of the event loop in which an answer that has arrived late, because the loop was blocked, still counts."""
MAX_REMEMBERED: Final = 16
"""Refresh tokens that a worker remembers to have sent."""

_T = TypeVar("_T")


class OpenSlot(Protocol):
    """Opens the store's own slot; see `TokenStore.open`."""

    def __call__(self, *, on_commit: Callable[[], None], on_damage: Callable[[str], None]) -> Slot: ...


class _DownError(Exception):
    """The store gave no answer, or is not asked before its backoff is over."""


@define
class _Known:
    """What a worker knows, even if the store is down or forgets.

    - `private`: the record that it uses while the store is down.
    - `unconfirmed`: an event that the store may not have executed. It is sent again before any other.
    - `sent`: marks of the refresh tokens that it sent. `newest`: the latest commit that it saw, on the record's clock.
    """

    private: Record = field(default=EMPTY, repr=False)
    unconfirmed: Claim | Commit | Release | None = field(default=None, repr=False)
    sent: deque[str] = field(factory=lambda: deque[str](maxlen=MAX_REMEMBERED), repr=False)
    newest: float = float("-inf")


@define
class _Breaker:
    """A circuit breaker: after a failure nothing is asked before `retry_at`."""

    failures: int = 0
    retry_at: float = 0.0


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
        return await _to_the_end(self._account.read(self))

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
        return await _to_the_end(self._account.commit(event, self))

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        return await _to_the_end(self._account.release(event, self))

    async def changed(self, timeout: float) -> None:
        """Return after a commit or release, or after `timeout` seconds; early if in doubt."""
        await self._account.changed(timeout, self)

    async def forget(self) -> None:
        """Delete the record."""
        await _to_the_end(self._account.forget())

    async def close(self) -> None:
        """Leave the account; the last one to leave closes the store's slot, even if the store is down."""
        if self in self._account.slots:
            self._account.slots.remove(self)
            if not self._account.slots:
                await _to_the_end(self._account.close())


class FailoverAccount:
    """One account in a store that may fail, as the managers of this process and event loop see it.

    `turns` limits the operations that the store gets at a time. `jitter` returns a random number in [0, 1).
    """

    def __init__(
        self,
        open_slot: OpenSlot,
        *,
        clock: Clock,
        turns: asyncio.Semaphore,
        known: "_Known",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.slots: list[FailoverSlot] = []
        self.loop = asyncio.get_running_loop()
        self.turns = turns
        self.known = known
        self._open_slot = open_slot
        self._now = clock.monotonic
        self._jitter = jitter
        self._slot: Slot | None = None
        # Guards `known`: an operation begins when the one before it has been answered.
        self._lock = asyncio.Lock()
        self._waiters = Waiters()
        self._is_watched = False
        # The claim that a manager of this process holds, and the end of its lease.
        self._holder: tuple[str, float] | None = None
        # Reading may work while writing fails: no memory, a replica, a read-only file system.
        self._reads, self._writes = _Breaker(), _Breaker()
        self._down_since: float | None = None
        self._damaged_since: float | None = None
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
                token = self._note_token(await self._ask(lambda slot: slot.read()))
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
                self.known.private, answer = _record.claim(self.known.private, event, self._now())
                if isinstance(answer, Granted):
                    # Moments of the private record are on another clock than those of the store.
                    answer = evolve(answer, committed_at=None)
            match answer:
                case Changed(token=token):
                    self._note_token(token)
                case Granted():
                    self._holder = (event.id, now + event.lease)
                    answer = self._without_used_refresh_token(answer)
                case _:
                    pass
            return answer

    async def commit(self, event: Commit, slot: FailoverSlot) -> EndAnswer:
        """Commit where the claim was granted. If the store does not answer, the token is kept in the private record."""
        began_at = self._now()
        async with self._lock:
            answer: EndAnswer | None = None
            if slot.holds_shared_claim:
                try:
                    answer = await self._ask(lambda slot: slot.commit(event), event)
                    self.known.private = EMPTY
                    self._note_repair()
                except _DownError:
                    # The store may have it, so the refresh token is not this worker's alone.
                    self._hold_privately(event.id)
                    event = evolve(event, refresh=None)
            if answer is None:
                self.known.private, answer = _record.commit(self.known.private, event, self._now())
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
            if event.refresh is not None and (mark := _mark(event.refresh)) in self.known.sent:
                self.known.sent.remove(mark)
            answer: EndAnswer | None = None
            if slot.holds_shared_claim:
                try:
                    answer = await self._ask(lambda slot: slot.release(event), event)
                except _DownError:
                    self._hold_privately(event.id)
                    event = evolve(event, refresh=None)
            if answer is None:
                self.known.private, answer = _record.release(self.known.private, event, self._now())
            self._end_of_claim(event.id)
        return answer

    async def changed(self, timeout: float, slot: FailoverSlot) -> None:
        """Wait for another manager of this process, or for the store."""
        if self._waiters.wakes != slot.seen:
            return
        if self._is_watched or self._reads.failures or self._holder is not None:
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
            self.known.private, self.known.unconfirmed = EMPTY, None
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

    # What the worker remembers.

    def _without_used_refresh_token(self, granted: Granted) -> Granted:
        """Take the refresh token away that this worker has sent before, or knows to be an old one.

        A store may restore an old record, and a refresh token may be sent only once.
        """
        if granted.refresh is None:
            return granted
        mark = _mark(granted.refresh)
        is_old = granted.committed_at is not None and granted.committed_at < self.known.newest
        if is_old or mark in self.known.sent:
            return evolve(granted, refresh=None)
        self.known.sent.append(mark)
        return granted

    def _note_token(self, token: SharedToken | None) -> SharedToken | None:
        if token is not None:
            self.known.newest = max(self.known.newest, token.committed_at)
        return token

    def _end_of_claim(self, claim_id: str) -> None:
        if self._holder is not None and self._holder[0] == claim_id:
            self._holder = None
        self._waiters.wake()

    def _hold_privately(self, claim_id: str) -> None:
        """Let the private record go on if the store is lost in the middle of a renewal."""
        now = self._now()
        self.known.private = evolve(self.known.private, claim_id=claim_id, claimed_at=now, claim_until=now + MAX_LEASE)

    # The store is back.

    async def _settle(self) -> None:
        """Send the event again that the store may not have executed. Each event has the same effect once or twice."""
        event = self.known.unconfirmed
        if event is None:
            return
        if isinstance(event, Claim):
            answer = await self._ask(lambda slot: slot.claim(event), event)
            self.known.unconfirmed = None
            if isinstance(answer, Granted):
                unused = Release(id=event.id, refresh=answer.refresh)
                await self._ask(lambda slot: slot.release(unused), unused)
        elif isinstance(event, Commit):
            ended = await self._ask(lambda slot: slot.commit(event), event)
            self.known.unconfirmed = None
            if isinstance(ended, Done) and self.known.private.version == event.id:
                self.known.private = EMPTY
        else:
            await self._ask(lambda slot: slot.release(event), event)
            self.known.unconfirmed = None

    async def _offer(self, theirs: SharedToken | None) -> SharedToken | None:
        """Commit the private token if it is better than the record's; return what the record holds then."""
        own = _record.shared_token(self.known.private, self._now())
        if own is None or self.known.private.claim_id is not None:
            return theirs
        if theirs is not None and (theirs.version == own.version or theirs.remaining >= own.remaining):
            self.known.private = EMPTY
            return theirs
        claim = Claim(id=own.version, seen=None if theirs is None else theirs.version, lease=LEASE_MARGIN)
        answer = await self._ask(lambda slot: slot.claim(claim), claim)
        if isinstance(answer, Changed):
            return answer.token
        if not isinstance(answer, Granted):
            self._look_in(answer.retry_after)
            return theirs
        # This claim came after the call.
        remaining = self.known.private.ends_at - self._now()
        refresh = None if self.known.private.refresh is None else SecretBytes(self.known.private.refresh)
        commit = Commit(
            id=own.version,
            access=own.access,
            refresh=refresh,
            lifetime=own.lifetime,
            remaining=remaining,
            ends_after=remaining,
        )
        self.known.private = evolve(self.known.private, refresh=None)
        await self._ask(lambda slot: slot.commit(commit), commit)
        self.known.private = EMPTY
        return None

    # The circuit breaker.

    async def _ask(
        self,
        operation: Callable[[Slot], Coroutine[Any, Any, _T]],
        event: Claim | Commit | Release | None = None,
        *,
        limit: float | None = OPERATION_TIMEOUT,
    ) -> _T:
        """Return the store's answer. Raises `_DownError` if there is none; then `event` is sent again later."""
        breaker = self._reads if event is None else self._writes
        if breaker.failures and self._now() < breaker.retry_at:
            raise _DownError
        try:
            if self._slot is None:
                self._slot = self._open_slot(on_commit=self._look, on_damage=self._on_damage)
            if limit is None:
                answer = await operation(self._slot)
            else:
                async with self.turns:
                    answer = await _within(limit, operation(self._slot))
        except Exception as error:  # noqa: BLE001  whatever a store raises, it is down
            self.known.unconfirmed = event or self.known.unconfirmed
            self._degrade(breaker, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            raise _DownError from None
        # A store that can write can read.
        self._recover(self._reads, *([] if event is None else [self._writes]))
        return answer

    def _degrade(self, breaker: _Breaker, message: str) -> None:
        """Open the breaker. A timer looks again, because it may be long until a manager asks."""
        now = self._now()
        breaker.failures += 1
        wait = store_backoff(breaker.failures, jitter=self._jitter())
        breaker.retry_at = now + wait
        self._look_in(wait)
        if self._down_since is None:
            self._down_since = now
            self._emit(events.StoreDegraded(cause=message, next_try_in=wait))

    def _recover(self, *breakers: _Breaker) -> None:
        for breaker in breakers:
            breaker.failures = 0
        if self._down_since is not None and not self._reads.failures and not self._writes.failures:
            seconds, self._down_since = self._now() - self._down_since, None
            self._emit(events.StoreRecovered(seconds=seconds))

    def _on_damage(self, message: str) -> None:
        """Report a record that cannot be read. It counts as empty, and the next commit replaces it."""
        if self._damaged_since is None:
            self._damaged_since = self._now()
            self._emit(events.StoreDegraded(cause=message, next_try_in=0.0))

    def _note_repair(self) -> None:
        if self._damaged_since is not None:
            seconds, self._damaged_since = self._now() - self._damaged_since, None
            self._emit(events.StoreRecovered(seconds=seconds))

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
        self._reads.retry_at = self._writes.retry_at = self._now()
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


_Key: TypeAlias = tuple[str, int, int]
_accounts: "WeakKeyDictionary[TokenStore, WeakValueDictionary[_Key, FailoverAccount]]" = WeakKeyDictionary()


def shared_account(
    store: TokenStore, name: str, open_slot: OpenSlot, *, clock: Clock, previous: FailoverAccount | None
) -> FailoverAccount:
    """Return the account that the managers of the running event loop share. `name` and `clock` tell accounts apart.

    `previous` is the manager's account in an event loop that was closed.
    """
    loop = asyncio.get_running_loop()
    accounts = _accounts.setdefault(store, WeakValueDictionary())
    key = (name, id(clock), id(loop))
    account = accounts.get(key)
    if account is None:
        turns = next((other.turns for other in accounts.values() if other.loop is loop), None)
        known = _Known()
        if previous is not None:
            known = previous.known
            previous.slots.clear()
        account = FailoverAccount(open_slot, clock=clock, turns=turns or asyncio.Semaphore(MAX_CONCURRENT), known=known)
        accounts[key] = account
    return account


async def _to_the_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Run an operation to its end, although the caller may be cancelled meanwhile."""
    task = start(work, name="apivideo-auth-store")
    await finish(task)
    return task.result()


async def _within(seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of an operation; raise `TimeoutError` if there is none after so many seconds."""
    task = start(work, name="apivideo-auth-store-operation")
    await asyncio.wait({task}, timeout=seconds)
    for _ in range(GRACE_STEPS):
        if task.done():
            return task.result()
        await asyncio.sleep(0)
    task.cancel()
    await finish(task, within=OPERATION_TIMEOUT)
    if task.done() and not task.cancelled():
        return task.result()
    raise TimeoutError(f"no answer within {seconds:g} seconds")


async def _wait_for_change(slot: Slot, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout + OPERATION_TIMEOUT):
            await slot.changed(timeout)
    except TimeoutError:
        return


def _mark(refresh: bytes) -> str:
    return fingerprint(refresh.decode("utf-8", "replace"))
