"""What follows for an account from the calls that the service has seen: what may be sent next, and when.

It is a second telling of the design, by the calls alone: it knows neither the record nor the manager's state.
Moments are those of the machine's monotonic clock.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from apivideo_auth import RefreshPolicy, events
from tests.simulation.calls import Call
from tests.simulation.lives import believed, end_of, least_leeway, most_leeway
from tests.simulation.refusals import JUST, Refusals


class Wanting(Protocol):
    """What a ledger reads of a caller's question."""

    rejected_access: str | None
    min_ttl: float | None
    started: float
    ended: float | None


class Asker(Protocol):
    """What a ledger reads of a worker."""

    name: str
    wants: list[Wanting]
    last_wanted_at: float

    def phase(self) -> str:
        """Return the phase that the manager's status tells."""
        ...

    def stalled_at(self) -> float:
        """Return when the machine slept last, or the loop was blocked."""
        ...

    def remaining(self) -> float:
        """Return how long the manager's own token lives by its status; minus infinity if it has none."""
        ...


@define(eq=False)
class Ledger:
    """The calls of one account, which one record governs.

    `relaxed`: the store loses what it confirmed, so that nothing follows for the next call.
    """

    account: str
    policy: RefreshPolicy
    complain: Callable[[str], None]
    shared: bool
    relaxed: bool = False
    in_flight: list[Call] = field(factory=list)
    latest: Call | None = None
    latest_at: float = float("-inf")
    last_end: float = float("-inf")
    refresh: str | None = None
    failures: int = 0
    failing_since: float = 0.0
    pause_until: float = float("-inf")
    waits_for_key: tuple[str, float] | None = None
    refused_for: str | None = None
    refusals: Refusals = field(factory=Refusals)
    _superseded: set[int] = field(factory=set)
    _last_ended: dict[str, Call] = field(factory=dict)
    _unexplained: Call | None = None
    _before: tuple[int, float, Call | None, float] = (0, 0.0, None, 0.0)

    def started(self, call: Call, worker: Asker) -> None:
        """Judge a call that begins."""
        now = call.started
        for other in self.in_flight:
            self._superseded.add(other.number)
            if now - other.started < self.policy.lease - JUST and (not self.relaxed or other.worker == call.worker):
                self.complain(f"G1: call {call.number} begins while call {other.number} is in flight")
        self.in_flight.append(call)
        if self.relaxed:
            return
        if self._unexplained is not None:
            self.complain(f"events: call {self._unexplained.number} failed, and no RenewalFailed told it")
            self._unexplained = None
        if now < self.pause_until - JUST:
            self.complain(f"G7: call {call.number} begins {self.pause_until - now:.3f} s before the pause is over")
        self._judge_refresh(call, worker)
        self._judge_reason(call, worker)
        self._judge_time(call, worker)
        self.refresh = self.waits_for_key = None

    def _judge_refresh(self, call: Call, worker: Asker) -> None:
        if call.refresh == self.refresh:
            return
        if call.refresh is None:
            if self.latest is not None and worker.remaining() > end_of(self.latest) - call.started:
                return  # it takes its own token for the newer one
            self.complain(f"G1: call {call.number} sends the API key although {self.refresh} is unused")
        elif self.refresh is None:
            self.complain(f"G6: call {call.number} sends {call.refresh}, which is used up or of unknown fate")
        else:
            self.complain(f"G6: call {call.number} sends {call.refresh} instead of {self.refresh}")

    def _judge_reason(self, call: Call, worker: Asker) -> None:
        """A call has a caller behind it, unless a token is usable and the key was not refused."""
        reach = self.policy.lease * (8 if self.shared else 2) + 60
        wanted_at = call.started if any(ask.ended is None for ask in worker.wants) else worker.last_wanted_at
        # A renewal may have begun while the token was usable, and lasted over a sleep or a refused refresh token.
        going_on = call.started - self.last_end < JUST or call.started - worker.stalled_at() < reach
        if worker.phase() in {"empty", "expired"} and wanted_at < call.started - reach and not going_on:
            self.complain(f"G7: call {call.number} begins although no token is usable and nobody asks")
        if self.refused_for == worker.name and wanted_at < self.pause_until - JUST:
            self.complain(f"G7: call {call.number} tries a refused API key again although nobody asks")

    def _judge_time(self, call: Call, worker: Asker) -> None:
        """A call while the account's token is fresh has a reason, and 401s are one only now and then."""
        now, latest = call.started, self.latest
        before = self._last_ended.get(call.worker)
        if before is not None and before.ended == now and before.endpoint == "refresh" and before.outcome == "refused":
            return  # the same renewal goes on with the API key
        if latest is None:
            return
        assert latest.grant is not None
        if any(ask.rejected_access == latest.grant.access for ask in worker.wants):
            self.refusals.maybe_called(now)
        if now >= self._stale_from(latest):
            return
        remaining = end_of(latest) - now
        own = worker.remaining()
        if own >= remaining + 1e-3:
            return  # its own token is said to live longer, so that this one is none to adopt
        since = [ask for ask in worker.wants if ask.ended is None or ask.ended >= self.latest_at]
        if any(ask.min_ttl is not None and ask.min_ttl > remaining - JUST for ask in since):
            return
        if not any(ask.rejected_access == latest.grant.access for ask in since):
            self.complain(f"G7: call {call.number} begins although the token of call {latest.number} is fresh")
            return
        if now < self.latest_at + 1.0 - JUST:
            self.complain(f"G7: call {call.number} is made for a 401 on a token younger than a second")
        if (wrong := self.refusals.called(now)) is not None:
            self.complain(f"G7: call {call.number} for a 401 {wrong}")

    def refused(self, access: str, now: float) -> None:
        """Note a refused token; the record hears of it unless there is a pause, a call, or another reason for one."""
        latest = self.latest
        if latest is None or latest.grant is None or latest.grant.access != access:
            return
        if not self.in_flight and self.pause_until <= now < self._stale_from(latest):
            self.refusals.refused(now)

    def _stale_from(self, call: Call) -> float:
        """Return the earliest moment at which the token of a call may be stale."""
        return call.started + believed(call) * (self.policy.refresh_at - 0.05) - JUST

    def ended(self, call: Call) -> None:
        """Note what a call brought."""
        self.in_flight.remove(call)
        assert call.ended is not None
        self.last_end = call.ended
        self._last_ended[call.worker] = call
        if call.number in self._superseded:
            return
        if call.grant is not None:
            self.refresh = call.grant.refresh
            if end_of(call) - call.ended > least_leeway(self.policy, believed(call)):
                self._taken(call)
            else:
                self._failed(call)
        elif call.outcome == "refused" and call.endpoint == "refresh":
            self.refresh = None
            self.waits_for_key = call.worker, call.ended
        elif call.outcome != "cancelled":
            self.refresh = call.refresh if call.outcome in {"unsent", "limited"} else None
            self._failed(call)

    def _taken(self, call: Call) -> None:
        assert call.ended is not None
        self._before = self.failures, self.failing_since, self.latest, self.latest_at
        self.refusals.replaced(call.ended, first=self.latest is None)
        self.latest, self.latest_at = call, call.ended
        self.failures, self.pause_until, self.refused_for = 0, float("-inf"), None

    def _taken_back(self, call: Call) -> None:
        """Undo `_taken`: the token came so late that its leeway, which is drawn, had begun."""
        assert call.ended is not None
        if end_of(call) - call.ended > most_leeway(self.policy, believed(call)):
            self.complain(f"G13: the token of call {call.number} counts as late, and it was not")
        self.failures, self.failing_since, self.latest, self.latest_at = self._before

    def _failed(self, call: Call) -> None:
        assert call.ended is not None
        self.failures += 1
        if self.failures == 1:
            self.failing_since = call.ended
        self.refused_for = call.worker if call.outcome == "refused" else None
        self.pause_until = call.ended + self._wish(call)
        self._unexplained = call

    @staticmethod
    def _wish(call: Call) -> float:
        if call.outcome == "refused":
            return 60.0
        return min(call.retry_after or 0.0, 60.0)

    def told(self, worker: str, event: events.RenewalFailed) -> None:
        """Judge what a manager tells of a failure, and take over how long it pauses."""
        call = self._last_ended.get(worker)
        if call is None or call.number in self._superseded or self.relaxed:
            return
        if self.latest is call:
            self._taken_back(call)
            self._failed(call)
        elif call.outcome == "cancelled":  # by the manager's own timeout
            self._failed(call)
        self._unexplained = None
        assert call.ended is not None
        wish, bound = self._wish(call), min(0.5 * 2 ** min(self.failures - 1, 10), 30.0)
        if event.failures != self.failures:
            self.complain(f"G7: {event.failures} failures in a row are told, and there were {self.failures}")
        if not wish - JUST <= event.next_try_in <= max(wish, bound) + JUST:
            text = f"G7: the pause after call {call.number} is {event.next_try_in:.3f} s, not {wish:g} to {bound:g}"
            self.complain(text)
        self.pause_until = call.ended + event.next_try_in

    def hopeless(self, now: float) -> bool:
        """Say whether the next try lies beyond the deadline, so that callers without a token need not wait."""
        if now >= self.pause_until or not self.failures or self.relaxed:
            return False
        return self.refused_for is not None or self.pause_until > self.failing_since + self.policy.deadline
