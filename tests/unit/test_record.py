"""The record of an account: the table of its transitions, and what holds after any sequence of them."""

import itertools
import json
from collections import Counter

import attrs
import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from apivideo_auth import MemoryStore, RefreshPolicy, _record
from apivideo_auth._failure import Failure
from apivideo_auth._policy import MAX_BACKOFF, MAX_LEASE, MAX_THROTTLE
from apivideo_auth._record import (
    EMPTY,
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimLost,
    Commit,
    Done,
    Granted,
    Record,
    Release,
    RenewalRequest,
    SharedToken,
    Throttled,
)
from tests.support.doubles import ManualClock
from tests.support.record_cases import CASES, OUTAGE, SHARED, Answer, Case, differences

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def apply(record: Record, event: object, now: float) -> tuple[Record, Answer]:
    """Apply an event, or read, with the pure functions."""
    match event:
        case Claim():
            return _record.claim(record, event, now)
        case Commit():
            return _record.commit(record, event, now)
        case Release():
            return _record.release(record, event, now)
        case _:
            return record, _record.shared_token(record, now)


@each_case
def test_the_pure_functions_agree_with_the_table(case: Case) -> None:
    """Each event turns the record before into the record after, and is answered as the table says."""
    after, answer = apply(case.before, case.event, case.now)
    assert [*differences(answer, case.answer, "the answer")] == []
    assert [*differences(after, case.after, "the record")] == []


@each_case
async def test_the_memory_store_agrees_with_the_table(case: Case) -> None:
    """A slot of a `MemoryStore` answers as the table says, and keeps the record after."""
    store = MemoryStore()
    slot = store.open("account", clock=ManualClock(case.now), on_commit=lambda: None, on_damage=print)
    entry = store._accounts["account"]
    entry.record = case.before
    answer: Answer
    match case.event:
        case Claim():
            answer = await slot.claim(case.event)
        case Commit():
            answer = await slot.commit(case.event)
        case Release():
            answer = await slot.release(case.event)
        case _:
            answer = await slot.read()
    await slot.close()
    assert [*differences(answer, case.answer, "the answer")] == []
    assert [*differences(entry.record, case.after, "the record")] == []


def test_every_case_has_a_name_of_its_own() -> None:
    """A case that fails can be found by its name."""
    assert [name for name, times in Counter(case.name for case in CASES).items() if times > 1] == []


def test_the_table_has_every_answer() -> None:
    """No kind of answer is left out of the table."""
    answers = {type(case.answer) for case in CASES}
    assert answers == {Granted, Changed, Busy, Backoff, Throttled, Done, ClaimLost, SharedToken, type(None)}


def test_the_failures_of_the_table_survive_json() -> None:
    """Stores that keep failures as JSON can run the table."""
    failures = {case.before.failure for case in CASES} | {case.after.failure for case in CASES}
    for failure in failures:
        assert failure is None or Failure(**json.loads(json.dumps(attrs.asdict(failure)))) == failure


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (Busy(retry_after=1.1), Busy(retry_after=1.0)),
        (Busy(retry_after=1.0), Throttled(retry_after=1.0)),
        (None, Done()),
        (EMPTY, attrs.evolve(EMPTY, committed_at=0.0)),
        (attrs.evolve(EMPTY, committed_at=0.0), EMPTY),
        (attrs.evolve(EMPTY, refresh=b"made-up-refresh-1"), EMPTY),
    ],
)
def test_differences_are_found(actual: object, expected: object) -> None:
    """The comparison of the table tells apart what differs, and lets numbers be off by less than a microsecond."""
    assert [*differences(actual, expected)]
    assert [*differences(Busy(retry_after=1.0 + 1e-9), Busy(retry_after=1.0))] == []


def test_a_dead_holder_is_replaced_and_overwrites_nothing() -> None:
    """When a lease is over the next claim authenticates; a late commit does not count, and gets the newer token."""
    record, first = _record.claim(EMPTY, Claim(id="first", seen=None, lease=15.0), 0.0)
    assert isinstance(first, Granted)
    record, answer = _record.claim(record, Claim(id="second", seen=None, lease=15.0), 14.9)
    assert isinstance(answer, Busy)
    record, second = _record.claim(record, Claim(id="second", seen=None, lease=15.0), 15.0)
    assert isinstance(second, Granted)
    assert second.refresh is None
    committed = Commit(id="second", access=b"made-up-access-2", refresh=None, lifetime=60.0, remaining=60.0)
    record, done = _record.commit(record, committed, 16.0)
    assert done == Done(committed_at=16.0)
    late = attrs.evolve(committed, id="first", access=b"made-up-access-1")
    after, dropped = _record.commit(record, late, 17.0)
    assert after == record
    assert dropped == ClaimLost(
        token=SharedToken(
            version="second", access=b"made-up-access-2", lifetime=60.0, remaining=58.0, committed_at=16.0
        )
    )


def test_a_resource_that_answers_401_for_ever_costs_a_renewal_a_minute() -> None:
    """With a 401 every tenth of a second, renewals come after 1, 2, 4 … seconds, and then once a minute."""
    record, renewed_at, seen = EMPTY, [], None
    for tick in range(6000):
        now = 1000.0 + tick / 10
        record, answer = _record.claim(
            record, Claim(id=f"claim-{tick}", seen=seen, lease=15.0, may_be_throttled=True), now
        )
        if isinstance(answer, Granted):
            seen = f"claim-{tick}"
            commit = Commit(id=seen, access=b"made-up-access", refresh=None, lifetime=3600.0, remaining=3600.0)
            record, _ = _record.commit(record, commit, now)
            renewed_at.append(now)
    pauses = [later - earlier for earlier, later in itertools.pairwise(renewed_at)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, *[60] * 8], abs=0.11)


class Fleet(RuleBasedStateMachine):
    """Three workers that claim, commit and release in any order, while the time passes or goes back."""

    workers = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.record = EMPTY
        self.ids = itertools.count(1)
        self.held: dict[int, Granted] = {}
        self.claim_ids: dict[int, str] = {}
        self.seen: dict[int, str] = {}
        # The refresh tokens that were granted, and to which claim.
        self.out: dict[bytes, str] = {}

    @rule(seconds=st.sampled_from([-0.5, 0.25, 1.0, 4.0, 14.0, 15.0, 60.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(worker=workers, throttled=st.booleans())
    def claim(self, worker: int, throttled: bool) -> None:
        before, id_ = self.record, f"claim-{next(self.ids)}"
        event = Claim(id=id_, seen=self.seen.get(worker), lease=15.0, may_be_throttled=throttled)
        self.record, answer = _record.claim(before, event, self.now)
        match answer:
            case Granted():
                assert not (before.claim_id is not None and self.now < before.claim_until)
                assert self.record.claim_id == id_
                self.held[worker], self.claim_ids[worker] = answer, id_
                if answer.refresh is not None:
                    assert answer.refresh not in self.out
                    self.out[answer.refresh] = id_
            case Changed():
                assert self.record == before
                assert answer.token.version != self.seen.get(worker)
                self.seen[worker] = answer.token.version
            case Busy():
                assert self.record == before
                assert 0 < answer.retry_after <= MAX_LEASE
            case Backoff():
                assert 0 < answer.retry_after <= MAX_BACKOFF
            case Throttled():
                assert throttled
                assert 0 < answer.retry_after <= MAX_THROTTLE

    @precondition(lambda self: self.held)
    @rule(worker=workers)
    def claim_again(self, worker: int) -> None:
        """Send a claim again whose answer was lost."""
        granted, before = self.held.get(worker), self.record
        if granted is None:
            return
        id_ = self.claim_ids[worker]
        self.record, answer = _record.claim(before, Claim(id=id_, seen=None, lease=15.0), self.now)
        if not isinstance(answer, Granted):
            return
        self.held[worker] = answer
        if before.claim_id == id_:
            assert answer.refresh in {granted.refresh, None}
        elif answer.refresh is not None:
            # The claim was lost meanwhile, so this is another one.
            assert answer.refresh not in self.out
            self.out[answer.refresh] = id_

    @precondition(lambda self: self.held)
    @rule(worker=workers, rotated=st.booleans(), twice=st.booleans())
    def commit(self, worker: int, rotated: bool, twice: bool) -> None:
        refresh = f"made-up-refresh-{next(self.ids)}".encode() if rotated else None
        event = Commit(id="", access=b"made-up-access", refresh=refresh, lifetime=3600.0, remaining=3600.0)
        if self.end(worker, event):
            self.seen[worker] = self.claim_ids[worker]
            assert self.record.version == self.claim_ids[worker]
            assert self.record.refresh == refresh
            if twice:
                again = attrs.evolve(event, id=self.claim_ids[worker])
                done = Done(committed_at=self.record.committed_at)
                assert _record.commit(self.record, again, self.now) == (self.record, done)

    @precondition(lambda self: self.held)
    @rule(worker=workers, failure=st.sampled_from([None, OUTAGE]), unused=st.booleans())
    def release(self, worker: int, failure: Failure | None, unused: bool) -> None:
        granted = self.held.get(worker)
        back = granted.refresh if granted is not None and unused else None
        if self.end(worker, Release(id="", retry_after=2.0, failure=failure, refresh=back)) and back is not None:
            del self.out[back]

    def end(self, worker: int, event: Commit | Release) -> bool:
        """End the claim of a worker that has one; return whether that counted."""
        if self.held.pop(worker, None) is None:
            return False
        before, id_ = self.record, self.claim_ids[worker]
        self.record, answer = apply(before, attrs.evolve(event, id=id_), self.now)
        if before.claim_id != id_:
            assert isinstance(answer, ClaimLost)
            assert self.record == before
            return False
        assert isinstance(answer, Done)
        return True

    @invariant()
    def a_refresh_token_is_in_one_place(self) -> None:
        if self.record.refresh in self.out:
            assert self.record.claim_id == self.out[self.record.refresh]


def test_any_sequence_keeps_the_promises() -> None:
    """Whatever three workers do and when, also if the clock goes back: at most one claim stands, a refresh token is
    granted to one claim unless it was given back, a worker that lost its claim changes nothing, and every wait ends.
    """
    run_state_machine_as_test(
        Fleet, settings=settings(max_examples=75, stateful_step_count=40, deadline=None, database=None)
    )


@pytest.mark.parametrize(
    ("access", "remaining", "rejected", "shared", "is_better"),
    [
        (None, None, False, 200.0, True),
        (None, None, False, 10.0, False),
        ("made-up-access-2", 100.0, False, 100.5, True),
        ("made-up-access-2", 100.0, False, 100.0, False),
        ("made-up-access-2", 100.0, False, 99.0, False),
        ("made-up-access-2", 100.0, True, 99.0, True),
        ("made-up-access-2", 100.0, True, 10.0, False),
        ("made-up-access-1", 100.0, False, 3500.0, False),
        ("made-up-access-1", 100.0, True, 3500.0, False),
    ],
)
def test_a_token_is_adopted_if_it_is_better(
    access: str | None, remaining: float | None, rejected: bool, shared: float, is_better: bool
) -> None:
    """It has to live longer, or only to be usable and different if the own one was rejected or there is none."""
    request = RenewalRequest(policy=RefreshPolicy(), access=access, remaining=remaining, rejected=rejected)
    assert request.should_adopt(evolve(SHARED, remaining=shared)) is is_better
