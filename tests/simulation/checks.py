"""The guarantees, checked at every question, every call and every event of a simulation."""

import asyncio
from typing import TYPE_CHECKING, Any

from attrs import define, field

from apivideo_auth import (
    AuthError,
    ManagerClosedError,
    Token,
    events,
)
from tests.simulation.callers import Ask
from tests.simulation.calls import SECRET, Call
from tests.simulation.errors import Errors
from tests.simulation.lives import believed, end_of, least_leeway, most_leeway
from tests.simulation.refusals import JUST

if TYPE_CHECKING:
    from tests.simulation.world import Worker, World


STORE_TRANSIT = 1.0
"""What a slow store may add to the life of a token that is adopted from it: the budget of a commit and of a read."""


@define(eq=False)
class Checks:
    """Watches one simulation and notes each violation in `violations`."""

    world: "World"
    violations: list[str] = field(factory=list)
    asks: int = 0
    _by_access: dict[str, Call] = field(factory=dict)
    _sent: dict[str, list[Call]] = field(factory=dict)
    _errors: Errors = field(factory=Errors)

    def complain(self, text: str) -> None:
        """Note a violation."""
        self.world.note("VIOLATION", text)
        self.violations.append(f"[{self.world.clock.monotonic():.3f}] {text}")

    # The service's side.

    def call_started(self, call: Call) -> None:
        """Judge a call that begins."""
        worker = self.world.workers[call.worker]
        self.world.note(call.worker, f"call {call.number} {call.endpoint} {call.refresh or ''} ({call.fault})")
        if worker.closed:
            self.complain(f"G11: {worker.name} calls after its close")
        if call.refresh is not None:
            for earlier in self._sent.setdefault(call.refresh, []):
                if earlier.outcome not in {"unsent", "limited"} and not worker.ledger.relaxed:
                    what = f"call {earlier.number} ({earlier.outcome})"
                    self.complain(f"G6: {call.refresh} goes out again in call {call.number}, after {what}")
            self._sent[call.refresh].append(call)
        worker.ledger.started(call, worker)
        self.world.react_to_call(call)

    def call_ended(self, call: Call) -> None:
        """Note what a call brought."""
        self.world.note(call.worker, f"call {call.number} ended: {call.outcome}")
        if call.grant is not None:
            self._by_access[call.grant.access] = call
        self.world.workers[call.worker].ledger.ended(call)

    def event(self, worker: "Worker", event: events.Event) -> None:
        """Judge what a manager tells."""
        self.world.note(worker.name, event)
        self.shown(repr(event))
        if isinstance(event, events.RenewalFailed):
            worker.ledger.told(worker.name, event)
        elif isinstance(event, events.TokenRenewed | events.TokenAdopted):
            worker.last_taken_at = self.world.clock.monotonic()

    # The callers' side.

    def asked(self, worker: "Worker", rejected: Token | None, min_ttl: float | None) -> Ask:
        """Note a question."""
        world, now = self.world, self.world.clock.monotonic()
        self.asks += 1
        this = Ask(
            number=self.asks,
            worker=worker,
            rejected=rejected,
            min_ttl=min_ttl,
            started=now,
            started_at_loop=world.loop.time(),
            started_step=world.loop.steps,
            serveable=worker.phase() in {"fresh", "stale"},
            hopeless=not worker.ledger.in_flight and worker.ledger.hopeless(now + 1.0),
        )
        if rejected is not None and this.serveable:
            worker.ledger.refused(str(rejected.access_token), now)
        world.note(worker.name, f"{this} begins")
        worker.wants.append(this)
        worker.last_wanted_at = now
        return this

    def answered(self, ask: Ask) -> None:
        """Judge an answer."""
        worker, loop = ask.worker, self.world.loop
        ask.ended = self.world.clock.monotonic()
        worker.last_wanted_at = ask.ended
        # A caller that was cancelled may leave a renewal behind; any other has seen the end of it.
        if not isinstance(ask.error, asyncio.CancelledError):
            worker.wants.remove(ask)
        worker.wants[:] = [a for a in worker.wants if a.ended is None or a.ended >= worker.ledger.latest_at]
        what: Any = ask.token if ask.error is None else f"{type(ask.error).__name__}: {ask.error}"
        self.world.note(worker.name, f"{ask} got {what}")
        if isinstance(ask.error, asyncio.CancelledError):
            caller = asyncio.current_task()
            if caller is not None and not caller.cancelling():
                self.complain(f"G5: {ask} is cancelled, and nobody has cancelled it")
            return
        waited = loop.time() - ask.started_at_loop
        self._judge_wait(ask, waited)
        if worker.closing and not isinstance(ask.error, ManagerClosedError):
            self.complain(f"G11: {ask} got {what} after close was called")
        elif ask.error is not None:
            self._judge_error(ask, ask.error, waited=waited > 0)
        elif ask.token is not None:
            self._judge_token(ask, ask.token)

    def _judge_wait(self, ask: Ask, waited: float) -> None:
        worker, slack = ask.worker, self.world.slack(ask.started)
        bound = worker.policy.deadline + (3 if ask.plain else 6) * worker.policy.lease
        if worker.ledger.relaxed:
            bound *= 4  # a store that fails forgets when an outage began
        if waited > bound + slack:
            self.complain(f"waiting: {ask} took {waited:.3f} s")
        if worker.closing:
            return
        if ask.hopeless and waited > 0.5 + slack:
            self.complain(f"G7: {ask} waited {waited:.3f} s although the next try lay beyond the deadline")
        if ask.plain and ask.serveable and self.world.loop.steps != ask.started_step:
            self.complain(f"G3: {ask} waited although a token was usable")

    def _judge_token(self, ask: Ask, token: Token) -> None:
        now, access = self.world.clock.monotonic(), str(token.access_token)
        self.shown(repr(token), str(token))
        call = self._by_access.get(access)
        if call is None or call.grant is None:
            self.complain(f"{ask} got a token that no call brought")
            return
        left, stale_news = end_of(call) - now, 0.0
        if ask.worker.ledger.relaxed:
            stale_news = STORE_TRANSIT + self.world.slack(call.started)
            if self.world.clock.last_sleep_at > call.started:
                stale_news = float("inf")  # while the store was asked, perhaps
        if left + stale_news < least_leeway(ask.worker.policy, believed(call)) - JUST:
            self.complain(f"G2: {ask} got a token that ends in {left:.6f} s")
        if abs(token.remaining() - max(0.0, left)) > 1e-3 + stale_news:
            self.complain(f"G2: {token} says it lives {token.remaining():.3f} s, and it is {left:.3f}")
        if not call.grant.revoked and not stale_news and not self.world.service.is_valid(call.grant):
            self.complain(f"G2: {ask} got a token that is over")
        if access == ask.rejected_access:
            self.complain(f"G7: {ask} got the token that it rejected")
        if ask.min_ttl is not None and left + stale_news < ask.min_ttl - JUST:
            self.complain(f"{ask} got a token that ends in {left:.3f} s")
        if ask.plain:
            self._judge_staleness(ask, call)

    def _judge_staleness(self, ask: Ask, call: Call) -> None:
        """A stale token is being renewed, unless the account pauses, or the manager knows that the key was refused."""
        worker, now = ask.worker, self.world.clock.monotonic()
        ledger = worker.ledger
        due = max(call.started + believed(call) * worker.policy.refresh_at, ledger.pause_until, ledger.last_end)
        due = max(due, worker.last_taken_at)
        slack = 0.5 + self.world.slack(call.started) + (ledger.policy.lease + 1 if ledger.shared else 0)
        if self.world.clock.last_sleep_at > call.started:
            due, slack = max(due, self.world.clock.last_sleep_at), slack + 61.0
        if now > due + slack and not ledger.in_flight and not worker.knows_of_refusal() and not ledger.relaxed:
            self.complain(f"G3: the token of {worker.name} should have been renewed {now - due:.3f} s ago")

    def _judge_error(self, ask: Ask, error: BaseException, *, waited: bool) -> None:
        worker, ledger, what = ask.worker, ask.worker.ledger, f"{ask} got {type(error).__name__}"
        self.shown(repr(error), str(error), repr(error.__dict__))
        for wrong in self._errors.wrong_with(error, rejected=ask.rejected is not None, min_ttl=ask.min_ttl is not None):
            self.complain(f"{what}, {wrong}")
        if isinstance(error, ManagerClosedError):
            if not worker.closing:
                self.complain(f"G11: {what}, and nobody closes it")
            elif self.world.loop.time() - worker.closing_at > 0.5 + self.world.slack(ask.started) and waited:
                self.complain(f"G11: {what}, long after close was called")
            return
        current = worker.peek()
        if current is not None and self._suits(ask, current, error):
            self.complain(f"G4: {what} although {current} is usable for it")
        if not ledger.relaxed and isinstance(error, AuthError):
            self._judge_reason(ask, what)

    def _judge_reason(self, ask: Ask, what: str) -> None:
        """An error has to be: there is no token, and waiting is no use."""
        ledger, now = ask.worker.ledger, self.world.clock.monotonic()
        if ledger.waits_for_key == (ask.worker.name, now):
            self.complain(f"G6: {what}, and the API key was not tried for the refresh token")
        if not ask.plain:
            return
        latest = ledger.latest
        if latest is not None and ledger.latest_at < now - 0.5:
            leeway = most_leeway(ask.worker.policy, believed(latest))
            if now < end_of(latest) - leeway and ask.worker.remaining() < end_of(latest) - now:
                self.complain(f"G12: {what}, and the account has the token of call {latest.number}")
        if not ledger.in_flight and not ledger.hopeless(now):
            self.complain(f"G7: {what} before the deadline of the outage")

    def _suits(self, ask: Ask, token: Token, error: BaseException) -> bool:
        if str(token.access_token) == ask.rejected_access:
            return False
        if ask.min_ttl is None:
            return True
        call = self._by_access[str(token.access_token)]
        if isinstance(error, ValueError):
            assert call.ended is not None
            brought = end_of(call) - call.ended - 0.01 - self.world.slack(call.started)
            return ask.min_ttl <= min(0.9 * believed(call), brought) and not ask.worker.ledger.relaxed
        return end_of(call) - self.world.clock.monotonic() >= ask.min_ttl

    def cancelled(self, worker: "Worker", caller: "asyncio.Task[None]", asked_at: tuple[float, float]) -> None:
        """Judge how a caller ended that was cancelled; `asked_at` by the loop's time and by the clock."""
        if not caller.cancelled():
            self.complain(f"G5: a caller of {worker.name} was cancelled and went on")
        if self.world.loop.time() - asked_at[0] > 0.5 + self.world.slack(asked_at[1]):
            self.complain(f"G5: a caller of {worker.name} was cancelled and lingered")

    def shown(self, *texts: str) -> None:
        """Judge texts that people see."""
        for text in texts:
            if SECRET in text:
                self.complain(f"G9: a secret is shown: {text}")
