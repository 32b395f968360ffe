"""One renewal, step by step: a store that is scripted, a clock that stands still, and an endpoint that takes time."""

import asyncio
import math
from collections import deque
from typing import Any

import pytest
from attrs import define, evolve, field

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshPolicy,
    RefreshTokenPayload,
)
from apivideo_auth._failure import Failure
from apivideo_auth._record import (
    NEVER,
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimLost,
    Commit,
    Done,
    Granted,
    Release,
    RenewalRequest,
    SharedToken,
    Throttled,
)
from apivideo_auth._renewal import Adopted, ClaimLapsed, Failed, RefreshRejected, Renewed, Renewer
from tests.conftest import API_KEY
from tests.support.doubles import ManualClock

NOW = 1000.0
REFRESH = "made-up-refresh-token-1"
TOKEN = AccessToken("made-up-access-2", "bearer", 3600, "made-up-refresh-2")
GRANTED = Granted(refresh=REFRESH.encode(), committed_at=900.0, failures=0, failing_for=0.0)
FIRST = Granted(refresh=None, committed_at=None, failures=0, failing_for=0.0)
SHARED = SharedToken(version="other", access=b"made-up-other", lifetime=3600.0, remaining=3000.0, committed_at=950.0)
REQUEST = RenewalRequest(policy=RefreshPolicy(), version="version-1")
HOLDS = evolve(REQUEST, access="made-up-access-1", remaining=500.0)
OUTAGE = AuthConnectionError("made-up outage")


@define
class World:
    """The slot and the endpoints of one renewal; every step may take seconds of the clock.

    - `answers`: the answers to claims, each with the seconds that it takes. `end`: the answer to a commit or release.
    - `result`: what the endpoint returns or raises. `calls`: the payloads that it got.
    """

    answers: deque[tuple[Any, float]]
    result: Any = TOKEN
    latency: float = 0.0
    end: Any = field(factory=Done)
    end_takes: float = 0.0
    clock: ManualClock = field(factory=lambda: ManualClock(NOW))
    events: list[Any] = field(factory=list)
    calls: list[Any] = field(factory=list)

    async def claim(self, event: Claim) -> Any:
        self.events.append(event)
        answer, takes = self.answers.popleft()
        self.clock.now += takes
        return answer

    async def commit(self, event: Commit) -> Any:
        return self._ended(event)

    async def release(self, event: Release) -> Any:
        return self._ended(event)

    def _ended(self, event: Any) -> Any:
        self.events.append(event)
        self.clock.now += self.end_takes
        return self.end

    async def authenticate(self, payload: AuthenticatePayload) -> Any:
        return self._called(payload)

    async def refresh(self, payload: RefreshTokenPayload) -> Any:
        return self._called(payload)

    def _called(self, payload: Any) -> Any:
        self.calls.append(payload)
        self.clock.now += self.latency
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def renewer(self, jitter: float = 0.5) -> Renewer:
        return Renewer(
            slot=self,
            api=self,
            call_timeout=11.0,
            credentials=AuthenticatePayload(API_KEY),
            clock=self.clock,
            jitter=lambda: jitter,
        )

    async def renew(self, request: RenewalRequest = REQUEST) -> Any:
        return await self.renewer().renew(request)

    @property
    def claim_id(self) -> str:
        return self.events[0].id


def world(*answers: Any, takes: float = 0.0, **also: Any) -> World:
    return World(deque((answer, takes) for answer in answers), **also)


async def test_a_refresh_token_is_renewed_and_committed() -> None:
    """The claim, the call and the commit carry what the worker knows; the token counts from when it was asked for."""
    there = world(GRANTED, takes=1.0, latency=2.0, end_takes=4.0)
    outcome = await there.renew(evolve(HOLDS, may_be_throttled=True, policy=RefreshPolicy(attempt_timeout=20)))
    claim, commit = there.events
    assert claim == Claim(id=there.claim_id, seen="version-1", lease=25.0, may_be_throttled=True)
    assert commit == Commit(
        id=claim.id, access=b"made-up-access-2", refresh=b"made-up-refresh-2", lifetime=3600.0, remaining=3598.0
    )
    assert there.calls == [RefreshTokenPayload(REFRESH)]
    assert outcome == Renewed(
        access="made-up-access-2",
        lifetime=3600.0,
        lifetime_assumed=False,
        sent_at=NOW + 1,
        seconds=2.0,
        endpoint="/auth/refresh",
        version=claim.id,
    )


async def test_without_a_refresh_token_the_api_key_is_used() -> None:
    """The API key is sent, and a response without refresh token is committed without one."""
    token = AccessToken("made-up-access-2", "bearer", 3600, lifetime_assumed=True)
    there = world(FIRST, result=token)
    outcome = await there.renew()
    assert there.calls == [AuthenticatePayload(API_KEY)]
    assert (outcome.endpoint, outcome.lifetime_assumed) == ("/auth/api-key", True)
    assert there.events[1].refresh is None
    assert there.events[0].may_be_throttled is False


async def test_each_renewal_has_a_claim_of_its_own() -> None:
    """Two renewals never have the same id."""
    first, second = world(Busy(retry_after=1.0)), world(Busy(retry_after=1.0))
    await first.renew()
    await second.renew()
    assert first.claim_id != second.claim_id


@pytest.mark.parametrize(
    "answer",
    [
        Busy(retry_after=3.0),
        Throttled(retry_after=3.0),
        Backoff(retry_after=3.0, failure=Failure(kind="connection", message="made-up"), failures=1, failing_for=0.0),
    ],
    ids=lambda answer: type(answer).__name__,
)
async def test_a_claim_that_is_not_granted_is_the_outcome(answer: Any) -> None:
    """Without a grant nothing is called and nothing is ended."""
    there = world(answer)
    assert await there.renew() == answer
    assert there.calls == []
    assert len(there.events) == 1


async def test_a_better_token_is_adopted_from_when_it_was_asked_for() -> None:
    """The remaining life of an adopted token counts from the claim's question, not from its answer."""
    there = world(Changed(token=SHARED), takes=3.0)
    assert await there.renew(HOLDS) == Adopted(token=SHARED, asked_at=NOW)
    assert there.calls == []


async def test_a_token_that_is_not_better_is_taken_note_of() -> None:
    """The worker claims again, as before but with knowledge of the record's token, and renews."""
    worse = evolve(SHARED, remaining=500.0)
    there = world(Changed(token=worse), GRANTED)
    outcome = await there.renew(evolve(HOLDS, may_be_throttled=True))
    assert isinstance(outcome, Renewed)
    first, second = there.events[:2]
    assert second == evolve(first, seen="other")


async def test_a_better_token_at_the_second_claim_counts_from_that() -> None:
    """If the record changes between two claims, the second question dates the token."""
    there = world(Changed(token=evolve(SHARED, remaining=400.0)), Changed(token=SHARED), takes=3.0)
    assert await there.renew(HOLDS) == Adopted(token=SHARED, asked_at=NOW + 3)


async def test_a_record_that_keeps_changing_is_busy() -> None:
    """After two tokens that are not better, the worker looks again at once."""
    worse = Changed(token=evolve(SHARED, remaining=400.0))
    there = world(worse, worse)
    assert await there.renew(HOLDS) == Busy(retry_after=0.0)
    assert there.calls == []


@pytest.mark.parametrize(("takes", "is_called"), [(4.999, True), (5.0, False)])
async def test_a_claim_that_came_late_is_given_back_whole(takes: float, *, is_called: bool) -> None:
    """Too little of the lease is left for a call: the refresh token goes back into the record, unused."""
    there = world(GRANTED, takes=takes)
    outcome = await there.renew()
    assert bool(there.calls) is is_called
    if not is_called:
        assert outcome == ClaimLapsed()
        assert there.events[1] == Release(id=there.claim_id, refresh=REFRESH.encode())


@pytest.mark.parametrize(
    ("error", "is_given_back"),
    [
        (AuthConnectionError("made-up", sent=False), True),
        (RateLimitedError("made-up", status=429), True),
        (AuthConnectionError("made-up"), False),
        (AuthResponseError("made-up", status=500), False),
        (InvalidResponseError("made-up", status=200), False),
        (KeyError("made-up"), False),
    ],
    ids=["not-sent", "429", "lost", "500", "invalid", "bug"],
)
async def test_a_refresh_token_is_given_back_only_if_it_was_not_used(error: Exception, *, is_given_back: bool) -> None:
    """The release carries the refresh token if the endpoint has provably not used it."""
    there = world(GRANTED, result=error)
    assert isinstance(await there.renew(), Failed)
    assert there.events[1].refresh == (REFRESH.encode() if is_given_back else None)


async def test_a_rejected_refresh_token_is_dropped_without_a_failure() -> None:
    """The record forgets the refresh token, and nobody backs off."""
    there = world(GRANTED, result=CredentialsRejectedError("made-up", status=400))
    outcome = await there.renew()
    assert isinstance(outcome, RefreshRejected)
    assert outcome.failure.kind == "credentials"
    assert there.events[1] == Release(id=there.claim_id)


async def test_a_rejected_api_key_is_a_failure_that_workers_share() -> None:
    """The record remembers that the API key was rejected, and for how long it is left alone."""
    there = world(FIRST, result=CredentialsRejectedError("made-up", status=400))
    outcome = await there.renew()
    assert isinstance(outcome, Failed)
    assert outcome.endpoint == "/auth/api-key"
    released = there.events[1]
    assert (released.retry_after, released.failure.kind) == (60.0, "credentials")
    assert (outcome.backoff.retry_after, outcome.backoff.failure) == (60.0, released.failure)


async def test_a_mistake_of_the_program_is_not_shared() -> None:
    """A failure that concerns this program alone is not remembered in the record."""
    there = world(GRANTED, result=AuthConnectionError("made-up: closed", sent=False, retryable=False))
    outcome = await there.renew()
    assert outcome.backoff.failure.kind == "misuse"
    assert there.events[1] == Release(id=there.claim_id, retry_after=60.0, refresh=REFRESH.encode())


async def test_the_first_failure_in_a_row() -> None:
    """It has just begun, and its backoff is drawn from the first bound."""
    there = world(GRANTED, takes=1.0, latency=2.0, end_takes=4.0, result=OUTAGE)
    outcome = await there.renew()
    failure = Failure(kind="connection", message="made-up outage")
    assert outcome == Failed(
        endpoint="/auth/refresh",
        seconds=2.0,
        last_commit_at=900.0,
        backoff=Backoff(retry_after=0.25, failure=failure, failures=1, failing_for=0.0),
    )
    assert there.events[1] == Release(id=there.claim_id, retry_after=0.25, failure=failure)


async def test_a_further_failure_in_a_row() -> None:
    """The failures that the record knows of are continued, on the worker's clock."""
    there = world(evolve(GRANTED, failures=2, failing_for=30.0), takes=1.0, latency=2.0, result=OUTAGE)
    backoff = (await there.renew()).backoff
    assert (backoff.failures, backoff.failing_for, backoff.retry_after) == (3, 33.0, 1.0)


@pytest.mark.parametrize(
    ("granted", "last_commit_at", "expected"),
    [
        # The record was lost: it knows of no commit and of no failure.
        (FIRST, 900.0, (6, 100.0)),
        (evolve(FIRST, failures=1, failing_for=3.0), 900.0, (6, 100.0)),
        # The record knows more.
        (evolve(GRANTED, failures=8, failing_for=200.0), 900.0, (9, 200.0)),
        # Another worker has committed since.
        (GRANTED, 899.0, (1, 0.0)),
        (GRANTED, 900.0, (6, 100.0)),
    ],
    ids=["lost", "lost-and-failed", "longer", "committed-since", "not-committed-since"],
)
async def test_the_workers_own_failures_are_continued(
    granted: Granted, last_commit_at: float, expected: tuple[int, float]
) -> None:
    """A worker remembers its failures in a row if the record was lost, unless another worker has committed since."""
    there = world(granted, result=OUTAGE)
    request = evolve(REQUEST, failures=5, failing_since=NOW - 100, last_commit_at=last_commit_at)
    outcome = await there.renew(request)
    assert (outcome.backoff.failures, outcome.backoff.failing_for) == expected
    assert outcome.last_commit_at == (NEVER if granted.committed_at is None else 900.0)


@pytest.mark.parametrize(
    ("remaining", "is_adopted"),
    # The token that has just arrived lives for another 3598 seconds.
    [(3599.0, True), (3598.0, False), (600.0, False)],
)
async def test_a_lost_commit_adopts_a_better_token(remaining: float, *, is_adopted: bool) -> None:
    """If another worker took over the claim, its token is adopted if it outlives the one that has just arrived."""
    token = evolve(SHARED, remaining=remaining)
    there = world(GRANTED, latency=2.0, end=ClaimLost(token=token), end_takes=3.0)
    outcome = await there.renew(evolve(HOLDS, rejected=True, may_be_throttled=True))
    if is_adopted:
        assert outcome == Adopted(token=token, asked_at=NOW + 2)
    else:
        assert isinstance(outcome, Renewed)


async def test_a_lost_commit_without_another_token_serves_its_own() -> None:
    """If the record was lost, the token that has just arrived is served."""
    assert isinstance(await world(GRANTED, end=ClaimLost(token=None)).renew(), Renewed)


@pytest.mark.parametrize(
    ("held", "remaining", "is_adopted"),
    # The worker's own token has aged by ten seconds meanwhile.
    [(500.0, 490.5, True), (500.0, 490.0, False), (None, 3000.0, True), (None, 20.0, False)],
)
async def test_a_lost_release_adopts_a_better_token(held: float | None, remaining: float, *, is_adopted: bool) -> None:
    """If another worker took over the claim, its token makes up for the failure if it is better."""
    token = evolve(SHARED, remaining=remaining)
    there = world(GRANTED, takes=4.0, latency=6.0, result=OUTAGE, end=ClaimLost(token=token), end_takes=3.0)
    request = REQUEST if held is None else evolve(HOLDS, remaining=held)
    outcome = await there.renew(request)
    if is_adopted:
        assert outcome == Adopted(token=token, asked_at=NOW + 10)
    else:
        assert isinstance(outcome, Failed)


async def test_a_token_that_is_over_when_it_arrives_is_a_failure_of_the_endpoint() -> None:
    """It is not committed; its refresh token is kept, and the worker backs off."""
    token = AccessToken("made-up-access-2", "bearer", 10, "made-up-refresh-2")
    there = world(GRANTED, latency=9.9, result=token)
    outcome = await there.renew()
    assert isinstance(outcome, Failed)
    assert outcome.backoff.failure.kind == "invalid"
    message = outcome.backoff.failure.message
    assert message.startswith("a token with a lifetime of 10 seconds had nearly or fully expired when it arrived")
    assert message.endswith(": the endpoint is too slow")
    released = there.events[1]
    assert (type(released), released.refresh) == (Release, b"made-up-refresh-2")


async def test_a_token_that_is_over_once_it_is_committed_is_a_failure() -> None:
    """The worker backs off although its commit counts, and its own commit does not end the row of failures."""
    token = AccessToken("made-up-access-2", "bearer", 10, "made-up-refresh-2")
    there = world(GRANTED, latency=1.0, end_takes=8.9, result=token)
    outcome = await there.renew()
    assert isinstance(outcome, Failed)
    assert (outcome.last_commit_at, outcome.seconds) == (math.inf, pytest.approx(9.9))
    assert outcome.backoff.failure.kind == "invalid"
    assert isinstance(there.events[1], Commit)


async def test_at_most_a_day_of_a_token_is_believed() -> None:
    """A longer lifetime is cut before it is committed."""
    there = world(GRANTED, result=evolve(TOKEN, expires_in=10**9))
    assert (await there.renew()).lifetime == 86_400.0
    assert there.events[1].lifetime == 86_400.0


async def test_a_cancelled_renewal_gives_no_refresh_token_back() -> None:
    """Nobody knows whether the endpoint has used it, so the claim is released without it."""
    there = world(GRANTED)
    arrived = asyncio.Event()

    class Hanging:
        async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
            arrived.set()
            await asyncio.Event().wait()
            raise AssertionError

    task = asyncio.create_task(evolve(there.renewer(), api=Hanging()).renew(REQUEST))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert there.events[1:] == [Release(id=there.claim_id)]


@pytest.mark.virtual_time
async def test_a_call_that_hangs_ends_with_its_timeout() -> None:
    """An endpoint that does not answer is given up after `call_timeout`, and its refresh token is not given back."""
    there = world(GRANTED)
    loop = asyncio.get_running_loop()

    class Hanging:
        async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
            await asyncio.Event().wait()
            raise AssertionError

    began = loop.time()
    outcome = await evolve(there.renewer(), api=Hanging()).renew(REQUEST)
    assert loop.time() - began == pytest.approx(11.0)
    assert outcome.backoff.failure.kind == "connection"
    assert there.events[1].refresh is None


@pytest.mark.parametrize("secret", [API_KEY, REFRESH])
async def test_a_stand_in_that_repeats_a_secret_is_masked(secret: str) -> None:
    """The failure that workers share shows neither the API key nor the refresh token."""
    there = world(GRANTED, result=AuthResponseError(f"made-up: {secret}", title=f"the title has {secret}", status=500))
    failure = (await there.renew()).backoff.failure
    assert secret not in failure.message
    assert (failure.message, failure.title) == ("made-up: ***", "the title has ***")


@pytest.mark.parametrize(("result", "name"), [(None, "NoneType"), ("made-up", "str")])
async def test_a_stand_in_that_returns_something_else_is_told(result: object, name: str) -> None:
    """The failure names the type that was returned."""
    failure = (await world(GRANTED, result=result).renew()).backoff.failure
    assert failure == Failure(kind="invalid", message=f"the api returned a {name}, not an AccessToken")


async def test_a_lost_commit_does_not_adopt_the_same_token() -> None:
    """If the record holds the very token that has just arrived, there is nothing to adopt."""
    token = evolve(SHARED, access=b"made-up-access-2", remaining=3599.0)
    there = world(GRANTED, latency=2.0, end=ClaimLost(token=token))
    assert isinstance(await there.renew(HOLDS), Renewed)


async def test_a_short_token_is_renewed_at_any_time_of_the_clock() -> None:
    """Durations are measured between two moments of the clock, wherever it began."""
    token = AccessToken("made-up-access-2", "bearer", 300)
    assert isinstance(await world(GRANTED, takes=1.0, latency=2.0, end_takes=3.0, result=token).renew(), Renewed)


async def test_a_stand_in_that_raises_cancelled_error_is_a_failure() -> None:
    """If nobody has cancelled the renewal, the error is the stand-in's own, and is named."""
    failure = (await world(GRANTED, result=asyncio.CancelledError()).renew()).backoff.failure
    assert failure == Failure(kind="connection", message="the token call failed with CancelledError")
