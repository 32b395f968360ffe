"""G11: one running event loop at a time; when that loop is closed, the next one that uses the manager takes over."""

import asyncio
import gc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import looptime
import pytest

from apivideo_auth import MemoryStore, Token, TokenManager
from apivideo_auth.emulator import Emulator
from apivideo_auth.stores import FileStore
from tests.conftest import API_KEY
from tests.support.doubles import ManualClock, Service, pending_timers
from tests.support.redis_server import own_server

ROOT = Path(__file__).parents[2]


def service_for(clock: ManualClock) -> Service:
    """Return simulated endpoints that need no event loop of their own."""
    return Service(clock)


@pytest.mark.parametrize("store", ["private", "memory", "file"])
def test_g11_each_asyncio_run_goes_on_with_the_same_token(tmp_path: Path, store: str) -> None:
    """A module-level manager serves one `asyncio.run` after another with one token, and renews it when it is due."""
    clock = ManualClock()
    service = service_for(clock)
    stores = {"private": None, "memory": MemoryStore(), "file": FileStore(tmp_path / "tokens")}
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=stores[store])
    first = asyncio.run(tokens.get_token())
    clock.now += 600
    assert asyncio.run(tokens.get_token()) is first
    clock.now += 3000
    # Expired: the third event loop renews it, with the refresh token.
    second = asyncio.run(tokens.get_token())
    assert second.generation == 2
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh"]
    asyncio.run(tokens.close())
    assert tokens.status().phase == "closed"


def test_g11_a_renewal_that_was_cut_off_with_its_loop_is_made_again(tmp_path: Path) -> None:
    """If `asyncio.run` ends in the middle of a renewal, the next loop does not wait for it, and reuses no token."""
    clock = ManualClock()
    service = service_for(clock)
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=FileStore(tmp_path / "tokens"))
    asyncio.run(tokens.get_token())
    clock.now += 3590

    async def cut_off() -> None:
        service.gate = asyncio.Event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await tokens.get_token()

    asyncio.run(cut_off())
    service.gate = None
    assert asyncio.run(tokens.get_token()).generation == 2
    asyncio.run(tokens.close())
    assert len(service.used_refresh_tokens) == len(set(service.used_refresh_tokens))


END_DURING_A_RENEWAL = """
import asyncio, gc, logging, sys
from apivideo_auth import TokenManager
from apivideo_auth.stores import store_from_url
from tests.support.doubles import ManualClock, Service
from tests.support.time_limits import set_operation_timeout

# On a machine under load, slow steps of the event loop do not matter here.
logging.getLogger("asyncio").setLevel(logging.ERROR)
set_operation_timeout(20.0)
clock = ManualClock()
service = Service(clock)
store = store_from_url(sys.argv[1]) if sys.argv[1] else None
tokens = TokenManager("made-up-api-key", api=service, clock=clock, store=store)

async def end():
    service.gate = asyncio.Event()
    await tokens.get_token()
    while not service.in_flight:
        await asyncio.sleep(0)

asyncio.run(tokens.get_token())
clock.now += 3000
asyncio.run(end())
gc.collect()
assert service.in_flight == 0
service.gate = None

async def go_on():
    # The clock stands still: a lease would never end.
    async with asyncio.timeout(20):
        token = await tokens.get_token(min_ttl=1000)
    await tokens.close()
    return token

print(asyncio.run(go_on()).generation, [call.endpoint for call in service.calls])
gc.collect()
"""


@pytest.mark.parametrize("store", ["", "memory:", "file"])
def test_g11_an_event_loop_that_ends_during_a_background_renewal_leaves_nothing(tmp_path: Path, store: str) -> None:
    """If `asyncio.run` returns while a token is renewed in the background, nothing hangs or warns. The claim has ended:
    the next loop renews at once, with the API key, because the refresh token may have been used.
    """
    where = f"file://{tmp_path / 'tokens'}" if store == "file" else store
    program = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", END_DURING_A_RENEWAL, where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert program.stderr == ""
    assert program.stdout == "2 ['api-key', 'refresh', 'api-key']\n"


def test_g11_the_next_event_loop_renews_at_once() -> None:
    """After `asyncio.run` has cancelled a renewal, the first caller in the next loop does not wait for a pause."""
    clock = ManualClock()
    service = service_for(clock)
    service.gate = asyncio.Event()
    tokens = TokenManager(API_KEY, api=service, clock=clock)

    async def leave() -> None:
        asyncio.get_running_loop().create_task(tokens.get_token())
        while not service.in_flight:  # noqa: ASYNC110  a step of the event loop at a time
            await asyncio.sleep(0)

    async def go_on() -> float:
        async with tokens:
            begun = asyncio.get_running_loop().time()
            await tokens.get_token()
            return asyncio.get_running_loop().time() - begun

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(leave())
    service.gate = None
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        assert runner.run(go_on()) == 0


def test_g11_the_timer_of_the_next_event_loop_keeps_nothing_of_its_first_user() -> None:
    """A manager that is used in a second loop sets its timer there, in an empty context: it outlives the request."""
    request: ContextVar[str] = ContextVar("request")
    clock = ManualClock()
    tokens = TokenManager(API_KEY, api=service_for(clock), clock=clock)

    async def go_on() -> list[bool]:
        request.set("made-up request")
        async with tokens, tokens.session():
            return [request in timer._context for timer in pending_timers()]

    asyncio.run(tokens.get_token())
    assert asyncio.run(go_on()) == [False]


@pytest.mark.parametrize("shared", [False, True])
def test_g11_a_loop_that_is_closed_during_a_renewal_leaves_its_lease(shared: bool) -> None:
    """If a loop is closed without cancelling its tasks, the renewal cannot end its claim, and ends without an error.
    When the lease is over, the next loop renews with the API key.
    """
    clock = ManualClock()
    service, store = service_for(clock), MemoryStore() if shared else None
    tokens = TokenManager(API_KEY, api=service, clock=clock, store=store)
    reported: list[str] = []

    async def leave() -> None:
        await tokens.get_token()
        service.gate = asyncio.Event()
        clock.now += 3000
        await tokens.get_token()
        while not service.in_flight:  # noqa: ASYNC110  a step of the event loop at a time
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context["message"]))
    loop.run_until_complete(leave())
    loop.close()
    service.gate = None
    clock.now += 16

    async def go_on() -> Token:
        async with asyncio.timeout(20), tokens:
            return await tokens.get_token(min_ttl=1000)

    assert asyncio.run(go_on()).generation == 2
    del loop
    gc.collect()
    assert service.in_flight == 0
    assert [call.endpoint for call in service.calls] == ["api-key", "refresh", "api-key"]
    # Python reports a task that is pending when it is collected. Nothing else is wrong.
    assert set(reported) == {"Task was destroyed but it is pending!"}


@contextmanager
def open_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give an event loop that stays open."""
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.close()


def test_g11_a_fresh_token_is_served_in_any_loop() -> None:
    """While the first loop is open, another one may read a fresh token, and everything else is one clear error."""
    clock = ManualClock()
    tokens = TokenManager(API_KEY, api=service_for(clock), clock=clock)
    with open_loop() as loop:
        token = loop.run_until_complete(tokens.get_token())

        async def elsewhere() -> None:
            assert await tokens.get_token() is token
            with pytest.raises(RuntimeError, match="in use in another event loop"):
                await tokens.get_token(min_ttl=3000)
            with pytest.raises(RuntimeError, match="in use in another event loop"):
                await tokens.close()

        asyncio.run(elsewhere())
        loop.run_until_complete(tokens.close())


PROGRAM = """
import asyncio
import gc
import sys

from asgiref.sync import async_to_sync

from apivideo_auth import TokenManager
from apivideo_auth.stores import store_from_url


async def use(tokens):
    token = await tokens.get_token()
    async with tokens.session() as session, session.get("/videos") as response:
        assert response.status == 200, response.status
    return token.access_token


url, key, store = sys.argv[1:]
tokens = TokenManager(key, base_url=url, store=store_from_url(store) if store else None)
texts = {str(asyncio.run(use(tokens))) for _ in range(3)} | {str(async_to_sync(use)(tokens)) for _ in range(3)}
assert len(texts) == 1, texts
asyncio.run(tokens.close())
gc.collect()
"""


@pytest.mark.parametrize("store", ["", "file", "memory:", "redis"])
async def test_g11_a_program_with_many_loops_gives_no_warning(tmp_path: Path, store: str) -> None:
    """Under `python -X dev -W error`, three `asyncio.run` and three `async_to_sync` with real connections, files and
    Redis leave no warning.
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    async with AsyncExitStack() as stack:
        where = f"file://{tmp_path / 'tokens'}" if store == "file" else store
        if store == "redis":
            where = stack.enter_context(own_server()).url
        server = await stack.enter_async_context(Emulator())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error::ResourceWarning",
            str(program),
            server.url,
            server.api_key,
            where,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b""), err.decode()
    assert b"Warning" not in err, err.decode()
    assert b"never" not in err, err.decode()


def test_g11_a_manager_that_is_not_closed_is_named_in_a_warning() -> None:
    """A manager that is collected without `close()` gives a `ResourceWarning` that names `TokenManager`."""
    clock = ManualClock()
    tokens = TokenManager(API_KEY, api=service_for(clock), clock=clock)
    asyncio.run(tokens.get_token())
    with pytest.warns(ResourceWarning, match="unclosed TokenManager"):  # noqa: PT031  the two belong together
        del tokens
        gc.collect()


def test_g11_a_manager_that_was_never_used_needs_no_close(recwarn: pytest.WarningsRecorder) -> None:
    """A manager that was constructed and never used holds nothing, and gives no warning."""
    TokenManager(API_KEY)
    gc.collect()
    assert not list(recwarn)


def test_g11_a_plain_with_says_what_to_write() -> None:
    """`with TokenManager(…)` is a `TypeError` that names `async with`."""
    with pytest.raises(TypeError, match="async with"), TokenManager(API_KEY):
        pass


class SlowToClaim:
    """A store in memory whose answer to a claim takes a moment."""

    needs_encryption = False

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.delay = 0.0

    def open(self, account: str, **options: Any) -> Any:
        slot = self.inner.open(account, **options)
        claim = slot.claim

        async def claim_slowly(event: object) -> object:
            answer = await claim(event)
            await asyncio.sleep(self.delay)
            return answer

        slot.claim = claim_slowly
        return slot


def test_g11_a_loop_that_ends_in_the_middle_of_a_claim_leaves_no_claim() -> None:
    """If a loop ends before a claim is answered, the next loop ends that claim, and does not wait for its lease."""
    clock = ManualClock()
    store = SlowToClaim()
    tokens = TokenManager(API_KEY, api=service_for(clock), clock=clock, store=store)
    store.delay = 0.3

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await tokens.get_token()

    asyncio.run(leave())
    store.delay = 0.0

    async def go_on() -> None:
        # The clock stands still: a lease would never end.
        async with asyncio.timeout(10):
            await tokens.get_token()
        await tokens.close()

    asyncio.run(go_on())
