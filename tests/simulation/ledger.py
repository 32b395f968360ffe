"""What the calls to the endpoints so far imply for the next call of an account: what may be sent, and when.

This is a second implementation of the design, from the calls alone: it knows neither the record nor the manager's
state.
Times are on the machine's monotonic clock.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from apivideo_auth import RefreshPolicy, events
from tests.simulation.service import Call

EPSILON = 1e-6
STEP_DELAY = 0.01
"""Seconds for some steps of the event loop: each may take time in the simulation."""
DAY = 86_400.0


def believed_lifetime(call: Call) -> float:
    """Return the lifetime of the token of a call, at most a day."""
    assert call.grant is not None
    return float(min(call.grant.lifetime, DAY))


def end_of_token(call: Call) -> float:
    """Return when the token of a call ends: its life counts from when the request was sent."""
    return call.started + believed_lifetime(call)


def min_leeway(policy: RefreshPolicy, lifetime: float) -> float:
    """Return the shortest leeway of tokens of this lifetime; the leeway depends on the jitter."""
    leeway = min(30.0, 0.05 * lifetime) if policy.leeway is None else policy.leeway
    return min(leeway, lifetime * (1 - policy.refresh_at) / 2)


def max_leeway(policy: RefreshPolicy, lifetime: float) -> float:
    """Return the longest leeway of tokens of this lifetime."""
    leeway = min(30.0, 0.05 * lifetime) if policy.leeway is None else policy.leeway
    return min(leeway, lifetime * (1 - policy.refresh_at + 0.05) / 2)


@define(eq=False)
class RejectionThrottle:
    """When 401s may cause renewals: 1, 2, 4 … 60 seconds apart, until tokens have lived for 60 s without a 401."""

    first_at: float | None = None
    unrejected_since: float = float("inf")
    _last_call: float = float("-inf")
    _interval: float = 0.0
    _has_another_reason: bool = False

    def on_rejection(self, now: float) -> None:
        """Note that the account's token was rejected."""
        if self.first_at is None:
            self.first_at = now

    def on_new_token(self, now: float, *, first: bool) -> None:
        """Note that the account has a new token, perhaps its first."""
        if first or (self.first_at is not None and not self._has_another_reason):
            self.unrejected_since = now
        self.first_at, self._has_another_reason = None, False

    def is_reset(self, now: float) -> bool:
        """Return whether tokens had lived long without a 401 before the latest one was rejected."""
        first = now if self.first_at is None else self.first_at
        return first - self.unrejected_since >= 60.0

    def on_call_with_another_reason(self, now: float) -> None:
        """Note a call that has another reason and may be made because of the 401 all the same.

        The record may know of the 401 or not.
        """
        self._has_another_reason = True
        if self.is_reset(now):
            self._interval = min(self._interval, 1.0)

    def on_call(self, now: float) -> str | None:
        """Note a call because of a 401; return what is wrong with it."""
        wrong, self._has_another_reason = None, False
        if self.is_reset(now):
            self._interval = 1.0
        else:
            if now < self._last_call + self._interval - EPSILON:
                wrong = f"comes {now - self._last_call:.3f} s after the last one, not {self._interval:g}"
            self._interval = min(60.0, max(1.0, 2 * self._interval))
        self._last_call = now
        return wrong


class PendingRequest(Protocol):
    """What a ledger reads of a caller's request for a token."""

    rejected_access: str | None
    min_ttl: float | None
    started: float
    ended: float | None


class CallingWorker(Protocol):
    """What a ledger reads of a worker."""

    name: str
    requests: list[PendingRequest]
    last_request_at: float

    def phase(self) -> str:
        """Return the phase in the manager's status."""
        ...

    def stalled_at(self) -> float:
        """Return when the machine last slept, or the loop was last blocked."""
        ...

    def remaining(self) -> float:
        """Return the remaining life of the manager's own token; minus infinity if it has none."""
        ...


@define(eq=False)
class Ledger:
    """The calls of one account, which one record governs.

    `store_is_faulty`: the store loses what it confirmed, so that little follows for the next call.
    """

    account: str
    policy: RefreshPolicy
    violation: Callable[[str], None]
    shared: bool
    store_is_faulty: bool = False
    in_flight: list[Call] = field(factory=list)
    latest: Call | None = None
    latest_at: float = float("-inf")
    last_end: float = float("-inf")
    refresh: str | None = None
    failures: int = 0
    failing_since: float = 0.0
    backoff_until: float = float("-inf")
    api_key_is_next: tuple[str, float] | None = None
    key_rejected_for: str | None = None
    throttle: RejectionThrottle = field(factory=RejectionThrottle)
    _superseded: set[int] = field(factory=set)
    _last_ended: dict[str, Call] = field(factory=dict)
    _first_failure_at: float = float("inf")
    _unreported: Call | None = None
    # When calls ended whose failure the record may count or not, by number: they were cancelled or overtaken.
    _uncertain: dict[int, float] = field(factory=dict)
    _last_failed: Call | None = None
    _before_latest: tuple[int, float, Call | None, float] = (0, 0.0, None, 0.0)
    _before_failure: tuple[int, float, float] = (0, 0.0, float("-inf"))

    def on_start(self, call: Call, worker: CallingWorker) -> None:
        """Check a call that begins."""
        now = call.started
        for other in self.in_flight:
            self._superseded.add(other.number)
            # A store that is slow may have granted the claim long before the call.
            lease = self.policy.attempt_timeout if self.store_is_faulty else self.policy.lease
            leased = now - other.started < lease - EPSILON
            if leased and (not self.store_is_faulty or other.process == call.process):
                self.violation(f"G1: call {call.number} begins while call {other.number} is in flight")
        self.in_flight.append(call)
        if self.store_is_faulty:
            return
        self._forget_overtaken_failure(call)
        if self._unreported is not None:
            self.violation(f"events: call {self._unreported.number} failed without a RenewalFailed event")
            self._unreported = None
        if now < self.backoff_until - EPSILON:
            early = self.backoff_until - now
            self.violation(f"G7: call {call.number} begins {early:.3f} s before the backoff is over")
        self._check_refresh_token(call, worker)
        self._check_cause(call, worker)
        self._check_time(call, worker)
        self.refresh = self.api_key_is_next = None

    def _forget_overtaken_failure(self, call: Call) -> None:
        """Undo the failure of a call that ended just now, after its lease: `call` may have claimed before that."""
        for failed in self._last_ended.values():
            assert failed.ended is not None
            was_late = failed.ended - failed.started >= self.policy.lease - EPSILON
            if was_late and call.started - failed.ended < STEP_DELAY and failed.grant is None:
                self._superseded.add(failed.number)
                self._uncertain[failed.number] = failed.ended
                if failed is self._last_failed:
                    self.failures, self.failing_since, self.backoff_until = self._before_failure
                    self._last_failed = self._unreported = None

    def _check_refresh_token(self, call: Call, worker: CallingWorker) -> None:
        if call.refresh == self.refresh:
            return
        if call.refresh is None:
            if self.latest is not None and worker.remaining() > end_of_token(self.latest) - call.started + 1e-5:
                return  # the worker takes its own token for the newer one
            self.violation(f"G1: call {call.number} sends the API key although {self.refresh} is unused")
        elif self.refresh is None:
            self.violation(f"G6: call {call.number} sends {call.refresh}, which is used up or of unknown outcome")
        else:
            self.violation(f"G6: call {call.number} sends {call.refresh} instead of {self.refresh}")

    def _check_cause(self, call: Call, worker: CallingWorker) -> None:
        """Check that a caller waits for the call, unless a token is usable and the key was not rejected."""
        recently = self.policy.lease * (8 if self.shared else 2) + 60
        is_waiting = any(request.ended is None for request in worker.requests)
        requested_at = call.started if is_waiting else worker.last_request_at
        # A renewal may have begun while the token was usable, and lasted over a sleep or a rejected refresh token.
        continues = call.started - self.last_end < EPSILON or call.started - worker.stalled_at() < recently
        if worker.phase() in {"empty", "expired"} and requested_at < call.started - recently and not continues:
            self.violation(f"G7: call {call.number} begins although no token is usable and no caller waits")
        if self.key_rejected_for == worker.name and requested_at < self.backoff_until - EPSILON:
            self.violation(f"G7: call {call.number} tries a rejected API key again although no caller waits")

    def _check_time(self, call: Call, worker: CallingWorker) -> None:
        """Check that a call while the account's token is fresh has a reason, and that the throttle permits it."""
        now, latest = call.started, self.latest
        before = self._last_ended.get(call.worker)
        if (
            before is not None
            and now - before.ended < STEP_DELAY
            and before.endpoint == "refresh"
            and before.outcome == "rejected"
        ):
            return  # the same renewal continues with the API key
        if latest is None:
            return
        assert latest.grant is not None
        if any(request.rejected_access == latest.grant.access for request in worker.requests):
            self.throttle.on_call_with_another_reason(now)
        if now >= self._stale_from(latest):
            return
        remaining = end_of_token(latest) - now
        if worker.remaining() >= remaining + 1e-3:
            return  # its own token lives longer, so it does not adopt the account's
        since = [request for request in worker.requests if request.ended is None or request.ended >= self.latest_at]
        if any(request.min_ttl is not None and request.min_ttl > remaining - STEP_DELAY for request in since):
            return
        if not any(request.rejected_access == latest.grant.access for request in since):
            self.violation(f"G7: call {call.number} begins although the token of call {latest.number} is fresh")
            return
        if now < self.latest_at + 1.0 - EPSILON:
            self.violation(f"G7: call {call.number} is caused by a 401 on a token younger than a second")
        if (wrong := self.throttle.on_call(now)) is not None:
            self.violation(f"G7: call {call.number}, caused by a 401, {wrong}")

    def on_rejection(self, access: str, now: float) -> None:
        """Note a rejected token. The record notes it unless it is backing off, or a renewal has another reason."""
        latest = self.latest
        if latest is None or latest.grant is None or latest.grant.access != access:
            return
        if not self.in_flight and self.backoff_until <= now < self._stale_from(latest):
            self.throttle.on_rejection(now)

    def _stale_from(self, call: Call) -> float:
        """Return the earliest time from which the token of a call may be stale."""
        return call.started + believed_lifetime(call) * (self.policy.refresh_at - 0.05) - STEP_DELAY

    def on_end(self, call: Call) -> None:
        """Note the outcome of a call."""
        self.in_flight.remove(call)
        assert call.ended is not None
        self.last_end = call.ended
        self._last_ended[call.worker] = call
        if call.number in self._superseded:
            # The record does not count its failure, and the manager may.
            self._first_failure_at = min(self._first_failure_at, call.ended)
            return
        if call.grant is not None:
            self.refresh = call.grant.refresh
            if end_of_token(call) - call.ended > min_leeway(self.policy, believed_lifetime(call)):
                self._set_latest(call)
            else:
                self._set_failed(call)
        elif call.outcome == "rejected" and call.endpoint == "refresh":
            self.refresh = None
            self.api_key_is_next = call.worker, call.ended
        elif call.outcome == "cancelled":
            self._uncertain[call.number] = call.ended
        else:
            self.refresh = call.refresh if call.outcome in {"not sent", "rate limited"} else None
            self._set_failed(call)

    def _set_latest(self, call: Call) -> None:
        assert call.ended is not None
        self._before_latest = self.failures, self.failing_since, self.latest, self.latest_at
        self.throttle.on_new_token(call.ended, first=self.latest is None)
        self.latest, self.latest_at = call, call.ended
        self.failures, self.backoff_until, self.key_rejected_for = 0, float("-inf"), None
        self._uncertain.clear()
        self._first_failure_at = float("inf")

    def _undo_latest(self, call: Call) -> None:
        """Undo `_set_latest`: the token arrived within its leeway, which depends on the jitter."""
        assert call.ended is not None
        if end_of_token(call) - call.ended > max_leeway(self.policy, believed_lifetime(call)):
            self.violation(f"G13: the token of call {call.number} counts as late, and it was not")
        self.failures, self.failing_since, self.latest, self.latest_at = self._before_latest

    def _set_failed(self, call: Call) -> None:
        assert call.ended is not None
        self._before_failure = self.failures, self.failing_since, self.backoff_until
        self.failures += 1
        if self.failures == 1:
            self.failing_since = call.ended
        self.key_rejected_for = call.worker if call.outcome == "rejected" else None
        self.backoff_until = call.ended + self._min_backoff(call)
        self._unreported = self._last_failed = call

    @staticmethod
    def _min_backoff(call: Call) -> float:
        if call.outcome == "rejected":
            return 60.0
        return min(call.retry_after or 0.0, 60.0)

    def on_renewal_failed(self, worker: str, event: events.RenewalFailed, *, own_failures: int) -> None:
        """Check what a manager reports about a failure, and take over its backoff."""
        call = self._last_ended.get(worker)
        if call is None or call.number in self._superseded or self.store_is_faulty:
            return
        if self.latest is call:
            self._undo_latest(call)
            self._set_failed(call)
        elif call.outcome == "cancelled":  # by the manager's own timeout
            self._uncertain.pop(call.number, None)
            self._set_failed(call)
        self._unreported = None
        assert call.ended is not None
        if self._uncertain and self.failures < event.failures <= self.failures + len(self._uncertain):
            self.failures, self.failing_since = event.failures, min(self._uncertain.values())
            self._uncertain.clear()
        # A worker remembers its own failures until it takes a token or sees another worker's commit.
        least, most = sorted((self.failures, own_failures))
        shortest, bound = self._min_backoff(call), min(0.5 * 2 ** min(event.failures - 1, 10), 30.0)
        if not least <= event.failures <= most:
            self.violation(f"G7: the event reports {event.failures} failures in a row, and there were {self.failures}")
        if not shortest - EPSILON <= event.next_try_in <= max(shortest, bound) + EPSILON:
            backoff = f"{event.next_try_in:.3f} s, not {shortest:g} to {bound:g}"
            self.violation(f"G7: the backoff after call {call.number} is {backoff}")
        self.backoff_until = call.ended + event.next_try_in

    def waiting_is_useless(self, now: float) -> bool:
        """Return whether the next try lies beyond the deadline, so that callers without a token need not wait."""
        if now >= self.backoff_until or not self.failures or self.store_is_faulty:
            return False
        return self.key_rejected_for is not None or self.backoff_until > self.failing_since + self.policy.deadline

    def may_give_up(self, now: float) -> bool:
        """Return the same, or whether a manager may think so that knows of an earlier failure."""
        if self.waiting_is_useless(now) or any(now < ended + 30.0 for ended in self._uncertain.values()):
            return True
        return now < self.backoff_until and self.backoff_until > self._first_failure_at + self.policy.deadline
