"""Every interleaving of three workers keeps the promises of the record."""

from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import _record
from tests.exhaustive import model
from tests.exhaustive.search import explore


def test_three_workers_keep_every_promise() -> None:
    """Claims, calls, lost answers, refusals, stalls, deaths and returns, in every order, over two renewals."""
    visited = explore(workers=3, renewals=2, deaths=1)
    assert visited.states > 40_000


def claim_without_taking(record: _record.Record, event: _record.Claim, now: float) -> tuple[Any, Any]:
    """Grant a claim and leave the refresh token in the record."""
    after, answer = _REAL_CLAIM(record, event, now)
    return evolve(after, refresh=record.refresh), answer


def commit_of_anybody(record: _record.Record, event: _record.Commit, now: float) -> tuple[Any, Any]:
    """Take a commit in although the record carries another claim."""
    return _REAL_COMMIT(evolve(record, claim_id=event.id), event, now)


def fail_of_anybody(record: _record.Record, event: _record.Fail, now: float) -> tuple[Any, Any]:
    """Heed a fail although the record carries another claim."""
    return _REAL_FAIL(evolve(record, claim_id=event.id), event, now)


def claim_of_a_held_record(record: _record.Record, event: _record.Claim, now: float) -> tuple[Any, Any]:
    """Grant a claim although somebody holds one, and leave the refresh token."""
    after, answer = _REAL_CLAIM(evolve(record, claim_until=0.0), event, now)
    return evolve(after, refresh=record.refresh), answer


_REAL_CLAIM, _REAL_COMMIT, _REAL_FAIL = _record.claim, _record.commit, _record.fail


@pytest.mark.parametrize(
    ("name", "mutation", "broken"),
    [
        ("claim", claim_without_taking, "is in two places"),
        ("claim", claim_of_a_held_record, "is in two places"),
        ("commit", commit_of_anybody, "no longer holds the claim"),
        ("fail", fail_of_anybody, "no longer holds the claim"),
    ],
)
def test_a_broken_transition_is_found_by_the_shortest_way(
    monkeypatch: pytest.MonkeyPatch, name: str, mutation: Any, broken: str
) -> None:
    """A transition that breaks a promise is caught, and the way there is told."""
    monkeypatch.setattr(model._record, name, mutation)
    with pytest.raises(AssertionError, match=broken) as caught:
        explore(workers=2, renewals=2, deaths=0)
    assert "  1. A claims, with the API key" in str(caught.value)


def test_a_refresh_token_given_back_after_a_lost_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Giving back a refresh token whose fate is unknown is caught."""
    finish = model._finish
    monkeypatch.setattr(
        model,
        "_finish",
        lambda world, place, name: finish(
            model._with(
                world,
                place,
                world.workers[place]._replace(answer="unsent")
                if world.workers[place].answer == "lost"
                else world.workers[place],
            ),
            place,
            name,
        ),
    )
    with pytest.raises(AssertionError, match="which the server has taken"):
        explore(workers=1, renewals=2, deaths=0)
