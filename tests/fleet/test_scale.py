"""The cost of sharing for a fleet, in a day of virtual time; `scale.py` prints the figures of docs/fleet.md."""

import pytest

from tests.fleet import scale

FLEETS = [1, 10, pytest.param(100, marks=pytest.mark.slow)]
MOST_RENEWALS = 24 / 0.75 + 1
"""The first call, and one for each 75 % of an hour."""


@pytest.mark.parametrize("workers", FLEETS)
def test_g12_an_undisturbed_day(workers: int) -> None:
    """The endpoints see a fleet as one worker; each worker sends one command per renewal of another worker, and two per
    renewal of its own, apart from the start.
    """
    day = scale.simulate(workers, faults=False)
    assert day.asked >= workers * 24 * 6
    assert (day.no_token, day.waited, day.api_key_calls) == (0, 0, 1)
    assert 24 < day.calls.total() <= MOST_RENEWALS
    assert day.repeated == 0
    assert day.commands["commit"] == day.calls.total()
    assert day.commands.total() <= day.calls.total() * (workers + 2) + 4 * workers


@pytest.mark.parametrize("workers", FLEETS)
def test_g12_a_day_with_outages_of_the_store(workers: int) -> None:
    """No caller waits or fails while the store is down; in an outage at the worst moment each worker calls once, and
    afterwards the fleet shares one token again.
    """
    day = scale.simulate(workers, faults=True)
    assert (day.no_token, day.waited) == (0, 0)
    assert day.repeated == 0
    # In each of the outages every worker may renew, with the API key, for itself.
    assert day.calls.total() <= MOST_RENEWALS + workers * (scale.OUTAGES_ANYWHERE + 1)
    assert max(day.calls.values()) <= workers + 2
    assert max(day.calls[hour] for hour in (22, 23)) <= 2
