"""What a worker remembers of its own actions."""

import pytest

from apivideo_auth._record import Commit, Done, Granted
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
@pytest.mark.parametrize("how", ["read", "granted"])
def test_the_refresh_token_of_an_older_record_is_not_used(how: str, committed_at: float | None, is_used: bool) -> None:
    """A worker that has seen a newer commit, in an answer of any kind, does not use an older refresh token."""
    private = PrivateRecord()
    if how == "read":
        private.note_commit(100.0)
    else:
        private.use_refresh(granted(None, 100.0))
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
