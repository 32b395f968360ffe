"""The refresher: rounding of time, and races with its one task."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthError,
    ManagerClosedError,
    MemoryStore,
    RefreshPolicy,
    Token,
    TokenManager,
    events,
)
from apivideo_auth._record import Changed, SharedToken
from apivideo_auth.stores._account import FailoverAccount
from tests.conftest import API_KEY
from tests.support.doubles import Call, LoopClock, Service
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.virtual_time


class CancellingService(Service):
    """Cancels the tasks that call it, while `cancels` is true."""

    cancels = True

    async def _answer(self, endpoint: str, refresh_token: str | None) -> AccessToken:
        if not self.cancels:
            return await super()._answer(endpoint, refresh_token)
        self.calls.append(Call(self.clock.monotonic(), endpoint))
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        raise AssertionError("the task was cancelled")


class SlowClock(LoopClock):
    """A clock that is slower than the event loop's time, by less than the loop's resolution."""

    def monotonic(self) -> float:
        return super().monotonic() * (1 - 1e-13)


async def test_a_timer_that_fires_slightly_early_is_set_again(service: Service) -> None:
    """An event loop may fire a timer a nanosecond early; the renewal comes, and the loop does not spin."""
    clock = service.clock = SlowClock()
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(86_400)
    assert 30 <= len(service.calls) <= 33


async def test_a_wait_that_ends_slightly_early_continues(service: Service) -> None:
    """A caller that wakes a nanosecond before the end of a backoff continues to wait, and the loop does not spin."""
    clock = service.clock = SlowClock()
    service.answers.extend([AuthConnectionError("made-up outage", sent=False, retry_after=5)] * 3)
    await asyncio.sleep(100_000)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        assert (await tokens.get_token()).generation == 1
    assert len(service.calls) == 4


async def test_a_caller_between_the_end_of_a_renewal_and_its_callback(clock: LoopClock, service: Service) -> None:
    """A caller that runs after the renewal's task has ended and before its callback neither spins nor fails."""
    loop = asyncio.get_running_loop()
    service.answers.extend([AuthConnectionError("made-up outage", sent=False)])
    async with TokenManager(API_KEY, api=service, clock=clock, policy=RefreshPolicy(deadline=5)) as tokens:
        late: list[asyncio.Task] = []

        # Called in the last step of the renewal's task, so that the new task's first step comes before the callback.
        def ask(_event: object) -> None:
            late.append(loop.create_task(tokens.get_token()))

        tokens.subscribe(ask)
        first = await tokens.get_token()
        given = await asyncio.gather(*late)
    assert {token.generation for token in given} == {first.generation}
    assert len(service.calls) == 2


async def test_claims_of_others_without_end_are_an_error(clock: LoopClock, service: Service) -> None:
    """If others hold the renewal again and again and bring no token, callers are told, and nothing is called."""
    store = FaultyStore()

    def hold(_operation: str) -> None:
        if store.inner._accounts:
            store.record = evolve(store.record, claim_id="somebody", claim_until=clock.monotonic() + 15)

    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as tokens:
        store.before = hold
        with pytest.raises(AuthConnectionError, match=r"^other workers held .* and committed no token$"):
            await tokens.get_token(rejected=None)
        assert service.calls == []


async def test_a_commit_after_close_is_ignored(clock: LoopClock, service: Service) -> None:
    """Another worker's commit that is pushed to a closed manager starts nothing."""
    store = MemoryStore()
    async with TokenManager(API_KEY, api=service, clock=clock, store=store) as other:
        tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
        await tokens.get_token()
        await tokens.close()
        token = SharedToken(version="other", access=b"made-up", lifetime=60.0, remaining=60.0, committed_at=0.0)
        tokens._refresher.on_commit(token, clock.monotonic())
        await other.get_token()
        assert tokens.status().phase == "closed"
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_close_that_is_cancelled_twice_still_closes_the_slot(clock: LoopClock, service: Service) -> None:
    """Whatever interrupts close(), the manager is closed, and close() can be awaited again."""
    service.gate = asyncio.Event()
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=MemoryStore())
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    closing = asyncio.create_task(tokens.close())
    await asyncio.sleep(1)
    closing.cancel()
    closing.cancel()
    await asyncio.wait({closing, caller})
    await tokens.close()
    assert tokens.status().phase == "closed"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("answer", [asyncio.CancelledError(), None, "made-up"], ids=["cancelled", "none", "text"])
async def test_a_stand_in_that_misbehaves_is_a_failure_like_any_other(clock: LoopClock, answer: object) -> None:
    """A stand-in that raises CancelledError, or answers no AccessToken, is backed off like any failure."""

    class Odd(Service):
        async def authenticate(self, payload: object) -> object:
            self.calls.append(payload)
            if isinstance(answer, BaseException):
                raise answer
            return answer

    service = Odd(clock)
    async with TokenManager(API_KEY, api=service, clock=clock, policy=RefreshPolicy(deadline=1)) as tokens:
        errors = await asyncio.gather(*(tokens.get_token() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, AuthError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert len(service.calls) < 30


@pytest.mark.parametrize("operation", ["claim", "commit", "release", "read"])
@pytest.mark.parametrize("answer", [Changed(token=None), "nonsense", 7], ids=repr)
async def test_a_store_that_answers_nonsense_is_down(
    clock: LoopClock, service: Service, operation: str, answer: object
) -> None:
    """If a store answers what its protocol does not provide, the manager continues without it and reports it once."""
    emitted: list[events.Event] = []

    class OddStore(MemoryStore):
        def open(self, account: str, **kwargs: Any) -> Any:
            slot: Any = super().open(account, **kwargs)

            async def answer_nonsense(*_event: object) -> object:
                return answer

            setattr(slot, operation, answer_nonsense)
            return slot

    service.answers.append(AuthConnectionError("made-up outage"))
    manager = TokenManager(API_KEY, api=service, clock=clock, store=OddStore(), on_event=emitted.append)
    async with manager as tokens:
        found = await asyncio.gather(*(tokens.get_token() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(token, Token) for token in found)
        await asyncio.sleep(60)
    assert 2 <= len(service.calls) <= 4
    degraded = [event for event in emitted if isinstance(event, events.StoreDegraded)]
    assert len(degraded) == 1 or operation == "read"


async def test_a_mistake_of_the_package_is_a_failure_like_any_other(
    clock: LoopClock, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a renewal fails unexpectedly, callers get errors of their own, and the backoff grows from try to try."""
    claims = []

    async def claim(_account: object, event: object, _slot: object) -> object:
        claims.append(event)
        raise RuntimeError("made-up mistake")

    monkeypatch.setattr(FailoverAccount, "claim", claim)
    async with TokenManager(API_KEY, api=service, clock=clock, store=MemoryStore()) as tokens:
        errors = await asyncio.gather(*(tokens.get_token() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, AuthError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert len(claims) < 20
    assert service.calls == []


async def test_a_renewal_that_foreign_code_cancels_is_made_again(clock: LoopClock, service: Service) -> None:
    """If foreign code cancels the background renewal, another one follows, although nobody asks for a token."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.gate = asyncio.Event()
        while len(service.calls) < 2:  # noqa: ASYNC110  virtual time
            await asyncio.sleep(5)
        (renewal,) = (task for task in asyncio.all_tasks() if task.get_name() == "apivideo-auth-renewal")
        renewal.cancel()
        service.gate = None
        await asyncio.sleep(5)
        assert len(service.calls) == 3
        assert tokens.status().generation == 2


@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["private", "shared"])
async def test_a_stand_in_that_cancels_the_renewal_is_called_once_a_second(
    clock: LoopClock, store: MemoryStore | None
) -> None:
    """A stand-in that cancels the task it runs in does not make callers spin, and close() ends their wait at once."""
    service = CancellingService(clock)
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(4.5)
    assert 4 <= len(service.calls) <= 6
    before = clock.monotonic()
    await tokens.close()
    with pytest.raises(ManagerClosedError):
        await caller
    assert clock.monotonic() == before


async def test_a_background_renewal_that_is_cancelled_is_made_again_a_second_later(clock: LoopClock) -> None:
    """Foreign code that cancels each background renewal does not make the manager spin."""
    service = CancellingService(clock)
    service.cancels = False
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.cancels = True
        await asyncio.sleep(2900)
        _, *times = (call.at for call in service.calls)
    assert len(times) > 10
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))


async def test_a_short_backoff_of_a_background_renewal_is_kept_to(
    clock: LoopClock, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background renewal that fails is made again when its backoff is over, also if that is a quarter of a second."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.answers.append(AuthConnectionError("made-up outage", sent=False))
        await asyncio.sleep(3000)
    times = [call.at for call in service.calls]
    assert len(times) == 3
    assert times[2] - times[1] == pytest.approx(0.25)


async def test_a_caller_leaves_nothing_behind(clock: LoopClock, service: Service) -> None:
    """Neither callers that got their token nor those that were cancelled stay among the waiters."""
    service.latency = 1.0
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        callers = [asyncio.create_task(tokens.get_token()) for _ in range(3)]
        await asyncio.sleep(0.5)
        callers.pop().cancel()
        await asyncio.gather(*callers)
        assert tokens._refresher._waiters == set()


async def test_close_does_not_wait_for_anothers_renewal(clock: LoopClock, service: Service) -> None:
    """A manager that only waits for another worker's renewal closes at once, and calls nothing afterwards."""
    service.gate = asyncio.Event()
    store = MemoryStore()
    holder = TokenManager(API_KEY, api=service, clock=clock, store=store)
    waiter = TokenManager(API_KEY, api=service, clock=clock, store=store)
    callers = [asyncio.create_task(manager.get_token()) for manager in (holder, waiter)]
    await asyncio.sleep(1)
    before = clock.monotonic()
    await waiter.close()
    assert clock.monotonic() == before
    service.gate.set()
    await holder.close()
    await asyncio.gather(*callers, return_exceptions=True)
    assert len(service.calls) == 1


async def test_a_token_that_arrives_in_two_ways_is_adopted_once(clock: LoopClock, service: Service) -> None:
    """A commit may be pushed in the step between a claim's answer and its adoption: the token counts once."""
    store = FaultyStore()
    async with (
        TokenManager(API_KEY, api=service, clock=clock, store=store) as one,
        TokenManager(API_KEY, api=service, clock=clock, store=store.process()) as other,
    ):
        await one.get_token()
        token = await other.get_token()
        shared = await other._refresher._bound.slot.read()
        other._refresher._adopt(shared, clock.monotonic())
        assert await other.get_token() is token
        assert other.status().generation == 1
