"""One renewal: one claim, one call, and one commit or release."""

import asyncio
import math
import uuid
from collections.abc import Callable
from typing import TypeAlias

from attrs import evolve, field, frozen

from apivideo_auth._api import TokenEndpoints
from apivideo_auth._clock import Clock
from apivideo_auth._errors import failure_from
from apivideo_auth._failure import Failure
from apivideo_auth._models import AccessToken, AuthenticatePayload, RefreshTokenPayload
from apivideo_auth._policy import LEASE_MARGIN, backoff_after, believed_lifetime, is_usable
from apivideo_auth._record import (
    NEVER,
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimLost,
    Commit,
    EndAnswer,
    Granted,
    Release,
    RenewalRequest,
    SharedToken,
    Throttled,
)
from apivideo_auth._response import Endpoint
from apivideo_auth._secrets import Secret, SecretBytes
from apivideo_auth._tasks import is_interruption
from apivideo_auth.stores._base import Slot


@frozen(kw_only=True)
class Renewed:
    """A call brought a token. `version` names the commit; a commit that did not count has a version of its own."""

    access: str = field(repr=False)
    lifetime: float
    lifetime_assumed: bool
    sent_at: float
    seconds: float
    endpoint: Endpoint
    version: str


@frozen(kw_only=True)
class Adopted:
    """The record had a better token. Its remaining life counts from `asked_at`."""

    token: SharedToken
    asked_at: float


@frozen(kw_only=True)
class RefreshRejected:
    """The endpoint rejected the refresh token. The next renewal uses the API key, without backoff or throttle."""

    failure: Failure


@frozen(kw_only=True)
class ClaimLapsed:
    """Too little was left of the lease for a call. The next renewal needs no second permission of the throttle."""


@frozen(kw_only=True)
class Failed:
    """A call brought no token. It took `seconds`; `last_commit_at` is the last commit of the record."""

    endpoint: Endpoint
    seconds: float
    last_commit_at: float
    backoff: Backoff


Outcome: TypeAlias = Renewed | Adopted | RefreshRejected | ClaimLapsed | Failed | Busy | Backoff | Throttled


@frozen(kw_only=True)
class _HeldClaim:
    """A claim that was granted. `asked_at` is when it was asked for."""

    request: RenewalRequest
    claim_id: str
    asked_at: float
    granted: Granted

    @property
    def endpoint(self) -> Endpoint:
        return "/auth/api-key" if self.granted.refresh is None else "/auth/refresh"


@frozen(kw_only=True)
class Renewer:
    """Renews the tokens of one account. Its fields stay the same from one renewal to the next.

    - `call_timeout`: limits one call, in seconds.
    - `jitter`: returns a random number in [0, 1).
    """

    slot: Slot
    api: TokenEndpoints
    call_timeout: float
    credentials: AuthenticatePayload
    clock: Clock
    jitter: Callable[[], float]

    async def renew(self, request: RenewalRequest) -> Outcome:
        """Make one renewal. Raises what the slot raises, and `CancelledError`."""
        claim = Claim(
            id=uuid.uuid4().hex,
            seen=request.version,
            lease=request.policy.lease,
            may_be_throttled=request.may_be_throttled,
        )
        asked_at = self.clock.monotonic()
        answer = await self.slot.claim(claim)
        if isinstance(answer, Changed) and not request.should_adopt(answer.token):
            # The record's token is not better than the worker's own: claim with knowledge of it.
            asked_at = self.clock.monotonic()
            answer = await self.slot.claim(evolve(claim, seen=answer.token.version))
        match answer:
            case Changed(token=token) if request.should_adopt(token):
                return Adopted(token=token, asked_at=asked_at)
            case Changed():
                # The record changed again meanwhile: claim once more.
                return Busy(retry_after=0.0)
            case Granted():
                try:
                    return await self._call_and_end(
                        _HeldClaim(request=request, claim_id=claim.id, asked_at=asked_at, granted=answer)
                    )
                except GeneratorExit:
                    # The event loop is gone.
                    raise
                except BaseException:
                    # Nobody knows whether the call was made, so the refresh token is not given back.
                    await self.slot.release(Release(id=claim.id))
                    raise
            case _:
                return answer

    async def _call_and_end(self, held: _HeldClaim) -> Outcome:
        """Make the one call that the claim covers, and end the claim."""
        refresh = held.granted.refresh
        sent_at = self.clock.monotonic()
        if sent_at - held.asked_at >= LEASE_MARGIN:
            # The lease could end during the call, and another worker could renew at the same time.
            await self.slot.release(Release(id=held.claim_id, refresh=refresh))
            return ClaimLapsed()
        result = await self._call(refresh)
        if isinstance(result, AccessToken):
            return await self._commit(held, result, sent_at)
        if refresh is not None and result.kind == "credentials":
            await self.slot.release(Release(id=held.claim_id))
            return RefreshRejected(failure=result)
        is_unused = not result.sent or result.kind == "rate_limited"
        return await self._release(held, result, sent_at, refresh if is_unused else None)

    async def _commit(self, held: _HeldClaim, token: AccessToken, sent_at: float) -> Outcome:
        """End the claim with the tokens that a call brought."""
        arrived_at = self.clock.monotonic()
        lifetime = believed_lifetime(token.expires_in)
        commit = Commit(
            id=held.claim_id,
            access=SecretBytes(token.access_token.encode()),
            refresh=None if token.refresh_token is None else SecretBytes(token.refresh_token.encode()),
            lifetime=lifetime,
            remaining=lifetime - (arrived_at - sent_at),
        )
        policy = held.request.policy
        if not is_usable(policy, lifetime=lifetime, remaining=commit.remaining):
            return await self._release(held, _too_late(lifetime), sent_at, commit.refresh)
        ended = await self.slot.commit(commit)
        own = evolve(held.request, access=token.access_token, remaining=commit.remaining, rejected=False)
        if (adopted := _adopted(own, ended, arrived_at)) is not None:
            return adopted
        committed_at = self.clock.monotonic()
        if not is_usable(policy, lifetime=lifetime, remaining=lifetime - (committed_at - sent_at)):
            # The claim has ended, but the worker backs off, or it would renew again at once.
            failed = self._failed(held, _too_late(lifetime), sent_at, committed_at)
            # The commit is the worker's own: it does not show that the endpoints work.
            return evolve(failed, last_commit_at=math.inf)
        return Renewed(
            access=token.access_token,
            lifetime=lifetime,
            lifetime_assumed=token.lifetime_assumed,
            sent_at=sent_at,
            seconds=arrived_at - sent_at,
            endpoint=held.endpoint,
            version=held.claim_id,
        )

    async def _release(self, held: _HeldClaim, failure: Failure, sent_at: float, refresh: bytes | None) -> Outcome:
        """End the claim without a token. `refresh` is given back."""
        failed_at = self.clock.monotonic()
        failed = self._failed(held, failure, sent_at, failed_at)
        # A misuse concerns this program alone, so that other workers need not back off.
        shared = None if failure.kind == "misuse" else failure
        ended = await self.slot.release(
            Release(id=held.claim_id, retry_after=failed.backoff.retry_after, failure=shared, refresh=refresh)
        )
        request = held.request
        if request.remaining is not None:
            request = evolve(request, remaining=request.remaining - (failed_at - held.asked_at))
        return _adopted(request, ended, failed_at) or failed

    def _failed(self, held: _HeldClaim, failure: Failure, sent_at: float, failed_at: float) -> Failed:
        granted, request = held.granted, held.request
        failures = granted.failures
        failing_since = held.asked_at - granted.failing_for if failures else failed_at
        if request.own_failures_count(granted) and request.failing_since is not None:
            # The record may have been lost meanwhile; the worker remembers.
            failures = max(failures, request.failures)
            failing_since = min(failing_since, request.failing_since)
        return Failed(
            endpoint=held.endpoint,
            seconds=failed_at - sent_at,
            last_commit_at=NEVER if granted.committed_at is None else granted.committed_at,
            backoff=Backoff(
                retry_after=backoff_after(failure, failures=failures + 1, jitter=self.jitter()),
                failure=failure,
                failures=failures + 1,
                failing_for=failed_at - failing_since,
            ),
        )

    async def _call(self, refresh: bytes | None) -> AccessToken | Failure:
        """Make the call. Whatever a stand-in for the api raises or returns, the result is a value."""
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(self.call_timeout):
                if refresh is None:
                    response: object = await self.api.authenticate(self.credentials)
                else:
                    response = await self.api.refresh(RefreshTokenPayload(refresh.decode()))
        except BaseException as error:
            if is_interruption(error, task):
                raise
            return failure_from(error, self.credentials.api_key, "" if refresh is None else Secret(refresh.decode()))
        if isinstance(response, AccessToken):
            return response
        return Failure(kind="invalid", message=f"the api returned a {type(response).__name__}, not an AccessToken")


def _adopted(request: RenewalRequest, ended: EndAnswer, asked_at: float) -> Adopted | None:
    """Return the token of the worker that took over the claim, if it is better than the token of `request`."""
    if isinstance(ended, ClaimLost) and ended.token is not None and request.should_adopt(ended.token):
        return Adopted(token=ended.token, asked_at=asked_at)
    return None


def _too_late(lifetime: float) -> Failure:
    return Failure(
        kind="invalid",
        message=f"a token with a lifetime of {lifetime:g} seconds had nearly or fully expired when it arrived: "
        "the endpoint is too slow",
    )
