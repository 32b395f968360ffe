"""RedisStore: servers, records and answers that are not as they should be cost a TokenStoreError and no more."""

import asyncio
from collections.abc import Callable

import pytest
import redis

from apivideo_auth import TokenStoreError
from apivideo_auth._record import (
    Busy,
    Changed,
    ClaimLost,
    Done,
    Granted,
    Record,
    Release,
    SharedToken,
)
from apivideo_auth.stores.redis import _connection
from apivideo_auth.stores.redis._store import RedisStore
from tests.stores.redis_workers import FAILURE, PREFIX, Answering, claimed, committed, eventually, get, put, shown
from tests.support.redis_server import RedisServer


async def test_a_killed_server_is_a_store_error(own_redis, slots):
    """While the server is gone each operation raises `TokenStoreError`; when it is back, empty, the slot goes on."""
    slot = slots(RedisStore(own_redis.url))
    await slot.claim(claimed("c"))
    own_redis.kill()
    for operation in (
        slot.claim(claimed("d")),
        slot.commit(committed("c")),
        slot.read(),
        slot.changed(10),
        slot.forget(),
    ):
        with pytest.raises(TokenStoreError, match=r"^the token store at redis://127\.0\.0\.1:\d+/0 failed: "):
            await operation
    own_redis.start()
    assert await slot.commit(committed("c")) == ClaimLost(token=None)
    assert isinstance(await slot.claim(claimed("d")), Granted)


async def test_a_server_that_is_not_there_says_why(slots, own_redis):
    """The text of the error tells what the system says, and there is no other error behind it."""
    own_redis.kill()
    with pytest.raises(TokenStoreError, match="Connection refused") as caught:
        await slots(RedisStore(own_redis.url)).read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_a_stopped_server_costs_one_budget_and_leaves_no_stray_answer(own_redis, slots):
    """Operations on a server that hangs end as `TokenStoreError`; what it answers later reaches no later operation."""
    slot = slots(RedisStore(own_redis.url))
    await slot.claim(claimed("c"))
    own_redis.pause()
    with pytest.raises(TokenStoreError, match=r"failed: (no answer within 0\.45 seconds|TimeoutError)"):
        await slot.commit(committed("c"))
    with pytest.raises(TokenStoreError):
        await slot.claim(claimed("d"))
    own_redis.resume()
    answers = await asyncio.gather(*(slot.read() for _ in range(20)), slot.claim(claimed("e")))
    assert {type(answer) for answer in answers[:-1]} == {SharedToken}
    assert isinstance(answers[-1], Changed)
    # The commit was done although it raised; the answer to its repetition says so.
    again = await slot.commit(committed("c"))
    assert again.token.version == "c"


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_operation_leaves_no_stray_answer(turns, store, slots, account):
    """Wherever an operation is cancelled, the next ones get their own answers."""
    slot = slots(store, account)
    await slot.read()
    for number in range(5):
        task = asyncio.create_task(slot.read() if number % 2 else slot.release(Release(id="none")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert await slot.read() is None
        assert await slot.release(Release(id="none")) == ClaimLost(token=None)


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_claim_is_given_back(turns, redis_server, store, slots, account):
    """Wherever a claim is cancelled, nobody has to wait for its lease, and its refresh token is not lost."""
    put(redis_server, account, Record(refresh=b"refresh"))
    slot = slots(store, account)
    await slot.read()
    task = asyncio.create_task(slot.claim(claimed("c")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        return  # It was done before.
    granted = await slot.claim(claimed("d"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh"


async def test_a_cancelled_claim_that_was_not_granted_changes_nothing(redis_server, slots, account):
    """A claim that others would not have had either is not given back when it is cancelled."""
    holder, other = slots(RedisStore(redis_server.url), account), slots(RedisStore(redis_server.url), account)
    await holder.claim(claimed("c"))
    await other.read()
    before = get(redis_server, account)
    task = asyncio.create_task(other.claim(claimed("d")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert get(redis_server, account) == before


async def test_a_claim_that_is_cancelled_twice_ends(own_redis, slots):
    """Who does not wait for a claim to be given back leaves no task behind."""
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    own_redis.pause()
    task = asyncio.create_task(slot.claim(claimed("c")))
    for _ in range(2):
        await asyncio.sleep(0.05)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    own_redis.resume()
    await slot.close()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_client_that_ignores_cancelling_keeps_the_budget(monkeypatch, slots):
    """A cancellation that gets lost on its way, as in `asyncio.wait_for`, neither breaks the budget nor the end."""
    monkeypatch.setattr(_connection, "BUDGET", 0.05)

    class Deaf(Answering):
        async def answer(self) -> object:
            for _ in range(3):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    continue
            raise asyncio.CancelledError

    with pytest.raises(TokenStoreError, match="no answer"):
        await slots(RedisStore(Deaf())).read()


async def test_a_flushed_server_knows_nothing(own_redis, slots):
    """A record that was emptied drops what was claimed before, and starts again."""
    slot = slots(RedisStore(own_redis.url))
    await slot.claim(claimed("c"))
    own_redis.flush()
    assert await slot.commit(committed("c")) == ClaimLost(token=None)
    assert isinstance(await slot.claim(claimed("d")), Granted)


async def test_a_server_that_forgot_the_script_gets_it_again(own_redis, slots):
    """After SCRIPT FLUSH the operation is done all the same."""
    slot = slots(RedisStore(own_redis.url))
    for number in range(3):
        own_redis.run("SCRIPT", "FLUSH")
        assert isinstance(await slot.claim(claimed(f"{number}")), Granted if number == 0 else Busy)


@pytest.fixture
def make_broken(redis_server: RedisServer) -> Callable[[str, str], None]:
    """Break the record of an account in a way that has a name."""

    def break_it(account: str, how: str) -> None:
        key = PREFIX + account
        put(
            redis_server,
            account,
            Record(version="v", access=b"made-up-access", lifetime=9.0, ends_at=9e9, refresh=b"r"),
        )
        match how.split("="):
            case ["string"]:
                redis_server.run("SET", key, "made-up-access")
            case ["list"]:
                redis_server.run("DEL", key)
                redis_server.run("RPUSH", key, "made-up-access")
            case ["foreign"]:
                redis_server.run("DEL", key)
                redis_server.run("HSET", key, "made-up-access", "1")
            case ["without", field]:
                redis_server.run("HDEL", key, field)
            case [field, value]:
                redis_server.run("HSET", key, field, value)

    return break_it


DAMAGES = ["string", "list", "foreign", "without=ends_at", "without=failures", "ends_at=nan", "ends_at=inf"]
DAMAGES += ["ends_at=1e999", "ends_at=", "lifetime=made-up-access", "failures=1.5", "failures=-1", "committed_at=x"]
DAMAGES += ["rejected_at=nan", "version=\xff", "claim_id=a b", "version=\n"]


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_broken_record_is_reported_and_then_replaced(how, store, slots, account, make_broken):
    """A record that cannot be read is one `TokenStoreError` for each slot, without its content, and then an empty one:
    the next claim puts a good record in its place.
    """
    make_broken(account, how)
    slot, other = slots(store, account), slots(store, account)
    with pytest.raises(TokenStoreError, match="cannot be read") as caught:
        await slot.read()
    assert "made-up-access" not in shown(caught.value)
    assert await slot.read() is None
    assert await slot.commit(committed("c")) == ClaimLost(token=None)
    with pytest.raises(TokenStoreError, match="cannot be read"):
        await other.claim(claimed("d"))
    assert await slot.claim(claimed("c")) == Granted(
        refresh=None, version=None, remaining=pytest.approx(-9e9, rel=1), failures=0, failing_for=0.0
    )
    assert isinstance(await other.claim(claimed("d")), Busy)
    assert await slot.commit(committed("c")) == Done()
    # Reported again when it is broken again.
    make_broken(account, how)
    with pytest.raises(TokenStoreError, match="cannot be read"):
        await slot.claim(claimed("e"))


async def test_foreign_fields_beside_a_good_record_do_no_harm(redis_server, store, slots, account):
    """Fields that nobody knows are left alone."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    redis_server.run("HSET", PREFIX + account, "foreign", "x")
    assert await slot.commit(committed("c")) == Done()
    assert (await slot.read()).version == "c"


async def test_a_stored_failure_that_is_none_is_a_store_error(redis_server, store, slots, account):
    """A pause without a readable cause is reported; it is over within a minute as any other."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    await slot.release(Release(id="c", backoff=30.0, failure=FAILURE))
    redis_server.run("HSET", PREFIX + account, "failure", b"made-up-access \xff")
    with pytest.raises(TokenStoreError, match="failure cannot be read") as caught:
        await slot.claim(claimed("d"))
    assert "made-up-access" not in shown(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"made-up-access",
        [],
        [b"granted"],
        ["granted", "stamp"],
        [b"granted", b"stamp"],
        [b"granted", b"stamp", b"", b"", b"1", b"0", None],
        [b"granted", b"stamp", b"made-up-access", b"", b"1", b"0", b"0"],
        [b"granted", b"stamp", b"", b"=\xff", b"1", b"0", b"0"],
        [b"granted", b"stamp", b"", b"", b"nan", b"0", b"0"],
        [b"granted", b"stamp", b"", b"", b"made-up-access", b"0", b"0"],
        [b"granted", b"stamp", b"", b"", b"1", b"0.5", b"0"],
        [b"granted", b"stamp", b"", b"", b"1", b"-1", b"0"],
        [b"changed", b"stamp", b"v", b"made-up-access", b"1"],
        [b"changed", b"stamp", b"\xff", b"made-up-access", b"1", b"1"],
        [b"busy", b"stamp", b"inf"],
        [b"backoff", b"stamp", b"1", b"made-up-access", b"1", b"1"],
        [b"made-up-access", b"stamp"],
    ],
)
async def test_garbage_for_an_answer_is_a_store_error(answer, slots):
    """What the script does not say is `TokenStoreError`, and shows nothing of what was said."""
    slot = slots(RedisStore(Answering(answer)))
    for operation in (slot.claim(claimed("c")), slot.read(), slot.commit(committed("c"))):
        with pytest.raises(TokenStoreError, match="read") as caught:
            await operation
        assert "made-up-access" not in shown(caught.value)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (RuntimeError("made-up-secret"), "RuntimeError"),
        (OSError(111, "made-up-secret"), r"ConnectionRefusedError \(Connection refused\)"),
        (redis.exceptions.ConnectionError("made-up-secret"), "ConnectionError"),
        (redis.exceptions.ResponseError("OOM made-up-secret"), r"ResponseError \(OOM\)"),
        (redis.exceptions.AuthenticationError("made-up-secret"), "AuthenticationError"),
        (TimeoutError("made-up-secret"), "TimeoutError"),
    ],
)
async def test_whatever_a_client_raises_is_a_store_error(raised, told, slots):
    """The error tells the class and the code of what a client raised, and neither its text nor the error itself."""
    with pytest.raises(TokenStoreError, match=f"^the token store at Answering failed: {told}$") as caught:
        await slots(RedisStore(Answering(raised))).read()
    assert "made-up-secret" not in shown(caught.value)
    assert caught.value.__context__ is None


async def test_a_server_without_memory_keeps_the_record(own_redis, slots):
    """A change that Redis refuses is `TokenStoreError` with its code, and the record stays as it was."""
    slot = slots(RedisStore(own_redis.url))
    await slot.claim(claimed("c"))
    before = get(own_redis, "account")
    own_redis.run("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(TokenStoreError):
        await slot.commit(committed("c"))
    assert get(own_redis, "account") == before
