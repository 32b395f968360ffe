"""What a worker remembers of its own actions."""

import pytest
from attrs import evolve

from apivideo_auth._failure import Failure
from apivideo_auth._policy import MAX_LEASE
from apivideo_auth._record import Backoff, Busy, Changed, Claim, ClaimLost, Commit, Done, Granted, Release, SharedToken
from apivideo_auth.stores._private import MAX_REMEMBERED, PrivateRecord


def granted(refresh: bytes | None, committed_at: float | None = 100.0) -> Granted:
    """Return the grant of a claim."""
    return Granted(refresh=refresh, committed_at=committed_at, failures=0, failing_for=0.0)


def test_a_refresh_token_is_used_once() -> None:
    """A refresh token that was granted before is taken away, unless it was given back."""
    private = PrivateRecord()
    assert private.use_refresh(granted(b"made-up-1")).refresh == b"made-up-1"
    assert private.use_refresh(granted(b"made-up-1")).refresh is None
    private.give_back(b"made-up-1")
    assert private.use_refresh(granted(b"made-up-1")).refresh == b"made-up-1"
    private.give_back(None)
    private.give_back(b"made-up-of-another-worker")


@pytest.mark.parametrize(("committed_at", "is_used"), [(99.9, False), (100.0, True), (100.1, True), (None, True)])
@pytest.mark.parametrize("how", ["read", "granted", "changed", "lost", "done"])
def test_the_refresh_token_of_an_older_record_is_not_used(how: str, committed_at: float | None, is_used: bool) -> None:
    """A worker that has seen a newer commit, in an answer of any kind, does not use an older refresh token."""
    private = PrivateRecord()
    token = SharedToken(version="made-up", access=b"made-up", lifetime=60.0, remaining=60.0, committed_at=100.0)
    match how:
        case "read":
            private.note_commit(100.0)
        case "granted":
            private.use_refresh(granted(None, 100.0))
        case "changed":
            private.note_answer(Changed(token=token))
        case "lost":
            private.note_answer(ClaimLost(token=token))
        case _:
            private.note_answer(Done(committed_at=100.0))
    # These show no commit.
    private.note_answer(ClaimLost(token=None))
    private.note_answer(Done())
    assert (private.use_refresh(granted(b"made-up", committed_at)).refresh is not None) == is_used


@pytest.mark.parametrize(("committed_at", "is_used"), [(100.0, False), (100.1, True)])
def test_the_record_before_ones_own_commit_is_an_older_one(committed_at: float, is_used: bool) -> None:
    """After its own commit a worker does not use the refresh token of the record that it claimed."""
    private = PrivateRecord()
    private.use_refresh(granted(None, 100.0))
    private.note_commit(100.1)
    assert (private.use_refresh(granted(b"made-up", committed_at)).refresh is not None) == is_used


def test_memory_is_bounded() -> None:
    """The last refresh tokens are remembered, and no others."""
    private = PrivateRecord()
    for number in range(MAX_REMEMBERED + 1):
        private.use_refresh(granted(f"made-up-{number}".encode()))
    assert private.use_refresh(granted(f"made-up-{MAX_REMEMBERED}".encode())).refresh is None
    assert private.use_refresh(granted(b"made-up-1")).refresh is None


def test_a_lost_claim_goes_on_privately() -> None:
    """A claim that the store lost can be committed to the private record; its refresh token is taken out once."""
    private = PrivateRecord()
    private.take_over("mine", 10.0)
    assert private.token(10.0) is None
    commit = Commit(id="mine", access=b"made-up-access", refresh=b"made-up", lifetime=60.0, remaining=60.0)
    assert isinstance(private.end(commit, 10.0), Done)
    token = private.token(10.0)
    assert token is not None
    assert token.version == "mine"
    assert private.take_refresh() == b"made-up"
    assert private.take_refresh() is None
    private.clear()
    assert private.token(10.0) is None
    assert "made-up" not in repr(private)


def test_two_private_records_are_merged() -> None:
    """What either of them remembers counts: sent refresh tokens, the newest commit, an event that was not answered."""
    mine, other = PrivateRecord(), PrivateRecord()
    other.take_over("theirs", 10.0)
    commit = Commit(id="theirs", access=b"made-up-access", refresh=b"made-up", lifetime=60.0, remaining=60.0)
    other.end(commit, 10.0)
    other.unconfirmed = commit
    other.use_refresh(granted(b"made-up-1", 100.0))
    mine.merge(other)
    mine.merge(mine)
    assert mine.unconfirmed == commit
    assert mine.token(10.0) == other.token(10.0) is not None
    assert mine.use_refresh(granted(b"made-up-1", 100.0)).refresh is None
    assert mine.use_refresh(granted(b"made-up-2", 99.0)).refresh is None
    assert mine.use_refresh(granted(b"made-up-3", 100.0)).refresh == b"made-up-3"


def test_a_private_record_in_use_is_not_replaced() -> None:
    """A private token, and an event that was not answered, stay if another private record is added."""
    mine, other = PrivateRecord(), PrivateRecord()
    for private, name in ((mine, "mine"), (other, "theirs")):
        private.take_over(name, 10.0)
        private.unconfirmed = Commit(id=name, access=b"made-up", refresh=None, lifetime=60.0, remaining=60.0)
        private.end(private.unconfirmed, 10.0)
    mine.merge(other)
    assert mine.token(10.0).version == "mine"
    assert mine.unconfirmed.id == "mine"


def test_the_newest_commit_is_remembered() -> None:
    """An older commit, or an answer without one, changes nothing."""
    private = PrivateRecord()
    private.note_commit(100.0)
    private.note_commit(None)
    private.note_commit(50.0)
    assert private.use_refresh(granted(b"made-up", 99.0)).refresh is None


def test_a_private_claim_says_nothing_of_the_stores_commits() -> None:
    """Its answers have no date of a commit, and a release of it counts."""
    private = PrivateRecord()
    claim = Claim(id="one", seen=None, lease=15.0)
    assert private.claim(claim, 10.0) == granted(None, None)
    assert private.token(10.0) is None
    failure = Failure(kind="connection", message="made-up")
    assert private.end(Release(id="one", retry_after=5.0, failure=failure), 10.0) == Done()
    backoff = private.claim(evolve(claim, id="two"), 11.0)
    assert isinstance(backoff, Backoff)
    assert (backoff.retry_after, backoff.committed_at) == (4.0, None)


def test_a_claim_that_was_taken_over_has_the_longest_lease() -> None:
    """Until the renewal ends, or its lease does, the private record is busy."""
    private = PrivateRecord()
    private.take_over("mine", 10.0)
    assert private.claim(Claim(id="other", seen=None, lease=15.0), 12.0) == Busy(retry_after=MAX_LEASE - 2.0)
    record = private.record
    assert (record.claim_id, record.claimed_at, record.claim_until) == ("mine", 10.0, 10.0 + MAX_LEASE)


def test_a_private_token_is_not_offered_while_it_is_renewed() -> None:
    """It may be replaced at any moment."""
    private = PrivateRecord()
    private.take_over("mine", 10.0)
    commit = Commit(id="mine", access=b"made-up-access", refresh=b"made-up", lifetime=60.0, remaining=60.0)
    private.end(commit, 10.0)
    assert private.token(20.0) is not None
    assert isinstance(private.claim(Claim(id="next", seen="mine", lease=15.0), 20.0), Granted)
    assert private.token(20.0) is None


def test_bytes_that_are_no_text_are_remembered_too() -> None:
    """A damaged refresh token is sent once, like any other."""
    private = PrivateRecord()
    assert private.use_refresh(granted(b"\xff\xfe")).refresh == b"\xff\xfe"
    assert private.use_refresh(granted(b"\xff\xfe")).refresh is None


def test_ones_own_commit_is_the_newest_after_the_clock_was_set_back() -> None:
    """If the store's clock steps back, a worker uses the refresh tokens of its own later commits."""
    private = PrivateRecord()
    private.note_answer(Done(committed_at=7200.0))
    assert private.use_refresh(granted(b"made-up-1", committed_at=100.0)).refresh is None
    private.note_answer(Done(committed_at=110.0))
    assert private.use_refresh(granted(b"made-up-2", committed_at=110.0)).refresh == b"made-up-2"


def test_a_private_record_says_nothing_about_commits_of_the_store() -> None:
    """Its moments are on another clock, so none of its answers names a commit."""
    private = PrivateRecord()
    private.claim(Claim(id="one", seen=None, lease=15.0), 1000.0)
    commit = Commit(id="one", access=b"made-up", refresh=None, lifetime=60.0, remaining=60.0)
    private.end(commit, 1000.0)
    answer = private.claim(Claim(id="two", seen="one", lease=15.0), 1001.0)
    assert isinstance(answer, Granted)
    assert answer.committed_at is None
    private.end(Release(id="two", failure=Failure(kind="connection", message="down"), retry_after=30.0), 1002.0)
    answer = private.claim(Claim(id="three", seen="one", lease=15.0), 1003.0)
    assert isinstance(answer, Backoff)
    assert answer.committed_at is None
