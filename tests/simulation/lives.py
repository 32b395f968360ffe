"""How long tokens live, by the calls that brought them."""

from apivideo_auth import RefreshPolicy
from tests.simulation.calls import Call

DAY = 86_400.0


def believed(call: Call) -> float:
    """Return the lifetime of the token that a call brought, as far as it is believed."""
    assert call.grant is not None
    return float(min(call.grant.lifetime, DAY))


def end_of(call: Call) -> float:
    """Return when the token of a call ends: its life counts from when it was asked for."""
    return call.started + believed(call)


def least_leeway(policy: RefreshPolicy, lifetime: float) -> float:
    """Return the leeway that every token of this lifetime has."""
    wanted = min(30.0, 0.05 * lifetime) if policy.leeway is None else policy.leeway
    return min(wanted, lifetime * (1 - policy.refresh_at) / 2)


def most_leeway(policy: RefreshPolicy, lifetime: float) -> float:
    """Return the leeway that no token of this lifetime exceeds."""
    wanted = min(30.0, 0.05 * lifetime) if policy.leeway is None else policy.leeway
    return min(wanted, lifetime * (1 - policy.refresh_at + 0.05) / 2)
