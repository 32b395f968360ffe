"""MemoryStore in the event loops of several threads."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from apivideo_auth import MemoryStore, _record
from apivideo_auth._record import Busy, Changed, Claim, Commit, Granted
from apivideo_auth.stores._memory import MemorySlot
from tests.support.doubles import ManualClock

SECONDS = 10
"""How long a test waits at most for something that normally happens at once."""


def claimed(name: str) -> Claim:
    return Claim(id=name, seen=None, lease=15.0)


def committed(name: str) -> Commit:
    return Commit(id=name, access=b"made-up-access", refresh=b"made-up", lifetime=3600.0, remaining=3600.0)


class Other:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something there; return its result."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@contextmanager
def other_thread() -> Iterator[Other]:
    other = Other()
    try:
        yield other
    finally:
        other.end()


def opened(store: MemoryStore, on_commit: Callable[[], None] = int) -> MemorySlot:
    return store.open("account", clock=ManualClock(), on_commit=on_commit, on_damage=pytest.fail)


async def opened_in_its_loop(store: MemoryStore, on_commit: Callable[[], None] = int) -> MemorySlot:
    return opened(store, on_commit)


async def test_of_two_claims_in_two_threads_one_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transition in one thread is never based on a record that another thread is about to replace."""
    transition, met = _record.claim, threading.Barrier(2)

    def slowly(*args: Any) -> Any:
        result = transition(*args)
        # Nobody else comes, because the record is locked.
        with suppress(threading.BrokenBarrierError):
            met.wait(0.2)
        return result

    monkeypatch.setattr(_record, "claim", slowly)
    store = MemoryStore()
    with other_thread() as first, other_thread() as second:
        slots = [await thread.run(opened_in_its_loop(store)) for thread in (first, second)]
        answers = await asyncio.gather(
            first.run(slots[0].claim(claimed("a"))), second.run(slots[1].claim(claimed("b")))
        )
    assert sorted(type(answer).__name__ for answer in answers) == ["Busy", "Granted"]


@pytest.mark.parametrize("first", ["claims", "waits"])
async def test_a_commit_in_one_thread_wakes_and_calls_the_other(first: str) -> None:
    """A worker that waits in another thread is woken there, and `on_commit` is called there, also before its first
    operation.
    """
    store, calls = MemoryStore(), []
    holder = opened(store)
    assert isinstance(await holder.claim(claimed("a")), Granted)
    with other_thread() as other:

        async def wait() -> None:
            slot = opened(store, lambda: calls.append(threading.current_thread()))
            if first == "claims":
                assert isinstance(await slot.claim(claimed("b")), Busy)
            task = asyncio.create_task(slot.changed(SECONDS * 2))
            await asyncio.sleep(0)
            ready.set()
            async with asyncio.timeout(SECONDS):
                await task
            assert isinstance(await slot.claim(claimed("b")), Changed)
            await slot.close()

        ready = threading.Event()
        waiting = asyncio.create_task(other.run(wait()))
        await asyncio.to_thread(ready.wait)
        await holder.commit(committed("a"))
        await waiting
        assert calls == [other.thread]
    await holder.close()


async def test_a_slot_that_nobody_has_used_yet_is_called_in_its_own_thread() -> None:
    """`on_commit` of a slot that was opened in another event loop, and has made no operation, is called there."""
    store, calls, called = MemoryStore(), [], threading.Event()

    def on_commit() -> None:
        calls.append(threading.current_thread())
        called.set()

    holder = opened(store)
    await holder.claim(claimed("a"))
    with other_thread() as other:
        await other.run(opened_in_its_loop(store, on_commit))
        await holder.commit(committed("a"))
        assert await asyncio.to_thread(called.wait, SECONDS)
        assert calls == [other.thread]


async def test_a_slot_is_not_lost_if_another_one_is_opened_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that open an account at the same time both get its commits."""
    store, begun, opened_meanwhile = MemoryStore(), threading.Event(), threading.Event()
    holder = opened(store)

    class SlowLoop:
        def is_closed(self) -> bool:
            if not begun.is_set():
                begun.set()
                # Nobody else comes, because the list of slots is locked.
                opened_meanwhile.wait(0.2)
            return False

    monkeypatch.setattr(holder, "loop", SlowLoop())
    with other_thread() as first, other_thread() as second:
        opening = asyncio.create_task(first.run(opened_in_its_loop(store)))
        await asyncio.to_thread(begun.wait)
        slots = [await second.run(opened_in_its_loop(store))]
        opened_meanwhile.set()
        slots.append(await opening)
    assert {holder, *slots} == {*store._accounts["account"].slots}


def test_a_slot_whose_event_loop_was_closed_holds_nobody_up() -> None:
    """A manager that was not closed with its event loop is not notified any more; all others are."""
    store, calls = MemoryStore(), []
    loops = [asyncio.new_event_loop() for _ in range(3)]
    _gone, _other, slot = (
        loop.run_until_complete(opened_in_its_loop(store, partial(calls.append, number)))
        for number, loop in enumerate(loops)
    )
    loops[0].close()
    loops[2].run_until_complete(slot.claim(claimed("a")))
    loops[2].run_until_complete(slot.commit(committed("a")))
    loops[1].run_until_complete(asyncio.sleep(0))
    assert calls == [1]
    for loop in loops:
        loop.close()
