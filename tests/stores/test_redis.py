"""RedisStore against a real Redis: the same transitions, one for all, and nothing worse than a TokenStoreError."""

import asyncio
import random
import socket
import ssl
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import redis
import trustme
from attrs import fields, fields_dict
from redis.asyncio import Redis

from apivideo_auth import TokenStoreError, _record
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._errors import Failure
from apivideo_auth._record import (
    Changed,
    Claim,
    Commit,
    Done,
    Dropped,
    Event,
    Fail,
    Granted,
    Held,
    Record,
    SharedToken,
)
from apivideo_auth.stores import _redis_client, _redis_feed, _redis_script, _redis_slot
from apivideo_auth.stores._codec import failure_from_json, failure_to_json
from apivideo_auth.stores._protocol import TokenStore
from apivideo_auth.stores._redis import RedisStore
from apivideo_auth.stores._redis_slot import RedisSlot
from tests.record_cases import CASES, differences
from tests.redis_server import RedisServer, own_server

PREFIX = "apivideo-auth:"
TEXTS = {"version", "claim_id"}
SECONDS = 10
"""How long a test waits for what has to come; it comes at once."""

FAILURE = Failure(kind="response", message="the endpoint answered 500", status=500, retry_after=2.5)


@pytest.fixture
def account(request: pytest.FixtureRequest) -> str:
    """An account of the test's own on a server that is shared."""
    return f"account-{random.getrandbits(64):x}"


@pytest.fixture
async def store(redis_server: RedisServer) -> RedisStore:
    """A store with connections of its own."""
    return RedisStore(redis_server.url)


@pytest.fixture
async def slots() -> AsyncIterator[Callable[..., RedisSlot]]:
    """Open slots that are closed in the end."""
    opened: list[RedisSlot] = []

    def open_slot(store: RedisStore, account: str = "account", on_commit: Callable[[], None] = int) -> RedisSlot:
        opened.append(store.open(account, clock=SYSTEM_CLOCK, on_commit=on_commit))
        return opened[-1]

    yield open_slot
    for slot in opened:
        await slot.close()


async def eventually(condition: Callable[[], object]) -> None:
    """Return when this has become true."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  the other side is a process
            await asyncio.sleep(0.01)


def committed(claim_id: str, *, refresh: bytes | None = b"refresh", remaining: float = 3600.0) -> Commit:
    return Commit(
        id=claim_id, access=b"access of " + claim_id.encode(), refresh=refresh, lifetime=3600.0, remaining=remaining
    )


def claimed(claim_id: str, seen: str | None = None, *, rejected: bool = False) -> Claim:
    return Claim(id=claim_id, seen=seen, lease=15.0, rejected=rejected)


def stored(record: Record) -> dict[str, bytes]:
    """Return a record as the fields of a hash."""
    found = {}
    for name in fields_dict(Record):
        value = getattr(record, name)
        if isinstance(value, Failure):
            value = failure_to_json(value)
        if value is not None:
            found[name] = value if isinstance(value, bytes) else str(value).encode()
    return found


def restored(found: dict[bytes, bytes]) -> Record:
    """Return a record of the fields of a hash."""
    values: dict[str, Any] = {}
    for key, value in found.items():
        name = key.decode()
        if name == "failure":
            values[name] = failure_from_json(value.decode())
        elif name in TEXTS:
            values[name] = value.decode()
        elif name in {"access", "refresh"}:
            values[name] = value
        else:
            values[name] = float(value)
    return Record(**values)


def put(server: RedisServer, account: str, record: Record) -> None:
    """Put a record into Redis."""
    key = PREFIX + account
    server.run("DEL", key)
    if record != _record.EMPTY:
        server.run("HSET", key, *(part for item in stored(record).items() for part in item))


def get(server: RedisServer, account: str) -> Record:
    """Return the record that is in Redis."""
    answer = server.run("HGETALL", PREFIX + account)
    pairs = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
    return restored(pairs)


def at(slot: RedisSlot, now: float) -> RedisSlot:
    """Let the next operations of a slot happen at this time."""
    slot._now = _redis_script.exact(now)
    return slot


async def apply(slot: RedisSlot, event: Event | None) -> object:
    match event:
        case Claim():
            return await slot.claim(event)
        case Commit():
            return await slot.commit(event)
        case Fail():
            return await slot.fail(event)
        case None:
            return await slot.read()


def apply_pure(record: Record, event: Event | None, now: float) -> tuple[Record, object]:
    match event:
        case Claim():
            return _record.claim(record, event, now)
        case Commit():
            return _record.commit(record, event, now)
        case Fail():
            return _record.fail(record, event, now)
        case None:
            return record, _record.shared_token(record, now)


# The transitions.


def some_event(draw: random.Random, ids: list[str], record: Record) -> Event | None:
    """Return an event that may well fit the record."""
    known = [record.claim_id or ids[-1], *ids[-3:]]
    match draw.randrange(8):
        case 0 | 1 | 2 | 3:
            ids.append(f"{draw.getrandbits(128):032x}")
            seen = draw.choice([record.version, record.version, None, ids[0]])
            return Claim(id=ids[-1], seen=seen, lease=draw.uniform(1, 65), rejected=draw.random() < 0.5)
        case 4 | 5:
            lifetime = draw.choice([3600.0, 1.0, 0.1, draw.uniform(0, 1e5), 1e9])
            refresh = draw.choice([None, b"", b"=", draw.randbytes(40)])
            remaining = lifetime - draw.uniform(0, 1)
            return Commit(
                id=draw.choice(known),
                access=draw.randbytes(30),
                refresh=refresh,
                lifetime=lifetime,
                remaining=remaining,
            )
        case 6:
            failure = draw.choice([None, FAILURE, Failure(kind="connection", message="=\u20ac\0", sent=False)])
            refresh = draw.choice([None, draw.randbytes(40)])
            return Fail(id=draw.choice(known), pause=draw.uniform(0, 60), failure=failure, refresh=refresh)
        case _:
            return None


@pytest.mark.parametrize("seed", range(25))
async def test_the_script_says_what_the_pure_functions_say(seed, redis_server, store, slots, account):
    """Over random events at random times, each answer and each stored record is that of `_record`, to the last bit."""
    draw = random.Random(seed)
    slot, record, ids, now = slots(store, account), _record.EMPTY, ["never"], 1_767_225_600.123456
    for _ in range(80):
        event = some_event(draw, ids, record)
        record, wanted = apply_pure(record, event, now)
        assert await apply(at(slot, now), event) == wanted
        assert get(redis_server, account) == record
        now += draw.choice([0.0, draw.uniform(0, 1), 1.0, 15.0, draw.uniform(0, 100), 60.0, -draw.uniform(0, 5)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_redis_answers_as_the_table_says(case, redis_server, store, slots, account):
    """The record that is in Redis, the event and the moment give the answer and the record of the table."""
    put(redis_server, account, case.before)
    answer = await apply(at(slots(store, account), case.now), case.event)
    record = get(redis_server, account)
    assert [*differences(answer, case.answer, "the answer"), *differences(record, case.after, "the record")] == []


async def test_every_field_of_a_record_is_kept(redis_server, store, slots, account):
    """What one claim does not change stays as it was, whatever field it is in."""
    full = Record(
        **{
            field.name: {"version": "v", "claim_id": "c", "failure": FAILURE, "failures": 3}.get(field.name, 0.1 + 0.2)
            for field in fields(Record)
        }
        | {"access": b"\0\xff", "refresh": b"", "ends_at": 1.0}
    )
    put(redis_server, account, full)
    record, _ = _record.claim(full, claimed("d"), 50.0)
    await at(slots(store, account), 50.0).claim(claimed("d"))
    assert get(redis_server, account) == record


async def test_the_time_is_the_servers(redis_server, store, slots, account):
    """Without a time of the test's, records are dated by Redis's clock."""
    slot = slots(store, account)
    before = int(redis_server.run("TIME")[0])
    await slot.claim(claimed("c"))
    await slot.commit(committed("c"))
    assert before <= get(redis_server, account).committed_at <= int(redis_server.run("TIME")[0]) + 1
    token = await slot.read()
    assert 3590 < token.remaining <= 3600


async def test_a_commit_that_is_made_again_is_recognised(store, slots, account):
    """A commit whose answer was lost is dropped the second time, with the token of that very claim."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    assert await slot.commit(committed("c")) == Done()
    again = await slot.commit(committed("c"))
    assert isinstance(again, Dropped)
    assert again.token.version == "c"


async def test_accounts_and_prefixes_are_kept_apart(redis_server, store, slots, account):
    """What happens to an account happens to no other, nor under another prefix."""
    slot, other = slots(store, account), slots(store, account + "2")
    elsewhere = slots(RedisStore(redis_server.url, prefix="elsewhere:"), account)
    assert isinstance(await slot.claim(claimed("1")), Granted)
    assert isinstance(await other.claim(claimed("2")), Granted)
    assert isinstance(await elsewhere.claim(claimed("3")), Granted)
    assert redis_server.run("EXISTS", PREFIX + account, "elsewhere:" + account) == 2


async def test_an_abandoned_record_goes_by_itself(redis_server, store, slots, account):
    """A record lives for eight days after its last change; looking is no change."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    redis_server.run("PEXPIRE", PREFIX + account, "1000000")
    await slot.read()
    assert redis_server.run("PTTL", PREFIX + account) <= 1_000_000
    await slot.commit(committed("c"))
    assert _redis_script.KEPT == 8 * 86_400
    assert 691_000_000 < redis_server.run("PTTL", PREFIX + account) <= 691_200_000


async def test_forget_deletes_the_record(redis_server, store, slots, account):
    """After `forget` nothing of the account is left, whatever it was."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    await slot.forget()
    assert not redis_server.run("EXISTS", PREFIX + account)
    redis_server.run("SET", PREFIX + account, "something else")
    await slot.forget()
    assert not redis_server.run("EXISTS", PREFIX + account)


# One for all.


async def test_of_many_claims_one_is_granted(redis_server, slots, account):
    """Of fifty workers that claim at the same time one renews; all others are told to wait for it."""
    workers = [slots(RedisStore(redis_server.url), account) for _ in range(50)]
    answers = await asyncio.gather(*(slot.claim(claimed(f"c{number}")) for number, slot in enumerate(workers)))
    assert sum(isinstance(answer, Granted) for answer in answers) == 1
    assert sum(isinstance(answer, Held) for answer in answers) == 49


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the subscription wake anybody."""
    monkeypatch.setattr(_redis_slot, "POLL_FIRST", 1000.0)


@pytest.fixture
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let polling be quick, and a subscription that was cut stay away."""
    monkeypatch.setattr(_redis_slot, "POLL_FIRST", 0.02)
    monkeypatch.setattr(_redis_feed, "PAUSE_FIRST", 1000.0)
    monkeypatch.setattr(_redis_feed, "PAUSE_LONGEST", 1000.0)


async def subscribed(server: RedisServer, account: str, count: int) -> None:
    """Return when so many stores listen to an account."""
    channel = PREFIX + account
    await eventually(lambda: server.run("PUBSUB", "NUMSUB", channel) == [channel.encode(), count])


async def waiting(slot: RedisSlot, wait: float = 60.0) -> "asyncio.Task[None]":
    """Start waiting for a change, and return when it has begun."""
    task = asyncio.create_task(slot.changed(wait))
    await asyncio.sleep(0)
    assert slot._waiting
    return task


@pytest.mark.parametrize("end", [committed("c"), Fail(id="c", pause=1.0, failure=FAILURE), Fail(id="c")])
async def test_the_end_of_a_claim_wakes_those_who_wait(end, redis_server, slots, account, no_polling):
    """A commit and a fail end `changed` everywhere at once, by the subscription."""
    holder = slots(RedisStore(redis_server.url), account)
    others = [slots(RedisStore(redis_server.url), account) for _ in range(3)]
    await holder.claim(claimed("c"))
    for slot in others:
        await slot.claim(claimed("d"))
    await subscribed(redis_server, account, 4)
    tasks = [await waiting(slot) for slot in [holder, *others]]
    assert await apply(holder, end) == Done()
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*tasks)


async def test_a_commit_is_told_to_every_other_worker_once(redis_server, slots, account):
    """`on_commit` is called once for each commit of another slot, in this process or another, and not for its own."""
    calls: list[str] = []
    shared, other = RedisStore(redis_server.url), RedisStore(redis_server.url)
    holder = slots(shared, account, lambda: calls.append("holder"))
    slots(shared, account + "2", lambda: calls.append("another account"))
    neighbour = slots(shared, account, lambda: calls.append("neighbour"))
    distant = slots(other, account, lambda: calls.append("distant"))
    for slot in (neighbour, distant):
        await slot.read()
    await holder.claim(claimed("c"))
    await subscribed(redis_server, account, 2)
    await holder.commit(committed("c"))
    await eventually(lambda: "distant" in calls)
    await distant.claim(claimed("d", "c"))
    await distant.fail(Fail(id="d"))
    await distant.claim(claimed("e", "c"))
    await distant.commit(committed("e"))
    await eventually(lambda: calls.count("neighbour") == 2 and calls.count("holder") == 1)
    assert sorted(calls) == ["distant", "holder", "neighbour", "neighbour"]


@pytest.mark.parametrize("end", [committed("c"), Fail(id="c", pause=1.0, failure=FAILURE), Fail(id="c")])
async def test_polling_finds_what_the_subscription_missed(end, redis_server, slots, account, fast_polling):
    """With the subscription cut, `changed` finds a commit or a fail by looking at the record."""
    holder, waiter = slots(RedisStore(redis_server.url), account), slots(RedisStore(redis_server.url), account)
    await holder.claim(claimed("c"))
    await waiter.claim(claimed("d"))
    await subscribed(redis_server, account, 2)
    redis_server.run("CLIENT", "KILL", "TYPE", "pubsub")
    await subscribed(redis_server, account, 0)
    task = await waiting(waiter)
    await apply(holder, end)
    async with asyncio.timeout(SECONDS):
        await task


async def test_a_change_before_changed_is_found(redis_server, slots, account, fast_polling):
    """A commit between a worker's claim and its waiting is not waited for in vain."""
    holder, waiter = slots(RedisStore(redis_server.url), account), slots(RedisStore(redis_server.url), account)
    await holder.claim(claimed("c"))
    await waiter.claim(claimed("d"))
    await subscribed(redis_server, account, 2)
    redis_server.run("CLIENT", "KILL", "TYPE", "pubsub")
    await holder.commit(committed("c"))
    async with asyncio.timeout(SECONDS):
        await waiter.changed(60)


async def test_changed_ends_with_its_time(store, slots, account):
    """Without a change, `changed` returns when its seconds are over; also as the first operation."""
    slot = slots(store, account)
    async with asyncio.timeout(SECONDS):
        await slot.changed(0.05)
        await slot.changed(0)


async def test_changed_ends_with_the_slot(store, slots, account):
    """Closing a slot ends its `changed`, and another one returns at once."""
    slot = slots(store, account)
    await slot.read()
    task = await waiting(slot)
    await slot.close()
    async with asyncio.timeout(SECONDS):
        await task
        await slot.changed(60)


async def test_a_cut_subscription_comes_back_and_tells(redis_server, slots, account, monkeypatch, no_polling):
    """A subscription that was cut is made again; since commits may have been missed, waiters and managers look."""
    monkeypatch.setattr(_redis_feed, "PAUSE_FIRST", 0.05)
    calls: list[str] = []
    waiter = slots(RedisStore(redis_server.url), account, lambda: calls.append("look"))
    holder = slots(RedisStore(redis_server.url), account)
    await holder.claim(claimed("c"))
    await waiter.claim(claimed("d"))
    await subscribed(redis_server, account, 2)
    task = await waiting(waiter)
    put(redis_server, account, Record(version="missed", access=b"a", lifetime=60.0, ends_at=9e9))
    redis_server.run("CLIENT", "KILL", "TYPE", "pubsub")
    await subscribed(redis_server, account, 2)
    async with asyncio.timeout(SECONDS):
        await task
    assert calls == ["look"]


async def test_a_store_listens_to_what_is_open(redis_server, store, slots, account):
    """One subscription serves all accounts of a store; it follows the slots that open and close."""
    names = [f"{account}-{number}" for number in range(3)]
    first, second, third = (slots(store, name) for name in names)
    await first.read()
    await subscribed(redis_server, names[0], 1)
    await second.read()
    await third.read()
    for name in names:
        await subscribed(redis_server, name, 1)
    await second.close()
    await subscribed(redis_server, names[1], 0)
    calls: list[str] = []
    again = slots(store, names[1], lambda: calls.append("told"))
    await again.read()
    await subscribed(redis_server, names[1], 1)
    redis_server.run("PUBLISH", PREFIX + names[1], "commit x")
    redis_server.run("PUBLISH", PREFIX + names[1], b"\xff")
    await eventually(lambda: calls == ["told"])


async def test_a_server_that_fell_silent_is_noticed(own_redis, slots, monkeypatch):
    """A subscription asks now and then whether the server is there; it is dropped when no answer comes."""
    monkeypatch.setattr(_redis_feed, "QUIET", 0.05)
    monkeypatch.setattr(_redis_feed, "PATIENCE", 0.3)
    monkeypatch.setattr(_redis_feed, "PAUSE_FIRST", 0.05)
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    await subscribed(own_redis, "account", 1)
    (before,) = own_redis.clients("pubsub")
    await eventually(lambda: own_redis.clients("pubsub")[0]["cmd"] == "ping")
    assert own_redis.clients("pubsub")[0]["id"] == before["id"]
    own_redis.pause()
    await asyncio.sleep(0.5)
    own_redis.resume()
    await eventually(lambda: [client["id"] for client in own_redis.clients("pubsub")] not in ([], [before["id"]]))


# What can go wrong.


def shown(error: BaseException) -> str:
    """Return all that a report of an error shows, with the locals of every frame of the package."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [f"{frame.name} {frame.locals}" for frame in report.stack if "apivideo_auth" in frame.filename]
    assert frames
    return "\n".join([*frames, *report.format_exception_only(), repr(error.__cause__), repr(error.__context__)])


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
    assert await slot.commit(committed("c")) == Dropped(token=None)
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
        task = asyncio.create_task(slot.read() if number % 2 else slot.fail(Fail(id="none")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert await slot.read() is None
        assert await slot.fail(Fail(id="none")) == Dropped(token=None)


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
    monkeypatch.setattr(_redis_client, "BUDGET", 0.05)

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
    assert await slot.commit(committed("c")) == Dropped(token=None)
    assert isinstance(await slot.claim(claimed("d")), Granted)


async def test_a_server_that_forgot_the_script_gets_it_again(own_redis, slots):
    """After SCRIPT FLUSH the operation is done all the same."""
    slot = slots(RedisStore(own_redis.url))
    for number in range(3):
        own_redis.run("SCRIPT", "FLUSH")
        assert isinstance(await slot.claim(claimed(f"{number}")), Granted if number == 0 else Held)


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
    assert await slot.commit(committed("c")) == Dropped(token=None)
    with pytest.raises(TokenStoreError, match="cannot be read"):
        await other.claim(claimed("d"))
    assert await slot.claim(claimed("c")) == Granted(
        refresh=None, version=None, remaining=pytest.approx(-9e9, rel=1), failures=0, failing_for=0.0
    )
    assert isinstance(await other.claim(claimed("d")), Held)
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
    await slot.fail(Fail(id="c", pause=30.0, failure=FAILURE))
    redis_server.run("HSET", PREFIX + account, "failure", b"made-up-access \xff")
    with pytest.raises(TokenStoreError, match="failure cannot be read") as caught:
        await slot.claim(claimed("d"))
    assert "made-up-access" not in shown(caught.value)


class NoPubSub:
    """A subscription that cannot be made."""

    connection = None

    async def subscribe(self, *channels: bytes) -> None:
        raise OSError("no subscription")

    async def aclose(self) -> None:
        pass


class Answering:
    """A client that answers what it is told to, or raises it."""

    def __init__(self, said: object = None) -> None:
        self.said = said

    async def answer(self) -> object:
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said

    def evalsha(self, *args: object) -> Any:
        return self.answer()

    eval = evalsha

    def pubsub(self) -> NoPubSub:
        return NoPubSub()


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
        [b"held", b"stamp", b"inf"],
        [b"cooling", b"stamp", b"1", b"made-up-access", b"1", b"1"],
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


# Clients, users and loops.


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
        assert isinstance(await waiter.claim(claimed("d")), Held)
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
    assert store.leaves_process


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
    assert isinstance(await waiter.claim(claimed("d")), Held)
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
    assert sorted(answers, key=repr) == [Granted, Held, Held, Held]
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


def commands(server: RedisServer) -> dict[str, int]:
    """Return how often each command came from outside since the last look, and start counting anew."""
    with redis.Redis.from_url(server.url, protocol=2) as client:
        stats = client.info("commandstats")
        client.config_resetstat()
    outside = {"evalsha", "eval", "subscribe", "unsubscribe", "ping", "auth", "select"}
    counts = {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}
    return {name: count for name, count in counts.items() if name in outside}


async def test_commands_are_few(own_redis, slots):
    """An operation is one command, waiting with a subscription costs none, and another's commit is told without one."""
    holder, waiter = slots(RedisStore(own_redis.url)), slots(RedisStore(own_redis.url))
    await holder.read()
    await waiter.read()
    await subscribed(own_redis, "account", 2)
    commands(own_redis)
    await holder.claim(claimed("c"))
    assert commands(own_redis) == {"evalsha": 1}
    await waiter.claim(claimed("d"))
    task = await waiting(waiter)
    await asyncio.sleep(0.1)
    assert commands(own_redis) == {"evalsha": 1}
    await holder.commit(committed("c"))
    async with asyncio.timeout(SECONDS):
        await task
    assert commands(own_redis) == {"evalsha": 1}
