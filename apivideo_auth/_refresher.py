"""The one renewal task, the one timer, and the callers that wait."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeAlias

from attrs import evolve

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._errors import (
    AuthError,
    ManagerClosedError,
    error_from,
    failure_from,
    rejected_too_soon,
    too_old_on_arrival,
)
from apivideo_auth._failure import Failure
from apivideo_auth._policy import MIN_REJECTION_AGE, backoff_after, check_min_ttl, moments
from apivideo_auth._record import Backoff, Busy, RenewalRequest, SharedToken, Throttled
from apivideo_auth._renewal import Adopted, ClaimLapsed, Failed, Outcome, RefreshRejected, Renewed, Renewer
from apivideo_auth._state import BackoffState, Current, State, date_of
from apivideo_auth._tasks import finish, start
from apivideo_auth._token import Token

MAX_STEPS: Final = 8
"""The most claims of one task. It claims again after a rejected refresh token or another worker's claim."""
MAX_REPLACEMENTS: Final = 3
"""The most renewals that one caller waits for if it cannot use the current token."""
MAX_TIMER_DELAY: Final = 60.0
"""The timer reads the clock this often, because the loop's time may stand still while the machine sleeps."""
MIN_DELAY: Final = 0.001
"""Event loops round time: a shorter wait may end before its moment, again and again."""
WATCH_INTERVAL: Final = 0.05
"""Seconds between looks at the record, at least, while a caller waits for a backoff to end."""
CLEANUP_TIMEOUT: Final = 1.5
"""Seconds that a cancelled renewal has to end its claim in a store."""
CANCELLED_PAUSE: Final = 1.0
"""Seconds until the next renewal, at least, after foreign code has cancelled one."""

_Task: TypeAlias = asyncio.Task[Outcome | None]

_logger = logging.getLogger("apivideo_auth")


class Refresher:
    """Serves the tokens of one `State`, and renews them: one renewal at a time.

    - `open_renewer` is called on the first use in an event loop. `emit` takes events.
    - `is_shared`: other workers may use the record.

    Callers do not await the renewal task itself, so their cancellations and timeouts do not reach it.
    """

    def __init__(
        self,
        state: State,
        *,
        clock: Clock,
        open_renewer: Callable[[], Renewer],
        emit: Callable[[events.Event], None],
        is_shared: bool,
    ) -> None:
        self._state = state
        self._clock = clock
        self._now = clock.monotonic
        self._open_renewer = open_renewer
        self._emit = emit
        self._is_shared = is_shared
        self._jitter = random.random
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renewer: Renewer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: _Task | None = None
        # Whether the task only looks at the record or waits for another worker, so that close() can cancel it at once.
        self._only_waits = False
        self._was_cancelled = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._looks: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the manager has been used in an event loop, and was not closed."""
        return self._renewer is not None and not self._state.closed

    def bind(self) -> None:
        """Bind to the running event loop; raise `ManagerClosedError` or `RuntimeError`."""
        self.check_loop()
        if self._state.closed:
            raise ManagerClosedError
        if self._renewer is None:
            self._loop = asyncio.get_running_loop()
            self._renewer = self._open_renewer()
            self._schedule()

    def check_loop(self) -> None:
        """Leave an event loop that was closed; raise `RuntimeError` if another one is still open."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop is loop:
            return
        if not self._loop.is_closed():
            raise RuntimeError(
                "this TokenManager is in use in another event loop, which is still open; make one manager per loop"
            )
        # Its tasks and timers ended with it.
        self._loop = self._renewer = self._task = self._timer = None
        self._was_cancelled = False
        self._waiters.clear()
        self._looks.clear()

    @property
    def _bound(self) -> Renewer:
        assert self._renewer is not None
        return self._renewer

    async def get(self, rejected: Token | None, min_ttl: float | None) -> Token:
        """Return a token that suits this caller, after a renewal if need be."""
        self.bind()
        state = self._state
        if rejected is not None:
            state.rejections += 1
        replacements = 0
        # Bounded: each round returns, raises, waits for a replacement, or lasts until a backoff is over.
        while True:
            if state.closed:
                raise ManagerClosedError
            now = self._now()
            current = state.usable(now)
            if current is None:
                await self._wait_for_token(now)
                continue
            if min_ttl is not None:
                check_min_ttl(min_ttl, lifetime=current.lifetime)
            if state.phase(now) == "stale":
                self._renew_in_background(now)
            is_rejected = rejected is not None and rejected.access_token == current.token.access_token
            if not is_rejected and (min_ttl is None or current.moments.ends_at - now >= min_ttl):
                return current.token
            request = state.request(now, rejected=is_rejected, min_ttl=min_ttl or 0.0)
            if replacements == MAX_REPLACEMENTS:
                raise _denied(current, request, MIN_REJECTION_AGE)
            replacements += 1
            await self._wait_for_replacement(current, request, now)

    async def _wait_for_token(self, now: float) -> None:
        """Wait for one renewal, or until a backoff is over; raise if that cannot help."""
        state, task = self._state, self._in_flight()
        backoff = state.active_backoff(now) if task is None else None
        outcome: Outcome | None = None
        if task is not None:
            outcome = await self._join(task)
        elif self._was_cancelled:
            await self._join(self._start(self._pause()))
        elif backoff is None:
            reason: events.Reason = "first" if state.current is None else "expired"
            outcome = await self._join(self._start(self._renew(reason, state.request(now))))
            if isinstance(outcome, Throttled):
                raise rejected_too_soon(outcome.retry_after)
        elif not backoff.exceeds(state.policy.deadline):
            # Another worker may bring a token before the backoff is over.
            await self._join(self._start(self._watch(backoff.not_before - now)))
        elif self._is_shared:
            await self._join(self._start(self._look(state.request(now))))
        if isinstance(outcome, Failed | Backoff):
            # It may be over by now, if the event loop was busy; the deadline holds all the same.
            backoff = state.backoff
        now = self._now()
        has_none = state.usable(now) is None and not state.closed
        if has_none and backoff is not None and backoff.exceeds(state.policy.deadline):
            raise _error_of(backoff, now)

    async def _wait_for_replacement(self, denied: Current, request: RenewalRequest, now: float) -> None:
        """Wait for another token than `denied`, which was rejected, or lives shorter than the caller's `min_ttl`.

        Raises if no other token can be had.
        """
        state, task = self._state, self._in_flight()
        if task is None:
            backing_off = state.active_backoff(now) is not None
            reason: events.Reason = "rejected" if request.rejected else "min_ttl"
            task = self._start(self._look(request) if backing_off else self._renew(reason, request))
        await self._join(task, until_it_waits=True)
        if state.current is denied and not task.done():
            # It waits for another worker, and the record may have a token for this caller already. The look is a task:
            # a read of the store runs to its end, and a caller that is cancelled does not wait for it.
            look = start(self._look(request), name="apivideo-auth-look")
            self._looks = {look, *(earlier for earlier in self._looks if not earlier.done())}
            await asyncio.wait({look})
        if state.current is not denied:
            return
        outcome = await self._join(task)
        if state.current is not denied:
            return
        if isinstance(outcome, Throttled):
            raise _denied(denied, request, outcome.retry_after)
        if state.backoff is not None:
            raise _error_of(state.backoff, self._now())

    # The one task.

    def _renew_in_background(self, now: float) -> None:
        if self._in_flight() is None and self._state.active_backoff(now) is None:
            self._start(self._renew("stale", self._state.request(now)))

    def _in_flight(self) -> _Task | None:
        return self._task if self._task is not None and not self._task.done() else None

    def _start(self, work: Coroutine[Any, Any, Outcome | None]) -> _Task:
        self._only_waits = False
        self._task = start(work, name="apivideo-auth-renewal", on_done=self._on_task_done)
        # The timer waits until the task has ended.
        self._schedule()
        return self._task

    async def _join(self, task: _Task, *, until_it_waits: bool = False) -> Outcome | None:
        """Wait until a task has ended; return its outcome.

        Returns early, with `None`, if the manager is closed or has adopted a token meanwhile, or `until_it_waits` for
        another worker.
        """
        current = self._state.current
        while not (
            task.done()
            or self._state.closed
            or self._state.current is not current
            or (until_it_waits and self._only_waits)
        ):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return task.result() if task.done() and not task.cancelled() else None

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _on_task_done(self) -> None:
        task = self._task
        # The event loop ends, or foreign code has cancelled the task. A loop that ends is closed before the next try.
        self._was_cancelled = task is not None and task.cancelled() and not self._state.closed
        if self._in_flight() is None:
            self._task = None
        self._schedule(at_least=CANCELLED_PAUSE if self._was_cancelled else MIN_DELAY)
        self._wake()

    async def _renew(  # noqa: C901, PLR0911  one branch for each outcome
        self, reason: events.Reason, request: RenewalRequest
    ) -> Outcome | None:
        """Renew until there is an outcome: wait for other workers' claims, and replace a rejected refresh token."""
        state, renewer = self._state, self._bound
        known = state.current
        for _ in range(MAX_STEPS):
            if state.closed:
                return None
            try:
                outcome = await renewer.renew(request)
            except Exception as error:  # noqa: BLE001  as if a call had failed
                # A mistake of this package. Callers get errors of their own, and the renewals back off.
                failure = failure_from(error)
                _logger.warning("a renewal failed unexpectedly: %s", failure.message)
                wait = backoff_after(failure, failures=request.failures + 1, jitter=self._jitter())
                return self._back_off(request, failure, wait)
            match outcome:
                case Busy():
                    self._only_waits = True
                    self._wake()
                    await renewer.slot.changed(max(outcome.retry_after, MIN_DELAY))
                    self._only_waits = False
                    if state.current is not known:
                        return None
                    update = state.request(self._now(), rejected=request.rejected)
                    request = evolve(update, may_be_throttled=request.may_be_throttled and update.access is not None)
                case ClaimLapsed():
                    request = evolve(request, may_be_throttled=False)
                case RefreshRejected():
                    self._emit(events.RefreshTokenRejected(cause=outcome.failure.message))
                    request = evolve(request, may_be_throttled=False)
                case Renewed():
                    self._take_renewed(outcome, reason)
                    return outcome
                case Adopted():
                    self._adopt(outcome.token, outcome.asked_at)
                    return outcome
                case Failed():
                    self._note_failure(outcome, reason)
                    return outcome
                case Backoff():
                    state.back_off(outcome, self._now())
                    return outcome
                case Throttled():
                    return outcome
        failure = Failure(kind="connection", message="other workers held the claim repeatedly and committed no token")
        return self._back_off(request, failure, state.policy.lease)

    def _back_off(self, request: RenewalRequest, failure: Failure, retry_after: float) -> Backoff:
        """Keep a backoff that is not in the record."""
        backoff = Backoff(retry_after=retry_after, failure=failure, failures=request.failures + 1, failing_for=0.0)
        self._state.back_off(backoff, self._now())
        return backoff

    async def _look(self, request: RenewalRequest) -> None:
        """Adopt the token that another worker has committed, if it is better; make no call."""
        self._only_waits = True
        asked_at = self._now()
        token = await self._bound.slot.read()
        if token is not None and token.version != request.version and request.should_adopt(token):
            self._adopt(token, asked_at)

    async def _pause(self) -> None:
        self._only_waits = True
        await asyncio.sleep(CANCELLED_PAUSE)

    async def _watch(self, timeout: float) -> None:
        """Wait until another worker has committed, for `timeout` seconds at most, and look at the record."""
        self._only_waits = True
        give_up_at = self._now() + timeout
        await self._bound.slot.changed(max(timeout, MIN_DELAY))
        await self._look(self._state.request(self._now()))
        now = self._now()
        if self._state.usable(now) is None and now < give_up_at:
            # `changed` may return early, and again and again.
            await asyncio.sleep(min(give_up_at - now, WATCH_INTERVAL))

    def on_commit(self, token: SharedToken, asked_at: float) -> None:
        """Adopt the token that another worker has committed, if it is better."""
        if self._renewer is None or self._state.closed:
            return
        request = self._state.request(self._now())
        if token.version != request.version:
            # The endpoints work again, even if this token is not better than the current one.
            self._state.clear_backoff()
            if request.should_adopt(token):
                self._adopt(token, asked_at)
            self._schedule()
            self._wake()

    def _take_renewed(self, renewed: Renewed, reason: events.Reason) -> None:
        state = self._state
        state.renewals += 1
        token = self._take(renewed.access, renewed.lifetime, renewed.sent_at, renewed.version)
        self._emit(
            events.TokenRenewed(
                endpoint=renewed.endpoint,
                reason=reason,
                seconds=renewed.seconds,
                generation=token.generation,
                expires_at=token.expires_at,
                lifetime=renewed.lifetime,
                lifetime_assumed=renewed.lifetime_assumed,
            )
        )

    def _adopt(self, shared: SharedToken, asked_at: float) -> None:
        """Serve another worker's token. Its remaining life counts from the moment when the store was asked."""
        current = self._state.current
        if current is not None and current.version == shared.version:
            # Another look at the record was faster.
            return
        begins_at = asked_at - (shared.lifetime - shared.remaining)
        token = self._take(shared.access.decode(), shared.lifetime, begins_at, shared.version)
        self._emit(
            events.TokenAdopted(generation=token.generation, expires_at=token.expires_at, remaining=shared.remaining)
        )

    def _take(self, access: str, lifetime: float, begins_at: float, version: str) -> Token:
        when = moments(self._state.policy, begins_at=begins_at, lifetime=lifetime, jitter=self._jitter())
        expires_at = date_of(when.ends_at, now=self._now(), utc=self._clock.utc())
        token = Token(access, expires_at, self._state.generation + 1, clock=self._clock, ends_at=when.ends_at)
        self._state.take(token, when, lifetime=lifetime, ttl=when.ends_at - self._now(), version=version)
        return token

    def _note_failure(self, failed: Failed, reason: events.Reason) -> None:
        state, backoff, now = self._state, failed.backoff, self._now()
        state.failures += 1
        state.back_off(backoff, now, last_commit_at=failed.last_commit_at)
        error = error_from(backoff.failure)
        self._emit(
            events.RenewalFailed(
                endpoint=failed.endpoint,
                error_class=type(error).__name__,
                cause=str(error),
                failures=backoff.failures,
                still_serving=state.usable(now) is not None,
                next_try_in=backoff.retry_after,
                reason=reason,
                seconds=failed.seconds,
            )
        )

    # The timer: a usable token is renewed although nobody asks.

    def _schedule(self, *, at_least: float = MIN_DELAY) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._state.renewal_due()
        if due is None or self._loop is None or self._in_flight() is not None:
            return
        delay = min(max(at_least, due - self._now()), MAX_TIMER_DELAY)
        self._timer = self._loop.call_at(self._loop.time() + delay, self._on_timer, context=Context())

    def _on_timer(self) -> None:
        self._timer = None
        due, now = self._state.renewal_due(), self._now()
        if due is None or now < due:
            self._schedule()
        elif self._state.usable(now) is not None:
            self._renew_in_background(now)

    async def close(self, *, timeout: float) -> None:
        """From now on every caller gets `ManagerClosedError`. A renewal in flight gets `timeout` seconds."""
        self._state.close()
        self._schedule()
        self._wake()
        task = self._in_flight()
        try:
            if task is not None and timeout > 0 and not self._only_waits:
                await asyncio.wait({task}, timeout=timeout)
        finally:
            try:
                if task is not None:
                    task.cancel()
                    if not await finish(task, within=CLEANUP_TIMEOUT):
                        _logger.warning("a renewal ignores its cancellation; close() does not wait for it any longer")
                for look in self._looks:
                    await finish(look, within=CLEANUP_TIMEOUT)
            finally:
                if self._renewer is not None:
                    await self._renewer.slot.close()


def _error_of(backoff: BackoffState, now: float) -> AuthError:
    return error_from(backoff.failure, retry_after=max(0.0, backoff.not_before - now))


def _denied(current: Current, request: RenewalRequest, retry_after: float) -> AuthError:
    """Return the error of a caller that cannot use the current token."""
    return rejected_too_soon(retry_after) if request.rejected else too_old_on_arrival(current.lifetime, retry_after)
