"""An encrypted slot: the store gets encrypted tokens only; what cannot be decrypted is reported and then replaced."""

import asyncio
from typing import Any

import pytest
from attrs import define, evolve, field

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._failure import Failure
from apivideo_auth._record import Backoff, Busy, Changed, Claim, ClaimLost, Commit, Done, Granted, Record, Release
from apivideo_auth._secrets import SecretBytes
from apivideo_auth.stores._encrypted import Cipher, EncryptedSlot, NoCipher, open_slot
from apivideo_auth.stores._memory import MemorySlot, MemoryStore
from tests.support.doubles import ManualClock

LEASE = 15.0


@define
class Place:
    """A memory store and the slots of workers that share one account."""

    clock: ManualClock = field(factory=ManualClock)
    store: MemoryStore = field(factory=MemoryStore)
    calls: list[str] = field(factory=list)
    damages: list[str] = field(factory=list)

    def slot(self, name: str = "worker", api_key: str = "made-up-api-key") -> EncryptedSlot:
        """Return a worker's slot."""
        bare = self.store.open(
            "account", clock=self.clock, on_commit=lambda: self.calls.append(name), on_damage=pytest.fail
        )
        return EncryptedSlot(bare, Cipher(api_key, "account"), on_damage=self.damages.append)

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
    assert isinstance(await slot.commit(commit(name)), Done)


async def test_the_store_holds_encrypted_parts(place):
    """The tokens in the record are encrypted, and everything else is in the clear."""
    await renewed(place.slot(), "first")
    assert place.record.version == "first"
    assert place.record.lifetime == 3600.0
    for part in (place.record.access, place.record.refresh):
        assert part is not None
        assert b"first" not in part


async def test_a_refresh_token_that_is_given_back_is_encrypted(place):
    """A failed renewal gives its refresh token back encrypted, and the next claim decrypts it."""
    slot = place.slot()
    await slot.claim(claim("first"))
    assert await slot.release(Release(id="first", refresh=SecretBytes(b"unused"))) == Done()
    assert place.record.refresh is not None
    assert b"unused" not in place.record.refresh
    granted = await slot.claim(claim("second"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"unused"


async def test_another_worker_decrypts_what_one_has_encrypted(place):
    """Workers with the same API key read, adopt and refresh with the tokens that any of them has committed."""
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


async def test_the_answer_to_a_lost_claim_is_decrypted(place):
    """The holder of a lost claim gets the decrypted token of the worker that came after it."""
    late, other = place.slot("late"), place.slot("other")
    await late.claim(claim("late"))
    place.clock.now += LEASE + 0.001
    await renewed(other, "other")
    dropped = await late.commit(commit("late"))
    assert isinstance(dropped, ClaimLost)
    assert dropped.token is not None
    assert dropped.token.access == b"access of other"
    assert await late.release(Release(id="late")) == dropped


async def test_answers_without_tokens_pass_through(place):
    """Nothing is decrypted in the answers for an empty record, busy, backoff and a lost claim without a token."""
    slot = place.slot()
    assert await slot.read() is None
    granted = await slot.claim(claim("first"))
    assert isinstance(granted, Granted)
    assert granted.refresh is None
    assert await slot.claim(claim("second")) == Busy(retry_after=LEASE)
    assert await slot.commit(commit("second")) == ClaimLost(token=None)
    failure = Failure(kind="connection", message="down")
    assert await slot.release(Release(id="first", retry_after=2.0, failure=failure)) == Done()
    assert isinstance(await slot.claim(claim("third")), Backoff)


async def test_a_token_without_a_refresh_token_is_committed_so(place):
    """A missing refresh token is stored as missing, so that the next claim sees that there is none."""
    slot = place.slot()
    await slot.claim(claim("first"))
    await slot.commit(evolve(commit("first"), refresh=None))
    assert place.record.refresh is None


async def test_the_other_methods_are_forwarded(place):
    """Waiting, forgetting and closing reach the underlying slot."""
    slot, other = place.slot("one"), place.slot("other")
    await renewed(slot, "first")
    assert place.calls == ["other"]
    await slot.changed(0.0)
    await slot.forget()
    assert await other.read() is None
    await slot.close()
    await other.close()
    assert not place.store._accounts["account"].slots
    assert repr(slot).startswith("<EncryptedSlot <")


async def test_an_access_token_that_cannot_be_decrypted_counts_as_missing(place):
    """The first claim ignores a foreign access token, reports it, and is granted; its commit replaces the token."""
    await renewed(place.slot(), "first")
    place.alter(access=b"put there by somebody without the key")
    slot = place.slot()
    granted = await slot.claim(claim("second"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"
    assert len(place.damages) == 1
    assert "access token in the token store cannot be decrypted and counts as missing" in place.damages[0]
    assert isinstance(await slot.commit(commit("second")), Done)
    read = await place.slot().read()
    assert read is not None
    assert read.access == b"access of second"
    assert len(place.damages) == 1


async def test_reading_reports_a_foreign_token_once(place):
    """Reading the same foreign token again reports nothing; another foreign token is reported again."""
    slot = place.slot()
    await renewed(slot, "first")
    for number, foreign in enumerate((b"foreign", b"another"), start=1):
        place.alter(access=foreign)
        assert await slot.read() is None
        assert await slot.read() is None
        assert len(place.damages) == number


async def test_a_claim_that_ignores_a_foreign_token_respects_the_holder(place):
    """A foreign token does not allow a second worker to renew at the same time."""
    holder, slot = place.slot("holder"), place.slot()
    await renewed(holder, "first")
    await holder.claim(claim("second", seen="first"))
    place.alter(access=b"foreign")
    assert await slot.claim(claim("third")) == Busy(retry_after=LEASE)


@pytest.mark.parametrize("good", [True, False])
async def test_a_token_that_is_replaced_meanwhile(good, place, monkeypatch):
    """A claim that ignores a foreign token may find another one: a good one is the answer, a foreign one an error."""
    await renewed(place.slot(), "first")
    encrypted = place.record.access
    place.alter(access=b"foreign")
    slot, bare_claim, seen = place.slot(), MemorySlot.claim, []

    async def claim_while_another_writes(self, event):
        answer = await bare_claim(self, event)
        seen.append(event.seen)
        place.alter(version=f"version {len(seen)}", access=encrypted if good else f"foreign {len(seen)}".encode())
        return answer

    monkeypatch.setattr(MemorySlot, "claim", claim_while_another_writes)
    if good:
        answer = await slot.claim(claim("second"))
        assert isinstance(answer, Changed)
        assert answer.token.access == b"access of first"
    else:
        with pytest.raises(TokenStoreError, match="does not have the API key"):
            await slot.claim(claim("second"))
    assert seen == [None, "first"]


async def test_a_refresh_token_that_cannot_be_decrypted_is_not_used(place):
    """The claim is granted without the refresh token, and the damage is reported."""
    slot = place.slot()
    await renewed(slot, "first")
    place.alter(refresh=b"foreign")
    granted = await slot.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh is None
    assert len(place.damages) == 1
    assert "refresh token" in place.damages[0]


async def test_the_answer_to_a_lost_claim_omits_a_foreign_token(place):
    """The holder of a lost claim gets no foreign token."""
    late, other = place.slot("late"), place.slot("other")
    await late.claim(claim("late"))
    place.clock.now += LEASE + 0.001
    await renewed(other, "other")
    place.alter(access=b"foreign")
    assert await late.commit(commit("late")) == ClaimLost(token=None)
    assert len(place.damages) == 1


async def test_another_api_key_decrypts_nothing(place):
    """If two API keys shared an account name, neither would get the other's token."""
    await renewed(place.slot(), "first")
    assert await place.slot(api_key="another-api-key").read() is None
    assert len(place.damages) == 1


async def test_what_cannot_be_decrypted_is_told_in_a_sentence(place):
    """The message names the part and what may have happened, and nothing of the cipher shows a key."""
    await renewed(place.slot(), "first")
    await place.slot("other", api_key="made-up-other-key").read()
    (message,) = place.damages
    assert message.startswith("the access token in the token store cannot be decrypted and counts as missing: ")
    assert message.endswith("it was altered, or encrypted with another API key or by another version")
    assert repr(Cipher("made-up-api-key", "account")) == "<Cipher>"


@pytest.mark.virtual_time
async def test_a_wait_for_a_change_ends_with_its_timeout(place):
    """The timeout goes to the store's slot as it is."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await place.slot().changed(7.0)
    assert loop.time() - began == 7.0


# Opening.


class Recorder(MemoryStore):
    """A store that keeps what it was opened with."""

    def __init__(self, *, needs_encryption: bool) -> None:
        super().__init__()
        self.needs_encryption = needs_encryption
        self.accounts: list[str] = []
        self.options: list[dict[str, Any]] = []

    def open(self, account: str, **options: Any) -> MemorySlot:
        self.accounts.append(account)
        self.options.append(options)
        return super().open(account, **options)


def opened(store: Recorder, base_url: str = "https://ws.api.video", api_key: str = "made-up-api-key") -> EncryptedSlot:
    """Open a slot as a manager does."""
    return open_slot(
        store, base_url=base_url, api_key=api_key, clock=ManualClock(), on_commit=int, on_damage=pytest.fail
    )


@pytest.mark.parametrize("needs_encryption", [True, False])
async def test_tokens_are_encrypted_if_they_leave_the_process(needs_encryption):
    """A store that needs encryption gets encrypted tokens; in both cases the next worker gets the tokens back."""
    store = Recorder(needs_encryption=needs_encryption)
    slot = opened(store)
    await slot.claim(claim("first"))
    await slot.commit(evolve(commit("first"), access=b"made-up-access", refresh=b"made-up-refresh"))
    ((_, shared),) = store._accounts.items()
    assert (b"made-up" not in shared.record.access) is needs_encryption
    assert (b"made-up" not in shared.record.refresh) is needs_encryption
    other = opened(store)
    token = await other.read()
    assert token is not None
    assert (token.access, type(token.access)) == (b"made-up-access", SecretBytes)
    granted = await other.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"made-up-refresh"


async def test_accounts_are_kept_apart_by_api_key_and_base_url():
    """Each account has an opaque name of its own, and gets the clock and the callbacks of its manager."""
    store = Recorder(needs_encryption=True)
    slots = [opened(store), opened(store, api_key="another"), opened(store, base_url="https://sandbox.api.video")]
    opened(store)
    assert len(set(store.accounts)) == 3
    assert store.accounts[0] == store.accounts[3]
    assert not any("made-up" in name or "api.video" in name for name in store.accounts)
    assert [*store.options[0]] == ["clock", "on_commit", "on_damage"]
    assert isinstance(store.options[0]["clock"], ManualClock)
    assert store.options[0]["on_commit"] is int
    assert store.options[0]["on_damage"] is pytest.fail
    for slot in slots:
        assert isinstance(await slot.claim(claim("first")), Granted)


async def test_workers_of_another_account_cannot_decrypt_a_record():
    """A record that is moved to another account, or opened with another API key, counts as damaged."""
    store, damages = Recorder(needs_encryption=True), []
    await renewed(opened(store), "first")
    for base_url, api_key in (("https://ws.api.video", "another"), ("https://sandbox.api.video", "made-up-api-key")):
        slot = open_slot(
            store, base_url=base_url, api_key=api_key, clock=ManualClock(), on_commit=int, on_damage=damages.append
        )
        store._accounts[store.accounts[-1]].record = store._accounts[store.accounts[0]].record
        assert await slot.read() is None
    assert len(damages) == 2


@pytest.mark.parametrize(
    "bad",
    [b"", b"made-up text", b"made-up\r\n", b"\xff\xfe", "made-up"],
    ids=["empty", "space", "line break", "bytes", "text"],
)
async def test_a_part_that_cannot_be_a_token_counts_as_missing(bad):
    """A store without encryption that returns something else than a token has a damaged record."""
    store, damages = MemoryStore(), []
    slot = EncryptedSlot(
        store.open("account", clock=ManualClock(), on_commit=int, on_damage=pytest.fail),
        NoCipher(),
        on_damage=damages.append,
    )
    await slot.claim(claim("first"))
    await slot.commit(evolve(commit("first"), access=b"made-up-access", refresh=None))
    shared = store._accounts["account"]
    shared.record = evolve(shared.record, access=bad)
    assert await slot.read() is None
    (damage,) = damages
    assert damage == (
        "the access token in the token store is not a token and counts as missing: the record is damaged, or another "
        "program wrote it"
    )
