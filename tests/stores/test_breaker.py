"""When a store may be asked: after failures, by the circuit breaker, and beside other operations, by the limiter."""

import asyncio

import pytest

from apivideo_auth import events
from apivideo_auth._policy import INITIAL_STORE_BACKOFF
from apivideo_auth.stores._breaker import HANGING_FRACTION, CircuitBreaker, Limiter
from tests.support.doubles import ManualClock

NOW = 1000.0


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock(NOW)


@pytest.fixture
def told() -> list[events.Event]:
    """The events so far."""
    return []


@pytest.fixture
def breaker(clock: ManualClock, told: list[events.Event]) -> CircuitBreaker:
    """A circuit breaker without jitter."""
    return CircuitBreaker(clock=clock, emit=told.append, jitter=lambda: 0.0)


def allowed(breaker: CircuitBreaker) -> tuple[bool, bool]:
    """Return whether the store may be read, and written."""
    return breaker.allows(write=False), breaker.allows(write=True)


@pytest.mark.parametrize("write", [False, True])
def test_a_store_that_failed_is_left_alone_for_its_backoff(
    breaker: CircuitBreaker, clock: ManualClock, told: list[events.Event], *, write: bool
) -> None:
    """Reading and writing are counted apart; the backoff doubles, and ends at its moment."""
    assert allowed(breaker) == (True, True)
    assert breaker.on_failure("made-up", write=write) == 1.0
    assert allowed(breaker) == (write, not write)
    assert breaker.can_read is write
    clock.now += 0.5
    assert allowed(breaker) == (write, not write)
    clock.now += 0.5
    assert allowed(breaker) == (True, True)
    assert breaker.on_failure("made-up again", write=write) == 2.0
    clock.now += 1.5
    assert allowed(breaker) == (write, not write)
    assert told == [events.StoreDegraded(cause="made-up", next_try_in=1.0)]


def test_an_outage_ends_when_the_store_can_be_written_again(
    breaker: CircuitBreaker, clock: ManualClock, told: list[events.Event]
) -> None:
    """A successful read does not end an outage of writing; its length counts from the first failure."""
    breaker.on_failure("made-up", write=True)
    breaker.on_failure("made-up", write=False)
    clock.now += 4
    breaker.on_success(write=False)
    assert breaker.can_read
    assert len(told) == 1
    assert breaker.on_failure("made-up", write=True) == 2.0
    clock.now += 3
    breaker.on_success(write=True)
    assert told[1:] == [events.StoreRecovered(seconds=7.0)]
    breaker.on_success(write=True)
    assert len(told) == 2
    assert allowed(breaker) == (True, True)
    assert breaker.on_failure("made-up", write=True) == 1.0
    assert told[2:] == [events.StoreDegraded(cause="made-up", next_try_in=1.0)]


def test_a_store_that_can_be_written_can_be_read(breaker: CircuitBreaker, told: list[events.Event]) -> None:
    """A successful write ends an outage of reading too."""
    breaker.on_failure("made-up", write=False)
    breaker.on_success(write=True)
    assert breaker.can_read
    assert told[1:] == [events.StoreRecovered(seconds=0.0)]


@pytest.mark.parametrize("write", [False, True])
def test_a_success_ends_the_backoff(breaker: CircuitBreaker, *, write: bool) -> None:
    """A store that has answered may be asked again at once, although the backoff is not over."""
    breaker.on_failure("made-up", write=write)
    breaker.on_success(write=write)
    assert breaker.wait(write=write) == 0
    assert allowed(breaker) == (True, True)


def test_a_backoff_can_be_ended(breaker: CircuitBreaker) -> None:
    """Another worker's commit shows that the store works, so it may be asked at once."""
    breaker.on_failure("made-up", write=False)
    breaker.on_failure("made-up", write=True)
    breaker.allow_now()
    assert allowed(breaker) == (True, True)
    assert not breaker.can_read


def test_a_damaged_record_is_told_once_until_it_is_replaced(
    breaker: CircuitBreaker, clock: ManualClock, told: list[events.Event]
) -> None:
    """It is an outage of its own: the store may be asked meanwhile."""
    breaker.on_repair()
    assert told == []
    breaker.on_damage("made-up damage")
    breaker.on_damage("made-up damage")
    assert told == [events.StoreDegraded(cause="made-up damage", next_try_in=0.0)]
    assert allowed(breaker) == (True, True)
    breaker.on_success(write=True)
    assert len(told) == 1
    clock.now += 9
    breaker.on_repair()
    breaker.on_repair()
    assert told[1:] == [events.StoreRecovered(seconds=9.0)]


def test_the_jitter_shortens_the_backoff(clock: ManualClock) -> None:
    """Half of the backoff is drawn."""
    assert CircuitBreaker(clock=clock, emit=lambda _event: None, jitter=lambda: 0.5).on_failure("m", write=True) == 0.75


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("after", "pause", "is_asked"),
    [
        (HANGING_FRACTION, 0.0, False),
        (HANGING_FRACTION, INITIAL_STORE_BACKOFF - 0.25, False),
        (HANGING_FRACTION, INITIAL_STORE_BACKOFF, True),
        (HANGING_FRACTION - 0.25, 0.0, True),
    ],
)
async def test_a_store_that_hangs_for_one_account_hangs_for_all(after: float, pause: float, *, is_asked: bool) -> None:
    """An operation that fails late has met a store that hangs: for a moment no other account waits for it."""
    limiter, began = Limiter(8), []

    async def operation(seconds: float) -> None:
        began.append(seconds)
        await asyncio.sleep(seconds)
        raise OSError

    with pytest.raises(OSError):
        await limiter.run(1.0, lambda: operation(after))
    await asyncio.sleep(pause)
    with pytest.raises(OSError if is_asked else TimeoutError):
        await limiter.run(1.0, lambda: operation(0.0))
    assert len(began) == 1 + is_asked
