"""G1: one renewal at a time, and all waiting callers share its outcome."""

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from itertools import pairwise

import pytest

from apivideo_auth import AuthConnectionError, RefreshPolicy, TokenManager
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service

pytestmark = pytest.mark.virtual_time


async def test_g01_a_thousand_callers_make_one_call(clock: LoopClock, service: Service) -> None:
    """A thousand callers at the start make one call and get the same token."""
    service.latency = 0.1
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        given = await asyncio.gather(*(tokens.get_token() for _ in range(1000)))
    assert len({id(token) for token in given}) == 1
    assert [call.endpoint for call in service.calls] == ["api-key"]


async def test_g01_a_thousand_callers_of_an_expired_token_make_one_call(clock: LoopClock, service: Service) -> None:
    """A thousand callers make one refresh after the machine slept past the token's end."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        clock.asleep = 7200
        service.latency = 0.1
        given = await asyncio.gather(*(tokens.get_token() for _ in range(1000)))
    assert {token.generation for token in given} == {2}
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]


async def test_g01_a_failure_is_shared_as_a_value(clock: LoopClock, service: Service) -> None:
    """Each waiter gets an exception object of its own, without cause or context, and one call was made."""
    service.latency = 0.1
    service.always = AuthConnectionError("made-up outage", sent=False)
    async with TokenManager(API_KEY, api=service, clock=clock, policy=RefreshPolicy(deadline=0)) as tokens:
        errors = await asyncio.gather(*(tokens.get_token() for _ in range(200)), return_exceptions=True)
    assert all(type(error) is AuthConnectionError for error in errors)
    assert len({id(error) for error in errors}) == 200
    assert all(error.__cause__ is None and error.__context__ is None for error in errors)
    assert len(service.calls) == 1


async def test_g01_a_day_undisturbed(clock: LoopClock, service: Service) -> None:
    """In 24 hours the API key is sent once, and then a refresh token every 2,700 to 2,880 seconds."""
    service.latency = 0.2
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        await asyncio.sleep(86_400)
        status = tokens.status()
    assert service.count("api-key") == 1
    times = [call.at for call in service.calls]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(2700 - 1 <= gap <= 2880 + 1 for gap in gaps)
    assert 86_400 / 2881 - 1 <= service.count("refresh") <= 86_400 / 2700
    assert status.failures == 0
    assert status.renewals == len(service.calls)
    assert service.most_in_flight == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_g01_an_eager_task_factory_changes_nothing(clock: LoopClock, service: Service) -> None:
    """Where new tasks run at once, a hundred callers make one call, and the token is renewed in the background."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        given = await asyncio.gather(*(tokens.get_token() for _ in range(100)))
        assert {token.generation for token in given} == {1}
        assert len(service.calls) == 1
        await asyncio.sleep(2881)
        assert tokens.status().generation == 2


async def test_g01_a_renewal_keeps_nothing_of_the_first_callers_context(clock: LoopClock, service: Service) -> None:
    """The renewal runs in a context of its own, so that no caller's context variables stay alive in it."""
    request_id: ContextVar[str] = ContextVar("request_id", default="none")
    seen = []
    request_id.set("first caller")
    async with TokenManager(
        API_KEY, api=service, clock=clock, on_event=lambda event: seen.append(request_id.get())
    ) as tokens:
        await tokens.get_token()
    assert seen == ["none"]


class Marker:
    """An object that a request keeps in a context variable."""


async def use_in_a_request(use: Callable[[], Awaitable[object]]) -> "weakref.ref[Marker]":
    """Run something in a task whose context has a `Marker`; return a weak reference to it."""
    variable: ContextVar[Marker] = ContextVar("variable")
    marker = Marker()
    gone = weakref.ref(marker)

    async def request(marker: Marker) -> None:
        variable.set(marker)
        await use()

    task = asyncio.create_task(request(marker))
    del marker
    await task
    del task
    await asyncio.sleep(0)
    gc.collect()
    return gone


async def test_g01_a_renewal_in_flight_keeps_no_request_alive(clock: LoopClock, service: Service) -> None:
    """While a background renewal lasts, the context of the request that caused it is not kept."""
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        await tokens.get_token()
        service.gate = asyncio.Event()
        clock.asleep = 3000
        gone = await use_in_a_request(tokens.get_token)
        assert service.in_flight == 1
        assert gone() is None
        service.gate.set()


async def test_g01_the_timer_keeps_no_request_alive(clock: LoopClock, service: Service) -> None:
    """The timer of a manager that is used in a second event loop keeps nothing of the request that came first there."""
    tokens = TokenManager(API_KEY, api=service, clock=clock)
    await tokens.get_token()
    # As if the loop of that call had been closed.
    tokens._refresher._timer.cancel()
    tokens._refresher._loop = tokens._refresher._renewer = tokens._refresher._timer = None

    async def open_a_session() -> None:
        await tokens.session().close()

    gone = await use_in_a_request(open_a_session)
    assert tokens._refresher._timer is not None
    assert gone() is None
    await tokens.close()
