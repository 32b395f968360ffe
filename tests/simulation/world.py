"""Everything that one simulation consists of: the loop, the service, the workers, and those who watch."""

import random
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from apivideo_auth import RefreshPolicy, Token, TokenManager, TokenStore
from tests.simulation.callers import Ask, Plan, send
from tests.simulation.calls import API_KEY, KEY_REFUSED, Call, Modes
from tests.simulation.checks import Checks
from tests.simulation.endings import judge_close
from tests.simulation.ledger import Ledger
from tests.simulation.loop import SimulatedClock, VirtualLoop
from tests.simulation.service import Service

if TYPE_CHECKING:
    import asyncio


@define(eq=False)
class Worker:
    """One manager, and what the checks know of it. `closing` from the call of `close`, `closed` from its return."""

    name: str
    manager: TokenManager
    policy: RefreshPolicy
    ledger: Ledger
    store: TokenStore | None
    closing: bool = False
    closing_at: float = float("inf")
    closed: bool = False
    closes_cancelled: int = 0
    wants: list[Ask] = field(factory=list)
    last_wanted_at: float = float("-inf")
    last_taken_at: float = float("-inf")

    def phase(self) -> str:
        """Return the phase that the manager's status tells."""
        return self.manager.status().phase

    def knows_of_refusal(self) -> bool:
        """Say whether the last that the manager has heard is that the API key was refused."""
        return KEY_REFUSED in (self.manager.status().last_error or "")

    def stalled_at(self) -> float:
        """Return when the machine slept last, or the loop was blocked."""
        clock = self.manager._clock
        return max(clock.last_sleep_at, clock.last_block_at)

    def remaining(self) -> float:
        """Return how long the manager's own token lives; minus infinity if it has none."""
        current = self.manager._state.current
        return float("-inf") if current is None else current.token.remaining()

    def peek(self) -> Token | None:
        """Return the token that any caller would be given at once."""
        if self.phase() not in {"fresh", "stale"}:
            return None
        asking = self.manager.get_token()
        try:
            asking.send(None)
        except StopIteration as answer:
            return answer.value
        asking.close()
        return None


@define(eq=False)
class World:
    """One simulation. `trace` holds what happened, as values; `lines` makes text of it."""

    loop: VirtualLoop
    clock: SimulatedClock
    rng: random.Random
    modes: Modes
    policy: RefreshPolicy
    store_faults: bool = False
    reaction: Callable[["World", Call], None] | None = None
    workers: dict[str, Worker] = field(factory=dict)
    callers: dict["asyncio.Task[Any]", None] = field(factory=dict)
    trace: list[tuple[float, str, Any]] = field(factory=list)
    service: Service = field(init=False)
    checks: Checks = field(init=False)
    _ledgers: dict[str, Ledger] = field(factory=dict)
    _latest: float = field(init=False)
    _blocks: list[tuple[float, float]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.checks = Checks(self)
        self._latest = self.loop.manners.latest
        self.service = Service(
            clock=self.clock,
            rng=random.Random(self.rng.random()),
            modes=self.modes,
            on_start=self.checked(self.checks.call_started),
            on_end=self.checked(self.checks.call_ended),
        )

    def checked(self, check: Callable[[Call], None]) -> Callable[[Call], None]:
        """Return a check whose own mistakes are violations, and not failures of the service."""

        def run(call: Call) -> None:
            try:
                check(call)
            except Exception:  # noqa: BLE001  whatever it is, it is no answer of the service
                self.checks.complain(f"the check itself failed: {traceback.format_exc()}")

        return run

    def note(self, who: str, what: Any) -> None:
        """Write down what happened."""
        self.trace.append((self.clock.monotonic(), who, what))

    def lines(self) -> list[str]:
        """Return the trace as text."""
        return [f"{at:14.6f}  {who:10} {what}" for at, who, what in self.trace]

    def slack(self, since: float) -> float:
        """Return how late things may be that were begun at `since`: for late timers, and for a blocked loop."""
        return 4 * self._latest + sum(seconds for at, seconds in self._blocks if at >= since)

    def block(self, seconds: float) -> None:
        """Block the loop."""
        self.note("loop", f"is blocked for {seconds:.3f} s")
        self.loop.block(seconds)
        self.clock.last_block_at = self.clock.monotonic()
        self._blocks.append((self.clock.monotonic(), seconds))

    def open(self, account: str, store: TokenStore | None) -> Worker:
        """Make a manager of an account; those of a shared `store` share the account."""
        name = f"worker {len(self.workers) + 1}"
        ledger = self._ledgers.get(account)
        if ledger is None:
            ledger = self._ledgers[account] = Ledger(
                account=account,
                policy=self.policy,
                complain=self.checks.complain,
                shared=store is not None,
                relaxed=self.store_faults and store is not None,
            )
        manager = TokenManager(
            API_KEY,
            base_url=f"https://{account}.example",
            store=store,
            policy=self.policy,
            api=self.service.endpoints(name, account),
            clock=self.clock,
        )
        worker = self.workers[name] = Worker(name, manager, self.policy, ledger, store)
        manager.subscribe(lambda event: self.checks.event(worker, event))
        self.note(name, f"opened for {account}")
        return worker

    def open_workers(self) -> list[Worker]:
        """Return the workers that nobody has begun to close."""
        return [worker for worker in self.workers.values() if not worker.closing]

    def send(self, worker: Worker, plan: Plan) -> None:
        """Start a caller."""
        send(self, worker, plan)

    async def close(self, worker: Worker) -> None:
        """Close a manager."""
        self.note(worker.name, "close is called")
        begun = self.loop.time()
        worker.closing, worker.closing_at = True, min(worker.closing_at, begun)
        cancelled = True
        try:
            await worker.manager.close()
            cancelled, worker.closed = False, True
        finally:
            worker.closes_cancelled += cancelled
            judge_close(self, worker, self.loop.time() - begun, cancelled=worker.closes_cancelled > 0)

    def start_close(self, worker: Worker, *, cancel_after: float | None) -> None:
        """Close a manager in a task of its own, which may be cancelled."""
        task = self.loop.create_task(self.close(worker), name=f"close of {worker.name}")
        self.callers[task] = None
        task.add_done_callback(lambda done: self.callers.pop(done, None))
        if cancel_after is not None:
            self.loop.call_later(cancel_after, task.cancel)

    def react_to_call(self, call: Call) -> None:
        """Let the scenario do something while a call is in flight."""
        if self.reaction is not None:
            self.reaction(self, call)

    def shown_by_managers(self) -> None:
        """Have everything that managers show judged."""
        for worker in self.workers.values():
            manager = worker.manager
            self.checks.shown(repr(manager), str(manager), repr(manager.status()), repr(manager._state))
