"""Every interleaving of the workers keeps the promises of the record.

`python -m tests.exhaustive` visits all of them; here three workers have tokens that do not end, or two have tokens that
do.
"""

from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import _record, _renewal
from apivideo_auth._record import Claim, Commit, Record, Release
from apivideo_auth._renewal import RenewalRequest
from tests.exhaustive.moves import Rules
from tests.exhaustive.search import explore


def test_three_workers_keep_every_promise() -> None:
    """Claims, calls, lost answers, refusals, stalls, cancellations, deaths and returns, in every order and for ever."""
    assert explore(workers=3, ends=False).states > 5_000


def test_two_workers_keep_every_promise_while_tokens_end() -> None:
    """The same with tokens that end at any moment, also before they arrive."""
    assert explore(workers=2).states > 4_000


@pytest.mark.parametrize(("workers", "ends"), [(1, True), (2, False)])
def test_a_store_that_falls_back_misleads_nobody_who_knows_better(workers: int, ends: bool) -> None:
    """When the store loses what it confirmed, a worker that knows a newer token than the record's does not use the
    record's refresh token, which has been used already.
    """
    assert explore(workers=workers, ends=ends, losses=1).states > 1_000


def claim_without_taking(record: Record, event: Claim, now: float) -> tuple[Record, Any]:
    """Grant a claim and leave the refresh token in the record."""
    after, answer = _record.claim(record, event, now)
    return evolve(after, refresh=record.refresh), answer


def claim_of_a_held_record(record: Record, event: Claim, now: float) -> tuple[Record, Any]:
    """Grant a claim although somebody holds one."""
    return _record.claim(evolve(record, claim_until=0.0), event, now)


def claim_for_ever(record: Record, event: Claim, now: float) -> tuple[Record, Any]:
    """Hold a record for as long as a claim is there, lapsed or not."""
    return _record.claim(evolve(record, claim_until=now + 1 if record.claim_id else 0.0), event, now)


def commit_of_anybody(record: Record, event: Commit, now: float) -> tuple[Record, Any]:
    """Take a commit in although the record carries another claim."""
    return _record.commit(evolve(record, claim_id=event.id), event, now)


def commit_within_the_lease(record: Record, event: Commit, now: float) -> tuple[Record, Any]:
    """Drop a commit that comes after its lease, although nobody else has claimed."""
    return _record.commit(record if record.claim_until > now else evolve(record, claim_id=None), event, now)


def fail_of_anybody(record: Record, event: Release, now: float) -> tuple[Record, Any]:
    """Heed a fail although the record carries another claim."""
    return _record.release(evolve(record, claim_id=event.id), event, now)


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        (Rules(claim=claim_without_taking), "refresh token 1 is in two places"),
        (Rules(claim=claim_of_a_held_record), "two claims are live"),
        (Rules(claim=claim_for_ever), "nobody would ever be granted a renewal again"),
        (Rules(commit=commit_of_anybody), "A gets the answer; it no longer holds the claim, and changed the record"),
        (Rules(commit=commit_within_the_lease), "A gets the answer; it holds the claim, and its end did not count"),
        (Rules(fail=fail_of_anybody), "A is cancelled; it no longer holds the claim, and changed the record"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_broken_transition_is_found_by_the_shortest_way(rules: Rules, broken: str) -> None:
    """A transition that breaks a promise is caught, and the way there is told."""
    with pytest.raises(AssertionError, match=broken) as caught:
        explore(workers=2, ends=False, rules=rules)
    assert "  1. A claims, and is to use the API key\n" in str(caught.value)


def test_the_way_is_told_step_by_step() -> None:
    """What is told can be followed: workers and tokens keep their names."""
    with pytest.raises(AssertionError) as caught:
        explore(workers=2, rules=Rules(claim=claim_without_taking))
    assert str(caught.value).splitlines() == [
        "the shortest way to a broken promise:",
        "  1. A claims, and is to use the API key",
        "  2. A sends, to get token 1",
        "  3. A reaches the server",
        "  4. A gets the answer: commit done, Renewed",
        "  5. A claims, and is to use refresh token 1",
        "  then refresh token 1 is in two places",
    ]


def test_a_refresh_token_given_back_after_a_lost_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Giving back a refresh token whose fate is unknown is caught: the real renewal is what is played."""
    monkeypatch.setattr(_renewal, "_usable_again", lambda failure, refresh: refresh)
    with pytest.raises(AssertionError, match="the record has refresh token 1, which the server has taken"):
        explore(workers=1)


def test_a_refresh_token_of_old_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Using the record's refresh token although one knows a newer token is caught, after a loss."""
    monkeypatch.setattr(RenewalRequest, "is_newer_than", lambda wish, granted: False)
    with pytest.raises(AssertionError, match="which the server has taken, is to be used"):
        explore(workers=1, losses=1)
