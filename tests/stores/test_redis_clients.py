"""RedisStore: URLs, clients, users, event loops, and the end of it."""

import asyncio
import socket
import ssl
import sys
import threading
from collections import Counter
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


async def test_a_client_that_was_passed_in_stays_open(own_redis, slots):
    """The store uses the user's client and returns its connections, but does not close it."""
    async with Redis.from_url(own_redis.url, protocol=2) as client:
        slot = slots(RedisStore(client))
        assert isinstance(await slot.claim(claimed("c")), Granted)
        await subscribed(own_redis, "account", 1)
        await slot.close()
        assert own_redis.clients("pubsub") == []
        assert len(own_redis.clients()) == 1
        assert await client.ping()


async def test_a_client_with_the_newer_protocol_serves_as_well(own_redis, slots, no_polling):
    """RESP3 makes no difference for commands and for the subscription."""
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
    """A client that decodes answers is a `ValueError`, since encrypted tokens are not text."""
    with pytest.raises(ValueError, match="decode_responses=False"):
        RedisStore(url if "decode" in url else Redis.from_url(url, decode_responses=True))


@pytest.mark.parametrize(
    "argument",
    [None, 6379, b"redis://h", object(), Redis, redis.Redis(), Redis().pipeline()],
    ids=lambda argument: type(argument).__name__,
)
def test_other_arguments_are_refused(argument):
    """Anything but a URL or a client of redis.asyncio is a `TypeError`, also a blocking client and a pipeline."""
    with pytest.raises(TypeError, match=r"redis\.asyncio"):
        RedisStore(argument)


def test_a_prefix_is_a_string():
    """A prefix that is not a string is a `TypeError`."""
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
    """An invalid URL is a `ValueError` at construction; the error does not show its password."""
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
    """The `repr` shows scheme, host, port and database only."""
    assert repr(RedisStore(url)) == f"<RedisStore {where}>"


def test_a_store_shows_where_a_client_is():
    """The `repr` shows no password of a client that was passed in either."""
    assert repr(RedisStore(Redis(host="h", password="made-up-secret"))) == "<RedisStore redis://h:6379/0>"
    assert repr(RedisStore(Redis(unix_socket_path="/run/redis.sock"))) == "<RedisStore unix:/run/redis.sock>"
    assert repr(RedisStore(Answering())) == "<RedisStore Answering>"


@pytest.mark.parametrize("package", ["redis", "cryptography"])
def test_a_missing_package_is_named(package, monkeypatch):
    """Without one of its packages the constructor raises `ImportError` with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"apivideo-auth\[redis\]") as caught:
        RedisStore("redis://127.0.0.1")
    assert caught.value.name == package


def test_it_is_a_token_store_that_needs_encryption():
    """A RedisStore is a `TokenStore` that needs encryption."""
    store = RedisStore("redis://127.0.0.1")
    assert isinstance(store, TokenStore)
    assert store.needs_encryption


async def test_a_password_is_used_and_not_shown(slots):
    """The password in the URL is used; the error for a wrong one does not show it."""
    with own_server(password="made-up-secret") as server:
        assert isinstance(await slots(RedisStore(server.url)).claim(claimed("c")), Granted)
        wrong = RedisStore(f"redis://:another-secret@127.0.0.1:{server.port}/0")
        with pytest.raises(TokenStoreError) as caught:
            await slots(wrong).read()
        assert "secret" not in shown(caught.value)
        with pytest.raises(TokenStoreError):
            await slots(RedisStore(f"redis://127.0.0.1:{server.port}/0")).read()


NEEDED = ["+evalsha", "+eval", "+time", "+hgetall", "+hset", "+hdel", "+pexpire", "~apivideo-auth:*", "resetchannels"]
USEFUL = ["+del", "+publish", "+subscribe", "+unsubscribe", "+ping", "&apivideo-auth:*"]


@pytest.mark.parametrize("rights", [NEEDED, [*NEEDED, "+publish", "+subscribe"], [*NEEDED, *USEFUL]])
async def test_a_user_with_few_rights_is_enough(rights, own_redis, slots, fast_polling):
    """The store needs seven commands on its own keys; without the right to its channels it polls."""
    own_redis.run("ACL", "SETUSER", "worker", "on", ">made-up", *rights)
    url = f"redis://worker:made-up@127.0.0.1:{own_redis.port}/0"
    holder, waiter = slots(RedisStore(url)), slots(RedisStore(url))
    assert isinstance(await holder.claim(claimed("c")), Granted)
    assert isinstance(await waiter.claim(claimed("d")), Busy)
    has_channels = "+ping" in rights
    if has_channels:
        await subscribed(own_redis, "account", 2)
    task = await waiting(waiter)
    assert isinstance(await holder.commit(committed("c")), Done)
    async with asyncio.timeout(SECONDS):
        await task
    assert isinstance(await waiter.claim(claimed("d")), Changed)
    if has_channels:
        await holder.forget()
    else:
        with pytest.raises(TokenStoreError, match="lacks a permission"):
            await holder.forget()


@asynccontextmanager
async def tls_in_front_of(server: RedisServer) -> AsyncIterator[tuple[int, str]]:
    """Run a TLS proxy in front of a server; yield its port and the path of the authority's certificate."""
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


async def test_tls_is_used_and_certificates_are_checked(own_redis):
    """`rediss://` connects over TLS to a server with a trusted certificate and to no other."""
    async with tls_in_front_of(own_redis) as (port, authority):
        store = RedisStore(f"rediss://localhost:{port}/0?ssl_ca_certs={authority}")
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int, on_damage=pytest.fail)
        assert isinstance(await slot.claim(claimed("c")), Granted)
        await subscribed(own_redis, "account", 1)
        await slot.close()
        stranger = RedisStore(f"rediss://localhost:{port}/0").open(
            "account", clock=SYSTEM_CLOCK, on_commit=int, on_damage=pytest.fail
        )
        with pytest.raises(TokenStoreError):
            await stranger.read()
        await stranger.close()
        await eventually(lambda: own_redis.clients() == [])


def test_a_store_can_be_used_in_one_loop_after_another(own_redis):
    """A store that was closed in one event loop opens again in the next, with the same record."""
    store = RedisStore(own_redis.url)

    async def first() -> None:
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int, on_damage=pytest.fail)
        await slot.claim(claimed("c"))
        await slot.commit(committed("c"))
        await slot.close()
        assert own_redis.clients() == []

    async def second() -> None:
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int, on_damage=pytest.fail)
        assert (await slot.read()).version == "c"
        await subscribed(own_redis, "account", 1)
        await slot.close()

    asyncio.run(first())
    asyncio.run(second())
    assert own_redis.clients() == []


def test_a_store_can_be_used_in_several_loops_at_the_same_time(own_redis):
    """Managers in several threads share a store; each event loop has its own connections."""
    store = RedisStore(own_redis.url)
    meeting = threading.Barrier(4)

    async def worker(number: int) -> object:
        slot = store.open("account", clock=SYSTEM_CLOCK, on_commit=int, on_damage=pytest.fail)
        await asyncio.to_thread(meeting.wait, SECONDS)
        answer = await slot.claim(claimed(f"{number}"))
        await asyncio.to_thread(meeting.wait, SECONDS)
        await slot.close()
        return type(answer)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: asyncio.run(worker(number)), range(4)))
    assert Counter(answers) == {Granted: 1, Busy: 3}
    assert own_redis.clients() == []


async def test_nothing_is_open_before_the_first_use(own_redis, slots):
    """Constructing a store, opening a slot and closing it do not connect."""
    slot = slots(RedisStore(own_redis.url))
    assert own_redis.clients() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await slot.close()


@pytest.mark.parametrize("early", [True, False])
async def test_nothing_is_left_when_the_last_slot_has_closed(early, own_redis, slots):
    """Connections stay open while slots are open. With the last slot every task and connection is gone, also while the
    subscription is being made. Closing twice is allowed, and operations of a closed slot raise `TokenStoreError`.
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
    """A store closes even if its server is stopped."""
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    await subscribed(own_redis, "account", 1)
    own_redis.pause()
    await slot.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_close_skips_the_waiting_only(own_redis, slots):
    """A `close` that is cancelled closes everything all the same."""
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
