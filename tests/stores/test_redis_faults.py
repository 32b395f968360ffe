"""RedisStore: failing servers, damaged records and invalid answers."""

import asyncio
from collections.abc import Callable

import pytest
import redis
from attrs import evolve

from apivideo_auth import TokenStoreError
from apivideo_auth._record import (
    Backoff,
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
from tests.stores.redis_workers import FAILURE, PREFIX, Answering, claimed, committed, get, put, shown
from tests.support.redis_server import RedisServer


async def test_a_killed_server_is_a_store_error(own_redis, slots, fast_polling):
    """While the server is down each operation raises `TokenStoreError`; when it is back, the slot goes on."""
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


async def test_the_error_for_a_missing_server_names_the_reason(slots, own_redis):
    """The error contains the system's reason, and neither a cause nor a context."""
    own_redis.kill()
    with pytest.raises(TokenStoreError, match="Connection refused") as caught:
        await slots(RedisStore(own_redis.url)).read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_a_stopped_server_costs_one_budget_and_leaves_no_stray_answer(own_redis, slots, monkeypatch):
    """Operations on a server that hangs raise `TokenStoreError`; its late answers reach no later operation."""
    slot = slots(RedisStore(own_redis.url))
    await slot.claim(claimed("c"))
    own_redis.pause()
    with monkeypatch.context() as limits:
        limits.setattr(_connection, "BUDGET", 0.1)
        with pytest.raises(TokenStoreError, match=r"failed: no answer within 0\.1 seconds"):
            await slot.commit(committed("c"))
        with pytest.raises(TokenStoreError):
            await slot.claim(claimed("d"))
    own_redis.resume()
    answers = await asyncio.gather(*(slot.read() for _ in range(20)), slot.claim(claimed("e")))
    assert {type(answer) for answer in answers[:-1]} == {SharedToken}
    assert isinstance(answers[-1], Changed)
    # The commit was done although it raised.
    assert isinstance(await slot.commit(committed("c")), Done)


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_operation_leaves_no_stray_answer(turns, store, slots, account):
    """Wherever an operation is cancelled, later operations get their own answers."""
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
async def test_a_cancelled_claim_can_be_sent_again(turns, redis_server, store, slots, account):
    """Wherever a claim is cancelled, the same claim again is granted with the refresh token."""
    put(redis_server, account, Record(refresh=b"refresh"))
    slot = slots(store, account)
    await slot.read()
    task = asyncio.create_task(slot.claim(claimed("c")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    granted = await slot.claim(claimed("c"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh"


async def test_a_client_that_ignores_cancelling_keeps_the_budget(monkeypatch, slots):
    """A client that ignores its cancellation, as `asyncio.wait_for` may, neither exceeds the budget nor goes on."""
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


async def test_a_flushed_server_has_an_empty_record(own_redis, slots):
    """After FLUSHALL earlier claims are lost, and a new claim is granted."""
    slot = slots(RedisStore(own_redis.url))
    await slot.claim(claimed("c"))
    own_redis.flush()
    assert await slot.commit(committed("c")) == ClaimLost(token=None)
    assert isinstance(await slot.claim(claimed("d")), Granted)


async def test_a_server_that_forgot_the_script_gets_it_again(own_redis, slots):
    """After SCRIPT FLUSH an operation sends the script again."""
    slot = slots(RedisStore(own_redis.url))
    for number in range(3):
        own_redis.run("SCRIPT", "FLUSH")
        assert isinstance(await slot.claim(claimed(f"{number}")), Granted if number == 0 else Busy)


@pytest.fixture
def make_broken(redis_server: RedisServer) -> Callable[[str, str], None]:
    """Return a function that damages the record of an account in a way that has a name."""

    def break_it(account: str, how: str) -> None:
        key = PREFIX + account
        put(
            redis_server,
            account,
            Record(version="v", access=b"made-up-access", lifetime=9.0, ends_at=9e9, refresh=b"r", committed_at=1.0),
        )
        match how.split("="):
            case ["foreign"]:
                redis_server.run("DEL", key)
                redis_server.run("HSET", key, "made-up-access", "1")
            case ["without", field]:
                redis_server.run("HDEL", key, field)
            case [field, value]:
                redis_server.run("HSET", key, field, value)

    return break_it


DAMAGES = ["foreign", "without=claimed_at", "without=ends_at", "without=failures", "ends_at=nan", "ends_at=inf"]
DAMAGES += ["ends_at=1e999", "ends_at=", "lifetime=made-up-access", "failures=1.5", "failures=-1", "committed_at=x"]
DAMAGES += ["rejected_at=nan", "version=\xff", "claim_id=a b", "version=\n"]


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_damaged_record_counts_as_empty_at_once(how, redis_server, slots, account, make_broken):
    """A record that cannot be read is reported once to each slot, without its content, and counts as empty at once: the
    first claim replaces it.
    """
    make_broken(account, how)
    damages: list[str] = []
    store = RedisStore(redis_server.url)
    slot, other = slots(store, account, on_damage=damages.append), slots(store, account, on_damage=damages.append)
    for _ in range(2):
        assert await slot.read() is None
    assert await slot.commit(committed("c")) == ClaimLost(token=None)
    assert len(damages) == 1
    assert "cannot be read and counts as empty" in damages[0]
    assert "made-up-access" not in damages[0]
    granted = Granted(refresh=None, committed_at=None, failures=0, failing_for=0.0)
    assert await other.claim(claimed("c")) == granted
    assert len(damages) == 2
    assert get(redis_server, account).claim_id == "c"
    assert isinstance(await other.commit(committed("c")), Done)
    assert (await slot.read()).version == "c"
    # Reported again when it is damaged again.
    make_broken(account, how)
    assert await slot.claim(claimed("d")) == granted
    assert len(damages) == 3


@pytest.mark.parametrize("command", [("SET", "made-up-value"), ("RPUSH", "made-up-value")], ids=["string", "list"])
async def test_a_key_of_another_type_is_not_damage(command, redis_server, store, slots, account):
    """A key that another program uses for something else is a `TokenStoreError` that says so, and stays as it is."""
    redis_server.run(command[0], PREFIX + account, command[1])
    slot = slots(store, account)
    before = redis_server.run("DUMP", PREFIX + account)
    for operation in (slot.read(), slot.claim(claimed("c")), slot.commit(committed("c")), slot.forget()):
        with pytest.raises(TokenStoreError, match=r"WRONGTYPE"):
            await operation
    assert redis_server.run("DUMP", PREFIX + account) == before


async def test_foreign_fields_beside_a_good_record_do_no_harm(redis_server, store, slots, account):
    """Unknown fields are left alone."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    redis_server.run("HSET", PREFIX + account, "foreign", "x")
    assert isinstance(await slot.commit(committed("c")), Done)
    assert (await slot.read()).version == "c"


@pytest.mark.parametrize("failure", [b"made-up-text \xff", b"{}", b'{"kind":"made-up-kind"}'])
async def test_a_failure_that_cannot_be_read_counts_as_none(failure, redis_server, store, slots, account):
    """A backoff whose failure cannot be read is reported, and does not keep a claim from being granted."""
    damages: list[str] = []
    slot = slots(store, account, on_damage=damages.append)
    await slot.claim(claimed("c"))
    await slot.release(Release(id="c", retry_after=30.0, failure=FAILURE))
    redis_server.run("HSET", PREFIX + account, "failure", failure)
    assert isinstance(await slot.claim(claimed("d")), Granted)
    assert len(damages) == 1
    assert "failure" in damages[0]
    assert "made-up" not in damages[0]
    assert get(redis_server, account).failure is None


async def test_the_failure_of_a_record_is_cleaned(redis_server, store, slots, account):
    """Whoever can write to Redis cannot put control characters or long texts into messages."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    await slot.release(
        Release(id="c", retry_after=30.0, failure=evolve(FAILURE, message="\x1b[2J\nmade up" + "x" * 2000))
    )
    backoff = await slot.claim(claimed("d"))
    assert isinstance(backoff, Backoff)
    assert backoff.failure.message == "[2Jmade up" + "x" * 990


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"made-up-access",
        [],
        [b"granted"],
        ["granted", "stamp", ""],
        [b"granted", b"stamp", b""],
        [b"granted", b"stamp", b"", b"", b"", b"0", None],
        [b"granted", b"stamp", b"", b"made-up-access", b"", b"0", b"0"],
        [b"granted", b"stamp", b"", b"", b"=\xff", b"0", b"0"],
        [b"granted", b"stamp", b"", b"", b"=nan", b"0", b"0"],
        [b"granted", b"stamp", b"", b"", b"=made-up-access", b"0", b"0"],
        [b"granted", b"stamp", b"", b"", b"", b"0.5", b"0"],
        [b"granted", b"stamp", b"", b"", b"", b"-1", b"0"],
        [b"changed", b"stamp", b"", b"v", b"made-up-access", b"1", b"1"],
        [b"changed", b"stamp", b"", b"\xff", b"made-up-access", b"1", b"1", b"1"],
        [b"changed", b"stamp", b"", b"v", b"made-up-access", b"1", b"1", b"inf"],
        [b"busy", b"stamp", b"", b"inf"],
        [b"made-up-access", b"stamp", b""],
        [b"made-up-access", b"stamp", b"", b"v", b"made-up-access", b"1", b"1", b"1"],
        [b"none", b"stamp", b"", b"made-up-access"],
    ],
)
async def test_an_invalid_answer_is_a_store_error(answer, slots):
    """An answer that the script cannot give is a `TokenStoreError`, without its content."""
    slot = slots(RedisStore(Answering(answer)))
    for operation in (slot.claim(claimed("c")), slot.read(), slot.commit(committed("c"))):
        with pytest.raises(TokenStoreError, match="read") as caught:
            await operation
        assert "made-up-access" not in shown(caught.value)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RuntimeError("made-up-secret"), "RuntimeError"),
        (OSError(111, "made-up-secret"), r"ConnectionRefusedError \(Connection refused\)"),
        (redis.exceptions.ConnectionError("made-up-secret"), "ConnectionError"),
        (redis.exceptions.ResponseError("WAIT made-up-secret"), r"ResponseError \(WAIT\)"),
        (redis.exceptions.AuthenticationError("made-up-secret"), "AuthenticationError"),
        (TimeoutError("made-up-secret"), "TimeoutError"),
    ],
)
async def test_whatever_a_client_raises_is_a_store_error(raised, reason, slots):
    """The error names the class and the code of the client's error, but contains neither its text nor itself."""
    with pytest.raises(TokenStoreError, match=f"^the token store at Answering failed: {reason}$") as caught:
        await slots(RedisStore(Answering(raised))).read()
    assert "made-up-secret" not in shown(caught.value)
    assert caught.value.__context__ is None


async def test_a_server_without_memory_keeps_the_record(own_redis, slots):
    """A write that Redis refuses is a `TokenStoreError`, and the record stays as it was."""
    slot = slots(RedisStore(own_redis.url))
    await slot.claim(claimed("c"))
    before = get(own_redis, "account")
    own_redis.run("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(TokenStoreError):
        await slot.commit(committed("c"))
    assert get(own_redis, "account") == before
