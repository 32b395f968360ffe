"""An account in a store that may fail: while the store is down, a private record takes its place.

A store that is down, slow, emptied or damaged costs a bounded delay and an event, never a token. While the store is
down, the worker renews for itself, first with the API key, because the refresh token that it knew belongs to all
workers. When the store is back, the worker offers its token by a claim and a commit.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

from attrs import evolve

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._policy import LEASE_MARGIN
from apivideo_auth._record import (
    EMPTY,
    NEVER,
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimAnswer,
    Commit,
    Done,
    EndAnswer,
    Event,
    Granted,
    Release,
    SharedToken,
)
from apivideo_auth._tasks import finish, is_interruption, start, within
from apivideo_auth.stores._base import Slot, Waiters
from apivideo_auth.stores._breaker import CircuitBreaker, Limiter
from apivideo_auth.stores._private import PrivateRecord

if TYPE_CHECKING:
    from apivideo_auth.stores._failover import FailoverSlot

OPERATION_TIMEOUT: Final = 0.5
"""Seconds that one operation of a store may take."""
_NO_ANSWER: Final = (0, NEVER, None)

_T = TypeVar("_T")


class OpenSlot(Protocol):
    """Opens the store's own slot; see `TokenStore.open`."""

    def __call__(self, *, on_commit: Callable[[], None], on_damage: Callable[[str], None]) -> Slot: ...


class _DownError(Exception):
    """The store gave no answer, or is not asked before its backoff is over."""


class FailoverAccount:
    """One account in a store that may fail, as the managers of this process and event loop see it.

    `limiter` limits the operations that the store gets at a time. `operation_timeout` is for a store that gets longer
    than `OPERATION_TIMEOUT`. `open_slot` is set while a manager uses the account.
    """

    def __init__(self, *, clock: Clock, limiter: Limiter, operation_timeout: float = OPERATION_TIMEOUT) -> None:
        self.slots: list[FailoverSlot] = []
        self.loop = asyncio.get_running_loop()
        self.limiter = limiter
        self.operation_timeout = operation_timeout
        self.private = PrivateRecord()
        self.open_slot: OpenSlot | None = None
        self._now = clock.monotonic
        self._slot: Slot | None = None
        # Guards `private`: an operation begins when the one before it has been answered.
        self._lock = asyncio.Lock()
        self._waiters = Waiters()
        # A manager that waits for a change of the store. It wakes the others.
        self._watch: asyncio.Task[None] | None = None
        # The id of the claim that a manager of this process holds, and the end of its lease.
        self._held: tuple[str, float] | None = None
        self._breaker = CircuitBreaker(clock=clock, emit=self._emit)
        # Emitted when the lock is released.
        self._events: list[events.Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._look_task: asyncio.Task[None] | None = None
        self._look_again = False
        # How often the store was asked, and the last answers with their number and time: an answer serves those as well
        # who were already waiting for their turn when the store was asked.
        self._asked = 0
        self._last_read: tuple[int, float, SharedToken | None] = _NO_ANSWER
        self._last_answer: tuple[int, float, Changed | Backoff | None] = _NO_ANSWER
        self._known_version: str | None = None

    @property
    def remembers(self) -> bool:
        """Whether it knows of an outage, or of an event or record that the store does not have."""
        return self._breaker.is_open or self.private.unconfirmed is not None or self.private.record != EMPTY

    # The operations. Each runs to its end, and takes the lock.

    async def read(self, slot: "FailoverSlot | None" = None) -> SharedToken | None:
        """Return the token of the account; `None` while the store is down."""
        queued_at = self._asked
        async with self._exclusive():
            token = None
            if slot is not None:
                slot.wakes_seen = self._waiters.wakes
            number, asked_at, last = self._last_read
            if number > queued_at:
                return None if last is None else _aged(last, self._now() - asked_at)
            asked_at = self._now()
            self._asked += 1
            number = self._asked
            with suppress(_DownError):
                token = await self._ask(lambda store: store.read())
                if token is not None:
                    self.private.note_commit(token.committed_at)
                    self._breaker.on_repair()
                await self._resend_unconfirmed()
                token = await self._offer(token)
            self._last_read = (number, asked_at, token)
        if token is not None:
            self._notify(token, asked_at, except_for=slot)
        return token

    async def claim(self, event: Claim, slot: "FailoverSlot") -> ClaimAnswer:
        """Claim in the store, or while it is down in the private record."""
        slot.holds_shared_claim = False
        queued_at = self._asked
        async with self._exclusive():
            slot.wakes_seen = self._waiters.wakes
            now = self._now()
            if self._held is not None and now < (held_until := self._held[1]):
                return Busy(retry_after=held_until - now)
            if (shared := self._answer_since(queued_at, event, now)) is not None:
                return shared
            self._asked += 1
            number = self._asked
            try:
                await self._resend_unconfirmed()
                answer = await self._send(event)
                slot.holds_shared_claim = isinstance(answer, Granted)
            except _DownError:
                answer = self.private.claim(event, self._now())
            if isinstance(answer, Changed | Backoff):
                self._last_answer = (number, now, answer)
            if isinstance(answer, Granted):
                self._held = event.id, now + event.lease
                answer = self.private.use_refresh(answer)
            if not isinstance(answer, Busy):
                # The record has changed since other managers were told that another worker renews.
                self._waiters.wake()
                slot.wakes_seen = self._waiters.wakes
        if isinstance(answer, Changed):
            self._breaker.on_repair()
            self._notify(answer.token, now, except_for=slot)
        return answer

    def _answer_since(self, queued_at: int, event: Claim, now: float) -> ClaimAnswer | None:
        """Return an answer that another manager has got since this claim was queued, if it serves this one as well."""
        number, asked_at, last = self._last_answer
        if number <= queued_at:
            return None
        if isinstance(last, Changed) and last.token.version != event.seen:
            return Changed(token=_aged(last.token, now - asked_at))
        if isinstance(last, Backoff) and last.retry_after > now - asked_at:
            return evolve(last, retry_after=last.retry_after - (now - asked_at))
        return None

    async def commit(self, event: Commit, slot: "FailoverSlot") -> EndAnswer:
        """Commit where the claim was granted, and give the token to the other managers."""
        began_at = self._now()
        answer = await self.end(event, slot)
        if isinstance(answer, Done):
            token = SharedToken(
                version=event.id,
                access=event.access,
                lifetime=event.lifetime,
                remaining=event.remaining,
                # Not used by `on_commit`.
                committed_at=0.0,
            )
            self._notify(token, began_at, except_for=slot)
        return answer

    async def end(self, event: Commit | Release, slot: "FailoverSlot") -> EndAnswer:
        """End a claim where it was granted; in the private record if the store does not answer."""
        began_at = self._now()
        async with self._exclusive():
            if isinstance(event, Release):
                self.private.give_back(event.refresh)
            answer: EndAnswer | None = None
            if slot.holds_shared_claim:
                try:
                    answer = await self._send(event)
                except _DownError:
                    # The store may have executed it, so the refresh token is not this worker's alone.
                    self.private.unconfirmed = event
                    self.private.take_over(event.id, self._now())
                    event = evolve(event, refresh=None)
                else:
                    if isinstance(event, Commit):
                        self.private.clear()
                        self._breaker.on_repair()
            if answer is None:
                answer = self._end_privately(event, began_at)
            if self._held is not None and self._held[0] == event.id:
                self._held = None
            self._waiters.wake()
        return answer

    def _end_privately(self, event: Commit | Release, began_at: float) -> EndAnswer:
        now = self._now()
        if isinstance(event, Commit):
            event = evolve(event, remaining=event.remaining - (now - began_at))
        if self._breaker.allows(write=True):
            # The store came back while this renewal was under way.
            self._schedule_look(0.0)
        return self.private.end(event, now)

    async def changed(self, timeout: float, slot: "FailoverSlot") -> None:
        """Wait for another manager of this process, or for the store, which one manager watches for all."""
        wakes_seen = slot.wakes_seen
        if self._waiters.wakes != wakes_seen:
            return
        watch = None
        if self._watch is None and self._held is None and self._breaker.can_read:
            # No limit: a wait that took longer, because the event loop was blocked, says nothing about the store.
            work = self._ask(lambda store: store.changed(timeout), limit=None)
            self._watch = watch = start(work, name="apivideo-auth-watch", on_done=self._end_watch)
        try:
            await self._waiters.wait(timeout, since=wakes_seen)
        finally:
            if watch is not None:
                if self._waiters.wakes != wakes_seen:
                    # The others were woken too. Those that have claimed since then must not be woken again.
                    self._watch = None
                watch.cancel()
                await finish(watch, within=OPERATION_TIMEOUT)

    def _end_watch(self) -> None:
        if self._watch is not None and self._watch.done():
            self._watch = None
            self._waiters.wake()

    async def forget(self) -> None:
        """Delete the record, in the store and here."""
        async with self._exclusive():
            self.private.clear()
            self.private.unconfirmed = None
            # The user has asked for it, so it does not wait until a backoff is over.
            self._breaker.allow_now()
            with suppress(_DownError):
                await self._ask(lambda store: store.forget(), write=True)

    async def close(self) -> None:
        """Close the store's slot, even if the store is down."""
        self._cancel_timer()
        self._waiters.wake()
        if self._look_task is not None:
            await finish(self._look_task)
        with suppress(_DownError):
            await self._resend_unconfirmed()
        self._cancel_timer()
        slot, self._slot = self._slot, None
        if slot is not None:
            task = asyncio.current_task()
            try:
                await within(OPERATION_TIMEOUT, slot.close())
            except BaseException as error:
                # Otherwise nothing depends on it any more.
                if is_interruption(error, task):
                    raise

    # The store is back.

    async def _resend_unconfirmed(self) -> None:
        """Send the event again that the store may not have executed. Repeating an event changes nothing."""
        event = self.private.unconfirmed
        if event is None:
            return
        if isinstance(event, Claim):
            # The renewal was counted in the private record.
            event = evolve(event, may_be_throttled=False)
        answer = await self._send(event)
        self.private.unconfirmed = None
        if isinstance(answer, Granted):
            # The renewal went on with the private record, so this claim is not needed.
            await self._send(Release(id=event.id, refresh=answer.refresh))
        elif isinstance(event, Commit) and isinstance(answer, Done) and self.private.record.version == event.id:
            self.private.clear()

    async def _offer(self, shared: SharedToken | None) -> SharedToken | None:
        """Commit the private token if it is better than the record's.

        Return the record's token, or `None` if it is now this worker's own.
        """
        own = self.private.token(self._now())
        if own is None:
            return shared
        if shared is not None and (shared.version == own.version or shared.remaining >= own.remaining):
            self.private.clear()
            return shared
        claim = Claim(id=own.version, seen=None if shared is None else shared.version, lease=LEASE_MARGIN)
        answer = await self._send(claim)
        if isinstance(answer, Changed):
            return answer.token
        if not isinstance(answer, Granted):
            self._schedule_look(answer.retry_after)
            return shared
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
        await self._send(commit)
        self.private.clear()
        return None

    # Asking the store.

    @overload
    async def _send(self, event: Claim) -> ClaimAnswer: ...
    @overload
    async def _send(self, event: Commit | Release) -> EndAnswer: ...
    @overload
    async def _send(self, event: Event) -> ClaimAnswer | EndAnswer: ...
    async def _send(self, event: Event) -> ClaimAnswer | EndAnswer:
        """Return the store's answer to an event, and remember the commit that it shows."""
        answer = await self._ask(lambda store: _sent(store, event), event)
        self.private.note_answer(answer)
        return answer

    async def _ask(
        self,
        operation: Callable[[Slot], Coroutine[Any, Any, _T]],
        event: Event | None = None,
        *,
        write: bool = False,
        limit: float | None = OPERATION_TIMEOUT,
    ) -> _T:
        """Return the store's answer. Raises `_DownError` if there is none; then `event` is sent again later."""
        write = write or event is not None
        task = asyncio.current_task()
        if not self._breaker.allows(write=write):
            if self._timer is None:
                # The manager that met the failure has left.
                self._schedule_look(self._breaker.wait(write=write))
            raise _DownError
        try:
            if self._slot is None:
                assert self.open_slot is not None
                self._slot = self.open_slot(on_commit=self._look, on_damage=self._breaker.on_damage)
            slot = self._slot
            if limit is None:
                answer = await operation(slot)
            else:
                answer = await self.limiter.run(max(limit, self.operation_timeout), partial(operation, slot))
        except BaseException as error:
            # The event may have been sent.
            self.private.unconfirmed = event or self.private.unconfirmed
            if is_interruption(error, task):
                # The event loop ends; the next one finds out.
                raise
            # Whatever a store raises, it is down.
            cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            # It may be long until a manager asks, so a timer looks again.
            self._schedule_look(self._breaker.on_failure(cause, write=write))
            raise _DownError from None
        self._breaker.on_success(write=write)
        return answer

    def _schedule_look(self, seconds: float) -> None:
        self._cancel_timer()
        if self.slots:
            self._timer = self.loop.call_at(self.loop.time() + seconds, self._look)

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
            self._look_task = start(self._look_and_notify(), name="apivideo-auth-look")

    async def _look_and_notify(self) -> None:
        # Bounded: one round for each commit, however many come while a round lasts.
        while self._look_again and self.slots:
            self._look_again = False
            await self.read()

    def _notify(self, token: SharedToken, asked_at: float, *, except_for: "FailoverSlot | None") -> None:
        """Give the managers a token that another manager or worker has committed, once."""
        if token.version == self._known_version:
            return
        self._known_version = token.version
        self._waiters.wake()
        for slot in [*self.slots]:
            if slot is not except_for:
                slot.on_commit(token, asked_at)

    @asynccontextmanager
    async def _exclusive(self) -> AsyncGenerator[None]:
        """Take the lock, and emit the events of the operation when it is released."""
        try:
            async with self._lock:
                yield
        finally:
            self._emit()

    def _emit(self, *new: events.Event) -> None:
        """Emit events, or keep them while an operation has the lock: handlers may use the account."""
        self._events += new
        while self._events and not self._lock.locked():
            event = self._events.pop(0)
            for slot in [*self.slots]:
                slot.emit(event)


def _aged(token: SharedToken, seconds: float) -> SharedToken:
    return evolve(token, remaining=token.remaining - seconds)


def _sent(store: Slot, event: Event) -> Coroutine[Any, Any, ClaimAnswer | EndAnswer]:
    match event:
        case Claim():
            return store.claim(event)
        case Commit():
            return store.commit(event)
        case Release():
            return store.release(event)
