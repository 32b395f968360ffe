"""The two endpoints and the resources of api.video, simulated behind the protocol of `AuthenticationApi`."""

import asyncio
import random
from collections.abc import Callable
from typing import NoReturn, cast

from attrs import define, evolve, field, frozen

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshTokenPayload,
)
from tests.simulation.calls import API_KEY, KEY_REFUSED, SECRET, Call, Grant, Modes, Outcome, Spell
from tests.simulation.loop import SimulatedClock

FOREIGN = (RuntimeError, KeyError, OSError, TimeoutError, EOFError, asyncio.CancelledError)
"""What a stand-in may raise. `CancelledError` is what a library lets slip that cancels tasks of its own."""


@define(eq=False)
class Service:
    """The service: it rotates refresh tokens, revokes as its modes say, and fails as its spells say."""

    clock: SimulatedClock
    rng: random.Random
    modes: Modes
    on_start: Callable[[Call], None]
    on_end: Callable[[Call], None]
    weather: dict[str, float] = field(factory=dict)
    spells: list[Spell] = field(factory=list)
    key_refused: tuple[float, float] = (0.0, 0.0)
    denied_until: float = 0.0
    calls: list[Call] = field(factory=list)
    _grants: dict[str, Grant] = field(factory=dict)
    _live_refresh: dict[str, Grant] = field(factory=dict)
    _numbers: int = 0

    def endpoints(self, worker: str, account: str) -> "Endpoints":
        """Return what a worker calls instead of an `AuthenticationApi`."""
        return Endpoints(self, worker, account)

    def accepts(self, access: str) -> bool:
        """Say whether a resource takes this access token now; else it answers 401."""
        grant = self._grants[access]
        return self.clock.monotonic() >= self.denied_until and self.is_valid(grant)

    def is_valid(self, grant: Grant) -> bool:
        """Say whether the service itself counts the token as valid."""
        return not grant.revoked and self.clock.monotonic() < grant.made_at + grant.lifetime

    def was_revoked(self, access: str) -> bool:
        """Say whether the token was ended before its time."""
        return self._grants[access].revoked

    def revoke_all(self, *, refresh: bool) -> None:
        """End every access token, and every refresh token too."""
        for grant in self._grants.values():
            grant.revoked = True
        if refresh:
            self._live_refresh.clear()

    def heal(self) -> None:
        """Have no more faults, and be fast."""
        self.modes = evolve(self.modes, latency=min(self.modes.latency, 0.02 * self.modes.lifetime))
        self.weather, self.key_refused, self.denied_until = {}, (0.0, 0.0), 0.0
        self.spells.clear()

    async def call(self, worker: str, account: str, refresh: str | None) -> AccessToken:
        """Answer a call, or raise."""
        call = Call(
            number=len(self.calls) + 1,
            worker=worker,
            account=account,
            endpoint="authenticate" if refresh is None else "refresh",
            refresh=refresh,
            started=self.clock.monotonic(),
            fault=self._fault(),
        )
        self.calls.append(call)
        self.on_start(call)
        try:
            async with asyncio.timeout(None if call.fault == "stuck" else self.modes.attempt_timeout):
                grant = await self._answer(call)
        except TimeoutError:
            call.outcome = call.outcome or "unknown"
            raise AuthConnectionError("the service gave no answer in time") from None
        except asyncio.CancelledError:
            call.outcome = call.outcome or "cancelled"
            raise
        else:
            if call.fault == "nonsense":
                call.outcome = "failed"
                return cast("AccessToken", None)
            call.outcome, call.grant = "granted", grant
            return AccessToken(grant.access, "Bearer", grant.lifetime, grant.refresh)
        finally:
            call.ended = self.clock.monotonic()
            self.on_end(call)

    def _fault(self) -> str | None:
        now = self.clock.monotonic()
        weights = self.weather
        for spell in self.spells:
            if spell.begins <= now < spell.ends:
                weights = spell.weights
        draw = self.rng.random()
        for fault, weight in weights.items():
            draw -= weight
            if draw < 0:
                return fault
        return None

    async def _answer(self, call: Call) -> Grant:
        fault, rng, modes = call.fault, self.rng, self.modes
        latency = 0.4 * modes.attempt_timeout if fault == "dawdle" else modes.latency
        await self._pass(rng.random() * latency)
        self._fail_before(call)
        if fault in {"hang", "stuck"}:
            await asyncio.get_running_loop().create_future()
        grant = self._work(call)
        if fault == "hang after":
            await asyncio.get_running_loop().create_future()
        if fault == "lost after":
            self._raise(call, "unknown", AuthConnectionError("the answer was lost"))
        if fault == "malformed":
            self._raise(call, "failed", InvalidResponseError("no JSON", status=200))
        slow = min(grant.lifetime, modes.attempt_timeout) * modes.slowness * rng.uniform(0.99, 1.01)
        await self._pass(slow if fault == "slow" else rng.random() * latency)
        return grant

    def _fail_before(self, call: Call) -> None:
        """Raise what the fault raises before the work is done."""
        rng = self.rng
        match call.fault:
            case "unreachable":
                self._raise(call, "unsent", AuthConnectionError("the service cannot be reached", sent=False))
            case "lost before":
                self._raise(call, "unknown", AuthConnectionError("the service broke off"))
            case "limited":
                call.retry_after = rng.choice([None, 0.0, 0.4, 3.0, 25.0, 60.0, 3600.0])
                self._raise(call, "limited", RateLimitedError("too many", status=429, retry_after=call.retry_after))
            case "broken":
                call.retry_after = rng.choice([None, None, 2.0, 45.0, 1e9])
                error = AuthResponseError("a bad gateway", status=502, retry_after=call.retry_after)
                self._raise(call, "failed", error)
            case "foreign":
                text = f"could not send {SECRET}-body with {call.refresh}"
                self._raise(call, "foreign", rng.choice(FOREIGN)(text))
            case "telltale":
                text = f"{API_KEY} and {call.refresh} are not liked"
                self._raise(call, "failed", AuthResponseError(text, status=418))

    async def _pass(self, seconds: float) -> None:
        """Take some time; none at all now and then, so that an answer is there at once."""
        if seconds and self.rng.random() < 0.9:
            await asyncio.sleep(seconds)

    def _raise(self, call: Call, outcome: Outcome, error: BaseException) -> NoReturn:
        call.outcome = outcome
        raise error

    def _work(self, call: Call) -> Grant:
        suspended = self.key_refused[0] <= self.clock.monotonic() < self.key_refused[1]
        if call.refresh is None:
            if suspended:
                self._raise(call, "refused", CredentialsRejectedError(KEY_REFUSED, status=400))
            if self.modes.authenticate_invalidates:
                self._live_refresh.clear()
        else:
            earlier = self._live_refresh.pop(call.refresh, None)
            if earlier is None or (suspended and self.modes.suspends):
                self._raise(call, "refused", CredentialsRejectedError("the refresh token was refused", status=401))
            if self.modes.refresh_revokes:
                earlier.revoked = True
        return self._grant(call)

    def _grant(self, call: Call) -> Grant:
        self._numbers += 1
        lifetime = self.modes.lifetime
        if call.fault == "odd lifetime":
            lifetime = self.rng.choice([1, 2, 7, 40, 900, 3600, 86_400, 10**9, 10**30])
        access, refresh = (f"{SECRET}-{kind}-{self._numbers}" for kind in ("access", "refresh"))
        grant = Grant(
            access=access,
            refresh=None if call.fault == "no refresh token" else refresh,
            lifetime=lifetime,
            made_at=self.clock.monotonic(),
        )
        self._grants[access] = grant
        if grant.refresh is not None:
            self._live_refresh[grant.refresh] = grant
        return grant


@frozen
class Endpoints:
    """What one worker calls."""

    service: Service
    worker: str
    account: str

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        """Answer `POST /auth/api-key`."""
        assert isinstance(payload, AuthenticatePayload)
        return await self.service.call(self.worker, self.account, None)

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        """Answer `POST /auth/refresh`."""
        return await self.service.call(self.worker, self.account, str(payload.refresh_token))
