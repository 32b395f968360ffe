"""Waiting for a change of a record, in virtual time."""

import asyncio
from itertools import pairwise

import pytest

from apivideo_auth.stores._base import Waiters

pytestmark = pytest.mark.virtual_time


async def never() -> bool:
    """Poll a record that does not change."""
    return False


def now() -> float:
    """Return the event loop's time."""
    return asyncio.get_running_loop().time()


async def test_wake_ends_every_call():
    """One `wake` ends all calls of `wait` and `poll` that have begun."""
    waiters = Waiters()
    calls = [asyncio.create_task(waiters.wait(60, since=0)) for _ in range(2)]
    calls.append(asyncio.create_task(waiters.poll(60, never, interval=50, max_interval=50)))
    await asyncio.sleep(1)
    began = now()
    waiters.wake()
    await asyncio.gather(*calls)
    assert now() == began


async def test_a_call_ends_with_its_timeout():
    """Without a `wake` both end after the timeout."""
    waiters = Waiters()
    began = now()
    await waiters.wait(3, since=0)
    await waiters.poll(4, never, interval=1, max_interval=1)
    await waiters.wait(0, since=0)
    assert now() - began == pytest.approx(7)


async def test_a_wait_is_over_if_something_has_changed_since():
    """Each `wake` counts: a wait that begins with an older count returns at once."""
    waiters = Waiters()
    counts = []
    for _ in range(3):
        counts.append(waiters.wakes)
        waiters.wake()
    began = now()
    for count in counts:
        await waiters.wait(60, since=count)
    assert now() == began
    await waiters.wait(60, since=waiters.wakes)
    assert now() == began + 60


async def test_polling_grows_slower_with_jitter():
    """The intervals grow by half up to the limit; each is up to a quarter shorter or longer."""
    polls = [now()]

    async def poll() -> bool:
        polls.append(now())
        return False

    await Waiters().poll(60, poll, interval=1, max_interval=5)
    intervals = [after - before for before, after in pairwise(polls)]
    wanted = [1, 1.5, 2.25, 3.375, *[5] * (len(intervals) - 4)]
    assert len(intervals) >= 10
    assert all(
        0.75 * nominal <= interval <= 1.25 * nominal + 0.001
        for interval, nominal in zip(intervals, wanted, strict=True)
    )


@pytest.mark.parametrize(("pick", "factor"), [(min, 0.75), (max, 1.25)])
async def test_the_jitter_is_a_quarter_either_way(monkeypatch, pick, factor):
    """At the end of the jitter's range each interval is a quarter shorter, or a quarter longer."""
    monkeypatch.setattr("random.uniform", lambda *ends: pick(ends))
    polls = [now()]

    async def poll() -> bool:
        polls.append(now())
        return len(polls) > 4

    await Waiters().poll(60, poll, interval=1, max_interval=2)
    intervals = [after - before for before, after in pairwise(polls)]
    assert intervals == pytest.approx([factor * nominal for nominal in (1, 1.5, 2, 2)])


async def test_polling_ends_with_a_change():
    """`poll` returns as soon as the record has changed."""
    answers = iter([False, True])

    async def poll() -> bool:
        return next(answers)

    began = now()
    await Waiters().poll(60, poll, interval=1, max_interval=1)
    assert 1.5 <= now() - began <= 2.51


async def test_a_wake_during_a_poll_is_not_lost():
    """A `wake` while the store is asked ends the call, although the store reports no change."""
    waiters = Waiters()

    async def poll() -> bool:
        waiters.wake()
        return False

    began = now()
    await waiters.poll(60, poll, interval=1, max_interval=1)
    assert now() - began < 2


async def test_an_error_of_a_poll_is_raised():
    """If the store cannot be asked, `poll` raises what the store raised."""

    async def poll() -> bool:
        raise OSError

    with pytest.raises(OSError):
        await Waiters().poll(60, poll, interval=1, max_interval=1)


async def test_nothing_is_left_of_a_cancelled_call():
    """A cancelled call is no longer woken."""
    waiters = Waiters()
    call = asyncio.create_task(waiters.wait(60, since=0))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert not waiters._next_wake._waiters
