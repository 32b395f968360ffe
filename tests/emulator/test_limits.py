"""Rate limits and their headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apivideo_auth.emulator import Emulator, RateLimits
from apivideo_auth.emulator._limits import RateLimiter
from tests.emulator.client import Client, Reply
from tests.emulator.properties import repeatable
from tests.support.doubles import ManualClock

HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Retry-After")


def rate(reply: Reply) -> list[int]:
    return [int(reply.headers[name]) for name in HEADERS]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("sandbox", (40, 40, 100)), ("production", (100, 200, 500)), ("none", (10**9, 10**9, 10**9))],
)
def test_the_limits_have_names(name: str, numbers: tuple[int, int, int]) -> None:
    """api.video's limits for uploads, writes and reads, or limits that nobody reaches."""
    limits = RateLimits.named(name)
    assert (limits.uploads, limits.writes, limits.reads) == numbers
    assert limits is getattr(RateLimits, name.upper())


def test_other_names_are_rejected() -> None:
    """An unknown name is a `ValueError` that lists the known ones; another type is a `TypeError`."""
    with pytest.raises(ValueError, match="one of none, sandbox, production"):
        RateLimits.named("free")
    with pytest.raises(TypeError, match="must be a str"):
        RateLimits.named(None)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
@pytest.mark.parametrize("name", ["uploads", "writes", "reads"])
def test_limits_are_numbers_from_one(name: str, value: object, error: type[Exception]) -> None:
    """Custom limits are checked at construction."""
    with pytest.raises(error, match=name):
        RateLimits(**{"uploads": 1, "writes": 1, "reads": 1, name: value})


def test_a_minute_begins_with_its_first_request() -> None:
    """The limit is whole again when 60 seconds are over, at that very moment and not just before."""
    limiter = RateLimiter(RateLimits(uploads=1, writes=1, reads=2))
    assert limiter.headers("reads", 0.0) == dict(zip(HEADERS, ("2", "2", "60"), strict=True))
    assert [limiter.admit("reads", now) for now in (10.0, 11.0, 12.0, 69.999)] == [True, True, False, False]
    assert limiter.headers("reads", 69.5) == dict(zip(HEADERS, ("2", "0", "1"), strict=True))
    assert limiter.admit("reads", 70.0)
    assert limiter.headers("reads", 70.0) == dict(zip(HEADERS, ("2", "1", "60"), strict=True))


@repeatable
@given(start=st.floats(0, 1e10), later=st.floats(0, 120))
def test_the_wait_is_a_minute_at_most(start: float, later: float) -> None:
    """Wherever the clock stands, the wait is from 0 to 60 seconds, and 60 with the first request of a minute."""
    limiter = RateLimiter(RateLimits.SANDBOX)
    limiter.admit("reads", start)
    assert limiter.headers("reads", start)["X-RateLimit-Retry-After"] == "60"
    assert 0 <= int(limiter.headers("reads", start + later)["X-RateLimit-Retry-After"]) <= 60


def test_kinds_are_counted_apart() -> None:
    """A used-up limit of one kind leaves the others."""
    limiter = RateLimiter(RateLimits(uploads=1, writes=1, reads=1))
    assert limiter.admit("uploads", 0.0)
    assert limiter.admit("writes", 0.0)
    assert limiter.admit("reads", 0.0)
    assert not limiter.admit("uploads", 0.0)


async def test_every_resource_response_has_the_headers(client: Client) -> None:
    """All responses of resources have the three headers as integers, also without limits and on errors."""
    token = await client.bearer()
    replies = [
        await client.get("/videos", token),
        await client.post("/videos", token, json={"title": "t"}),
        await client.post("/videos", token, json={}),
        await client.get("/videos/x", token),
        await client.post("/videos/x/source", token),
        await client.get("/videos"),
    ]
    assert [reply.status for reply in replies] == [200, 201, 400, 404, 404, 401]
    for reply in replies:
        limit, remaining, wait = rate(reply)
        assert limit >= remaining > 1000
        assert 0 <= wait <= 60


async def test_beyond_the_limit_there_is_a_429(session: object) -> None:
    """A request over the limit is answered 429 with the time to wait; after it requests are served again."""
    clock = ManualClock(0.0)
    async with Emulator(limits=RateLimits(uploads=1, writes=1, reads=3), clock=clock) as server:
        client = Client(server, session)
        token = await client.bearer()
        replies = [await client.get("/videos", token) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert [rate(reply) for reply in replies] == [[3, 2, 60], [3, 1, 60], [3, 0, 60], [3, 0, 60]]
        assert replies[-1].document == {
            "type": "https://docs.api.video/reference/too-many-requests",
            "title": "Too many requests.",
            "name": "",
            "status": 429,
        }
        clock.now = 59.5
        assert rate(await client.get("/videos", token)) == [3, 0, 1]
        clock.now = 60.0
        assert rate(await client.get("/videos", token)) == [3, 2, 60]


@pytest.mark.parametrize("server", [{"limits": RateLimits.SANDBOX}], indirect=True)
async def test_each_kind_of_request_has_its_limit(client: Client) -> None:
    """Reads, writes and uploads show the limit of their kind."""
    video_id = await client.video()
    assert rate(await client.post("/videos", client.basic, json={"title": "t"}))[:2] == [40, 38]
    assert rate(await client.get(f"/videos/{video_id}", client.basic))[:2] == [100, 99]
    assert rate(await client.get("/videos", client.basic))[:2] == [100, 98]
    assert rate(await client.upload(video_id, b"x"))[:2] == [40, 39]


@pytest.mark.parametrize("server", [{"limits": RateLimits(1, 1, 1)}], indirect=True)
async def test_unauthorized_requests_use_nothing_up(client: Client) -> None:
    """A 401 is not counted, and comes before a 429."""
    for _ in range(3):
        assert (await client.get("/videos", "Bearer unknown")).status == 401
    assert (await client.get("/videos", client.basic)).status == 200
    assert (await client.get("/videos", "Bearer unknown")).status == 401
    assert (await client.get("/videos", client.basic)).status == 429
    assert (await client.authenticate()).status == 200
