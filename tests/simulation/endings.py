"""The end of a manager, and of a simulation: what may be left then, which is nothing."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import Worker, World


def judge_close(world: "World", worker: "Worker", waited: float, *, cancelled: bool) -> None:
    """Judge a `close` that has ended; `cancelled` if it or another one of this manager was."""
    complain = world.checks.complain
    world.note(worker.name, "close was cancelled" if cancelled else "closed")
    budget = worker.policy.close_timeout + (1.5 if worker.ledger.relaxed else 0.5)
    if waited > budget + world.slack(world.clock.monotonic() - waited):
        complain(f"G11: the close of {worker.name} took {waited:.3f} s")
    in_flight = [call for call in worker.ledger.in_flight if call.worker == worker.name]
    if in_flight and not cancelled:
        complain(f"G11: {worker.name} is closed, and call {in_flight[0].number} goes on")
    if worker.phase() != "closed":
        complain(f"G11: {worker.name} is closed, and its phase is {worker.phase()}")


def judge_leftovers(world: "World") -> None:
    """Judge what is left when every manager is closed and every caller has gone."""
    loop = world.loop
    left = [*asyncio.all_tasks(loop) - {asyncio.current_task(loop)}]
    for what in (*left, *loop.pending_timers(), *loop.pending_futures()):
        world.checks.complain(f"G11: left behind: {what!r}")
    for call in world.service.calls:
        if call.ended is None:
            world.checks.complain(f"G11: call {call.number} never ended")
