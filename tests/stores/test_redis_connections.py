"""RedisStore: idle connections, failovers, retries, pools, blocked event loops, and the end of an event loop."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError  # noqa: A004  the client's
from valkey.asyncio import Valkey

from apivideo_auth import TokenStoreError
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._record import Busy, Changed, Done, Granted, Record
from apivideo_auth.stores.redis import _connection
from apivideo_auth.stores.redis._store import RedisStore
from tests.stores.redis_proxy import proxy_to
from tests.stores.redis_workers import (
    Answering,
    claimed,
    committed,
    eventually,
    get,
    put,
    subscribed,
    waiting,
)
from tests.support.doubles import ManualClock
from tests.support.redis_server import own_server

EMPTY_ANSWER = [b"none", b"", b""]


async def test_a_connection_that_was_idle_for_half_a_minute_is_not_used_again(own_redis, slots, monkeypatch):
    """A network may forget idle connections without a word, so an old one is replaced before the next command."""
    clock = ManualClock()
    monkeypatch.setattr(_connection, "SYSTEM_CLOCK", clock)
    async with proxy_to(own_redis.port) as proxy:
        slot = slots(RedisStore(f"redis://127.0.0.1:{proxy.port}/0"))
        await slot.read()
        await subscribed(own_redis, "account", 1)
        assert proxy.accepted == 2
        clock.now += 30.0
        await slot.read()
        assert proxy.accepted == 2
        proxy.forget()
        clock.now += 30.001
        assert isinstance(await slot.claim(claimed("c")), Granted)
        assert proxy.accepted == 3
        await slot.close()


async def test_connections_are_kept_alive(own_redis, slots):
    """TCP keepalive is on, also for the subscription, and begins after half a minute instead of hours."""
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    await subscribed(own_redis, "account", 1)
    ((client, _),) = slot._connection._free
    for pool in (client.connection_pool, slot._connection._client.connection_pool):
        (connection,) = [*pool._available_connections, *pool._in_use_connections]
        sock = connection._writer.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_after_a_failover_behind_one_name_the_new_primary_serves(own_redis, slots):
    """An answer of a replica closes the connections, so that the next command reaches the new primary."""
    with own_server() as successor:
        async with proxy_to(own_redis.port) as proxy:
            slot = slots(RedisStore(f"redis://127.0.0.1:{proxy.port}/0"))
            await asyncio.gather(*(slot.read() for _ in range(5)))
            own_redis.run("REPLICAOF", "127.0.0.1", "1")
            proxy.target = successor.port
            with pytest.raises(TokenStoreError, match="READONLY"):
                await slot.claim(claimed("c"))
            assert isinstance(await slot.claim(claimed("c")), Granted)
            assert get(successor, "account").claim_id == "c"
            await slot.close()


@pytest.mark.parametrize("library", [Redis, Valkey])
async def test_after_a_failover_a_client_that_was_passed_in_connects_again(own_redis, slots, library):
    """An answer of a replica closes the idle connections of the client. What others do with it meanwhile goes on."""
    with own_server() as successor:
        async with proxy_to(own_redis.port) as proxy, library.from_url(f"redis://127.0.0.1:{proxy.port}/0") as client:
            slot = slots(RedisStore(client))
            await asyncio.gather(*(slot.read() for _ in range(5)), *(client.ping() for _ in range(5)))
            async with client.pubsub() as listener, client.pipeline() as transaction:
                await listener.subscribe("made-up")
                await transaction.watch("made-up")
                await eventually(lambda: len(own_redis.clients("pubsub")) == 2)
                await subscribed(own_redis, "account", 1)
                kept = {found["id"] for found in own_redis.clients() if found["cmd"] in ("subscribe", "watch")}
                assert len(kept) == 3
                own_redis.run("REPLICAOF", "127.0.0.1", "1")
                proxy.target = successor.port
                with pytest.raises(TokenStoreError, match="READONLY"):
                    await slot.claim(claimed("c"))
                assert isinstance(await slot.claim(claimed("c")), Granted)
                assert get(successor, "account").claim_id == "c"
                assert kept <= {found["id"] for found in own_redis.clients()}
            await slot.close()


async def test_a_client_is_left_alone_after_other_errors(own_redis, slots):
    """After an error that another connection would meet as well, a client that was passed in keeps its connections."""
    async with Redis.from_url(own_redis.url) as client:
        own_redis.run("SET", "apivideo-auth:account", "made-up")
        slot = slots(RedisStore(client))
        with pytest.raises(TokenStoreError, match="WRONGTYPE"):
            await slot.read()
        await subscribed(own_redis, "account", 1)
        before = [client["id"] for client in own_redis.clients()]
        with pytest.raises(TokenStoreError, match="WRONGTYPE"):
            await slot.read()
        assert [client["id"] for client in own_redis.clients()] == before
        await slot.close()


async def test_a_client_that_retries_does_no_harm(own_redis, slots):
    """A claim and a commit whose first answers are lost are sent again by the client, and have their effect once."""
    put(own_redis, "account", Record(refresh=b"refresh"))
    async with proxy_to(own_redis.port) as proxy:
        retry = {"retry": Retry(NoBackoff(), 3), "retry_on_error": [ConnectionError]}
        client = Redis.from_url(f"redis://127.0.0.1:{proxy.port}/0", protocol=2, **retry)
        async with client:
            slot = slots(RedisStore(client))
            await slot.read()
            await subscribed(own_redis, "account", 1)
            proxy.lose_answers = 1
            granted = await slot.claim(claimed("c"))
            assert isinstance(granted, Granted)
            assert granted.refresh == b"refresh"
            proxy.lose_answers = 1
            assert isinstance(await slot.commit(committed("c")), Done)
            assert proxy.lose_answers == 0
            await slot.close()


@pytest.mark.parametrize("limit", [2, 3, 50])
async def test_a_small_pool_is_enough_for_many_operations(limit, own_redis, slots):
    """Operations wait for a connection of a client that was passed in, instead of asking for too many."""
    async with Redis.from_url(own_redis.url, protocol=2, max_connections=limit) as client:
        store = RedisStore(client)
        opened = [slots(store, f"account {number}") for number in range(20)]
        await opened[0].read()
        await subscribed(own_redis, "account 0", 1)
        answers = await asyncio.gather(*(slot.claim(claimed("c")) for slot in opened))
        assert {type(answer) for answer in answers} == {Granted}
        assert len(own_redis.clients()) <= min(limit, 9)
        for slot in opened:
            await slot.close()


def test_a_pool_of_one_connection_is_refused():
    """The subscription needs a connection for itself, so one connection is a `ValueError`."""
    with pytest.raises(ValueError, match="at least two connections"):
        RedisStore(Redis(max_connections=1))


async def test_a_store_opens_few_connections(own_redis, slots):
    """However many operations there are at a time, a store has eight connections and the subscription's."""
    store = RedisStore(own_redis.url)
    opened = [slots(store, f"account {number}") for number in range(100)]
    await asyncio.gather(*(slot.read() for slot in opened))
    await subscribed(own_redis, "account 99", 1)
    assert len(own_redis.clients()) == 9


@pytest.mark.virtual_time
async def test_waiting_for_a_connection_does_not_count_against_the_budget(slots):
    """Operations that wait for others of a slow server have the whole budget for themselves."""

    class Slow(Answering):
        async def answer(self) -> object:
            await asyncio.sleep(0.4)
            return EMPTY_ANSWER

    store = RedisStore(Slow())
    opened = [slots(store, f"account {number}") for number in range(24)]
    assert await asyncio.gather(*(slot.read() for slot in opened)) == [None] * 24


async def test_an_answer_that_arrives_while_the_event_loop_is_blocked_counts(slots, monkeypatch):
    """If the program blocks the event loop for longer than the budget, the answer that is there by then is taken."""
    monkeypatch.setattr(_connection, "BUDGET", 0.01)
    loop = asyncio.get_running_loop()

    class Waiting(Answering):
        async def answer(self) -> object:
            arrived = loop.create_future()
            loop.call_soon(self.block, arrived)
            answer = await arrived
            for _ in range(8):
                await asyncio.sleep(0)  # Reading and parsing take steps of the loop.
            return answer

        def block(self, arrived: "asyncio.Future[object]") -> None:
            ends_at = SYSTEM_CLOCK.monotonic() + 0.02
            while SYSTEM_CLOCK.monotonic() < ends_at:
                pass
            loop.call_soon(arrived.set_result, EMPTY_ANSWER)

    assert await slots(RedisStore(Waiting())).read() is None


async def test_a_valkey_client_works(own_redis, slots, no_polling):
    """A client of `valkey.asyncio` does everything that one of `redis.asyncio` does."""
    async with Valkey.from_url(own_redis.url) as client:
        holder, waiter = slots(RedisStore(client)), slots(RedisStore(own_redis.url))
        assert isinstance(await holder.claim(claimed("c")), Granted)
        own_redis.run("SCRIPT", "FLUSH")
        assert isinstance(await waiter.claim(claimed("d")), Busy)
        await subscribed(own_redis, "account", 2)
        task = await waiting(waiter)
        assert isinstance(await holder.commit(committed("c")), Done)
        await asyncio.wait_for(task, 60.0)
        assert isinstance(await holder.claim(claimed("d")), Changed)
        own_redis.run("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(TokenStoreError, match="READONLY"):
            await holder.claim(claimed("e", "c"))
        await holder.close()


async def test_a_unix_socket_works(slots, tmp_path):
    """`unix:///path` connects to a socket."""
    path = tmp_path / "redis.sock"
    with own_server(options=("--unixsocket", str(path))) as server:
        store = RedisStore(f"unix://{path}?db=3")
        assert repr(store) == f"<RedisStore unix:{path}>"
        slot = slots(store)
        assert isinstance(await slot.claim(claimed("c")), Granted)
        await subscribed(server, "account", 1)
        assert server.run("INFO", "keyspace")
        await slot.close()


async def test_a_client_in_two_event_loops_is_an_error_at_once(own_redis, slots):
    """A client that was passed in works in one event loop; another one gets an error that says what to do."""
    client = Redis.from_url(own_redis.url)
    store = RedisStore(client)
    slot = slots(store)
    await slot.read()

    async def elsewhere() -> None:
        other = store.open("account", clock=SYSTEM_CLOCK, on_commit=int, on_damage=pytest.fail)
        with pytest.raises(TokenStoreError, match="used in another event loop: pass a URL"):
            await other.read()
        await other.close()

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert await slot.read() is None
    await slot.close()
    await client.aclose()


def test_a_client_that_was_closed_can_be_used_in_the_next_event_loop(own_redis):
    """When its event loop has ended, the next one may use the client."""
    client = Redis.from_url(own_redis.url)
    store = RedisStore(client)

    async def use() -> None:
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int, on_damage=pytest.fail)
        assert await slot.read() is None
        await slot.close()
        await client.aclose()

    asyncio.run(use())
    asyncio.run(use())


async def test_an_operation_that_outlives_its_slot_leaves_no_connection(own_redis, slots):
    """An operation that is answered after the last slot has closed gets its answer, and its connection is closed."""
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    await subscribed(own_redis, "account", 1)
    own_redis.pause()
    reading = asyncio.create_task(slot.read())
    await asyncio.sleep(0.01)
    await slot.close()
    own_redis.resume()
    assert await reading is None
    await eventually(lambda: own_redis.clients() == [])
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


LEAVE_OPEN = """
import asyncio, gc, logging, sys
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._record import Claim
from apivideo_auth.stores import RedisStore
from apivideo_auth.stores.redis import _connection

# On a machine under load, neither slow steps of the event loop nor the budget matter here.
logging.getLogger("asyncio").setLevel(logging.ERROR)
_connection.BUDGET = 10.0
store = RedisStore(sys.argv[1])

async def use(how):
    slots = [store.open(f"account {n}", clock=SYSTEM_CLOCK, on_commit=int, on_damage=print) for n in range(3)]
    await asyncio.gather(*(slot.read() for slot in slots))
    if how == "while it is used":
        for slot in slots:
            asyncio.create_task(slot.read())
        await asyncio.sleep(0)
    if how == "while it waits":
        asyncio.create_task(slots[0].changed(60))
        await asyncio.sleep(0)

for how in ("at once", "while it is used", "while it waits"):
    asyncio.run(use(how))
    gc.collect()
    print(how, flush=True)
    sys.stdin.readline()
"""


def test_nothing_is_left_of_an_event_loop_that_was_closed(own_redis):
    """If an event loop ends before its slots are closed, every connection is closed, and Python warns of nothing."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", LEAVE_OPEN, own_redis.url],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        for how in ("at once", "while it is used", "while it waits"):
            line = program.stdout.readline()
            assert line == f"{how}\n", program.stderr.read()
            assert own_redis.clients() == []
            program.stdin.write("\n")
            program.stdin.flush()
        assert program.stderr.read() == ""
    assert program.returncode == 0
