"""RedisStore: one renewal for all workers, and how they notice it."""

import asyncio
import logging

import pytest
import redis

from apivideo_auth._record import (
    Busy,
    Done,
    Granted,
    Record,
    Release,
)
from apivideo_auth.stores.redis import _subscription
from apivideo_auth.stores.redis._store import RedisStore
from tests.stores.redis_workers import (
    FAILURE,
    PREFIX,
    SECONDS,
    apply,
    at,
    claimed,
    committed,
    confirmed,
    eventually,
    put,
    subscribed,
    waiting,
)
from tests.support.redis_server import RedisServer


async def test_of_many_claims_one_is_granted(redis_server, slots, account):
    """Of thirty workers that claim at the same time one is granted its claim; the others are answered busy."""
    workers = [slots(RedisStore(redis_server.url), account) for _ in range(30)]
    for slot in workers:
        await slot.read()  # It is connected now.
    answers = await asyncio.gather(*(slot.claim(claimed(f"c{number}")) for number, slot in enumerate(workers)))
    assert sum(isinstance(answer, Granted) for answer in answers) == 1
    assert sum(isinstance(answer, Busy) for answer in answers) == 29


@pytest.mark.parametrize("end", [committed("c"), Release(id="c", retry_after=1.0, failure=FAILURE), Release(id="c")])
async def test_the_end_of_a_claim_wakes_those_who_wait(end, redis_server, slots, account, no_polling):
    """A commit and a release end `changed` of every worker at once, by the subscription."""
    # At a fixed time, so that the lease does not end, however long this takes.
    holder, *others = (at(slots(RedisStore(redis_server.url), account), 1000.0) for _ in range(4))
    await holder.claim(claimed("c"))
    for slot in others:
        await slot.claim(claimed("d"))
    await confirmed(holder, *others)
    tasks = [await waiting(slot) for slot in [holder, *others]]
    assert isinstance(await apply(holder, end), Done)
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*tasks)


async def test_a_commit_calls_every_other_worker_once(redis_server, slots, account):
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
    await distant.release(Release(id="d"))
    await distant.claim(claimed("e", "c"))
    await distant.commit(committed("e"))
    await eventually(lambda: calls.count("neighbour") == 2 and calls.count("holder") == 1)
    assert sorted(calls) == ["distant", "holder", "neighbour", "neighbour"]


@pytest.mark.parametrize("end", [committed("c"), Release(id="c", retry_after=1.0, failure=FAILURE), Release(id="c")])
async def test_polling_finds_what_the_subscription_missed(end, own_redis, slots, account, fast_polling):
    """While the subscription is cut, `changed` notices a commit or a release by polling."""
    holder, waiter = slots(RedisStore(own_redis.url), account), slots(RedisStore(own_redis.url), account)
    await holder.claim(claimed("c"))
    await waiter.claim(claimed("d"))
    await subscribed(own_redis, account, 2)
    own_redis.run("CLIENT", "KILL", "TYPE", "pubsub")
    await subscribed(own_redis, account, 0)
    task = await waiting(waiter)
    await apply(holder, end)
    async with asyncio.timeout(SECONDS):
        await task


async def test_a_change_before_changed_is_found(own_redis, slots, account, fast_polling):
    """`changed` notices a commit between the worker's claim and its call."""
    holder, waiter = slots(RedisStore(own_redis.url), account), slots(RedisStore(own_redis.url), account)
    await holder.claim(claimed("c"))
    await waiter.claim(claimed("d"))
    await subscribed(own_redis, account, 2)
    own_redis.run("CLIENT", "KILL", "TYPE", "pubsub")
    await holder.commit(committed("c"))
    async with asyncio.timeout(SECONDS):
        await waiter.changed(60)


async def test_changed_ends_with_its_time(store, slots, account):
    """Without a change `changed` returns after its timeout, also as the first operation."""
    slot = slots(store, account)
    async with asyncio.timeout(SECONDS):
        await slot.changed(0.05)
        await slot.changed(0)


async def test_changed_ends_with_the_slot(store, slots, account):
    """Closing a slot ends its `changed`, and a later call returns at once."""
    slot = slots(store, account)
    await slot.read()
    task = await waiting(slot)
    await slot.close()
    async with asyncio.timeout(SECONDS):
        await task
        await slot.changed(60)


async def test_after_a_cut_subscription_waiters_and_managers_look_again(
    own_redis, slots, account, monkeypatch, no_polling
):
    """A subscription that was cut is made again. Commits may have been missed, so waiters and managers read again."""
    monkeypatch.setattr(_subscription, "INITIAL_RECONNECT_DELAY", 0.05)
    calls: list[str] = []
    waiter = slots(RedisStore(own_redis.url), account, lambda: calls.append("look"))
    holder = slots(RedisStore(own_redis.url), account)
    await holder.claim(claimed("c"))
    await waiter.claim(claimed("d"))
    await subscribed(own_redis, account, 2)
    task = await waiting(waiter)
    put(own_redis, account, Record(version="missed", access=b"a", lifetime=60.0, ends_at=9e9))
    own_redis.run("CLIENT", "KILL", "TYPE", "pubsub")
    await subscribed(own_redis, account, 2)
    async with asyncio.timeout(SECONDS):
        await task
    assert calls == ["look"]


async def test_one_subscription_follows_the_open_slots(redis_server, store, slots, account):
    """One subscription serves all accounts of a store; it follows slots as they open and close."""
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
    again = slots(store, names[1], lambda: calls.append("commit"))
    await again.read()
    await subscribed(redis_server, names[1], 1)
    redis_server.run("PUBLISH", PREFIX + names[1], "commit x")
    redis_server.run("PUBLISH", PREFIX + names[1], b"\xff")
    await eventually(lambda: calls == ["commit"])


async def test_a_server_that_fell_silent_is_noticed(own_redis, slots, monkeypatch, caplog):
    """The subscription pings a silent server, and is made again if no answer comes."""
    monkeypatch.setattr(_subscription, "PING_AFTER", 0.05)
    monkeypatch.setattr(_subscription, "PING_TIMEOUT", 0.3)
    monkeypatch.setattr(_subscription, "INITIAL_RECONNECT_DELAY", 0.05)
    slot = slots(RedisStore(own_redis.url))
    await slot.read()
    await subscribed(own_redis, "account", 1)
    (before,) = own_redis.clients("pubsub")
    await eventually(lambda: own_redis.clients("pubsub")[0]["cmd"] == "ping")
    assert own_redis.clients("pubsub")[0]["id"] == before["id"]
    caplog.set_level(logging.DEBUG, "apivideo_auth.stores")
    own_redis.pause()
    await eventually(lambda: "was lost" in caplog.text)
    own_redis.resume()
    await eventually(lambda: [client["id"] for client in own_redis.clients("pubsub")] not in ([], [before["id"]]))


def commands(server: RedisServer) -> dict[str, int]:
    """Return how often clients have sent each command since the last call, and reset the counts."""
    with redis.Redis.from_url(server.url, protocol=2) as client:
        stats = client.info("commandstats")
        client.config_resetstat()
    outside = {"evalsha", "eval", "subscribe", "unsubscribe", "ping", "auth", "select"}
    counts = {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}
    return {name: count for name, count in counts.items() if name in outside}


async def test_commands_are_few(own_redis, slots):
    """An operation is one command; waiting and noticing a commit take none while there is a subscription."""
    holder, waiter = slots(RedisStore(own_redis.url)), slots(RedisStore(own_redis.url))
    await holder.read()
    await waiter.read()
    await subscribed(own_redis, "account", 2)
    commands(own_redis)
    await holder.claim(claimed("c"))
    assert commands(own_redis) == {"evalsha": 1}
    await waiter.claim(claimed("d"))
    assert commands(own_redis) == {"evalsha": 1}
    task = await waiting(waiter)
    await holder.commit(committed("c"))
    async with asyncio.timeout(SECONDS):
        await task
    assert commands(own_redis) == {"evalsha": 1}
