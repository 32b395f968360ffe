"""G13: whatever stands in for the api does, callers get typed errors of their own, and the account stays usable."""

import asyncio
import gc
import logging
from contextvars import ContextVar

import aiohttp
import pytest

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthError,
    AuthResponseError,
    CredentialsRejectedError,
    RefreshPolicy,
    TokenManager,
)
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, ManualClock, Service
from tests.support.faulty_store import FaultyStore


class BareError(AuthError):
    """An error that never calls the constructor of its base."""

    def __init__(self) -> None:
        self.args = ()


class UnprintableError(AuthResponseError):
    """An error that cannot be turned into text."""

    def __str__(self) -> str:
        raise RuntimeError("made-up")


ODD = {
    "title": AuthResponseError("made-up", status="400", title=404, type=b"x"),
    "retry": CredentialsRejectedError("made-up", status=400, retry_after="5"),
    "bare": BareError(),
    "unprintable": UnprintableError("made-up"),
    "group": BaseExceptionGroup("made-up", [ValueError()]),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("shared", [False, True])
async def test_g13_an_odd_error_is_an_auth_error_for_each_caller(
    clock: LoopClock, service: Service, odd: Exception, shared: bool
) -> None:
    """An error with fields of wrong types ends the claim; each caller gets a well-formed error of its own."""
    service.answers.append(odd)
    store = FaultyStore() if shared else None
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, policy=RefreshPolicy(deadline=0)) as tokens:
        errors = await asyncio.gather(*(tokens.get_token() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(error, AuthError) for error in errors)
        assert len({id(error) for error in errors}) == 3
        assert all(error.retry_after is None or error.retry_after >= 0 for error in errors)
        assert all(str(error) and error.__cause__ is None and error.__context__ is None for error in errors)
        await asyncio.sleep(61)
        before = clock.monotonic()
        assert (await tokens.get_token()).generation == 1
        assert clock.monotonic() == before


class OddError(BaseException):
    """An error that is not an `Exception`."""


@pytest.mark.virtual_time
@pytest.mark.parametrize("odd", [OddError, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("endpoint", ["api-key", "refresh"])
@pytest.mark.parametrize("shared", [False, True])
async def test_g13_an_error_that_is_not_an_exception_is_an_auth_error(
    clock: LoopClock, service: Service, odd: type[BaseException], endpoint: str, shared: bool
) -> None:
    """Whatever a stand-in raises by itself ends the claim at once, and each caller gets an error of its own."""
    store = FaultyStore() if shared else None
    async with TokenManager(API_KEY, api=service, clock=clock, store=store, policy=RefreshPolicy(deadline=0)) as tokens:
        if endpoint == "refresh":
            await tokens.get_token()
            # Too long for the current token, so that the callers wait for the renewal.
            await asyncio.sleep(1000)
        service.answers.append(odd())
        before = clock.monotonic()
        call = tokens.get_token if endpoint == "api-key" else lambda: tokens.get_token(min_ttl=3000)
        errors = await asyncio.gather(*(call() for _ in range(3)), return_exceptions=True)
        assert clock.monotonic() == before
        assert [type(error) for error in errors] == [AuthConnectionError] * 3
        assert len({id(error) for error in errors}) == 3
        if store is not None:
            assert store.record.claim_id is None
            # The call may have been made.
            assert store.record.refresh is None
        await asyncio.sleep(61)
        assert await call()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("shared", [False, True])
def test_g13_an_interruption_ends_the_program_and_the_claim(
    caplog: pytest.LogCaptureFixture, raised: type[BaseException], shared: bool
) -> None:
    """A `KeyboardInterrupt` or `SystemExit` during a call ends `asyncio.run` as usual, and no claim is left."""
    store = FaultyStore()
    service = Service(ManualClock())
    service.answers.append(raised())
    tokens = TokenManager(API_KEY, api=service, clock=service.clock, store=store if shared else None)
    with pytest.raises(raised):
        asyncio.run(tokens.get_token())
    if shared:
        assert store.record.claim_id is None

    async def go_on() -> None:
        # The clock stands still: a lease would never end.
        async with asyncio.timeout(10), tokens:
            await tokens.get_token()

    asyncio.run(go_on())
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("shared", [False, True])
async def test_g13_a_closed_connector_is_one_clear_error_at_once(shared: bool) -> None:
    """A connector that the program has closed makes callers fail at once, with a message that says so."""
    connector = aiohttp.TCPConnector()
    await connector.close()
    store = FaultyStore() if shared else None
    async with TokenManager(API_KEY, base_url="http://127.0.0.1:9", connector=connector, store=store) as tokens:
        for _ in range(2):
            with pytest.raises(AuthConnectionError, match="connector that was passed is closed") as caught:
                await tokens.get_token()
            assert not caught.value.retryable
        if store is not None:
            # It is this program's own mistake: other workers need not back off.
            assert store.record.failure is None
            assert store.record.claim_id is None


@pytest.mark.virtual_time
async def test_g11_close_ends_although_a_stand_in_ignores_its_cancellation(
    clock: LoopClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-in that swallows cancellation holds `close()` up for a moment only, and the log says so."""
    released = asyncio.Event()

    class Stubborn(Service):
        async def authenticate(self, payload: object) -> AccessToken:
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue
            raise AuthConnectionError("made-up")

    tokens = TokenManager(API_KEY, api=Stubborn(clock), clock=clock, policy=RefreshPolicy(attempt_timeout=60))
    caller = asyncio.create_task(tokens.get_token())
    await asyncio.sleep(1)
    before = clock.monotonic()
    await tokens.close()
    assert clock.monotonic() - before <= 2
    assert any(record.levelno == logging.WARNING and "cancellation" in record.message for record in caplog.records)
    released.set()
    await asyncio.wait({caller})
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.virtual_time
@pytest.mark.parametrize("shared", [False, True])
async def test_g05_a_renewal_keeps_nothing_of_its_first_callers_context(
    clock: LoopClock, service: Service, shared: bool
) -> None:
    """Tasks and timers of a manager run in an empty context, so that a request's variables end with the request."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []
    store = FaultyStore() if shared else None

    class Observed:
        async def authenticate(self, payload: object) -> AccessToken:
            seen.append(request.get())
            return await service.authenticate(payload)

        async def refresh(self, payload: object) -> AccessToken:
            seen.append(request.get())
            return await service.refresh(payload)

    tokens = TokenManager(
        API_KEY, api=Observed(), clock=clock, store=store, on_event=lambda _event: seen.append(request.get())
    )
    request.set("made-up request")
    async with tokens:
        await tokens.get_token()
        loop = asyncio.get_running_loop()
        contexts = [handle._context for handle in loop._scheduled if not handle.cancelled()]
        assert all(request not in context for context in contexts)
        await asyncio.sleep(7200)
    assert set(seen) == {"none"}
    assert len(service.calls) == 3
