"""The real `Renewer.renew`, replayed step by step: given the answers so far, what does it ask next, or return?

A coroutine can be neither copied nor compared. But `renew` is a function of the answers that it gets, so its state is
the list of these answers, and its next step is found by running it again up to that point.
"""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from types import coroutine
from typing import Any, Final, NoReturn, TypeAlias
from unittest.mock import patch

from attrs import define, field, frozen

from apivideo_auth import AccessToken, AuthenticatePayload, RefreshPolicy, RefreshTokenPayload, _renewal
from apivideo_auth._errors import error_from
from apivideo_auth._failure import Failure
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Release, RenewalRequest, SharedToken
from apivideo_auth._renewal import Outcome, Renewer

POLICY: Final = RefreshPolicy(leeway=0)


@frozen
class Call:
    """A call to an endpoint, with this refresh token or with the API key."""

    refresh: bytes | None


@frozen
class Cancelled:
    """The renewal is cancelled where it waits; as a step: it has ended by its cancellation."""


@frozen
class Reply:
    """An answer, and the seconds that it took by the worker's own clock."""

    answer: ClaimAnswer | EndAnswer | AccessToken | Failure | Cancelled
    seconds: float = 0.0


Step: TypeAlias = Claim | Commit | Release | Call | Outcome | Cancelled


@frozen
class Replayed:
    """What `renew` asks or returns next, and the id of its claim."""

    step: Step
    claim_id: str


@coroutine
def _suspend() -> Generator[None]:
    """Suspend the renewal: the replies are used up."""
    yield


class _Clock:
    """The worker's own clock."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> float:
        return self.now


@define
class _Environment:
    """The slot and the endpoints in one: everything that `renew` can ask. `asked` is what has no reply."""

    replies: list[Reply]
    clock: _Clock = field(factory=_Clock)
    claim_ids: set[str] = field(factory=set[str])
    asked: Step | None = None

    async def _reply(self, step: Step) -> Any:
        if not self.replies:
            self.asked = step
            await _suspend()
        reply = self.replies.pop(0)
        self.clock.now += reply.seconds
        if isinstance(reply.answer, Cancelled):
            raise asyncio.CancelledError
        if isinstance(reply.answer, Failure):
            raise error_from(reply.answer)
        return reply.answer

    async def claim(self, event: Claim) -> ClaimAnswer:
        self.claim_ids.add(event.id)
        answer: ClaimAnswer = await self._reply(event)
        return answer

    async def commit(self, event: Commit) -> EndAnswer:
        self.claim_ids.add(event.id)
        answer: EndAnswer = await self._reply(event)
        return answer

    async def release(self, event: Release) -> EndAnswer:
        self.claim_ids.add(event.id)
        answer: EndAnswer = await self._reply(event)
        return answer

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        answer: AccessToken = await self._reply(Call(None))
        return answer

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        answer: AccessToken = await self._reply(Call(payload.refresh_token.encode()))
        return answer

    async def read(self) -> SharedToken | None:
        self._unexpected()

    async def changed(self, timeout: float) -> None:
        self._unexpected()

    async def forget(self) -> None:
        self._unexpected()

    async def close(self) -> None:
        self._unexpected()

    def _unexpected(self) -> NoReturn:
        raise AssertionError("a renewal does not ask this")


class _Asyncio:
    """Stands in for the module `asyncio`, so that a renewal runs without an event loop.

    Every `CancelledError` that is replayed is a cancellation from outside.
    """

    CancelledError = asyncio.CancelledError

    @staticmethod
    @asynccontextmanager
    async def timeout(_seconds: float) -> AsyncIterator[None]:
        yield

    @staticmethod
    def current_task() -> None:
        return None


def replay(request: RenewalRequest, *replies: Reply) -> Replayed:
    """Return what follows these replies."""
    environment = _Environment([*replies])
    renewer = Renewer(
        slot=environment,
        api=environment,
        call_timeout=POLICY.attempt_timeout,
        credentials=AuthenticatePayload("made-up-api-key"),
        clock=environment.clock,
        jitter=lambda: 0.5,
    )
    with patch.object(_renewal, "asyncio", _Asyncio):
        step = _run(renewer, request, environment)
    assert not environment.replies, "nobody asked for these"
    (claim_id,) = environment.claim_ids
    return Replayed(step, claim_id)


def _run(renewer: Renewer, request: RenewalRequest, environment: _Environment) -> Step:
    renewal = renewer.renew(request)
    try:
        renewal.send(None)
    except StopIteration as returned:
        outcome: Outcome = returned.value
        return outcome
    except asyncio.CancelledError:
        return Cancelled()
    renewal.close()
    assert environment.asked is not None, "a renewal waits for nothing but its replies"
    return environment.asked
