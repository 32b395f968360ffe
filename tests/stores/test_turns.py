"""The account that the managers of a process share: one question to the store serves all who wait for their turn."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth._record import Backoff, Busy, Changed, Claim, Commit, Done, Granted, Release, SharedToken
from apivideo_auth.stores._failover import FailoverSlot, open_failover_slot
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock
from tests.support.faulty_store import FaultyStore
from tests.support.record_cases import BACKING_OFF, OUTAGE

pytestmark = pytest.mark.virtual_time

TAKES = 0.25
CLAIM = Claim(id="mine", seen=None, lease=15.0)


class LateStore(FaultyStore):
    """A store whose answers take a quarter of a second."""

    def open(self, account: str, **kwargs: Any) -> Any:
        slot = super().open(account, **kwargs)

        class Late:
            def __getattr__(self, name: str) -> Callable[..., Any]:
                async def operation(*args: Any) -> Any:
                    answer = await getattr(slot, name)(*args)
                    await asyncio.sleep(TAKES)
                    return answer

                return operation

        return Late()


def open_slots(
    number: int, store: Any, clock: LoopClock, pushed: list[tuple[SharedToken, float]]
) -> list[FailoverSlot]:
    """Return the slots of managers of one process."""
    return [
        open_failover_slot(
            store,
            base_url="https://ws.api.video",
            api_key=API_KEY,
            clock=clock,
            emit=lambda _event: None,
            on_commit=lambda token, asked_at: pushed.append((token, asked_at)),
            previous=None,
        )
        for _ in range(number)
    ]


async def renewed(slot: FailoverSlot, name: str = "first", seen: str | None = None) -> None:
    """Claim, and commit a token of an hour."""
    assert isinstance(await slot.claim(Claim(id=name, seen=seen, lease=15.0)), Granted)
    commit = Commit(id=name, access=b"made-up-access", refresh=b"made-up-refresh", lifetime=3600.0, remaining=3600.0)
    assert isinstance(await slot.commit(commit), Done)


async def test_one_look_serves_those_who_wait_for_their_turn(clock: LoopClock) -> None:
    """A look that began after a manager had asked serves that manager as well, and its token has aged meanwhile."""
    store = LateStore()
    slots = open_slots(4, store, clock, [])
    await renewed(slots[0])
    store.operations.clear()
    answers = await asyncio.gather(*(slot.read() for slot in slots))
    # The life of the token counts from the claim, two answers ago.
    assert [3600.0 - answer.remaining for answer in answers] == [2 * TAKES, 3 * TAKES, 4 * TAKES, 4 * TAKES]
    assert store.operations == ["read"] * 2
    for slot in slots:
        await slot.close()


async def test_one_answer_serves_the_claims_that_wait_for_their_turn(clock: LoopClock) -> None:
    """If the first of them learns of a token, the others get it at once, aged, unless they know its version."""
    store = LateStore()
    owner, *slots = open_slots(4, store, clock, [])
    await renewed(owner)
    store.operations.clear()
    claims = [evolve(CLAIM, id=f"claim-{number}") for number in range(3)]
    answers = await asyncio.gather(*(slot.claim(claim) for slot, claim in zip(slots, claims, strict=True)))
    assert all(isinstance(answer, Changed) for answer in answers)
    assert [3600.0 - answer.token.remaining for answer in answers] == [2 * TAKES, 3 * TAKES, 4 * TAKES]
    assert store.operations == ["claim"] * 2
    store.operations.clear()
    claims = [*claims[:2], evolve(claims[2], seen="first")]
    *_, last = await asyncio.gather(*(slot.claim(claim) for slot, claim in zip(slots, claims, strict=True)))
    assert isinstance(last, Granted)
    assert store.operations == ["claim"] * 3
    for slot in (owner, *slots):
        await slot.close()


async def test_one_backoff_serves_the_claims_that_wait_for_their_turn(clock: LoopClock) -> None:
    """Those who waited get what is left of the backoff that the first of them met."""
    store = LateStore()
    slots = open_slots(3, store, clock, [])
    await slots[0].read()
    store.record = evolve(BACKING_OFF, access=None, not_before=clock.monotonic() + 10, failing_since=0.0)
    store.operations.clear()
    answers = await asyncio.gather(
        *(slot.claim(evolve(CLAIM, id=f"claim-{number}")) for number, slot in enumerate(slots))
    )
    assert all(isinstance(answer, Backoff) for answer in answers)
    assert [10.0 - answer.retry_after for answer in answers] == [0.0, TAKES, 2 * TAKES]
    assert {answer.failure for answer in answers} == {OUTAGE}
    assert store.operations == ["claim"] * 2
    for slot in slots:
        await slot.close()


@pytest.mark.parametrize(("left", "asked"), [(0.0, 3), (TAKES, 2)])
async def test_a_backoff_serves_until_it_is_over(clock: LoopClock, left: float, asked: int) -> None:
    """A backoff that is over when a manager's turn comes does not serve that manager."""
    store = LateStore()
    slots = open_slots(3, store, clock, [])
    await slots[0].read()
    await asyncio.sleep(100 - TAKES)
    # The second answer is asked for after a quarter of a second, and the third one waits as long for it.
    store.record = evolve(BACKING_OFF, access=None, not_before=100 + 2 * TAKES + left, failing_since=0.0)
    store.operations.clear()
    *_, last = await asyncio.gather(
        *(slot.claim(evolve(CLAIM, id=f"claim-{number}")) for number, slot in enumerate(slots))
    )
    assert store.operations == ["claim"] * asked
    if left:
        assert isinstance(last, Backoff)
        assert last.retry_after == left
    else:
        assert isinstance(last, Granted)
    for slot in slots:
        await slot.close()


async def test_one_look_at_an_empty_record_serves_all(clock: LoopClock) -> None:
    """That there is no token serves those who wait for their turn as well."""
    store = LateStore()
    slots = open_slots(4, store, clock, [])
    assert await asyncio.gather(*(slot.read() for slot in slots)) == [None] * 4
    assert store.operations == ["read"] * 2
    for slot in slots:
        await slot.close()


@pytest.mark.parametrize("how", ["read", "claim"])
async def test_a_token_that_one_manager_meets_is_given_to_the_others(opened, clock: LoopClock, how: str) -> None:
    """It is dated from when the store was asked. The manager that asked has it as its answer."""
    store = LateStore(pushes=False)
    own, others = [], []
    slot, sibling = opened(store, clock, pushed=own), opened(store, clock, pushed=others)
    await renewed(opened(store.process(), clock))
    began_at = clock.monotonic()
    answer = await slot.read() if how == "read" else (await slot.claim(CLAIM)).token
    assert own == []
    assert others == [(answer, began_at)]
    assert await sibling.read() is not None
    assert len(others) == 1


async def test_one_manager_of_a_process_holds_a_claim_at_a_time(clock: LoopClock) -> None:
    """The others are told how long its lease lasts, without asking the store, until it ends the claim."""
    store = FaultyStore()
    holder, other = open_slots(2, store, clock, [])
    assert isinstance(await holder.claim(CLAIM), Granted)
    store.operations.clear()
    await asyncio.sleep(5)
    assert await other.claim(evolve(CLAIM, id="other")) == Busy(retry_after=10.0)
    assert store.operations == []
    await holder.release(Release(id="mine"))
    assert isinstance(await other.claim(evolve(CLAIM, id="other")), Granted)
    await asyncio.sleep(15)
    assert isinstance(await holder.claim(CLAIM), Granted)
    for slot in (holder, other):
        await slot.close()


async def test_a_committed_token_is_given_to_the_other_managers_once(clock: LoopClock) -> None:
    """They get it when it is committed, dated from then, and not again when somebody reads it."""
    pushed: list[tuple[SharedToken, float]] = []
    one, other = open_slots(2, LateStore(), clock, pushed)
    await renewed(one)
    (token, asked_at), *more = pushed
    assert (token.version, token.access, token.lifetime, token.remaining) == (
        "first",
        b"made-up-access",
        3600.0,
        3600.0,
    )
    assert asked_at == pytest.approx(clock.monotonic() - TAKES)
    assert more == []
    await other.read()
    assert len(pushed) == 1
    for slot in (one, other):
        await slot.close()


async def test_a_forgotten_record_is_forgotten_everywhere(clock: LoopClock) -> None:
    """Neither the store nor the process keeps a token, and a store that is down is no error."""
    store = FaultyStore()
    (slot,) = open_slots(1, store, clock, [])
    await renewed(slot)
    await slot.forget()
    assert store.record.access is None
    assert await slot.read() is None
    store.fault = "down"
    await renewed(slot, "second")
    slot.account.private.unconfirmed = CLAIM
    await slot.forget()
    assert slot.account.private.unconfirmed is None
    assert slot.account.private.token(clock.monotonic()) is None
    await slot.close()
