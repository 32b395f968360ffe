"""RedisStore against a real Redis: the same transitions, one for all, and nothing worse than a TokenStoreError."""

import asyncio
import random
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
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
    Cooling,
    Done,
    Dropped,
    Event,
    Fail,
    Granted,
    Held,
    Record,
    SharedToken,
    Spaced,
)
from apivideo_auth.stores import _redis_client, _redis_feed, _redis_script, _redis_slot
from apivideo_auth.stores._codec import failure_from_json, failure_to_json
from apivideo_auth.stores._protocol import Slot, TokenStore
from apivideo_auth.stores._redis import RedisStore
from apivideo_auth.stores._redis_slot import RedisSlot
from tests.redis_server import RedisServer

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
    return Commit(id=claim_id, access=b"access of " + claim_id.encode(), refresh=refresh, lifetime=3600.0, remaining=remaining)


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
                id=draw.choice(known), access=draw.randbytes(30), refresh=refresh, lifetime=lifetime, remaining=remaining
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


EDGES = [
    (Record(version="v", access=b"a", lifetime=10.0, ends_at=100.0), claimed("c"), (99.999999, 100.0, 100.000001)),
    (Record(version="v", access=b"a", lifetime=10.0, ends_at=1e6), None, (0.0, 999_990.0, 999_995.0)),
    (Record(version="v", access=b"a", lifetime=1e9, ends_at=1e9), None, (0.0,)),
    (Record(claim_id="x", claim_until=65.0), claimed("c"), (-0.000001, 0.0, 64.999999, 65.0)),
    (Record(not_before=60.0, failure=FAILURE, failures=3), claimed("c"), (-0.000001, 0.0, 59.999999, 60.0)),
    (Record(not_before=60.0, failure=FAILURE, failures=3), claimed("c", rejected=True), (0.0, 60.0)),
    (Record(not_before=60.0), claimed("c"), (0.0,)),
    (Record(committed_at=10.0), claimed("c", rejected=True), (9.999999, 10.0, 10.999999, 11.0)),
    (Record(spacing=4.0, spaced_until=60.0, rejected_at=0.0), claimed("c", rejected=True), (0.0, 59.999999, 60.0)),
    (Record(spacing=40.0, rejected_at=5.0), claimed("c", rejected=True), (4.0, 5.0, 64.999999, 65.0)),
    (Record(claim_id="c", refresh=b"r", failures=1, failing_since=3.0), Fail(id="c", pause=2.0, failure=FAILURE), (9.0,)),
    (Record(claim_id="other"), committed("c"), (9.0,)),
]


@pytest.mark.parametrize(
    ("before", "event", "now"), [(before, event, now) for before, event, times in EDGES for now in times]
)
async def test_the_script_agrees_at_the_edges(before, event, now, redis_server, store, slots, account):
    """At the exact edge of each moment and just beside it, Redis says what `_record` says."""
    put(redis_server, account, before)
    record, wanted = apply_pure(before, event, now)
    assert await apply(at(slots(store, account), now), event) == wanted
    assert get(redis_server, account) == record


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
