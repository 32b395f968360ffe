"""The real `renew`, played step by step: given the answers so far, what does it ask next, or what comes of it?

A coroutine can be neither copied nor compared, but `renew` is a function of what it is answered. So its state is the
list of these answers, and its next step is found by playing it anew up to there.
"""

import asyncio
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeAlias
from unittest.mock import patch

from attrs import field, frozen

from apivideo_auth import AccessToken, AuthenticatePayload, RefreshPolicy, RefreshTokenPayload
from apivideo_auth._failure import Failure
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken
from apivideo_auth._renewal import Account, Outcome, RenewalRequest, renew

POLICY: Final = RefreshPolicy()


@frozen
class Call:
    """A call to an endpoint, with this refresh token or by the API key."""

    refresh: bytes | None


@frozen
class Cancelled:
    """The renewal is cancelled where it waits; and what comes of that."""


@frozen
class Reply:
    """An answer, and how long it took by the worker's own clock."""

    answer: ClaimAnswer | EndAnswer | AccessToken | Failure | Cancelled
    seconds: float = 0.0


Step: TypeAlias = Claim | Commit | Release | Call | Outcome | Cancelled


@frozen
class Played:
    """What `renew` asks or returns next, and the id of its claim."""

    step: Step
    claim_id: str


class _AskedError(BaseException):
    """The answers are used up. Not an `Exception`, since `renew` makes failures of those."""

    def __init__(self, step: Step) -> None:
        self.step = step


class _Clock:
    """The worker's own clock."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> float:
        return self.now


@frozen
class _Stage:
    """Slot and endpoints in one: everything that `renew` can ask."""

    replies: list[Reply]
    clock: _Clock = field(factory=_Clock)
    claim_ids: set[str] = field(factory=set[str])

    def _reply(self, step: Step) -> Any:
        if not self.replies:
            raise _AskedError(step)
        reply = self.replies.pop(0)
        self.clock.now += reply.seconds
        if isinstance(reply.answer, Cancelled):
            raise asyncio.CancelledError
        if isinstance(reply.answer, Failure):
            raise reply.answer.error()
        return reply.answer

    async def claim(self, event: Claim) -> ClaimAnswer:
        self.claim_ids.add(event.id)
        answer: ClaimAnswer = self._reply(event)
        return answer

    async def commit(self, event: Commit) -> EndAnswer:
        self.claim_ids.add(event.id)
        answer: EndAnswer = self._reply(event)
        return answer

    async def release(self, event: Release) -> EndAnswer:
        self.claim_ids.add(event.id)
        answer: EndAnswer = self._reply(event)
        return answer

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        answer: AccessToken = self._reply(Call(None))
        return answer

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        answer: AccessToken = self._reply(Call(payload.refresh_token.encode()))
        return answer

    async def read(self) -> SharedToken | None:
        return self._unasked()

    async def changed(self, wait: float) -> None:
        self._unasked()

    async def forget(self) -> None:
        self._unasked()

    async def close(self) -> None:
        self._unasked()

    def _unasked(self) -> NoReturn:
        raise AssertionError("a renewal does not ask this")


class Player:
    """Plays `renew`, in an event loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, traceback)

    def play(self, wish: RenewalRequest, *replies: Reply) -> Played:
        """Return what follows these replies."""
        stage = _Stage([*replies])
        account = Account(
            slot=stage,
            patience=POLICY.attempt_timeout,
            api=stage,
            credentials=AuthenticatePayload("made-up-api-key"),
            policy=POLICY,
            clock=stage.clock,
            draw=_half,
        )
        step = self._runner.get_loop().run_until_complete(_next_step(account, wish))
        assert not stage.replies, "nobody asked for these"
        (claim_id,) = stage.claim_ids
        return Played(step, claim_id)


def _half() -> float:
    return 0.5


async def _next_step(account: Account, wish: RenewalRequest) -> Step:
    try:
        # What is played is a cancellation from outside, although it is raised from within.
        with patch("apivideo_auth._renewal.is_cancelled", return_value=True):
            return await renew(account, wish)
    except _AskedError as asked:
        return asked.step
    except asyncio.CancelledError:
        return Cancelled()
