"""What happens in a scenario: callers come, managers go, the service fails, and time does what it does."""

from tests.simulation.callers import Plan
from tests.simulation.calls import Call, Spell
from tests.simulation.draw import draw_plan, draw_weather
from tests.simulation.world import Worker, World


def react(world: World, call: Call) -> None:
    """Do something while a call is in flight: that is when it hurts."""
    rng, worker = world.rng, world.workers[call.worker]
    draw = rng.random()
    if draw < 0.3:
        for _ in range(rng.randint(1, 6)):
            world.loop.call_later(rng.random() * 0.5, ask_soon, world, worker, draw_plan(rng, world.modes.lifetime))
    elif draw < 0.33:
        world.loop.call_later(rng.random() * 0.5, close_soon, world, worker)
    elif draw < 0.36:
        world.loop.call_later(rng.random() * 0.3, disturb, world)
    elif draw < 0.39:
        call.fault = "dawdle"
        world.loop.call_later(rng.random() * 0.3, stall, world, worker)


def stall(world: World, worker: Worker) -> None:
    """Let the machine sleep past the lease of a call in flight, and others come before that call ends."""
    world.note("world", "sleeps past a lease")
    world.clock.sleep(world.policy.lease + world.rng.random())
    for other in world.open_workers():
        if other.ledger is worker.ledger and other is not worker:
            world.loop.call_later(world.rng.random(), ask_soon, world, other, Plan(requests=3))


def ask_soon(world: World, worker: Worker, plan: Plan) -> None:
    """Start a caller, whose manager may be closed."""
    world.send(worker, plan)


def close_soon(world: World, worker: Worker) -> None:
    """Close a manager, perhaps twice, perhaps not patiently, and have another in its place."""
    rng = world.rng
    if worker.closing or len(world.workers) > 12:
        return
    for _ in range(rng.choice([1, 1, 2])):
        world.start_close(worker, cancel_after=rng.choice([None, None, 0.0, 0.01, 1.0]))
    account = f"private{len(world.workers) + 1}" if worker.store is None else worker.ledger.account
    world.open(account, worker.store)


def disturb(world: World) -> None:
    """Let something happen that is nobody's fault."""
    rng, lifetime = world.rng, world.modes.lifetime
    kind = rng.choice(["wall", "sleep", "block", "revoke", "revoke refresh", "deny"])
    seconds = rng.choice([0.1, 3.0, 20.0, 70.0, lifetime * rng.random(), lifetime * 2.0])
    if kind == "block":
        world.block(min(seconds, 60.0))
        return
    world.note("world", f"{kind} {seconds:.3f}")
    if kind == "wall":
        world.clock.set_wall(rng.choice([-1, 1]) * rng.choice([60.0, 3600.0, 36_000.0]))
    elif kind == "sleep":
        world.clock.sleep(seconds)
    elif kind == "deny":
        world.service.denied_until = world.clock.monotonic() + min(seconds * 20, 1200.0)
    else:
        world.service.revoke_all(refresh=kind == "revoke refresh")


def plan_life(world: World) -> float:
    """Set the timers of everything that will happen; return how long it takes."""
    rng, loop, lifetime = world.rng, world.loop, world.modes.lifetime
    duration = min(max(90.0, lifetime * rng.uniform(1.5, 8.0)), 3 * 86_400.0)
    for _ in range(rng.choice([0, 1, 1, 2])):
        begins = world.clock.monotonic() + duration * rng.random()
        lasts = rng.choice([2.0, 30.0, 120.0, lifetime * 0.3, lifetime * 1.5])
        world.service.spells.append(Spell(begins, begins + lasts, draw_weather(rng, rng.choice([0.6, 1.0]))))
        for _ in range(rng.randint(0, 10)):
            loop.call_later(min(begins - loop.time() + lasts * rng.random(), duration), come, world)
    for _ in range(rng.randint(5, 40)):
        loop.call_later(duration * rng.random(), come, world)
    for _ in range(rng.choice([0, 0, 1, 4])):
        loop.call_later(duration * rng.random(), disturb, world)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        loop.call_later(duration * rng.random(), leave, world)
    for _ in range(rng.choice([0, 0, 1, 3])):
        begins, plan = duration * rng.random(), Plan(requests=60, pause=rng.choice([0.3, 4.0, 17.0, 61.0]))
        loop.call_later(begins, world.send, rng.choice(world.open_workers()), plan)
    if rng.random() < 0.25:
        begins = world.clock.monotonic() + duration * rng.random()
        world.service.key_refused = begins, begins + rng.choice([5.0, 100.0, lifetime * 0.5])
    return duration


def come(world: World) -> None:
    """Start one caller, or many at once."""
    rng, workers = world.rng, world.open_workers()
    for _ in range(rng.choice([1, 1, 1, 3, 15])):
        world.send(rng.choice(workers), draw_plan(rng, world.modes.lifetime))


def leave(world: World) -> None:
    """Close one of the managers."""
    close_soon(world, world.rng.choice(world.open_workers()))
