"""The guarantees, checked at every request for a token, every call, every event and every close of a simulation."""

import asyncio
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from attrs import define, field

from apivideo_auth import (
    AuthError,
    AuthResponseError,
    ManagerClosedError,
    Token,
    TokenRejectedError,
    TokenStoreError,
    events,
)
from tests.simulation.ledger import EPSILON, STEP_DELAY, believed_lifetime, end_of_token, max_leeway, min_leeway
from tests.simulation.service import SECRET, Call

if TYPE_CHECKING:
    from tests.simulation.world import Worker, World

STORE_DELAY = 1.0
"""Seconds that a slow store may add to the life of an adopted token: the time limits of a commit and of a read."""
AT_ONCE = 0.5
"""Seconds within which a manager has to do what it does at once, timers that are late aside."""


@define(eq=False)
class TokenRequest:
    """One call of `get_token` and its outcome. `started` and `ended` are on the machine's monotonic clock.

    - `usable`: the worker had a usable token at the start.
    - `own_token`: that token, for a caller that came with a rejected one.
    - `newer_token`: the call whose token the account's record had at the start, if it is newer than the rejected one.
    - `useless_to_wait`: the next try lay beyond the deadline.
    """

    number: int
    worker: "Worker"
    rejected: Token | None
    min_ttl: float | None
    started: float
    started_at_loop: float
    started_at_callback: int
    usable: bool
    own_token: Token | None
    newer_token: Call | None
    useless_to_wait: bool
    ended: float | None = None
    token: Token | None = None
    error: BaseException | None = None

    @property
    def rejected_access(self) -> str | None:
        """Return the access token that was rejected."""
        return None if self.rejected is None else str(self.rejected.access_token)

    @property
    def accepts_any_token(self) -> bool:
        """Return whether the caller set no condition."""
        return self.rejected is None and self.min_ttl is None

    @property
    def accepts_own_token(self) -> bool:
        """Return whether the worker's token suited the caller at the start, without a look at its life."""
        if self.min_ttl is not None or not self.usable:
            return False
        return self.rejected is None or (self.own_token is not None and access(self.own_token) != self.rejected_access)

    def __str__(self) -> str:
        what = "" if self.rejected is None else f" rejected={self.rejected!r}"
        what += "" if self.min_ttl is None else f" min_ttl={self.min_ttl:.3f}"
        return f"request {self.number} of {self.worker.name}{what}"


def access(token: Token) -> str:
    """Return the text of an access token, unmasked."""
    return str(token.access_token)


def text_of(error: BaseException) -> str:
    """Return an error as text, also if it cannot be printed."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  whatever it is, the error is unprintable
        return f"{type(error).__name__}, which cannot be printed"


@define(eq=False)
class Checks:
    """Watches one simulation and records each violation in `violations`."""

    world: "World"
    violations: list[str] = field(factory=list)
    requests: int = 0
    _by_access: dict[str, Call] = field(factory=dict)
    _sent: dict[str, list[Call]] = field(factory=dict)
    # Kept, so that no two errors have the same identity.
    _errors: dict[int, BaseException] = field(factory=dict)

    def violation(self, text: str) -> None:
        """Record a violation."""
        self.world.log("VIOLATION", text)
        self.violations.append(f"[{self.world.clock.monotonic():.3f}] {text}")

    # The calls.

    def on_call_start(self, call: Call) -> None:
        """Check a call that begins."""
        worker = self.world.workers[call.worker]
        self.world.log(call.worker, f"call {call.number} {call.endpoint} {call.refresh or ''} ({call.fault})")
        if worker.closed:
            self.violation(f"G11: {worker.name} calls after its close")
        if call.refresh is not None:
            self._check_single_use(call, call.refresh, worker)
        worker.ledger.on_start(call, worker)
        self.world.react_to_call(call)

    def _check_single_use(self, call: Call, refresh: str, worker: "Worker") -> None:
        """Check that a refresh token is sent once, unless it was provably not used.

        A store that was set back may give a used one to another worker, and not to one that knows a newer token.
        """
        issued_at = self._issued_at(refresh)
        set_back = worker.store_set_back_at() >= issued_at
        current = worker.current
        knows_newer = (
            current is not None
            and current.grant is not None
            and not current.is_private
            and current.grant.issued_at > issued_at
            and not worker.store_lost_claim_of(current)
        )
        for earlier in self._sent.setdefault(refresh, []):
            if earlier.outcome in {"not sent", "rate limited"}:
                continue
            if not set_back or earlier.process == call.process or knows_newer:
                how = f"call {earlier.number} ({earlier.outcome})"
                self.violation(f"G6: {refresh} is sent again in call {call.number}, after {how}")
        self._sent[refresh].append(call)

    def _issued_at(self, refresh: str) -> float:
        return self.world.service.issued_at(refresh)

    def on_call_end(self, call: Call) -> None:
        """Note the outcome of a call."""
        self.world.log(call.worker, f"call {call.number} ended: {call.outcome}")
        if call.grant is not None:
            self._by_access[call.grant.access] = self.world.workers[call.worker].last_granted = call
        self.world.workers[call.worker].ledger.on_end(call)

    def on_event(self, worker: "Worker", event: events.Event) -> None:
        """Check an event of a manager."""
        self.world.log(worker.name, event)
        self.check_no_secrets(repr(event))
        if isinstance(event, events.StoreDegraded | events.StoreRecovered):
            worker.is_degraded = isinstance(event, events.StoreDegraded)
        if isinstance(event, events.RenewalFailed):
            worker.failing_since = min(worker.failing_since, self.world.clock.monotonic())
            worker.ledger.on_renewal_failed(worker.name, event, own_failures=worker.own_failures + 1)
            worker.own_failures = event.failures
        elif isinstance(event, events.TokenRenewed | events.TokenAdopted):
            now = worker.last_taken_at = self.world.clock.monotonic()
            worker.own_failures, worker.failing_since = 0, float("inf")
            worker.stalled_before_adoption = now - worker.stalled_at() < worker.policy.lease
            # Which token was adopted is known once it is given to a caller.
            worker.current = None
            if isinstance(event, events.TokenRenewed) and worker.last_granted is not None:
                worker.current = worker.last_granted
                worker.current.is_private = worker.is_degraded

    # The callers.

    def on_request(self, worker: "Worker", rejected: Token | None, min_ttl: float | None) -> TokenRequest:
        """Note a call of `get_token`."""
        world, now = self.world, self.world.clock.monotonic()
        usable = worker.phase() in {"fresh", "stale"}
        self.requests += 1
        request = TokenRequest(
            number=self.requests,
            worker=worker,
            rejected=rejected,
            min_ttl=min_ttl,
            started=now,
            started_at_loop=world.loop.time(),
            started_at_callback=world.loop.callbacks_run,
            usable=usable,
            own_token=None if rejected is None else worker.current_token(),
            newer_token=None if rejected is None else self._newer_token(worker, rejected, usable=usable),
            useless_to_wait=not worker.ledger.in_flight and worker.ledger.waiting_is_useless(now + 1.0),
        )
        own = request.own_token
        if rejected is not None and request.usable and own is not None and access(own) == access(rejected):
            # A manager with another token gives that one, and the record does not hear of the 401.
            worker.ledger.on_rejection(access(rejected), now)
        world.log(worker.name, f"{request} begins")
        worker.requests.append(request)
        worker.last_request_at = now
        return request

    def _newer_token(self, worker: "Worker", rejected: Token, *, usable: bool) -> Call | None:
        """Return the call whose token the account's record has, if it is usable and newer than the rejected one."""
        ledger, now = worker.ledger, self.world.clock.monotonic()
        latest = ledger.latest
        if latest is None or ledger.store_is_faulty or ledger.latest_at > now - AT_ONCE:
            return None
        if latest.number <= self._by_access[access(rejected)].number:
            return None
        if end_of_token(latest) - now <= max_leeway(worker.policy, believed_lifetime(latest)) + AT_ONCE:
            return None
        if not usable and now - worker.stalled_at() < worker.policy.lease:
            # It waits for another worker's lease, and the loop's timers do not count a sleep.
            return None
        is_calling = any(call.worker == worker.name for call in ledger.in_flight)
        return None if is_calling else latest

    def on_answer(self, request: TokenRequest) -> None:
        """Check the answer to a request."""
        worker, loop = request.worker, self.world.loop
        request.ended = self.world.clock.monotonic()
        worker.last_request_at = request.ended
        # A caller that was cancelled may leave a renewal behind; any other caller has seen its end.
        if not isinstance(request.error, asyncio.CancelledError):
            worker.requests.remove(request)
        worker.requests[:] = [r for r in worker.requests if r.ended is None or r.ended >= worker.ledger.latest_at]
        answer: Any = request.token if request.error is None else text_of(request.error)
        self.world.log(worker.name, f"{request} got {answer}")
        if isinstance(request.error, asyncio.CancelledError):
            caller = asyncio.current_task()
            if caller is not None and not caller.cancelling():
                self.violation(f"G5: {request} is cancelled, and nobody cancelled it")
            return
        waited = loop.time() - request.started_at_loop
        self._check_wait(request, waited)
        if worker.closing and not isinstance(request.error, ManagerClosedError):
            self.violation(f"G11: {request} got {answer} after close was called")
        elif request.error is not None:
            self._check_error(request, request.error, waited=waited > 0)
        elif request.token is not None:
            self._check_token(request, request.token)

    def _check_wait(self, request: TokenRequest, waited: float) -> None:
        worker, delay = request.worker, self.world.allowed_delay(request.started_at_loop)
        bound = worker.policy.deadline + (3 if request.accepts_any_token else 6) * worker.policy.lease
        if worker.ledger.store_is_faulty:
            bound *= 4  # a store that fails forgets when an outage began
        if waited > bound + delay:
            self.violation(f"waiting: {request} took {waited:.3f} s")
        if worker.closing:
            return
        if request.useless_to_wait and waited > AT_ONCE + delay:
            self.violation(f"G7: {request} waited {waited:.3f} s although the next try lay beyond the deadline")
        if request.accepts_own_token and self.world.loop.callbacks_run != request.started_at_callback:
            self.violation(f"G3: {request} waited although a token was usable")
        if request.newer_token is not None and (request.error is not None or waited > AT_ONCE + delay):
            newer = f"call {request.newer_token.number}"
            self.violation(f"newer token: {request} is not given the newer token of {newer} at once")

    def _check_token(self, request: TokenRequest, token: Token) -> None:
        now, worker = self.world.clock.monotonic(), request.worker
        self.check_no_secrets(repr(token), str(token))
        call = self._by_access.get(access(token))
        if call is None or call.grant is None:
            self.violation(f"{request} got a token that no call returned")
            return
        worker.current = call
        left = end_of_token(call) - now
        too_long, too_short = self._allowed_errors(worker, call)
        if left + too_long < min_leeway(worker.policy, believed_lifetime(call)) - EPSILON:
            self.violation(f"G2: {request} got a token that ends in {left:.6f} s")
        if not -too_short - STEP_DELAY <= token.remaining() - max(0.0, left) <= too_long + 1e-3:
            self.violation(f"G2: {token} has {token.remaining():.3f} s left by its own account, and {left:.3f} s")
        if not call.grant.revoked and not too_long and not self.world.service.is_valid(call.grant):
            self.violation(f"G2: {request} got a token that has ended")
        if access(token) == request.rejected_access:
            self.violation(f"G7: {request} got the token that it rejected")
        if request.min_ttl is not None and left + too_long < request.min_ttl - EPSILON:
            self.violation(f"{request} got a token that ends in {left:.3f} s")
        if request.accepts_any_token:
            self._check_renewed_in_time(request, call)
            self._check_shared(request, call)

    def _allowed_errors(self, worker: "Worker", call: Call) -> tuple[float, float]:
        """Return by how much a token may claim to live too long, and too short, as the store was slow to answer."""
        too_long = too_short = 0.0
        if worker.ledger.store_is_faulty:
            too_long = STORE_DELAY + self.world.allowed_delay_since(call.started)
            too_short = too_long + worker.policy.lease  # how long it took to offer a private token to the store
            if self.world.clock.last_sleep_at > call.started:
                too_long = too_short = math.inf  # the machine slept while the store was asked, perhaps
        if worker.store_set_back_at() > call.started:
            too_short = math.inf  # the claim of an offer, which was set back, counts from its first time
        if call.worker != worker.name and worker.stalled_before_adoption:
            too_short = math.inf  # it stalled between its question and the store's answer, perhaps
        return too_long, too_short

    def _check_renewed_in_time(self, request: TokenRequest, call: Call) -> None:
        """Check that a stale token is renewed, unless the account backs off, or the manager knows of a rejected key."""
        worker, now = request.worker, self.world.clock.monotonic()
        ledger = worker.ledger
        stale_from = call.started + believed_lifetime(call) * worker.policy.refresh_at
        due = max(stale_from, ledger.backoff_until, ledger.last_end, worker.last_taken_at)
        delay = 0.5 + self.world.allowed_delay_since(call.started) + (ledger.policy.lease + 1 if ledger.shared else 0)
        if self.world.clock.last_sleep_at > call.started:
            due, delay = max(due, self.world.clock.last_sleep_at), delay + 61.0
        if ledger.in_flight or worker.knows_that_the_key_is_rejected() or ledger.store_is_faulty:
            return
        if now > due + delay:
            self.violation(f"G3: the token of {worker.name} should have been renewed {now - due:.3f} s ago")

    def _check_shared(self, request: TokenRequest, call: Call) -> None:
        """Check that workers adopt a longer-lived token soon after a sibling committed it, if the store pushes."""
        worker, now = request.worker, self.world.clock.monotonic()
        ledger = worker.ledger
        latest = ledger.latest
        if latest is None or latest is call or not worker.store_pushes() or ledger.store_is_faulty:
            return
        if any(other.worker == worker.name for other in ledger.in_flight):
            return
        late = now - max(ledger.latest_at, worker.opened_at) - self.world.allowed_delay_since(ledger.latest_at)
        if late > AT_ONCE and end_of_token(latest) > end_of_token(call) + EPSILON:
            newer = f"the token of call {latest.number}, committed {now - ledger.latest_at:.3f} s ago"
            self.violation(f"G12: {request} got the token of call {call.number}, not {newer}")

    def _check_error(self, request: TokenRequest, error: BaseException, *, waited: bool) -> None:
        worker, ledger, what = request.worker, request.worker.ledger, f"{request} got {type(error).__name__}"
        for wrong in self._faults_of(error, request):
            self.violation(f"{what}, {wrong}")
        if isinstance(error, ManagerClosedError):
            late = self.world.loop.time() - worker.closing_at - self.world.allowed_delay(request.started_at_loop)
            if not worker.closing:
                self.violation(f"G11: {what}, and nobody closes the manager")
            elif late > AT_ONCE and waited:
                self.violation(f"G11: {what}, long after close was called")
            return
        current = worker.current_token()
        if current is not None and self._suits(request, current, error):
            self.violation(f"G4: {what} although {current} is usable for it")
        if not ledger.store_is_faulty and isinstance(error, AuthError):
            self._check_error_is_necessary(request, what)

    def _faults_of(self, error: BaseException, request: TokenRequest) -> Iterator[str]:
        """Yield what is wrong with an error that a caller got."""
        if not isinstance(error, AuthError) and not (isinstance(error, ValueError) and request.min_ttl is not None):
            yield "G13: which get_token does not raise"
        if isinstance(error, TokenStoreError) or (isinstance(error, TokenRejectedError) and request.rejected is None):
            yield "G13: which is not for this caller"
        if error.__cause__ is not None or error.__context__ is not None:
            yield "G1: which is chained"
        if id(error) in self._errors:
            yield "G1: which another caller got before"
        self._errors[id(error)] = error
        try:
            self.check_no_secrets(repr(error), str(error), repr(error.__dict__))
        except Exception:  # noqa: BLE001  whatever it is, the error is unprintable
            yield "G13: which cannot be printed"
        if isinstance(error, AuthError):
            yield from _mistyped_fields(error)

    def _check_error_is_necessary(self, request: TokenRequest, what: str) -> None:
        """Check that there is no token, and that waiting is of no use."""
        ledger, now = request.worker.ledger, self.world.clock.monotonic()
        if ledger.api_key_is_next == (request.worker.name, now):
            self.violation(f"G6: {what}, and the API key was not tried after the refresh token")
        if not request.accepts_any_token:
            return
        latest = ledger.latest
        if latest is not None and ledger.latest_at < now - 0.5:
            leeway = max_leeway(request.worker.policy, believed_lifetime(latest))
            left = end_of_token(latest) - now
            if left > leeway and request.worker.remaining() < left - 1e-5:
                self.violation(f"G12: {what}, and the account has the token of call {latest.number}")
        has_waited = now + 30.0 > request.worker.failing_since + request.worker.policy.deadline
        # A blocked loop may report a failure late.
        late = STEP_DELAY + self.world.allowed_delay_since(ledger.last_end)
        if not ledger.in_flight and not ledger.may_give_up(now - late) and not has_waited:
            self.violation(f"G7: {what} before the deadline of the outage")

    def _suits(self, request: TokenRequest, token: Token, error: BaseException) -> bool:
        if access(token) == request.rejected_access:
            return False
        if request.min_ttl is None:
            return True
        call = self._by_access[access(token)]
        if isinstance(error, ValueError):
            assert call.ended is not None
            on_arrival = end_of_token(call) - call.ended - 0.01 - self.world.allowed_delay_since(call.started)
            longest = min(0.9 * believed_lifetime(call), on_arrival)
            return request.min_ttl <= longest and not request.worker.ledger.store_is_faulty
        _, too_short = self._allowed_errors(request.worker, call)
        return end_of_token(call) - self.world.clock.monotonic() - too_short >= request.min_ttl

    def on_cancelled(self, worker: "Worker", caller: "asyncio.Task[None]", cancelled_at: float) -> None:
        """Check how a caller ended that was cancelled; `cancelled_at` is the loop's time."""
        if not caller.cancelled():
            self.violation(f"G5: a caller of {worker.name} was cancelled and went on")
        if self.world.loop.time() - cancelled_at > AT_ONCE + self.world.allowed_delay(cancelled_at):
            self.violation(f"G5: a caller of {worker.name} was cancelled and did not end at once")

    # The end.

    def on_closed(self, worker: "Worker", called_at: float, *, cancelled: bool) -> None:
        """Check a `close` that has ended; `cancelled` if it, or another close of this manager, was cancelled."""
        self.world.log(worker.name, "close was cancelled" if cancelled else "closed")
        waited = self.world.loop.time() - called_at
        # A store that hangs may hold up an offer that is under way, the end of a claim, and its own close.
        time_limit = worker.policy.close_timeout + (3.0 if worker.ledger.store_is_faulty else 0.5)
        if waited > time_limit + self.world.allowed_delay(called_at):
            self.violation(f"G11: the close of {worker.name} took {waited:.3f} s")
        in_flight = [call for call in worker.ledger.in_flight if call.worker == worker.name]
        if in_flight and not cancelled:
            self.violation(f"G11: {worker.name} is closed, and call {in_flight[0].number} goes on")
        if worker.phase() != "closed":
            self.violation(f"G11: {worker.name} is closed, and its phase is {worker.phase()}")

    def check_leftovers(self) -> None:
        """Check that nothing is left when every manager is closed and every caller has ended."""
        loop = self.world.loop
        tasks = [*asyncio.all_tasks(loop) - {asyncio.current_task(loop)}]
        for left in (*tasks, *loop.pending_timers(), *loop.pending_futures()):
            self.violation(f"G11: left behind: {left!r}")
        for call in self.world.service.calls:
            if call.ended is None:
                self.violation(f"G11: call {call.number} never ended")

    def check_no_secrets(self, *texts: str) -> None:
        """Check texts that people see."""
        for text in texts:
            if SECRET in text:
                self.violation(f"G9: a secret is shown: {text}")


def _mistyped_fields(error: AuthError) -> Iterator[str]:
    """Yield the fields of an error whose type or value is not the documented one."""
    wait = getattr(error, "retry_after", None)
    if not (wait is None or (isinstance(wait, int | float) and not isinstance(wait, bool) and wait >= 0)):
        yield f"G13: whose retry_after is {wait!r}"
    if isinstance(error, AuthResponseError):
        for name, types in (("status", int), ("type", str), ("title", str), ("name", str)):
            value = getattr(error, name, None)
            if value is not None and not isinstance(value, types):
                yield f"G13: whose {name} is {value!r}"
