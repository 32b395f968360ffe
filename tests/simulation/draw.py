"""What a seed decides: how the loop, the policy, the service and the callers are."""

import random

from apivideo_auth import RefreshPolicy
from tests.simulation.callers import Plan
from tests.simulation.calls import FAULTS, Modes
from tests.simulation.loop import Manners


def draw_manners(rng: random.Random) -> Manners:
    """Return how the loop behaves."""
    late = rng.choice([0.0, 0.0, 0.05, 0.5])
    return Manners(
        order=rng.choice(["as they came", "shuffled", "deferred"]),
        late=late,
        latest=rng.choice([0.01, 0.5, 5.0]) if late else 0.0,
        tick=rng.choice([0.0, 0.0, 20e-6]),
    )


def draw_policy(rng: random.Random, lifetime: int) -> RefreshPolicy:
    """Return the defaults, or others."""
    if rng.random() < 0.6:
        return RefreshPolicy()
    return RefreshPolicy(
        refresh_at=rng.choice([0.2, 0.5, 0.8, 0.95]),
        leeway=rng.choice([None, 0.0, 1.0, 10.0, lifetime / 10]),
        attempt_timeout=rng.choice([1.0, 10.0, 30.0]),
        deadline=rng.choice([0.0, 5.0, 20.0, 90.0]),
        close_timeout=rng.choice([0.0, 0.5, 5.0]),
    )


def draw_modes(rng: random.Random, lifetime: int, attempt_timeout: float) -> Modes:
    """Return what is unknown of the service, and what it is set to."""
    return Modes(
        refresh_revokes=rng.random() < 0.3,
        authenticate_invalidates=rng.random() < 0.3,
        suspends=rng.random() < 0.5,
        lifetime=lifetime,
        attempt_timeout=attempt_timeout,
        latency=rng.choice([0.0, 0.1, 0.4]),
        slowness=rng.choice([0.7, 0.85, 0.97, 1.02]),
    )


def draw_weather(rng: random.Random, trouble: float) -> dict[str, float]:
    """Return the probabilities of faults, `trouble` in all, of a few kinds."""
    kinds = rng.sample(FAULTS, rng.randint(1, 4))
    return {kind: trouble / len(kinds) for kind in kinds}


def draw_plan(rng: random.Random, lifetime: float) -> Plan:
    """Return what a caller does."""
    kind = rng.random()
    min_ttl = lifetime * rng.choice([0.1, 0.5, 0.7, 0.85, 0.9, 0.95]) if kind < 0.1 else None
    hasty = rng.random()
    return Plan(
        min_ttl=min_ttl,
        patience=rng.choice([0.0, 0.05, 1.0, 15.0]) if hasty < 0.2 else None,
        cancel_after=rng.random() * rng.choice([0.0, 0.2, 12.0]) if 0.2 < hasty < 0.35 else None,
        cancel_steps=rng.randint(0, 12) if 0.35 < hasty < 0.5 else None,
        requests=rng.choice([0, 0, 1, 5]) if kind < 0.6 else 0,
        pause=rng.choice([0.05, 0.9, 5.0, 30.0]),
    )
