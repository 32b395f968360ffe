"""A sealed slot: the store sees sealed parts only, and what does not open is reported once and then replaced."""

from typing import Any

import pytest
from attrs import define, evolve, field

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._failure import Failure
from apivideo_auth._record import Backoff, Busy, Changed, Claim, ClaimLost, Commit, Done, Granted, Record, Release
from apivideo_auth._secrets import SecretBytes
from apivideo_auth.stores._encrypted import Cipher, EncryptedSlot
from apivideo_auth.stores._memory import MemorySlot, MemoryStore
from tests.support.doubles import ManualClock

LEASE = 15.0


@define
class Place:
    """A memory store, and the view that two workers have of one account in it."""

    clock: ManualClock = field(factory=ManualClock)
    store: MemoryStore = field(factory=MemoryStore)
    told: list[str] = field(factory=list)

    def slot(self, name: str = "worker", api_key: str = "made-up-api-key") -> EncryptedSlot:
        """Return a worker's slot."""
        bare = self.store.open("account", clock=self.clock, on_commit=lambda: self.told.append(name))
        return EncryptedSlot(bare, Cipher(api_key, "account"))

    @property
    def record(self) -> Record:
        """The record as the store has it."""
        return self.store._accounts["account"].record

    def alter(self, **fields: Any) -> None:
        """Change the record behind everybody's back."""
        self.store._accounts["account"].record = evolve(self.record, **fields)


@pytest.fixture
def place() -> Place:
    """An empty store."""
    return Place()


def claim(name: str, seen: str | None = None) -> Claim:
    """Return a claim."""
    return Claim(id=name, seen=seen, lease=LEASE)


def commit(name: str) -> Commit:
    """Return a commit whose tokens are named after its claim."""
    return Commit(
        id=name,
        access=SecretBytes(f"access of {name}".encode()),
        refresh=SecretBytes(f"refresh of {name}".encode()),
        lifetime=3600.0,
        remaining=3599.0,
    )


async def renewed(slot: EncryptedSlot, name: str, seen: str | None = None) -> None:
    """Claim and commit."""
    assert isinstance(await slot.claim(claim(name, seen)), Granted)
    assert await slot.commit(commit(name)) == Done()


async def test_the_store_holds_sealed_parts(place):
    """Neither token is in the record, and all else is there in clear."""
    await renewed(place.slot(), "first")
    assert place.record.version == "first"
    assert place.record.lifetime == 3600.0
    for part in (place.record.access, place.record.refresh):
        assert part is not None
        assert b"first" not in part


async def test_a_refresh_token_that_is_given_back_is_sealed(place):
    """A failed renewal that gives its refresh token back gives it back sealed, and the next claim opens it."""
    slot = place.slot()
    await slot.claim(claim("first"))
    assert await slot.release(Release(id="first", refresh=SecretBytes(b"unused"))) == Done()
    assert place.record.refresh is not None
    assert b"unused" not in place.record.refresh
    granted = await slot.claim(claim("second"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"unused"


async def test_another_worker_opens_what_one_has_sealed(place):
    """All workers with the same API key read, adopt and refresh with what any of them has committed."""
    await renewed(place.slot(), "first")
    other = place.slot("other")
    read = await other.read()
    assert read is not None
    assert (read.version, read.access, read.remaining) == ("first", b"access of first", 3599.0)
    assert await other.claim(claim("second")) == Changed(token=read)
    granted = await other.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"
    assert isinstance(granted.refresh, SecretBytes)


async def test_a_dropped_commit_shows_the_token_that_is_there(place):
    """The late holder of a claim gets the open token of the one who came after it."""
    late, other = place.slot("late"), place.slot("other")
    await late.claim(claim("late"))
    place.clock.now += LEASE + 0.001
    await renewed(other, "other")
    dropped = await late.commit(commit("late"))
    assert isinstance(dropped, ClaimLost)
    assert dropped.token is not None
    assert dropped.token.access == b"access of other"
    assert await late.release(Release(id="late")) == dropped


async def test_answers_without_parts_pass_through(place):
    """Nothing to open: an empty record, a claim that is held, a pause, a drop without a token."""
    slot = place.slot()
    assert await slot.read() is None
    granted = await slot.claim(claim("first"))
    assert isinstance(granted, Granted)
    assert granted.refresh is None
    assert await slot.claim(claim("second")) == Busy(retry_after=LEASE)
    assert await slot.commit(commit("second")) == ClaimLost(token=None)
    failure = Failure(kind="connection", message="down")
    assert await slot.release(Release(id="first", backoff=2.0, failure=failure)) == Done()
    assert isinstance(await slot.claim(claim("third")), Backoff)


async def test_a_token_without_a_refresh_token_is_committed_so(place):
    """No refresh token is no sealed nothing: the next claim sees that there is none."""
    slot = place.slot()
    await slot.claim(claim("first"))
    await slot.commit(evolve(commit("first"), refresh=None))
    assert place.record.refresh is None


async def test_the_rest_of_a_slot_is_the_stores(place):
    """Waking, forgetting and closing reach the slot beneath."""
    slot, other = place.slot("one"), place.slot("other")
    await renewed(slot, "first")
    assert place.told == ["other"]
    await slot.changed(0.0)
    await slot.forget()
    assert await other.read() is None
    await slot.close()
    await other.close()
    assert not place.store._accounts["account"].slots
    assert repr(slot).startswith("<EncryptedSlot <")


async def test_an_access_token_that_does_not_open_is_reported_once_and_replaced(place):
    """A foreign token in the record is one error to each worker; the next claim goes past it, and a commit heals."""
    await renewed(place.slot(), "first")
    place.alter(access=b"put there by somebody without the key")
    slot = place.slot()
    with pytest.raises(TokenStoreError, match="access token cannot be decrypted"):
        await slot.claim(claim("second"))
    granted = await slot.claim(claim("second"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"
    assert await slot.commit(commit("second")) == Done()
    read = await place.slot().read()
    assert read is not None
    assert read.access == b"access of second"


async def test_reading_reports_once_what_does_not_open(place):
    """A second look at the same foreign token finds none; another foreign token is news again."""
    slot = place.slot()
    await renewed(slot, "first")
    for foreign in (b"foreign", b"another"):
        place.alter(access=foreign)
        with pytest.raises(TokenStoreError):
            await slot.read()
        assert await slot.read() is None


async def test_going_past_a_foreign_token_still_respects_who_holds_the_claim(place):
    """What does not open gives nobody a right to renew beside the one who renews."""
    holder, slot = place.slot("holder"), place.slot()
    await renewed(holder, "first")
    await holder.claim(claim("second", seen="first"))
    place.alter(access=b"foreign")
    with pytest.raises(TokenStoreError):
        await slot.claim(claim("third"))
    assert await slot.claim(claim("third")) == Busy(retry_after=LEASE)


async def test_a_second_foreign_token_behind_the_first_is_reported(place, monkeypatch):
    """Going past a foreign token to find another one there is reported too, and is no endless search."""
    slot = place.slot()
    await renewed(slot, "first")
    place.alter(access=b"foreign")
    with pytest.raises(TokenStoreError):
        await slot.read()
    bare_claim, seen = MemorySlot.claim, []

    async def claim_while_somebody_writes(self, event):
        answer = await bare_claim(self, event)
        seen.append(event.seen)
        place.alter(version=f"foreign {len(seen)}")
        return answer if event.seen is None else await bare_claim(self, event)

    monkeypatch.setattr(MemorySlot, "claim", claim_while_somebody_writes)
    place.alter(claim_id=None)
    with pytest.raises(TokenStoreError):
        await slot.claim(claim("second"))
    assert seen == [None, "first"]


async def test_a_refresh_token_that_does_not_open_leaves_the_record(place):
    """It is reported, its claim is ended at once, and the next claim is granted without: by the API key."""
    slot = place.slot()
    await renewed(slot, "first")
    place.alter(refresh=b"foreign")
    with pytest.raises(TokenStoreError, match="refresh token cannot be decrypted"):
        await slot.claim(claim("second", seen="first"))
    assert place.record.claim_id is None
    granted = await slot.claim(claim("third", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh is None


async def test_a_late_holder_is_not_troubled_by_a_foreign_token(place):
    """To the holder of a lost claim a token that does not open is none; its next look reports it."""
    late, other = place.slot("late"), place.slot("other")
    await late.claim(claim("late"))
    place.clock.now += LEASE + 0.001
    await renewed(other, "other")
    place.alter(access=b"foreign")
    assert await late.commit(commit("late")) == ClaimLost(token=None)
    with pytest.raises(TokenStoreError):
        await late.read()


async def test_another_api_key_opens_nothing(place):
    """Where two keys came to share an account's name, neither gets the other's token."""
    await renewed(place.slot(), "first")
    with pytest.raises(TokenStoreError):
        await place.slot(api_key="another-api-key").read()
