"""RedisStore: URLs, clients, users, event loops, and the end of it."""

import asyncio
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import pytest
import redis
import trustme
from redis.asyncio import Redis

from apivideo_auth import TokenStoreError
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._record import (
    Busy,
    Changed,
    Done,
    Granted,
)
from apivideo_auth.stores._base import TokenStore
from apivideo_auth.stores.redis._store import RedisStore
from tests.stores.redis_workers import (
    SECONDS,
    Answering,
    claimed,
    committed,
    eventually,
    shown,
    subscribed,
    waiting,
)
from tests.support.redis_server import RedisServer, own_server


async def test_a_client_handed_in_stays_open(own_redis, slots):
    """The store uses a client of the user's own and gives everything back, but does not close it."""
    async with Redis.from_url(own_redis.url, protocol=2) as client:
        slot = slots(RedisStore(client))
        assert isinstance(await slot.claim(claimed("c")), Granted)
        await subscribed(own_redis, "account", 1)
        await slot.close()
        assert own_redis.clients("pubsub") == []
        assert len(own_redis.clients()) == 1
        assert await client.ping()


async def test_a_client_with_the_newer_protocol_serves_as_well(own_redis, slots, no_polling):
    """RESP3 makes no difference to commands and to the subscription."""
    async with Redis.from_url(own_redis.url, protocol=3) as client:
        holder, waiter = slots(RedisStore(client)), slots(RedisStore(client))
        await holder.claim(claimed("c"))
        assert isinstance(await waiter.claim(claimed("d")), Busy)
        await subscribed(own_redis, "account", 2)
        task = await waiting(waiter)
        await holder.commit(committed("c"))
        async with asyncio.timeout(SECONDS):
            await task
        await waiter.close()
        await holder.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1/0?decode_responses=True", "redis://127.0.0.1/0"])
def test_a_client_that_decodes_is_refused(url):
    """Sealed tokens are no text: a client that decodes answers is a `ValueError` that says what to do."""
    with pytest.raises(ValueError, match="decode_responses=False"):
        RedisStore(url if "decode" in url else Redis.from_url(url, decode_responses=True))


@pytest.mark.parametrize(
    "argument", [None, 6379, b"redis://h", object(), Redis, redis.Redis(), Redis().pipeline()], ids=repr
)
def test_what_is_no_client_is_refused(argument):
    """A store is made of a URL or of a client of redis.asyncio: a blocking one and a pipeline are none."""
    with pytest.raises(TypeError, match=r"redis\.asyncio"):
        RedisStore(argument)


def test_a_prefix_is_a_string():
    """Another prefix than a string is a `TypeError`."""
    with pytest.raises(TypeError, match="prefix"):
        RedisStore("redis://127.0.0.1", prefix=b"x")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory:",
        "http://:made-up-secret@h",
        "redis://",
        "redis://:made-up-secret@",
        "redis://:made-up-secret@h:port",
        "redis://:made-up-secret@h:0",
        "redis://:made-up-secret@h:99999",
        "redis://:made-up-secret@h?protocol=9",
        "redis://:made-up-secret@h?unknown_option=1",
        "redis://:made-up-secret@h?retry=1",
        "redis://:made-up-secret@[h",
        "rediss://:made-up-secret@h?ssl_cert_reqs=what",
    ],
)
def test_a_bad_url_is_a_value_error_without_the_url(url):
    """A URL that is none is told at construction, without what may be a password in it."""
    with pytest.raises(ValueError, match="like redis://host") as caught:
        RedisStore(url)
    assert "made-up-secret" not in shown(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://user:made-up-secret@cache.test:6380/2?socket_timeout=1", "redis://cache.test:6380/2"),
        ("rediss://:made-up-secret@cache.test", "rediss://cache.test:6379/0"),
        ("redis://[::1]:7000", "redis://[::1]:7000/0"),
    ],
)
def test_a_store_shows_where_it_is_and_no_password(url, where):
    """The `repr` names scheme, host, port and database alone."""
    assert repr(RedisStore(url)) == f"<RedisStore {where}>"


def test_a_store_shows_where_a_client_is():
    """The `repr` of a store over a client handed in does not show more."""
    assert repr(RedisStore(Redis(host="h", password="made-up-secret"))) == "<RedisStore redis://h:6379/0>"
    assert repr(RedisStore(Redis(unix_socket_path="/run/redis.sock"))) == "<RedisStore unix:/run/redis.sock>"
    assert repr(RedisStore(Answering())) == "<RedisStore Answering>"


@pytest.mark.parametrize("package", ["redis", "cryptography"])
def test_a_missing_part_is_named(package, monkeypatch):
    """Without one of its packages the store says at construction what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"apivideo-auth\[redis\]") as caught:
        RedisStore("redis://127.0.0.1")
    assert caught.value.name == package


def test_a_store_is_a_token_store_that_leaves_the_process():
    """What it keeps is sealed before it gets there."""
    store = RedisStore("redis://127.0.0.1")
    assert isinstance(store, TokenStore)
    assert store.needs_encryption


async def test_a_password_opens_and_is_not_shown(slots):
    """The password of the URL is used; with a wrong one the error shows neither."""
    with own_server(password="made-up-secret") as server:
        assert isinstance(await slots(RedisStore(server.url)).claim(claimed("c")), Granted)
        wrong = RedisStore(f"redis://:another-secret@127.0.0.1:{server.port}/0")
        with pytest.raises(TokenStoreError) as caught:
            await slots(wrong).read()
        assert "secret" not in shown(caught.value)
        with pytest.raises(TokenStoreError):
            await slots(RedisStore(f"redis://127.0.0.1:{server.port}/0")).read()


RIGHTS = ["+evalsha", "+eval", "+time", "+hgetall", "+hset", "+hdel", "+pexpire", "+del", "+publish", "+ping"]
RIGHTS += ["+subscribe", "+unsubscribe"]


@pytest.mark.parametrize("channels", [True, False])
async def test_a_user_with_few_rights_is_enough(channels, own_redis, slots, fast_polling):
    """The store gets by with a dozen commands on its own keys; without the right to its channels it polls."""
    rights = [*RIGHTS, "~apivideo-auth:*", "resetchannels", *(["&apivideo-auth:*"] if channels else [])]
    own_redis.run("ACL", "SETUSER", "worker", "on", ">made-up", *rights)
    url = f"redis://worker:made-up@127.0.0.1:{own_redis.port}/0"
    holder, waiter = slots(RedisStore(url)), slots(RedisStore(url))
    assert isinstance(await holder.claim(claimed("c")), Granted)
    assert isinstance(await waiter.claim(claimed("d")), Busy)
    if channels:
        await subscribed(own_redis, "account", 2)
    task = await waiting(waiter)
    assert await holder.commit(committed("c")) == Done()
    async with asyncio.timeout(SECONDS):
        await task
    assert isinstance(await waiter.claim(claimed("d")), Changed)
    await holder.forget()


@asynccontextmanager
async def tls_in_front_of(server: RedisServer) -> AsyncIterator[tuple[int, str]]:
    """Speak TLS for a server that does not; yield the port and the certificate of the authority."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        with suppress(OSError):
            await writer.wait_closed()

    front = await asyncio.start_server(serve, "localhost", 0, ssl=context, family=socket.AF_INET)
    with authority.cert_pem.tempfile() as path:
        yield front.sockets[0].getsockname()[1], path
    front.close()
    await front.wait_closed()


async def test_tls_is_spoken_and_checked(own_redis):
    """`rediss://` speaks TLS to a server with the right certificate and to no other."""
    async with tls_in_front_of(own_redis) as (port, authority):
        store = RedisStore(f"rediss://localhost:{port}/0?ssl_ca_certs={authority}")
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int)
        assert isinstance(await slot.claim(claimed("c")), Granted)
        await subscribed(own_redis, "account", 1)
        await slot.close()
        stranger = RedisStore(f"rediss://localhost:{port}/0").open("account", clock=SYSTEM_CLOCK, on_commit=int)
        with pytest.raises(TokenStoreError):
            await stranger.read()
        await stranger.close()
        await eventually(lambda: own_redis.clients() == [])


def test_a_store_serves_one_loop_after_the_other(own_redis):
    """What was closed in one event loop opens again in the next; a commit of before is still there."""
    store = RedisStore(own_redis.url)

    async def first() -> None:
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int)
        await slot.claim(claimed("c"))
        await slot.commit(committed("c"))
        await slot.close()
        assert own_redis.clients() == []

    async def second() -> None:
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int)
        assert (await slot.read()).version == "c"
        await subscribed(own_redis, "account", 1)
        await slot.close()

    asyncio.run(first())
    asyncio.run(second())
    assert own_redis.clients() == []


def test_a_store_serves_loops_at_the_same_time(own_redis):
    """Managers in several threads share a store; each loop has connections of its own."""
    store = RedisStore(own_redis.url)
    meeting = threading.Barrier(4)

    async def worker(number: int) -> object:
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int)
        await asyncio.to_thread(meeting.wait, SECONDS)
        answer = await slot.claim(claimed(f"{number}"))
        await asyncio.to_thread(meeting.wait, SECONDS)
        await slot.close()
        return type(answer)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: asyncio.run(worker(number)), range(4)))
    assert sorted(answers, key=repr) == [Granted, Busy, Busy, Busy]
    assert own_redis.clients() == []


async def test_nothing_is_open_before_the_first_use(own_redis, slots):
    """Making a store, opening a slot and closing it connect to nothing."""
    slot = slots(RedisStore(own_redis.url))
    assert own_redis.clients() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await slot.close()


@pytest.mark.parametrize("early", [True, False])
async def test_nothing_is_left_when_the_last_slot_has_closed(early, own_redis, slots):
    """Slots that are left keep the connections; with the last one every task and connection is gone, also when the
    subscription is only being made. Closing twice does no harm, and a closed slot says that it is.
    """
    store = RedisStore(own_redis.url)
    first, second = slots(store), slots(store, "another")
    await first.read()
    await second.read()
    if not early:
        await subscribed(own_redis, "another", 1)
    await first.close()
    assert own_redis.clients()
    await second.close()
    await second.close()
    await eventually(lambda: own_redis.clients() == [])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(TokenStoreError, match="closed"):
        await second.read()
    again = slots(store)
    assert await again.read() is None
    await again.close()
    await eventually(lambda: own_redis.clients() == [])


async def test_nothing_is_left_of_a_server_that_hangs(own_redis, slots):
    """A store whose server is stopped closes all the same."""
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    await subscribed(own_redis, "account", 1)
    own_redis.pause()
    await slot.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_close_skips_the_waiting_only(own_redis, slots):
    """A `close` that is cancelled lets go of everything all the same."""
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    await subscribed(own_redis, "account", 1)
    task = asyncio.create_task(slot.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert own_redis.clients() == []
