"""Test doubles: clocks, and the two endpoints behind the protocol of `AuthenticationApi`."""

import asyncio
from collections import deque
from collections.abc import Callable
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
    """A clock that follows an event loop's time, by default the running loop's.

    `asleep` and `wall_jump` are seconds that a test adds: a sleep of the machine, which the loop's time does not count,
    and a wall clock that was set.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self.asleep = 0.0
        self.wall_jump = 0.0

    def monotonic(self) -> float:
        return self._loop.time() + self.asleep

    def utc(self) -> float:
        return START_OF_2026 + self.monotonic() + self.wall_jump


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> float:
        return START_OF_2026 + self.now


def pending_timers() -> list[asyncio.TimerHandle]:
    """Return the timers of the running loop that are set and not cancelled."""
    loop: Any = asyncio.get_running_loop()
    return [handle for handle in loop._scheduled if not handle.cancelled()]


@frozen
class Call:
    """One call to an endpoint."""

    at: float
    endpoint: str


@define(eq=False)
class Service:
    """Simulated endpoints with single-use refresh tokens. A test scripts what goes wrong.

    - `answers`: what the next calls do instead: exceptions to raise, or tokens to return. `always`: what every call
      does once `answers` is empty.
    - `gate`: an event that every call waits for, if set.
    - `loses`: tells by a call's number whether its answer is lost after the work is done.
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
        """Return the number of calls that an endpoint received."""
        return sum(call.endpoint == endpoint for call in self.calls)

    async def _answer(self, endpoint: str, refresh_token: str | None) -> AccessToken:
        self.calls.append(Call(self.clock.monotonic(), endpoint))
        number = len(self.calls)
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
                    raise CredentialsRejectedError("the refresh token was rejected", status=400)
                self.live_refresh_tokens.remove(refresh_token)
            self.live_refresh_tokens.add(f"made-up-refresh-{number}")
            if self.loses(number):
                raise AuthConnectionError("made-up: the answer was lost")
            return AccessToken(f"made-up-access-{number}", "Bearer", self.lifetime, f"made-up-refresh-{number}")
        finally:
            self.in_flight -= 1
