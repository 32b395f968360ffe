"""Serving and renewing inside one event loop: the one renewal task, the one timer, and those who wait."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeAlias

from apivideo_auth import events
from apivideo_auth._errors import InvalidResponseError, ManagerClosedError, TokenRejectedError, error_from
from apivideo_auth._failure import Failure
from apivideo_auth._policy import MIN_REJECTION_AGE, max_min_ttl
from apivideo_auth._record import Backoff, Busy, Throttled
from apivideo_auth._renewal import Account, Adopted, ClaimLapsed, Failed, Outcome, RefreshRejected, Renewed, renew
from apivideo_auth._state import Current, State
from apivideo_auth._token import Token

ROUNDS: Final = 8
"""Steps of one renewal task: a refused refresh token, claims that others hold. Four are the most that happen."""
TRIES: Final = 3
"""Renewals that a caller who is denied the current token waits for; the first may be made for another reason."""
MAX_TIMER_DELAY: Final = 60.0
"""The loop's time may stand still while the machine sleeps, so the timer looks at the clock this often."""
MIN_DELAY: Final = 0.001
"""Event loops round time, so that a wait for less may end before its moment, and then again and again."""

_Task: TypeAlias = asyncio.Task[Outcome | None]


class Refresher:
    """Serves the tokens of one `State` and sees to it that there is one, by one renewal at a time.

    `open_account` is called on first use, in the event loop. `emit` takes events.
    """

    def __init__(self, state: State, open_account: Callable[[], Account], emit: Callable[[events.Event], None]) -> None:
        self._state = state
        self._open_account = open_account
        self._emit = emit
        self._account: Account | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: _Task | None = None
        # Whether the task only looks at the record, or waits for another worker: close() need not wait for it.
        self._has_nothing_to_land = False
        self._waiting: set[asyncio.Future[None]] = set()

    def enter(self) -> Account:
        """Bind to the running loop and open the account; raise `ManagerClosedError` or `RuntimeError`."""
        self.check_loop()
        self._check_open()
        if self._account is None:
            self._loop = asyncio.get_running_loop()
            self._account = self._open_account()
        return self._account

    def check_loop(self) -> None:
        """Raise `RuntimeError` in any other event loop than that of the first use."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this TokenManager belongs to another event loop; make one in each loop")

    def _check_open(self) -> None:
        if self._state.closed:
            raise ManagerClosedError

    # Serving.

    async def serve(self, rejected: Token | None, min_ttl: float | None) -> Token:
        """Return a token that suits this caller, after a renewal if need be."""
        account, state = self.enter(), self._state
        if rejected is not None:
            state.rejections += 1
        tries = TRIES
        # Bounded: each round returns, raises, uses up one of `tries`, or brings the deadline of an outage nearer.
        while True:
            self._check_open()
            now = account.clock.monotonic()
            current = state.usable(now)
            if current is None:
                await self._first_token(account, rejected, now)
                continue
            if min_ttl is not None and min_ttl > max_min_ttl(current.lifetime):
                raise _too_much(current)
            if now >= current.moments.stale_from:
                self._renew_in_background(account, now)
            refused = rejected is not None and rejected.access_token == current.token.access_token
            if not refused and (min_ttl is None or current.moments.ends_at - now >= min_ttl):
                return current.token
            if not tries:
                raise _rejected(MIN_REJECTION_AGE) if refused else _too_late(current)
            tries -= 1
            await self._another_token(account, rejected if refused else None, now)

    async def _first_token(self, account: Account, rejected: Token | None, now: float) -> None:
        """Wait for one renewal or one pause, for a caller whom nothing can be served; raise if it is no use."""
        task, pause = self._in_flight(), self._state.paused(now)
        if task is None and pause is not None:
            give_up_at = pause.failing_since + account.policy.deadline
            if pause.failure.kind == "credentials" or pause.until > give_up_at:
                raise pause.error(now)
            await self._news(pause.until - now)
            return
        reason: events.Reason = "first" if self._state.current is None else "expired"
        await self._end_of(task or self._start(self._renew(account, rejected, reason)))

    async def _another_token(self, account: Account, refused: Token | None, now: float) -> None:
        """Wait for one renewal, for a caller who is denied the current token; raise if it brings none."""
        task, denied = self._in_flight(), self._state.current
        if task is None:
            pause = self._state.paused(now)
            if pause is not None:
                raise pause.error(now)
            if refused is not None and now < self._state.throttled_until:
                raise _rejected(self._state.throttled_until - now)
            reason: events.Reason = "min_ttl" if refused is None else "rejected"
            task = self._start(self._renew(account, refused, reason))
        outcome = await self._end_of(task)
        self._check_open()
        if self._state.current is not denied:
            return
        if isinstance(outcome, Failed):
            outcome = outcome.cooling
        if isinstance(outcome, Backoff):
            raise error_from(outcome.failure, retry_after=outcome.retry_after)
        if isinstance(outcome, Throttled) and refused is not None:
            raise _rejected(outcome.retry_after)

    def _in_flight(self) -> _Task | None:
        """Return the task that is under way. One that is done may not have been told of yet."""
        return self._task if self._task is not None and not self._task.done() else None

    # Waiting. Nobody awaits the renewal task itself, so that no caller's cancellation or timeout reaches it.

    async def _end_of(self, task: _Task) -> Outcome | None:
        while not (task.done() or self._state.closed):
            await self._news(None)
        return task.result() if task.done() and not task.cancelled() else None

    async def _news(self, wait: float | None) -> None:
        """Return when a renewal has ended, the manager closes, or `wait` seconds are over."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout(None if wait is None else max(wait, MIN_DELAY)):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    # Renewing.

    def _renew_in_background(self, account: Account, now: float) -> None:
        if self._in_flight() is None and self._state.paused(now) is None:
            self._start(self._renew(account, None, "stale"))

    def _start(self, work: Coroutine[Any, Any, Outcome | None]) -> _Task:
        """Start the one task, in a context of its own: it is_newer_than whoever came first."""
        # The class and not `create_task`: an eager task factory would run it before `_task` is set.
        self._has_nothing_to_land = False
        task: _Task = asyncio.Task(work, loop=self._loop, name="apivideo-auth-renewal", context=Context())
        self._task = task
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: _Task) -> None:
        if self._task is task:
            self._task = None
        self._arm()
        self._wake()

    async def _renew(  # noqa: C901  one branch for each outcome
        self, account: Account, refused: Token | None, reason: events.Reason
    ) -> Outcome:
        """Renew until there is an outcome: claims of others are waited for, a refused refresh token is replaced."""
        state, monotonic = self._state, account.clock.monotonic
        skip_throttle, began_at = False, monotonic()
        for _ in range(ROUNDS):
            if state.closed:
                return Busy(retry_after=0.0)
            outcome = await renew(account, state.wish(refused, monotonic(), skip_throttle=skip_throttle))
            match outcome:
                case ClaimLapsed():
                    skip_throttle = True
                    continue
                case Busy():
                    self._has_nothing_to_land = True
                    await account.slot.changed(max(outcome.retry_after, MIN_DELAY))
                    self._has_nothing_to_land = False
                    continue
                case RefreshRejected():
                    self._emit(events.RefreshTokenRejected(cause=outcome.failure.message))
                    skip_throttle = True
                    continue
                case Renewed():
                    self._emit(state.take_renewed(outcome, reason))
                case Adopted():
                    self._emit(state.take_adopted(outcome.token, outcome.asked_at))
                case Failed():
                    self._emit(state.note_failure(outcome, monotonic()))
                case Backoff():
                    state.note_pause(outcome, monotonic())
                case Throttled():
                    state.throttled_until = monotonic() + outcome.retry_after
            return outcome
        failure = Failure(kind="connection", message="other workers hold the renewal, and bring no token")
        crowded = Backoff(
            retry_after=account.policy.lease, failure=failure, failures=1, failing_for=monotonic() - began_at
        )
        state.note_pause(crowded, monotonic())
        return crowded

    async def _look(self, account: Account) -> None:
        """Take over what another worker has committed, without a call."""
        asked_at = account.clock.monotonic()
        shared = await account.slot.read()
        wish = self._state.wish(None, account.clock.monotonic())
        if shared is not None and shared.version != wish.seen and wish.should_adopt(shared):
            self._emit(self._state.take_adopted(shared, asked_at))

    def on_commit(self) -> None:
        """Look at the record, where another worker has committed."""
        if self._account is not None and self._in_flight() is None and not self._state.closed:
            self._start(self._look(self._account))
            self._has_nothing_to_land = True

    # The timer: while a token is usable it is renewed although nobody asks.

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._state.renewal_due()
        if due is None or self._in_flight() is not None or self._account is None or self._loop is None:
            return
        nap = min(max(MIN_DELAY, due - self._account.clock.monotonic()), MAX_TIMER_DELAY)
        self._timer = self._loop.call_at(self._loop.time() + nap, self._on_timer, self._account)

    def _on_timer(self, account: Account) -> None:
        self._timer = None
        # Asked anew: a task that has ended meanwhile may not have been told of yet.
        due, now = self._state.renewal_due(), account.clock.monotonic()
        if due is None or now < due:
            self._arm()
        elif self._state.usable(now) is not None:
            self._renew_in_background(account, now)

    # The end.

    async def close(self, *, patience: float) -> None:
        """Refuse every caller from now on, give a renewal in flight `patience` seconds, and leave nothing behind."""
        self._state.close()
        self._arm()
        self._wake()
        try:
            task = self._in_flight()
            if task is not None and patience > 0 and not self._has_nothing_to_land:
                await asyncio.wait({task}, timeout=patience)
        finally:
            task = self._in_flight()
            try:
                if task is not None:
                    task.cancel()
                    await asyncio.wait({task})
            finally:
                if self._account is not None:
                    await self._account.slot.close()


def _too_much(current: Current) -> ValueError:
    return ValueError(
        f"min_ttl is more than a token has: tokens live {current.lifetime:g} seconds; "
        f"ask for at most {max_min_ttl(current.lifetime):g}"
    )


def _too_late(current: Current) -> InvalidResponseError:
    return InvalidResponseError(
        f"tokens of {current.lifetime:g} seconds arrive with less life than min_ttl asks for: the endpoint is too slow"
    )


def _rejected(wait: float) -> TokenRejectedError:
    return TokenRejectedError(
        f"the API refused the token, and the next renewal for that reason may come in {wait:.1f} seconds",
        retry_after=wait,
    )
