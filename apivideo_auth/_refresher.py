"""The one renewal task, the one timer, and the callers that wait."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from attrs import evolve

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._errors import (
    AuthError,
    InvalidResponseError,
    ManagerClosedError,
    TokenRejectedError,
    error_from,
    failure_from,
)
from apivideo_auth._failure import Failure
from apivideo_auth._policy import MIN_REJECTION_AGE, backoff_after, max_min_ttl, moments
from apivideo_auth._record import Backoff, Busy, RenewalRequest, SharedToken, Throttled
from apivideo_auth._renewal import Adopted, ClaimLapsed, Failed, Outcome, RefreshRejected, Renewed, Renewer
from apivideo_auth._state import BackoffState, Current, State
from apivideo_auth._tasks import finish, start
from apivideo_auth._token import Token

MAX_STEPS: Final = 8
"""Claims of one renewal task: a rejected refresh token and other workers' claims lead to another one."""
MAX_ATTEMPTS: Final = 3
"""Renewals that a caller who is denied the current token waits for; another caller may have caused the first one."""
MAX_TIMER_DELAY: Final = 60.0
"""The loop's time may stand still while the machine sleeps, so the timer reads the clock this often."""
MIN_DELAY: Final = 0.001
"""Event loops round time: a shorter wait may end before its moment, again and again."""
WATCH_INTERVAL: Final = 0.05
"""Seconds between looks at the record, at least, while a caller waits for a backoff to end."""
CLEANING_TIMEOUT: Final = 1.5
"""Seconds that a cancelled renewal has to end its claim in a store."""

_Task: TypeAlias = asyncio.Task[Outcome | None]

_logger = logging.getLogger("apivideo_auth")


class Refresher:
    """Serves the tokens of one `State`, and renews them: one renewal at a time.

    `open_renewer` is called in the event loop, on first use. `emit` takes events.

    Nobody awaits the renewal task itself, so no caller's cancellation or timeout reaches it.
    """

    def __init__(self, state: State, open_renewer: Callable[[], Renewer], emit: Callable[[events.Event], None]) -> None:
        self._state = state
        self._open_renewer = open_renewer
        self._emit = emit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renewer: Renewer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: _Task | None = None
        # Whether the task only looks at the record or waits for another worker, so that close() can cancel it at once.
        self._only_waits = False
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the manager has been used in an event loop, and was not closed."""
        return self._renewer is not None and not self._state.closed

    def bind(self) -> Renewer:
        """Bind to the running event loop; raise `ManagerClosedError` or `RuntimeError`."""
        self.check_loop()
        if self._state.closed:
            raise ManagerClosedError
        if self._renewer is None:
            self._loop = asyncio.get_running_loop()
            self._renewer = self._open_renewer()
            if self._state.current is not None:
                self._schedule()
        return self._renewer

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
        self._waiters.clear()

    # Serving.

    async def get(self, rejected: Token | None, min_ttl: float | None) -> Token:
        """Return a token that suits this caller, after a renewal if need be."""
        renewer, state = self.bind(), self._state
        if rejected is not None:
            state.rejections += 1
        attempts = 0
        # Bounded: each round returns, raises, uses up an attempt, or lasts until a backoff is over.
        while True:
            if state.closed:
                raise ManagerClosedError
            now = renewer.clock.monotonic()
            current = state.usable(now)
            if current is None:
                await self._wait_for_token(renewer, now)
                continue
            if min_ttl is not None and min_ttl > max_min_ttl(current.lifetime):
                raise _too_much(current)
            if state.phase(now) == "stale":
                self._renew_in_background(renewer, now)
            is_rejected = rejected is not None and rejected.access_token == current.token.access_token
            if not is_rejected and (min_ttl is None or current.moments.ends_at - now >= min_ttl):
                return current.token
            if attempts == MAX_ATTEMPTS:
                raise _rejected(MIN_REJECTION_AGE) if is_rejected else _too_short(current, MIN_REJECTION_AGE)
            attempts += 1
            await self._wait_for_replacement(renewer, current, None if is_rejected else min_ttl, now)

    async def _wait_for_token(self, renewer: Renewer, now: float) -> None:
        """Wait for one renewal, or until a backoff is over; raise if that cannot help."""
        state, task, backoff = self._state, self._in_flight(), self._state.active_backoff(now)
        if task is not None:
            await self._join(task)
        elif backoff is None:
            reason: events.Reason = "first" if state.current is None else "expired"
            outcome = await self._join(self._start(self._renew(renewer, reason, state.request(now))))
            if isinstance(outcome, Throttled):
                raise _rejected(outcome.retry_after)
        elif not backoff.exceeds(renewer.policy.deadline):
            # Another worker may bring a token before the backoff is over.
            await self._join(self._start(self._watch(renewer, backoff.until - now)))
        else:
            if renewer.is_shared:
                await self._join(self._start(self._look(renewer, state.request(now))))
                now = renewer.clock.monotonic()
            if not state.closed and state.usable(now) is None:
                raise _error_of(backoff, now)

    async def _wait_for_replacement(self, renewer: Renewer, denied: Current, min_ttl: float | None, now: float) -> None:
        """Wait for another token than `denied`, which was rejected, or lives shorter than `min_ttl`.

        Raises if no other token can be had.
        """
        state, task = self._state, self._in_flight()
        if task is None:
            request = state.request(now, rejected=min_ttl is None, min_ttl=min_ttl or 0.0)
            reason: events.Reason = "rejected" if min_ttl is None else "min_ttl"
            backing_off = state.active_backoff(now) is not None
            task = self._start(self._look(renewer, request) if backing_off else self._renew(renewer, reason, request))
        outcome = await self._join(task)
        if state.closed or state.current is not denied:
            return
        if isinstance(outcome, Throttled):
            raise _rejected(outcome.retry_after) if min_ttl is None else _too_short(denied, outcome.retry_after)
        now = renewer.clock.monotonic()
        backoff = state.backoff
        if backoff is not None:
            raise _error_of(backoff, now)

    # The one task.

    def _renew_in_background(self, renewer: Renewer, now: float) -> None:
        if self._in_flight() is None and self._state.active_backoff(now) is None:
            self._start(self._renew(renewer, "stale", self._state.request(now)))

    def _in_flight(self) -> _Task | None:
        return self._task if self._task is not None and not self._task.done() else None

    def _start(self, work: Coroutine[Any, Any, Outcome | None]) -> _Task:
        self._only_waits = False
        self._task = start(work, name="apivideo-auth-renewal", on_done=self._on_task_done)
        return self._task

    async def _join(self, task: _Task) -> Outcome | None:
        """Wait until a task has ended; return its outcome.

        Returns early, with `None`, if the manager is closed or has adopted a token meanwhile.
        """
        current = self._state.current
        while not (task.done() or self._state.closed or self._state.current is not current):
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
        if self._in_flight() is None:
            self._task = None
        self._schedule()
        self._wake()

    async def _renew(  # noqa: C901, PLR0911  one branch for each outcome
        self, renewer: Renewer, reason: events.Reason, request: RenewalRequest
    ) -> Outcome | None:
        """Renew until there is an outcome: wait for other workers' claims, and replace a rejected refresh token."""
        state, monotonic = self._state, renewer.clock.monotonic
        known = state.current
        for _ in range(MAX_STEPS):
            if state.closed:
                return None
            outcome = await self._renew_once(renewer, request)
            match outcome:
                case Busy():
                    self._only_waits = True
                    await renewer.slot.changed(max(outcome.retry_after, MIN_DELAY))
                    self._only_waits = False
                    if state.current is not known:
                        return None
                    update = state.request(monotonic(), rejected=request.rejected)
                    request = evolve(update, throttled=request.throttled and update.access is not None)
                case ClaimLapsed():
                    request = evolve(request, throttled=False)
                case RefreshRejected():
                    self._emit(events.RefreshTokenRejected(cause=outcome.failure.message))
                    request = evolve(request, throttled=False)
                case Renewed():
                    self._take_renewed(renewer, outcome, reason)
                    return outcome
                case Adopted():
                    self._adopt(renewer, outcome.token, outcome.asked_at)
                    return outcome
                case Failed():
                    self._note_failure(outcome, reason, monotonic())
                    return outcome
                case Backoff():
                    state.back_off(outcome, monotonic())
                    return outcome
                case Throttled():
                    return outcome
        failure = Failure(kind="connection", message="other workers keep the right to renew, and bring no token")
        return self._back_off(renewer, failure, renewer.policy.lease)

    async def _renew_once(self, renewer: Renewer, request: RenewalRequest) -> Outcome:
        try:
            return await renewer.renew(request)
        except Exception as error:  # noqa: BLE001  whatever a stand-in raises, callers get an error of their own
            failure = failure_from(error)
            _logger.warning("a renewal failed unexpectedly: %s", failure.message)
            wait = backoff_after(failure, failures=request.failures + 1, jitter=renewer.jitter())
            return self._back_off(renewer, failure, wait)

    def _back_off(self, renewer: Renewer, failure: Failure, retry_after: float) -> Backoff:
        """Keep a backoff that is not in the record."""
        backoff = Backoff(retry_after=retry_after, failure=failure, failures=1, failing_for=0.0)
        self._state.back_off(backoff, renewer.clock.monotonic())
        return backoff

    async def _look(self, renewer: Renewer, request: RenewalRequest) -> None:
        """Adopt the token that another worker has committed, if it is better; make no call."""
        self._only_waits = True
        asked_at = renewer.clock.monotonic()
        token = await renewer.slot.read()
        if token is not None and token.version != request.version and request.should_adopt(token):
            self._adopt(renewer, token, asked_at)

    async def _watch(self, renewer: Renewer, timeout: float) -> None:
        """Wait until another worker has committed, for `timeout` seconds at most, and look at the record."""
        self._only_waits = True
        state, give_up_at = self._state, renewer.clock.monotonic() + timeout
        await renewer.slot.changed(max(timeout, MIN_DELAY))
        await self._look(renewer, state.request(renewer.clock.monotonic()))
        now = renewer.clock.monotonic()
        if state.usable(now) is None and now < give_up_at:
            # `changed` may return early, and again and again.
            await asyncio.sleep(min(give_up_at - now, WATCH_INTERVAL))

    def on_commit(self, token: SharedToken, asked_at: float) -> None:
        """Adopt the token that another worker has committed, if it is better."""
        renewer = self._renewer
        if renewer is not None and not self._state.closed:
            request = self._state.request(renewer.clock.monotonic())
            if token.version != request.version:
                # The endpoints work again, even if this token is not better than the current one.
                self._state.backoff = None
                if request.should_adopt(token):
                    self._adopt(renewer, token, asked_at)
                self._schedule()
                self._wake()

    def _take_renewed(self, renewer: Renewer, renewed: Renewed, reason: events.Reason) -> None:
        state = self._state
        state.renewals += 1
        token = self._take(renewer, renewed.access, renewed.lifetime, renewed.sent_at, renewed.version)
        state.best_ttl = renewed.lifetime - (renewer.clock.monotonic() - renewed.sent_at)
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

    def _adopt(self, renewer: Renewer, shared: SharedToken, asked_at: float) -> None:
        """Serve another worker's token. Its remaining life counts from the moment when the store was asked."""
        current = self._state.current
        if current is not None and current.version == shared.version:
            # Another look at the record was faster.
            return
        begins_at = asked_at - (shared.lifetime - shared.remaining)
        token = self._take(renewer, shared.access.decode(), shared.lifetime, begins_at, shared.version)
        self._emit(
            events.TokenAdopted(generation=token.generation, expires_at=token.expires_at, remaining=shared.remaining)
        )

    def _take(self, renewer: Renewer, access: str, lifetime: float, begins_at: float, version: str) -> Token:
        when = moments(renewer.policy, begins_at=begins_at, lifetime=lifetime, jitter=renewer.jitter())
        expires_at = utc_of(renewer.clock, when.ends_at)
        token = Token(access, expires_at, self._state.generation + 1, clock=renewer.clock, ends_at=when.ends_at)
        self._state.take(token, when, lifetime=lifetime, version=version)
        return token

    def _note_failure(self, failed: Failed, reason: events.Reason, now: float) -> None:
        state, backoff = self._state, failed.backoff
        state.failures += 1
        state.back_off(backoff, now, committed_at=failed.committed_at)
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

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._state.renewal_due()
        if due is None or self._renewer is None or self._loop is None or self._in_flight() is not None:
            return
        delay = min(max(MIN_DELAY, due - self._renewer.clock.monotonic()), MAX_TIMER_DELAY)
        self._timer = self._loop.call_at(self._loop.time() + delay, self._on_timer, context=Context())

    def _on_timer(self) -> None:
        self._timer = None
        if self._renewer is None:
            return
        due, now = self._state.renewal_due(), self._renewer.clock.monotonic()
        if due is None or now < due:
            self._schedule()
        elif self._state.usable(now) is not None:
            self._renew_in_background(self._renewer, now)

    # The end.

    async def close(self, *, timeout: float) -> None:
        """Reject every caller from now on, give a renewal in flight `timeout` seconds, and leave nothing behind."""
        self._state.close()
        self._schedule()
        self._wake()
        task = self._task
        try:
            if task is not None and not task.done() and timeout > 0 and not self._only_waits:
                await asyncio.wait({task}, timeout=timeout)
        finally:
            try:
                if task is not None and not task.done():
                    task.cancel()
                    if not await finish(task, within=CLEANING_TIMEOUT):
                        _logger.warning("a renewal ignores its cancellation; close() does not wait for it any longer")
            finally:
                if self._renewer is not None:
                    await self._renewer.slot.close()


def utc_of(clock: Clock, moment: float) -> datetime:
    """Return a moment of the monotonic clock as a date, by the wall clock of now."""
    return datetime.fromtimestamp(clock.utc() + (moment - clock.monotonic()), UTC)


def _error_of(backoff: BackoffState, now: float) -> AuthError:
    return error_from(backoff.failure, retry_after=max(0.0, backoff.until - now))


def _too_much(current: Current) -> ValueError:
    return ValueError(
        f"min_ttl is too long: tokens live for {current.lifetime:g} seconds, "
        f"and min_ttl is at most 90 % of that, {max_min_ttl(current.lifetime):g} seconds"
    )


def _too_short(current: Current, retry_after: float) -> InvalidResponseError:
    return InvalidResponseError(
        f"tokens of {current.lifetime:g} seconds arrive with less life than min_ttl: the endpoint is too slow",
        retry_after=retry_after,
    )


def _rejected(retry_after: float) -> TokenRejectedError:
    return TokenRejectedError(
        f"the API rejected the token, and the next renewal for that reason may come in {retry_after:.1f} seconds",
        retry_after=retry_after,
    )
