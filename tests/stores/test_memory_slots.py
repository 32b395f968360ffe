"""The store in memory: its slots tell each other of what they do."""

import asyncio
from typing import Any

import pytest

from apivideo_auth import MemoryStore
from apivideo_auth._record import Claim, ClaimLost, Commit, Done, Granted, Release
from apivideo_auth.stores._memory import MemorySlot
from tests.support.doubles import ManualClock

pytestmark = pytest.mark.virtual_time

CLAIM = Claim(id="mine", seen=None, lease=15.0)
COMMIT = Commit(id="mine", access=b"made-up", refresh=None, lifetime=3600.0, remaining=3600.0)


def open_slot(store: MemoryStore, told: list[str], name: str, account: str = "account") -> MemorySlot:
    """Return a slot that notes its name for each commit of another one."""
    return store.open(account, clock=ManualClock(), on_commit=lambda: told.append(name), on_damage=pytest.fail)


async def ends_at_once(wait: Any) -> bool:
    """Return whether a wait ends without its timeout."""
    began = asyncio.get_running_loop().time()
    await wait
    return asyncio.get_running_loop().time() == began


async def test_a_commit_is_told_to_the_other_slots_of_the_account() -> None:
    """The slot that committed and those of other accounts are told nothing; a release is no commit."""
    store, told = MemoryStore(), []
    mine, other = open_slot(store, told, "mine"), open_slot(store, told, "other")
    elsewhere = open_slot(store, told, "elsewhere", account="elsewhere")
    for slot in (mine, other, elsewhere):
        assert await slot.read() is None
    assert isinstance(await mine.claim(CLAIM), Granted)
    assert await mine.release(Release(id="mine")) == Done()
    assert told == []
    await mine.claim(CLAIM)
    assert isinstance(await mine.commit(COMMIT), Done)
    assert told == ["other"]
    assert await mine.commit(Commit(id="late", access=b"", refresh=None, lifetime=1.0, remaining=1.0)) != Done()
    assert told == ["other"]
    token = await other.read()
    assert token is not None
    assert (token.version, token.access, token.remaining) == ("mine", b"made-up", 3600.0)
    assert repr(store) == "<MemoryStore accounts=2>"


@pytest.mark.parametrize("how", ["commit", "release", "close"])
async def test_a_change_ends_the_waiting(how: str) -> None:
    """A commit or release since the slot's last answer ends its wait at once; a closed slot waits no longer."""
    store = MemoryStore()
    mine, other = open_slot(store, [], "mine"), open_slot(store, [], "other")
    await mine.claim(CLAIM)
    await other.read()
    assert not await ends_at_once(other.changed(5.0))
    waiting = asyncio.create_task(other.changed(1000.0))
    await asyncio.sleep(1)
    if how == "commit":
        await mine.commit(COMMIT)
    elif how == "release":
        await mine.release(Release(id="mine"))
    else:
        await other.close()
    assert await ends_at_once(waiting)
    assert await ends_at_once(other.changed(5.0))
    await other.read()
    assert not await ends_at_once(other.changed(5.0))


async def test_a_slot_without_an_answer_waits_for_what_comes() -> None:
    """A slot that has not asked for anything yet waits from when it was opened."""
    store = MemoryStore()
    mine, other = open_slot(store, [], "mine"), open_slot(store, [], "other")
    assert not await ends_at_once(other.changed(5.0))
    await mine.claim(CLAIM)
    await mine.release(Release(id="mine"))
    assert await ends_at_once(other.changed(5.0))


async def test_a_slot_that_left_is_told_nothing() -> None:
    """The store keeps the record, and a slot may be closed twice."""
    store, told = MemoryStore(), []
    mine, other = open_slot(store, told, "mine"), open_slot(store, told, "other")
    await other.close()
    await other.close()
    await mine.claim(CLAIM)
    await mine.commit(COMMIT)
    assert told == []
    again = open_slot(store, told, "again")
    assert await again.read() is not None
    await again.forget()
    assert await mine.read() is None
    assert await mine.release(Release(id="mine")) == ClaimLost(token=None)
