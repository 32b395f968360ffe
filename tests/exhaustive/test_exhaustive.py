"""Every interleaving of the workers keeps the promises of the record.

`python -m tests.exhaustive` visits the states of three workers; here are two workers, and tokens that end or do not.
"""

from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import _record
from apivideo_auth._record import Claim, Commit, Granted, Record, Release, RenewalRequest, SharedToken
from apivideo_auth._renewal import Renewer
from tests.exhaustive.moves import Transitions
from tests.exhaustive.search import explore


def test_two_workers_keep_every_promise() -> None:
    """Claims, 401s, calls, lost answers, rejections, stalls, cancellations, deaths and returns, in every order."""
    assert explore(workers=2, ends=False).states > 5_000


def test_a_worker_keeps_every_promise_while_tokens_end() -> None:
    """The same for one worker that dies and comes back, while tokens end at any moment, also before they arrive."""
    assert explore(workers=1).states > 500


@pytest.mark.slow
def test_two_workers_keep_every_promise_while_tokens_end() -> None:
    """The same for two workers, while tokens end at any moment."""
    assert explore(workers=2).states > 20_000


def claim_after_a_lost_claim(record: Record, event: Claim, now: float) -> tuple[Record, Any]:
    """Grant the refresh token again that a claim without an end may have used."""
    after, answer = _record.claim(evolve(record, claim_id=None) if record.claim_until <= now else record, event, now)
    return after if isinstance(answer, Granted) else record, answer


def claim_of_a_leased_record(record: Record, event: Claim, now: float) -> tuple[Record, Any]:
    """Grant a claim although another lease runs."""
    return _record.claim(evolve(record, claim_until=0.0), event, now)


def claim_held_for_ever(record: Record, event: Claim, now: float) -> tuple[Record, Any]:
    """Answer "busy" as long as there is a claim, lapsed or not."""
    after, answer = _record.claim(evolve(record, claim_until=now + 1 if record.claim_id else 0.0), event, now)
    return after if isinstance(answer, Granted) else record, answer


def claim_without_throttle(record: Record, event: Claim, now: float) -> tuple[Record, Any]:
    """Grant every claim because of a 401."""
    return _record.claim(record, evolve(event, may_be_throttled=False), now)


def commit_of_anybody(record: Record, event: Commit, now: float) -> tuple[Record, Any]:
    """Accept a commit although the record carries another claim."""
    return _record.commit(evolve(record, claim_id=event.id), event, now)


def commit_within_the_lease(record: Record, event: Commit, now: float) -> tuple[Record, Any]:
    """Ignore a commit after its lease, although nobody else has claimed."""
    return _record.commit(record if record.claim_until > now else evolve(record, claim_id=None), event, now)


def release_of_anybody(record: Record, event: Release, now: float) -> tuple[Record, Any]:
    """Accept a release although the record carries another claim."""
    return _record.release(evolve(record, claim_id=event.id), event, now)


@pytest.mark.parametrize(
    ("transitions", "broken"),
    [
        (Transitions(claim=claim_after_a_lost_claim), "refresh token 1 is in two places"),
        (Transitions(claim=claim_of_a_leased_record), "two claims are live"),
        (Transitions(claim=claim_held_for_ever), "nobody would ever be granted a renewal again"),
        (
            Transitions(claim=claim_without_throttle),
            "A is granted a claim because of a 401, although that is throttled",
        ),
        (
            Transitions(commit=commit_of_anybody),
            "A gets the answer; it no longer holds the claim, and changed the record",
        ),
        (
            Transitions(commit=commit_within_the_lease),
            "A gets the answer; it holds the claim, and its end did not count",
        ),
        (
            Transitions(release=release_of_anybody),
            "A is cancelled; it no longer holds the claim, and changed the record",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_broken_transition_is_found_by_the_shortest_way(transitions: Transitions, broken: str) -> None:
    """A transition that breaks a promise is found, and the way there is described."""
    with pytest.raises(AssertionError, match=broken) as caught:
        explore(workers=2, ends=False, transitions=transitions)
    assert "  1. A claims, and is to use the API key\n" in str(caught.value)


def test_the_way_is_described_step_by_step() -> None:
    """The description can be followed: workers and tokens keep their names."""
    with pytest.raises(AssertionError) as caught:
        explore(workers=2, transitions=Transitions(claim=claim_without_throttle))
    assert str(caught.value).splitlines() == [
        "the shortest way to a broken promise:",
        "  1. A claims, and is to use the API key",
        "  2. A sends, to get token 1",
        "  3. A reaches the server",
        "  4. A gets the answer: commit done, Renewed",
        "  then A is granted a claim because of a 401, although that is throttled",
    ]


def test_a_refresh_token_that_is_given_back_after_a_lost_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Giving back a refresh token that may have been used is found: the real renewal is what is replayed."""
    release = Renewer._release

    async def give_back(self: Renewer, attempt: Any, failure: Any, sent_at: float, _refresh: bytes | None) -> Any:
        return await release(self, attempt, failure, sent_at, attempt.granted.refresh)

    monkeypatch.setattr(Renewer, "_release", give_back)
    with pytest.raises(AssertionError, match="the record has refresh token 1, which the server has taken"):
        explore(workers=1)


def test_a_rejected_caller_that_is_not_given_the_records_token_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a shorter-lived token of the record does not help a caller whose token was rejected, that is found."""

    def should_adopt(self: RenewalRequest, token: SharedToken) -> bool:
        return self.remaining is None or token.remaining > self.remaining

    monkeypatch.setattr(RenewalRequest, "should_adopt", should_adopt)
    with pytest.raises(AssertionError, match=r"had its token rejected, and is not given token \d of the record"):
        explore(workers=2, ends=False)
