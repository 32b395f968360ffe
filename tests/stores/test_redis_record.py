"""RedisStore with a real Redis: the transitions of the record, and what is kept."""

import random

import pytest
from attrs import fields

from apivideo_auth import _record
from apivideo_auth._failure import Failure
from apivideo_auth._record import (
    Claim,
    ClaimLost,
    Commit,
    Done,
    Event,
    Granted,
    Record,
    Release,
)
from apivideo_auth.stores.redis import _script
from apivideo_auth.stores.redis._store import RedisStore
from tests.stores.redis_workers import FAILURE, PREFIX, apply, apply_pure, at, claimed, committed, get, put
from tests.support.record_cases import CASES, differences


def some_event(draw: random.Random, ids: list[str], record: Record) -> Event | None:
    """Return a random event that is likely to fit the record."""
    known = [record.claim_id or ids[-1], *ids[-3:]]
    match draw.randrange(8):
        case 0 | 1 | 2 | 3:
            ids.append(f"{draw.getrandbits(128):032x}")
            seen = draw.choice([record.version, record.version, None, ids[0]])
            return Claim(id=ids[-1], seen=seen, lease=draw.uniform(1, 65), may_be_throttled=draw.random() < 0.5)
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
                ends_after=draw.choice([None, remaining, draw.uniform(0, 2e5)]),
            )
        case 6:
            failure = draw.choice([None, FAILURE, Failure(kind="connection", message="=\u20ac", sent=False)])
            refresh = draw.choice([None, draw.randbytes(40)])
            return Release(id=draw.choice(known), retry_after=draw.uniform(0, 60), failure=failure, refresh=refresh)
        case _:
            return None


@pytest.mark.parametrize("seed", range(25))
async def test_the_script_says_what_the_pure_functions_say(seed, redis_server, store, slots, account):
    """For random events at random times, the script gives the same answer and record as `_record`, to the last bit."""
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
    """A record in Redis, an event and a time result in the answer and the record of the table."""
    put(redis_server, account, case.before)
    answer = await apply(at(slots(store, account), case.now), case.event)
    record = get(redis_server, account)
    assert [*differences(answer, case.answer, "the answer"), *differences(record, case.after, "the record")] == []


async def test_every_field_of_a_record_is_kept(redis_server, store, slots, account):
    """A claim keeps every field that it does not change."""
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
    """Records are dated by Redis's clock."""
    slot = slots(store, account)
    before = int(redis_server.run("TIME")[0])
    await slot.claim(claimed("c"))
    await slot.commit(committed("c"))
    assert before <= get(redis_server, account).committed_at <= int(redis_server.run("TIME")[0]) + 1
    token = await slot.read()
    assert 3590 < token.remaining <= 3600


async def test_events_can_be_repeated(redis_server, store, slots, account):
    """A claim, a commit and a release that are sent again, because their answers were lost, change nothing."""
    put(redis_server, account, Record(refresh=b"refresh"))
    slot = slots(store, account)
    first = await slot.claim(claimed("c"))
    assert first.refresh == b"refresh"
    assert await slot.claim(claimed("c")) == first
    assert isinstance(await slot.commit(committed("c")), Done)
    before = get(redis_server, account)
    assert isinstance(await slot.commit(committed("c")), Done)
    assert get(redis_server, account) == before
    await slot.claim(claimed("d", "c"))
    assert await slot.release(Release(id="d")) == Done()
    assert isinstance(await slot.release(Release(id="d")), ClaimLost)


async def test_accounts_and_prefixes_are_kept_apart(redis_server, store, slots, account):
    """Claims of other accounts, or under another prefix, do not interfere."""
    slot, other = slots(store, account), slots(store, account + "2")
    elsewhere = slots(RedisStore(redis_server.url, prefix="elsewhere:"), account)
    assert isinstance(await slot.claim(claimed("1")), Granted)
    assert isinstance(await other.claim(claimed("2")), Granted)
    assert isinstance(await elsewhere.claim(claimed("3")), Granted)
    assert redis_server.run("EXISTS", PREFIX + account, "elsewhere:" + account) == 2


async def test_an_unused_record_expires(redis_server, store, slots, account):
    """Redis keeps a record for eight days after its last change; reading does not extend this."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    redis_server.run("PEXPIRE", PREFIX + account, "1000000")
    await slot.read()
    assert redis_server.run("PTTL", PREFIX + account) <= 1_000_000
    await slot.commit(committed("c"))
    assert _script.KEPT_FOR == 8 * 86_400
    assert 691_000_000 < redis_server.run("PTTL", PREFIX + account) <= 691_200_000


async def test_forget_deletes_the_record(redis_server, store, slots, account):
    """`forget` deletes the key."""
    slot = slots(store, account)
    await slot.claim(claimed("c"))
    await slot.forget()
    assert not redis_server.run("EXISTS", PREFIX + account)
