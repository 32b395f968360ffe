"""Helpers of the tests with a real Redis: events, records, workers."""

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

from attrs import fields_dict

from apivideo_auth import _record
from apivideo_auth._failure import Failure
from apivideo_auth._record import (
    Claim,
    Commit,
    Event,
    Record,
    Release,
)
from apivideo_auth.stores._json import failure_from_json, failure_to_json
from apivideo_auth.stores.redis import _script
from apivideo_auth.stores.redis._slot import RedisSlot
from tests.support.redis_server import RedisServer

PREFIX = "apivideo-auth:"
TEXTS = {"version", "claim_id"}
SECONDS = 60
"""How long a test waits at most for something that normally happens at once."""

FAILURE = Failure(kind="response", message="the endpoint answered 500", status=500, retry_after=2.5)


async def eventually(condition: Callable[[], object], *, within: float = SECONDS) -> None:
    """Return when this has become true."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  the other side is a process
            await asyncio.sleep(0.01)


def committed(claim_id: str, *, refresh: bytes | None = b"refresh", remaining: float = 3600.0) -> Commit:
    return Commit(
        id=claim_id, access=b"access of " + claim_id.encode(), refresh=refresh, lifetime=3600.0, remaining=remaining
    )


def claimed(claim_id: str, seen: str | None = None, *, throttled: bool = False) -> Claim:
    return Claim(id=claim_id, seen=seen, lease=15.0, may_be_throttled=throttled)


def stored(record: Record) -> dict[str, bytes]:
    """Return a record as the fields of a Redis hash."""
    found = {}
    for name in fields_dict(Record):
        value = getattr(record, name)
        if isinstance(value, Failure):
            value = failure_to_json(value)
        if value is not None:
            found[name] = value if isinstance(value, bytes) else str(value).encode()
    return found


def restored(found: dict[bytes, bytes]) -> Record:
    """Return the record in the fields of a Redis hash."""
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
    """Give the next operations of a slot this time."""
    slot._now = _script.exact(now)
    return slot


async def apply(slot: RedisSlot, event: Event | None) -> object:
    match event:
        case Claim():
            return await slot.claim(event)
        case Commit():
            return await slot.commit(event)
        case Release():
            return await slot.release(event)
        case None:
            return await slot.read()


def apply_pure(record: Record, event: Event | None, now: float) -> tuple[Record, object]:
    match event:
        case Claim():
            return _record.claim(record, event, now)
        case Commit():
            return _record.commit(record, event, now)
        case Release():
            return _record.release(record, event, now)
        case None:
            return record, _record.shared_token(record, now)


async def subscribed(server: RedisServer, account: str, count: int) -> None:
    """Return when so many stores have subscribed to an account."""
    channel = PREFIX + account
    await eventually(lambda: server.run("PUBSUB", "NUMSUB", channel) == [channel.encode(), count])


async def confirmed(*slots: RedisSlot) -> None:
    """Return when slots have the server's answer to their subscription.

    It wakes those who wait, and the server counts a subscription before its answer arrives.
    """
    for slot in slots:
        assert slot._connection is not None
        known = slot._connection.subscription._known
        await eventually(lambda: slot._key in known)  # noqa: B023  awaited here


async def waiting(slot: RedisSlot, timeout: float = 60.0) -> "asyncio.Task[None]":
    """Start waiting for a change, and return when it has begun."""
    task = asyncio.create_task(slot.changed(timeout))
    await asyncio.sleep(0)
    assert slot._waiters._next_wake._waiters
    return task


def shown(error: BaseException) -> str:
    """Return everything that an error report shows, with the locals of every frame of the package."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [f"{frame.name} {frame.locals}" for frame in report.stack if "apivideo_auth" in frame.filename]
    assert frames
    return "\n".join([*frames, *report.format_exception_only(), repr(error.__cause__), repr(error.__context__)])


class NoPubSub:
    """A subscription that cannot be made."""

    connection = None

    async def subscribe(self, *channels: bytes) -> None:
        raise OSError("no subscription")

    async def aclose(self) -> None:
        pass


class Answering:
    """A client that returns or raises what it was given."""

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
