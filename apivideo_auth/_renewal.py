"""One renewal: one claim, one call, and one commit or release. There is no loop in it."""

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
from apivideo_auth._policy import LEASE_MARGIN, RefreshPolicy, backoff_after, believed_lifetime, is_usable
from apivideo_auth._record import (
    NEVER,
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimLost,
    Commit,
    Granted,
    Release,
    RenewalRequest,
    SharedToken,
    Throttled,
)
from apivideo_auth._response import Endpoint
from apivideo_auth._secrets import Secret, SecretBytes
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
    """A call brought no token. It took `seconds`; `committed_at` is the last commit of the record."""

    endpoint: Endpoint
    seconds: float
    committed_at: float
    backoff: Backoff


Outcome: TypeAlias = Renewed | Adopted | RefreshRejected | ClaimLapsed | Failed | Busy | Backoff | Throttled


@frozen(kw_only=True)
class _Attempt:
    """A claim that was granted. `claimed_at` is when it was asked for."""

    request: RenewalRequest
    claim_id: str
    claimed_at: float
    granted: Granted

    @property
    def endpoint(self) -> Endpoint:
        return "/auth/api-key" if self.granted.refresh is None else "/auth/refresh"


@frozen(kw_only=True)
class Renewer:
    """Renews the tokens of one account. Its fields stay the same from one renewal to the next.

    - `is_shared`: other workers may use the record.
    - `call_timeout`: limits one call, in seconds.
    - `jitter`: returns a random number in [0, 1).
    """

    slot: Slot
    is_shared: bool
    api: TokenEndpoints
    call_timeout: float
    credentials: AuthenticatePayload
    policy: RefreshPolicy
    clock: Clock
    jitter: Callable[[], float]

    async def renew(self, request: RenewalRequest) -> Outcome:
        """Make one renewal. Raises what the slot raises, and `CancelledError`."""
        claim = Claim(id=uuid.uuid4().hex, seen=request.version, lease=self.policy.lease, throttled=request.throttled)
        asked_at = self.clock.monotonic()
        answer = await self.slot.claim(claim)
        if isinstance(answer, Changed) and not request.should_adopt(answer.token):
            # The record's token is not better than the worker's own: claim with knowledge of it.
            asked_at = self.clock.monotonic()
            answer = await self.slot.claim(evolve(claim, seen=answer.token.version))
        match answer:
            case Changed(token=token):
                return Adopted(token=token, asked_at=asked_at) if request.should_adopt(token) else Busy(retry_after=0.0)
            case Granted():
                try:
                    return await self._use(
                        _Attempt(request=request, claim_id=claim.id, claimed_at=asked_at, granted=answer)
                    )
                except BaseException:
                    # Nobody knows whether the call was made, so the refresh token is not given back.
                    await self.slot.release(Release(id=claim.id))
                    raise
            case _:
                return answer

    async def _use(self, attempt: _Attempt) -> Outcome:
        """Make the one call that the claim covers, and end the claim."""
        refresh, sent_at = attempt.granted.refresh, self.clock.monotonic()
        if sent_at - attempt.claimed_at >= LEASE_MARGIN:
            # The lease could end during the call, and another worker could renew at the same time.
            await self.slot.release(Release(id=attempt.claim_id, refresh=refresh))
            return ClaimLapsed()
        response = await self._call(refresh)
        if isinstance(response, AccessToken):
            return await self._commit(attempt, response, sent_at)
        if refresh is not None and response.kind == "credentials":
            await self.slot.release(Release(id=attempt.claim_id))
            return RefreshRejected(failure=response)
        is_unused = not response.sent or response.kind == "rate_limited"
        return await self._release(attempt, response, sent_at, refresh if is_unused else None)

    async def _commit(self, attempt: _Attempt, response: AccessToken, sent_at: float) -> Outcome:
        """End the claim with the tokens that a call brought."""
        arrived_at = self.clock.monotonic()
        lifetime = believed_lifetime(response.expires_in)
        commit = Commit(
            id=attempt.claim_id,
            access=SecretBytes(response.access_token.encode()),
            refresh=None if response.refresh_token is None else SecretBytes(response.refresh_token.encode()),
            lifetime=lifetime,
            remaining=lifetime - (arrived_at - sent_at),
        )
        too_late = Failure(
            kind="invalid",
            message=f"a token of {lifetime:g} seconds was over, or nearly, when it arrived: the endpoint is too slow",
        )
        if not is_usable(self.policy, lifetime=lifetime, remaining=commit.remaining):
            return await self._release(attempt, too_late, sent_at, commit.refresh)
        ended = await self.slot.commit(commit)
        if isinstance(ended, ClaimLost) and ended.token is not None and attempt.request.should_adopt(ended.token):
            return Adopted(token=ended.token, asked_at=arrived_at)
        committed_at = self.clock.monotonic()
        if not is_usable(self.policy, lifetime=lifetime, remaining=lifetime - (committed_at - sent_at)):
            # The claim has ended, but the worker backs off, or it would renew again at once.
            failed = self._failed(attempt, too_late, sent_at, committed_at)
            # The commit is the worker's own: it does not show that the endpoints work.
            return evolve(failed, committed_at=math.inf)
        return Renewed(
            access=response.access_token,
            lifetime=lifetime,
            lifetime_assumed=response.lifetime_assumed,
            sent_at=sent_at,
            seconds=arrived_at - sent_at,
            endpoint=attempt.endpoint,
            version=attempt.claim_id,
        )

    async def _release(self, attempt: _Attempt, failure: Failure, sent_at: float, refresh: bytes | None) -> Outcome:
        """End the claim without a token. `refresh` is given back."""
        failed_at = self.clock.monotonic()
        failed = self._failed(attempt, failure, sent_at, failed_at)
        # A misuse concerns this program alone, so that other workers need not back off.
        shared = None if failure.kind == "misuse" else failure
        ended = await self.slot.release(
            Release(id=attempt.claim_id, backoff=failed.backoff.retry_after, failure=shared, refresh=refresh)
        )
        if isinstance(ended, ClaimLost) and ended.token is not None and attempt.request.should_adopt(ended.token):
            return Adopted(token=ended.token, asked_at=failed_at)
        return failed

    def _failed(self, attempt: _Attempt, failure: Failure, sent_at: float, failed_at: float) -> Failed:
        granted, request = attempt.granted, attempt.request
        failures = granted.failures
        failing_since = attempt.claimed_at - granted.failing_for if failures else failed_at
        if request.knows_failures(granted) and request.failing_since is not None:
            # The record may have been lost meanwhile; the worker remembers.
            failures = max(failures, request.failures)
            failing_since = min(failing_since, request.failing_since)
        return Failed(
            endpoint=attempt.endpoint,
            seconds=failed_at - sent_at,
            committed_at=NEVER if granted.committed_at is None else granted.committed_at,
            backoff=Backoff(
                retry_after=backoff_after(failure, failures=failures + 1, jitter=self.jitter()),
                failure=failure,
                failures=failures + 1,
                failing_for=failed_at - failing_since,
            ),
        )

    async def _call(self, refresh: bytes | None) -> AccessToken | Failure:
        """Make the call. Whatever a stand-in for the api raises or returns, the result is a value."""
        try:
            async with asyncio.timeout(self.call_timeout):
                if refresh is None:
                    response: object = await self.api.authenticate(self.credentials)
                else:
                    response = await self.api.refresh(RefreshTokenPayload(refresh.decode()))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling() > 0:
                raise
            # Nobody cancelled this task, so the stand-in raised the error itself.
            return failure_from(error)
        except Exception as error:  # noqa: BLE001  see the docstring
            return failure_from(error, self.credentials.api_key, "" if refresh is None else Secret(refresh.decode()))
        if isinstance(response, AccessToken):
            return response
        return Failure(kind="invalid", message=f"the api returned a {type(response).__name__}, not an AccessToken")
