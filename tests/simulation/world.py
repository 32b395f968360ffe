"""One simulation: the loop, the service, the workers and their callers, and the checks that watch them."""

import asyncio
import random
import traceback
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from apivideo_auth import AuthError, RefreshPolicy, Token, TokenManager
from tests.simulation.checks import STORE_DELAY, Checks, TokenRequest
from tests.simulation.ledger import Ledger
from tests.simulation.loop import SimulatedClock, VirtualLoop
from tests.simulation.service import API_KEY, KEY_REJECTED, Call, FaultyService, ServiceSettings
from tests.simulation.stores import ProcessStore, SharedStore


@frozen(kw_only=True)
class CallerPlan:
    """What a caller does.

    - `timeout`: seconds until its own timeout. `cancel_after`, `cancel_after_iterations`: seconds, or iterations of the
      loop, until it is cancelled.
    - `requests`: the number of requests that it makes with the token, `interval` seconds apart; after a 401 it asks for
      another token.
    - `moves`: it asks another worker of the account each time, as clients behind a load balancer do.
    """

    min_ttl: float | None = None
    timeout: float | None = None
    cancel_after: float | None = None
    cancel_after_iterations: int | None = None
    requests: int = 0
    interval: float = 0.1
    moves: bool = False


@define(eq=False)
class Worker:
    """One manager, and what the checks know about it.

    - `closing` from the call of `close`, `closed` from its return.
    - `current`: the call whose token it is known to have taken last; `last_granted`: its own last call that succeeded.
    """

    name: str
    manager: TokenManager
    policy: RefreshPolicy
    ledger: Ledger
    store: ProcessStore | None
    process: str
    clock: SimulatedClock
    opened_at: float
    closing: bool = False
    closing_at: float = float("inf")
    closed: bool = False
    cancelled_closes: int = 0
    requests: list[TokenRequest] = field(factory=list)
    last_request_at: float = float("-inf")
    last_taken_at: float = float("-inf")
    is_degraded: bool = False
    stalled_before_adoption: bool = False
    current: Call | None = None
    last_granted: Call | None = None
    # Its own failures since it took a token; it remembers them although the record may not.
    own_failures: int = 0
    failing_since: float = float("inf")

    def phase(self) -> str:
        """Return the phase in the manager's status."""
        return self.manager.status().phase

    def knows_that_the_key_is_rejected(self) -> bool:
        """Return whether the manager's last error is a rejected API key."""
        return KEY_REJECTED in (self.manager.status().last_error or "")

    def stalled_at(self) -> float:
        """Return when the machine last slept, or the loop was last blocked."""
        return max(self.clock.last_sleep_at, self.clock.last_block_at)

    def store_pushes(self) -> bool:
        """Return whether other workers' commits are pushed to this one."""
        return self.store is not None and self.store.shared.pushes

    def store_set_back_at(self) -> float:
        """Return when the store was last set back to an earlier record; minus infinity if never."""
        return float("-inf") if self.store is None else max(self.store.shared.set_backs, default=float("-inf"))

    def store_lost_claim_of(self, call: Call) -> bool:
        """Return whether the store lost a claim between the claim and the commit, so that the commit did not count."""
        ended = call.started if call.ended is None else call.ended
        times = [] if self.store is None else [*self.store.shared.set_backs, *self.store.shared.losses]
        return any(call.started - STORE_DELAY < at < ended + STORE_DELAY for at in times)

    def remaining(self) -> float:
        """Return the remaining life of the manager's own token, to 10 µs; minus infinity if it has none."""
        expires_at = self.manager.status().expires_at
        return float("-inf") if expires_at is None else expires_at.timestamp() - self.clock.utc()

    def current_token(self) -> Token | None:
        """Return the token that every caller is given at once."""
        if self.phase() not in {"fresh", "stale"}:
            return None
        coroutine = self.manager.get_token()
        try:
            coroutine.send(None)
        except StopIteration as answer:
            return answer.value
        coroutine.close()
        return None


@define(eq=False)
class World:
    """One simulation. `trace` records what happened as values; `lines` turns it into text.

    `same_process`: the probability that a manager is opened in the process of another one.
    """

    loop: VirtualLoop
    clock: SimulatedClock
    rng: random.Random
    settings: ServiceSettings
    policy: RefreshPolicy
    stores_fail: bool = False
    callers_move: bool = False
    options: random.Random = field(factory=lambda: random.Random(0))
    same_process: float = 0.0
    on_call: Callable[["World", Call], None] | None = None
    workers: dict[str, Worker] = field(factory=dict)
    tasks: dict["asyncio.Task[Any]", None] = field(factory=dict)
    trace: list[tuple[float, str, Any]] = field(factory=list)
    service: FaultyService = field(init=False)
    checks: Checks = field(init=False)
    _ledgers: dict[str, Ledger] = field(factory=dict)
    _max_delay: float = field(init=False)
    # The blocks of the loop: when they ended, by the loop's time and by the clock, and how long they were.
    _blocks: list[tuple[float, float, float]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.checks = Checks(self)
        self._max_delay = self.loop.behavior.max_delay
        self.service = FaultyService(
            clock=self.clock,
            rng=random.Random(self.rng.random()),
            settings=self.settings,
            on_start=self._guarded(self.checks.on_call_start),
            on_end=self._guarded(self.checks.on_call_end),
        )

    def _guarded(self, check: Callable[[Call], None]) -> Callable[[Call], None]:
        """Return a check whose own exceptions are violations, and not failures of the service."""

        def run(call: Call) -> None:
            try:
                check(call)
            except Exception:  # noqa: BLE001  the service must not answer with it
                self.checks.violation(f"the check itself failed: {traceback.format_exc()}")

        return run

    def log(self, who: str, what: Any) -> None:
        """Record what happened."""
        self.trace.append((self.clock.monotonic(), who, what))

    def lines(self) -> list[str]:
        """Return the trace as text."""
        return [f"{at:14.6f}  {who:10} {what}" for at, who, what in self.trace]

    def allowed_delay(self, since: float) -> float:
        """Return how late things may be that began at this time of the loop: by late timers and a blocked loop."""
        return 4 * self._max_delay + sum(seconds for at, _, seconds in self._blocks if at >= since)

    def allowed_delay_since(self, since: float) -> float:
        """Return the same for things that began at this time of the clock."""
        return 4 * self._max_delay + sum(seconds for _, at, seconds in self._blocks if at >= since)

    def block_loop(self, seconds: float) -> None:
        """Block the loop."""
        self.log("loop", f"is blocked for {seconds:.3f} s")
        self.loop.block(seconds)
        self.clock.last_block_at = self.clock.monotonic()
        self._blocks.append((self.loop.time(), self.clock.last_block_at, seconds))

    def open(self, account: str, shared: SharedStore | None) -> Worker:
        """Create a manager for an account, in a process of its own or in that of another worker."""
        name = f"worker {len(self.workers) + 1}"
        process, store = f"process of {name}", None
        if shared is not None:
            siblings = [worker for worker in self.open_workers() if worker.store and worker.store.shared is shared]
            if siblings and self.options.random() < self.same_process:
                sibling = self.options.choice(siblings)
                process, store = sibling.process, sibling.store
            else:
                store = ProcessStore(shared)
        ledger = self._ledgers.get(account)
        if ledger is None:
            ledger = self._ledgers[account] = Ledger(
                account=account,
                policy=self.policy,
                violation=self.checks.violation,
                shared=store is not None,
                store_is_faulty=self.stores_fail and store is not None,
            )
        manager = TokenManager(
            API_KEY,
            base_url=f"https://{account}.example",
            store=store,
            policy=self.policy,
            api=self.service.endpoints(name, process),
            clock=self.clock,
        )
        worker = Worker(name, manager, self.policy, ledger, store, process, self.clock, self.clock.monotonic())
        self.workers[name] = worker
        manager.subscribe(lambda event: self.checks.on_event(worker, event))
        self.log(name, f"opened for {account}, in the {process}")
        return worker

    def open_workers(self) -> list[Worker]:
        """Return the workers that nobody has begun to close."""
        return [worker for worker in self.workers.values() if not worker.closing]

    # The callers.

    async def get_token(self, worker: Worker, rejected: Token | None, min_ttl: float | None) -> Token:
        """Call `get_token`, and check the answer."""
        request = self.checks.on_request(worker, rejected, min_ttl)
        try:
            if request.accepts_any_token:  # called as most callers do, for the fast path
                request.token = await worker.manager.get_token()
            else:
                request.token = await worker.manager.get_token(rejected=rejected, min_ttl=min_ttl)
        except BaseException as error:
            request.error = error
            raise
        finally:
            self.checks.on_answer(request)
        return request.token

    def start_caller(self, worker: Worker, plan: CallerPlan) -> None:
        """Start a caller, and cancel it as planned."""
        loop = self.loop
        task = loop.create_task(self._call(worker, plan), name=f"caller of {worker.name}")
        self._keep(task)

        def cancel() -> None:
            if task.cancel():
                cancelled_at = loop.time()
                task.add_done_callback(lambda done: self.checks.on_cancelled(worker, done, cancelled_at))

        def cancel_after(iterations: int) -> None:
            if iterations:
                loop.call_soon(cancel_after, iterations - 1)
            else:
                cancel()

        if plan.cancel_after is not None:
            loop.call_later(plan.cancel_after, cancel)
        if plan.cancel_after_iterations is not None:
            loop.call_soon(cancel_after, plan.cancel_after_iterations)

    async def _call(self, worker: Worker, plan: CallerPlan) -> None:
        try:
            async with asyncio.timeout(plan.timeout):
                token = await self.get_token(worker, None, plan.min_ttl)
                for _ in range(plan.requests):
                    await asyncio.sleep(plan.interval)
                    if plan.moves:
                        worker = self._another_worker(worker)
                    if not self.service.accepts(str(token.access_token)):
                        token = await self.get_token(worker, token, None)
                    elif token.remaining() <= 0 or plan.interval > 1:
                        token = await self.get_token(worker, None, plan.min_ttl)
        except (AuthError, ValueError, TimeoutError):
            return

    def _another_worker(self, worker: Worker) -> Worker:
        """Return a worker of the same account, at random."""
        siblings = [other for other in self.open_workers() if other.ledger is worker.ledger]
        return self.rng.choice(siblings) if siblings else worker

    # The end of a manager.

    async def close(self, worker: Worker) -> None:
        """Close a manager."""
        self.log(worker.name, "close is called")
        called_at = self.loop.time()
        worker.closing, worker.closing_at = True, min(worker.closing_at, called_at)
        cancelled = True
        try:
            await worker.manager.close()
            cancelled, worker.closed = False, True
        finally:
            worker.cancelled_closes += cancelled
            self.checks.on_closed(worker, called_at, cancelled=worker.cancelled_closes > 0)

    def start_close(self, worker: Worker, *, cancel_after: float | None) -> None:
        """Close a manager in a task of its own, which may be cancelled."""
        task = self.loop.create_task(self.close(worker), name=f"close of {worker.name}")
        self._keep(task)
        if cancel_after is not None:
            self.loop.call_later(cancel_after, task.cancel)

    def _keep(self, task: "asyncio.Task[Any]") -> None:
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    def react_to_call(self, call: Call) -> None:
        """Let the scenario do something while a call is in flight."""
        if self.on_call is not None:
            self.on_call(self, call)

    def check_what_managers_show(self) -> None:
        """Check that nothing that managers show contains a secret."""
        for worker in self.workers.values():
            manager = worker.manager
            self.checks.check_no_secrets(repr(manager), str(manager), repr(manager.status()), repr(manager._state))
