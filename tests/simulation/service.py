"""api.video's endpoints and resources, simulated with random faults, behind the protocol of `AuthenticationApi`.

`tests.support.doubles.Service` does what a test scripts; this one does what random numbers say, and knows which worker
calls it.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Literal, NoReturn, TypeAlias, cast

from attrs import define, evolve, field, frozen

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    AuthError,
    AuthResponseError,
    CredentialsRejectedError,
    InvalidResponseError,
    RateLimitedError,
    RefreshTokenPayload,
)
from tests.simulation.loop import SimulatedClock

SECRET = "made-up-s3cret"
"""Part of every API key, access token and refresh token, so that a leak of any of them is found."""

API_KEY = f"{SECRET}-key"
KEY_REJECTED = "the API key was rejected"

Outcome: TypeAlias = Literal["granted", "not sent", "rate limited", "failed", "rejected", "unknown", "cancelled"]

FAULTS = (
    "unreachable",  # provably not sent
    "lost before",  # the connection breaks before the work is done
    "lost after",  # the answer is lost after the work is done: the refresh token is used up
    "rate limited",  # 429
    "server error",  # 5xx
    "malformed",  # the work is done, and the answer cannot be read
    "hang",  # no answer until the attempt's timeout
    "hang after",  # the same after the work is done
    "no timeout",  # no answer, and the endpoint has no timeout of its own
    "foreign error",  # an exception that is not the package's, with a secret in its text
    "secret in error",  # an error of the package, whose text quotes what was sent
    "not a token",  # the work is done, and the endpoint returns None
    "no refresh token",
    "odd lifetime",
    "slow call",  # so slow that other workers may have renewed meanwhile
    "late token",  # so slow that the token is stale or expired when it arrives
)

FOREIGN_ERRORS = (RuntimeError, KeyError, OSError, TimeoutError, EOFError, asyncio.CancelledError)
"""What another implementation of the endpoints may raise. A library that cancels tasks of its own may let
`CancelledError` escape.
"""


class _UninitializedError(AuthConnectionError):
    """A subclass that does not call the constructor of its base."""

    def __init__(self) -> None:
        pass


class _UnprintableError(AuthConnectionError):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("made-up bug in __str__")


MISTYPED_ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: AuthResponseError("made-up", status=cast("Any", "five hundred"), title=cast("Any", 404)),
    lambda: AuthResponseError("made-up", status=500, retry_after=cast("Any", "soon")),
    lambda: AuthResponseError("made-up", status=500, retry_after=float("nan")),
    lambda: InvalidResponseError(cast("Any", 17), status=200, type=cast("Any", ["a", "list"])),
    lambda: AuthConnectionError("made-up", sent=cast("Any", "no"), retry_after=-5.0),
    lambda: AuthError("made-up", retry_after=cast("Any", object())),
    _UninitializedError,
    lambda: _UnprintableError("made-up"),
)
"""Errors of the package with fields of a wrong type or value, as another implementation of the endpoints may raise."""


@define(eq=False)
class Grant:
    """A pair of tokens that the service issued. `revoked`: the access token was invalidated before its end."""

    access: str
    refresh: str | None
    lifetime: int
    issued_at: float
    revoked: bool = False


@define(eq=False)
class Call:
    """One call to an endpoint. `grant` is what the caller received."""

    number: int
    worker: str
    process: str
    endpoint: Literal["authenticate", "refresh"]
    refresh: str | None
    started: float
    fault: str | None = None
    ended: float | None = None
    outcome: Outcome | None = None
    grant: Grant | None = None
    retry_after: float | None = None


@frozen(kw_only=True)
class ServiceSettings:
    """What the documentation of the service leaves open, and how fast the service is.

    - `refresh_revokes`: a refresh revokes the access token that was issued with the refresh token.
    - `authenticate_invalidates`: a call with the API key invalidates earlier refresh tokens.
    - `suspends`: while the API key is rejected, refresh tokens are rejected too.
    - `late_by`: the part of a lifetime that the fault "late token" takes.
    """

    refresh_revokes: bool = False
    authenticate_invalidates: bool = False
    suspends: bool = False
    lifetime: int = 3600
    attempt_timeout: float = 10.0
    latency: float = 0.2
    late_by: float = 0.9


@frozen
class FaultPeriod:
    """A time in which calls fail; `rates` are the probabilities of the faults."""

    begins: float
    ends: float
    rates: dict[str, float]


@define(eq=False)
class FaultyService:
    """The service. It rotates refresh tokens, revokes tokens as its settings say, and has faults at random."""

    clock: SimulatedClock
    rng: random.Random
    settings: ServiceSettings
    on_start: Callable[[Call], None]
    on_end: Callable[[Call], None]
    fault_rates: dict[str, float] = field(factory=dict)
    fault_periods: list[FaultPeriod] = field(factory=list)
    key_rejected_between: tuple[float, float] = (0.0, 0.0)
    rejects_tokens_until: float = 0.0
    calls: list[Call] = field(factory=list)
    _grants: dict[str, Grant] = field(factory=dict)
    _refresh_tokens: dict[str, Grant] = field(factory=dict)
    _live_refresh_tokens: dict[str, Grant] = field(factory=dict)
    _issued: int = 0

    def endpoints(self, worker: str, process: str) -> "Endpoints":
        """Return what a worker calls instead of an `AuthenticationApi`."""
        return Endpoints(self, worker, process)

    def accepts(self, access: str) -> bool:
        """Return whether a resource accepts this access token now; otherwise it answers 401."""
        grant = self._grants[access]
        return self.clock.monotonic() >= self.rejects_tokens_until and self.is_valid(grant)

    def is_valid(self, grant: Grant) -> bool:
        """Return whether the access token is neither revoked nor at its end."""
        return not grant.revoked and self.clock.monotonic() < grant.issued_at + grant.lifetime

    def issued_at(self, refresh: str) -> float:
        """Return when a refresh token was issued."""
        return self._refresh_tokens[refresh].issued_at

    def revoke_all(self, *, refresh: bool) -> None:
        """Revoke every access token, and every refresh token too."""
        for grant in self._grants.values():
            grant.revoked = True
        if refresh:
            self._live_refresh_tokens.clear()

    def end_faults(self) -> None:
        """Have no more faults, and be fast."""
        self.settings = evolve(self.settings, latency=min(self.settings.latency, 0.02 * self.settings.lifetime))
        self.fault_rates, self.key_rejected_between, self.rejects_tokens_until = {}, (0.0, 0.0), 0.0
        self.fault_periods.clear()

    async def call(self, worker: str, process: str, refresh: str | None) -> AccessToken:
        """Answer a call, or raise."""
        call = Call(
            number=len(self.calls) + 1,
            worker=worker,
            process=process,
            endpoint="authenticate" if refresh is None else "refresh",
            refresh=refresh,
            started=self.clock.monotonic(),
            fault=self._random_fault(),
        )
        self.calls.append(call)
        self.on_start(call)
        try:
            async with asyncio.timeout(None if call.fault == "no timeout" else self.settings.attempt_timeout):
                grant = await self._answer(call)
        except TimeoutError:
            call.outcome = call.outcome or "unknown"
            raise AuthConnectionError("the service did not answer in time") from None
        except asyncio.CancelledError:
            call.outcome = call.outcome or "cancelled"
            raise
        else:
            if call.fault == "not a token":
                call.outcome = "failed"
                return cast("AccessToken", None)
            call.outcome, call.grant = "granted", grant
            return AccessToken(grant.access, "Bearer", grant.lifetime, grant.refresh)
        finally:
            call.ended = self.clock.monotonic()
            self.on_end(call)

    def _random_fault(self) -> str | None:
        now = self.clock.monotonic()
        rates = self.fault_rates
        for period in self.fault_periods:
            if period.begins <= now < period.ends:
                rates = period.rates
        number = self.rng.random()
        for fault, rate in rates.items():
            number -= rate
            if number < 0:
                return fault
        return None

    async def _answer(self, call: Call) -> Grant:
        fault, rng, settings = call.fault, self.rng, self.settings
        latency = 0.4 * settings.attempt_timeout if fault == "slow call" else settings.latency
        await self._take_time(rng.random() * latency)
        self._fail_before_the_work(call)
        if fault in {"hang", "no timeout"}:
            await asyncio.get_running_loop().create_future()
        grant = self._work(call)
        if fault == "hang after":
            await asyncio.get_running_loop().create_future()
        if fault == "lost after":
            self._fail(call, "unknown", AuthConnectionError("the answer was lost"))
        if fault == "malformed":
            self._fail(call, "failed", InvalidResponseError("not JSON", status=200))
        late = min(grant.lifetime, settings.attempt_timeout) * settings.late_by * rng.uniform(0.99, 1.01)
        await self._take_time(late if fault == "late token" else rng.random() * latency)
        return grant

    def _fail_before_the_work(self, call: Call) -> None:
        rng = self.rng
        match call.fault:
            case "unreachable":
                self._fail(call, "not sent", AuthConnectionError("the service cannot be reached", sent=False))
            case "lost before":
                self._fail(call, "unknown", AuthConnectionError("the connection broke"))
            case "rate limited":
                call.retry_after = rng.choice([None, 0.0, 0.4, 3.0, 25.0, 60.0, 3600.0])
                error = RateLimitedError("too many requests", status=429, retry_after=call.retry_after)
                self._fail(call, "rate limited", error)
            case "server error":
                call.retry_after = rng.choice([None, None, 2.0, 45.0, 1e9])
                self._fail(call, "failed", AuthResponseError("bad gateway", status=502, retry_after=call.retry_after))
            case "foreign error":
                text = f"could not send {SECRET}-body with {call.refresh}"
                self._fail(call, "unknown", rng.choice(FOREIGN_ERRORS)(text))
            case "secret in error":
                error = AuthResponseError(f"{API_KEY} and {call.refresh} are invalid", status=418)
                self._fail(call, "failed", error)
            case "mistyped error":
                self._fail(call, "unknown", rng.choice(MISTYPED_ERRORS)())

    async def _take_time(self, seconds: float) -> None:
        """Wait; sometimes not at all, so that an answer is there at once."""
        if seconds and self.rng.random() < 0.9:
            await asyncio.sleep(seconds)

    def _fail(self, call: Call, outcome: Outcome, error: BaseException) -> NoReturn:
        call.outcome = outcome
        raise error

    def _work(self, call: Call) -> Grant:
        key_rejected = self.key_rejected_between[0] <= self.clock.monotonic() < self.key_rejected_between[1]
        if call.refresh is None:
            if key_rejected:
                self._fail(call, "rejected", CredentialsRejectedError(KEY_REJECTED, status=400))
            if self.settings.authenticate_invalidates:
                self._live_refresh_tokens.clear()
        else:
            earlier = self._live_refresh_tokens.pop(call.refresh, None)
            if earlier is None or (key_rejected and self.settings.suspends):
                error = CredentialsRejectedError("the refresh token was rejected", status=401)
                self._fail(call, "rejected", error)
            if self.settings.refresh_revokes:
                earlier.revoked = True
        return self._issue(call)

    def _issue(self, call: Call) -> Grant:
        self._issued += 1
        lifetime = self.settings.lifetime
        if call.fault == "odd lifetime":
            lifetime = self.rng.choice([1, 2, 7, 40, 900, 3600, 86_400, 10**9, 10**30])
        access, refresh = (f"{SECRET}-{kind}-{self._issued}" for kind in ("access", "refresh"))
        grant = Grant(
            access=access,
            refresh=None if call.fault == "no refresh token" else refresh,
            lifetime=lifetime,
            issued_at=self.clock.monotonic(),
        )
        self._grants[access] = grant
        if grant.refresh is not None:
            self._refresh_tokens[grant.refresh] = self._live_refresh_tokens[grant.refresh] = grant
        return grant


@frozen
class Endpoints:
    """The endpoints as one worker calls them."""

    service: FaultyService = field(repr=False)
    worker: str
    process: str

    async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
        """Answer `POST /auth/api-key`."""
        assert isinstance(payload, AuthenticatePayload)
        return await self.service.call(self.worker, self.process, None)

    async def refresh(self, payload: RefreshTokenPayload) -> AccessToken:
        """Answer `POST /auth/refresh`."""
        return await self.service.call(self.worker, self.process, str(payload.refresh_token))
