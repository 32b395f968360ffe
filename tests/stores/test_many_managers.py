"""Managers on shared stores: many accounts at once, short programs, and one event loop after another."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apivideo_auth import TokenManager, events
from apivideo_auth.stores import FileStore, RedisStore, _breaker
from apivideo_auth.stores._encrypted import account_name
from apivideo_auth.stores._failover import FailoverAccount
from apivideo_auth.stores.redis import _connection
from tests.support.doubles import LoopClock, Service
from tests.support.redis_server import RedisServer

API_KEY = "made-up-api-key"
ACCOUNTS = 300


@pytest.fixture(params=["file", "redis"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, own_redis: RedisServer) -> FileStore | RedisStore:
    """A store in files, or in Redis."""
    return FileStore(tmp_path / "tokens") if request.param == "file" else RedisStore(own_redis.url)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let operations take longer than they may, so that nothing here depends on the load of the machine."""
    monkeypatch.setitem(FailoverAccount._ask.__kwdefaults__, "limit", 30.0)
    monkeypatch.setattr(_breaker, "TURN_TIMEOUT", 60.0)
    monkeypatch.setattr(_connection, "BUDGET", 30.0)


async def test_many_accounts_on_one_store_do_not_count_as_a_store_that_is_down(any_store):
    """Three hundred accounts that start at once wait for each other, and none of them leaves the store."""
    seen: list[events.Event] = []
    services = [Service(LoopClock()) for _ in range(ACCOUNTS)]
    managers = [
        TokenManager(f"{API_KEY}-{number}", store=any_store, api=service, on_event=seen.append)
        for number, service in enumerate(services)
    ]
    await asyncio.gather(*(manager.get_token() for manager in managers))
    await asyncio.gather(*(manager.close() for manager in managers))
    assert [event for event in seen if isinstance(event, events.StoreDegraded)] == []
    assert {len(service.calls) for service in services} == {1}


def damage(store: FileStore | RedisStore, server: RedisServer, how: str) -> None:
    """Damage the record of the account in a way that has a name."""
    name = account_name("https://ws.api.video", API_KEY)
    if isinstance(store, FileStore):
        store.directory.mkdir(mode=0o700, exist_ok=True)
        file = store.directory / f"{name}.json"
        file.touch(0o600)
        match how:
            case "foreign":
                file.write_bytes(b"foreign")
            case "wrong mode":
                file.chmod(0o644)
            case "undecryptable":
                content = file.read_text()
                part = content.split('"access":"')[1].split('"')[0]
                file.write_text(content.replace(part, "AAAA" * 40))
    else:
        key = f"apivideo-auth:{name}"
        match how:
            case "foreign":
                server.run("DEL", key)
                server.run("HSET", key, "foreign", "1")
            case "undecryptable":
                server.run("HSET", key, "access", b"\x01" * 100)
            case _:
                pytest.skip("Redis has no modes")


@pytest.mark.parametrize("how", ["foreign", "wrong mode", "undecryptable"])
def test_a_short_program_repairs_a_damaged_record(any_store, own_redis, how):
    """A program that runs for a moment renews, replaces the record, and reports it once; the next one makes no call."""
    service = Service(None)

    async def program() -> tuple[int, list[Any]]:
        seen: list[events.Event] = []
        service.clock, before = LoopClock(), len(service.calls)
        async with TokenManager(API_KEY, store=any_store, api=service, on_event=seen.append) as tokens:
            await tokens.get_token()
        return len(service.calls) - before, [type(event) for event in seen]

    assert asyncio.run(program()) == (1, [events.TokenRenewed])
    assert asyncio.run(program()) == (0, [events.TokenAdopted])
    damage(any_store, own_redis, how)
    calls, seen = asyncio.run(program())
    assert calls == 1
    assert seen.count(events.StoreDegraded) == 1
    assert asyncio.run(program()) == (0, [events.TokenAdopted])


RUN_AFTER_RUN = """
import asyncio, gc, logging, sys, threading
from apivideo_auth import TokenManager
from apivideo_auth.stores import store_from_url
from tests.support.doubles import LoopClock, Service

# On a machine under load, slow steps of the event loop do not matter here.
logging.getLogger("asyncio").setLevel(logging.ERROR)
store = store_from_url(sys.argv[1])
service = Service(None)

class Clock:
    def monotonic(self): return 1000.0
    def utc(self): return 1_767_225_600.0

service.clock = Clock()
manager = TokenManager("made-up-api-key", store=store, api=service, clock=service.clock)
for _ in range(3):
    asyncio.run(manager.get_token())
    gc.collect()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(60)
            assert not thread.is_alive(), thread
assert len(service.calls) == 1
asyncio.run(manager.close())
print("done")
"""


def test_a_manager_in_one_event_loop_after_another_leaves_nothing_behind(any_store, own_redis, tmp_path):
    """Several `asyncio.run` use one manager without closing it: no thread, connection or warning is left of each."""
    url = own_redis.url if isinstance(any_store, RedisStore) else f"file://{tmp_path}/tokens"
    program = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", RUN_AFTER_RUN, url],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (program.stdout, program.stderr, program.returncode) == ("done\n", "", 0)
