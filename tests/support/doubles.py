"""Stand-ins: a clock and the two endpoints."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field, frozen

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    CredentialsRejectedError,
    RefreshTokenPayload,
)

START_OF_2026 = 1_767_225_600.0


class LoopClock:
    """A clock that follows the event loop's time. `asleep` and `wall_jump` are added seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.asleep = 0.0
        self.wall_jump = 0.0

    def monotonic(self) -> float:
        return self._loop.time() + self.asleep

    def utc(self) -> float:
        return START_OF_2026 + self._loop.time() + self.asleep + self.wall_jump


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> float:
        return START_OF_2026 + self.now


@frozen
class Call:
    """One call of an endpoint."""

    at: float
    endpoint: str


Answer = Callable[[], Awaitable[AccessToken | None]]


@define(eq=False)
class Service:
    """Simulated endpoints with single-use refresh tokens.

    `answers` holds what the next calls do instead of answering: exceptions to raise, or tokens to answer. `gate` is
    waited for by every call, if set. `loses` says of which calls, by their number, the answer is lost after the work.
    """

    clock: Any
    lifetime: int = 3600
    latency: float = 0.0
    calls: list[Call] = field(factory=list)
    answers: deque[Any] = field(factory=deque)
    always: BaseException | None = None
    gate: asyncio.Event | None = None
    loses: Callable[[int], bool] = lambda _number: False
    live_refresh_tokens: set[str] = field(factory=set)
    used_refresh_tokens: list[str] = field(factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        assert isinstance(payload, AuthenticatePayload)
        return await self._answer("api-key", None)

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        return await self._answer("refresh", payload.refresh_token)

    def count(self, endpoint: str) -> int:
        """Return how many calls an endpoint got."""
        return sum(call.endpoint == endpoint for call in self.calls)

    async def _answer(self, endpoint: str, refresh_token: str | None) -> AccessToken:
        self.calls.append(Call(self.clock.monotonic(), endpoint))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(self.latency)
            answer = self.answers.popleft() if self.answers else self.always
            if isinstance(answer, AccessToken):
                return answer
            if answer is not None:
                raise answer
            if refresh_token is not None:
                self.used_refresh_tokens.append(refresh_token)
                if refresh_token not in self.live_refresh_tokens:
                    raise CredentialsRejectedError("the refresh token was refused", status=400)
                self.live_refresh_tokens.remove(refresh_token)
            number = len(self.calls)
            self.live_refresh_tokens.add(f"made-up-refresh-{number}")
            if self.loses(number):
                raise AuthConnectionError("made-up: the answer was lost")
            return AccessToken(f"made-up-access-{number}", "Bearer", self.lifetime, f"made-up-refresh-{number}")
        finally:
            self.in_flight -= 1
