"""One renewal: one claim, one call, and one commit or fail. There is no loop in it."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Literal, TypeAlias

from attrs import field, frozen

from apivideo_auth._api import TokenEndpoints
from apivideo_auth._clock import Clock
from apivideo_auth._errors import failure_from
from apivideo_auth._failure import Failure
from apivideo_auth._models import AccessToken, AuthenticatePayload, RefreshTokenPayload
from apivideo_auth._policy import LEASE_MARGIN, RefreshPolicy, backoff_after, believed_lifetime, moments
from apivideo_auth._record import (
    Backoff,
    Busy,
    Changed,
    Claim,
    ClaimLost,
    Commit,
    Granted,
    Release,
    SharedToken,
    Throttled,
)
from apivideo_auth._secrets import Secret, SecretBytes
from apivideo_auth.stores._base import Slot

Path: TypeAlias = Literal["/auth/api-key", "/auth/refresh"]


@frozen(kw_only=True)
class Account:
    """What stays the same from one renewal of an account to the next.

    `draw` returns a random number in [0, 1). `patience` is how long one call may take, in seconds.
    """

    slot: Slot
    api: TokenEndpoints
    patience: float
    credentials: AuthenticatePayload
    policy: RefreshPolicy
    clock: Clock
    draw: Callable[[], float]


@frozen(kw_only=True)
class RenewalRequest:
    """What the worker has, and what it does not want.

    - `seen`: the version of the record that it knows; `remaining`: seconds of life of its own token, if it has one.
    - `rejected`: an access token that the API refused; `because_rejected`: that is why it wants another; `skip_throttle`: a
      renewal for that reason was granted before, so that its throttle is not asked for again.
    """

    seen: str | None = None
    remaining: float | None = None
    rejected: str | None = field(default=None, repr=False)
    because_rejected: bool = False
    skip_throttle: bool = False

    def should_adopt(self, token: SharedToken) -> bool:
        """Say whether the record's token is better than what the worker has."""
        if self.is_rejected(token):
            return False
        return self.remaining is None or token.remaining > self.remaining

    def is_rejected(self, token: SharedToken) -> bool:
        """Say whether the record's token is the one that the API refused."""
        return self.rejected is not None and token.access == self.rejected.encode()

    def is_newer_than(self, granted: Granted) -> bool:
        """Say whether the worker knows a newer token than the record, whose refresh token is then an old one."""
        return self.remaining is not None and granted.version != self.seen and granted.remaining < self.remaining


@frozen(kw_only=True)
class Renewed:
    """A call brought a token. `version` is the record's if the commit counted, and otherwise no record's."""

    access: str = field(repr=False)
    lifetime: float
    lifetime_assumed: bool
    sent_at: float
    seconds: float
    path: Path
    version: str


@frozen(kw_only=True)
class Adopted:
    """The record had a better token. Its life counts from `asked_at`, when the store was asked."""

    token: SharedToken
    asked_at: float


@frozen(kw_only=True)
class RefreshRejected:
    """The refresh token was refused; the next renewal uses the API key, at once and with the permission of this one."""

    failure: Failure


@frozen(kw_only=True)
class ClaimLapsed:
    """The claim was granted and ran out; the worker claims again, with the permission that it had."""


@frozen(kw_only=True)
class Failed:
    """A call brought no token; `cooling` is the pause that follows."""

    cooling: Backoff
    path: Path


Outcome: TypeAlias = Renewed | Adopted | RefreshRejected | ClaimLapsed | Failed | Busy | Backoff | Throttled


async def renew(account: Account, wish: RenewalRequest) -> Outcome:
    """Make one renewal and return what came of it. Raises what the slot raises, and `CancelledError`."""
    claim_id = uuid.uuid4().hex
    claimed_at = account.clock.monotonic()
    answer = await account.slot.claim(_claim(claim_id, wish.seen, account, rejected=wish.because_rejected))
    if isinstance(answer, Changed):
        if wish.should_adopt(answer.token):
            return Adopted(token=answer.token, asked_at=claimed_at)
        claimed_at = account.clock.monotonic()
        refused = wish.because_rejected or (wish.is_rejected(answer.token) and not wish.skip_throttle)
        answer = await account.slot.claim(_claim(claim_id, answer.token.version, account, rejected=refused))
    if isinstance(answer, Changed):
        return (
            Adopted(token=answer.token, asked_at=claimed_at)
            if wish.should_adopt(answer.token)
            else Busy(retry_after=0.0)
        )
    if not isinstance(answer, Granted):
        return answer
    try:
        return await _use(account, wish, claim_id, claimed_at, answer)
    except asyncio.CancelledError:
        # The call's fate is unknown, so its refresh token is not given back; others need not wait out the lease.
        await account.slot.release(Release(id=claim_id))
        raise


def _claim(claim_id: str, seen: str | None, account: Account, *, rejected: bool) -> Claim:
    return Claim(id=claim_id, seen=seen, lease=account.policy.lease, rejected=rejected)


async def _use(account: Account, wish: RenewalRequest, claim_id: str, claimed_at: float, granted: Granted) -> Outcome:
    """Make the one call that the claim covers, and end the claim."""
    refresh = None if wish.is_newer_than(granted) else granted.refresh
    path: Path = "/auth/api-key" if refresh is None else "/auth/refresh"
    sent_at = account.clock.monotonic()
    if sent_at - claimed_at >= LEASE_MARGIN:
        # Too little of the lease is left for a whole call: somebody else may be renewing before it ends.
        await account.slot.release(Release(id=claim_id, refresh=refresh))
        return ClaimLapsed()
    answer = await _call(account, refresh)
    arrived_at = account.clock.monotonic()
    if isinstance(answer, Failure):
        return await _fail(account, wish, claim_id, claimed_at, path, granted, answer, _usable_again(answer, refresh))
    lifetime = believed_lifetime(answer.expires_in)
    remaining = lifetime - (arrived_at - sent_at)
    new_refresh = None if answer.refresh_token is None else SecretBytes(answer.refresh_token.encode())
    if arrived_at >= moments(account.policy, begins_at=sent_at, lifetime=lifetime, draw=1.0).expired_from:
        late = Failure(
            kind="invalid",
            message=f"{path} answered a token of {lifetime:g} seconds that was over, or nearly, when it arrived",
        )
        return await _fail(account, wish, claim_id, claimed_at, path, granted, late, new_refresh)
    ended = await account.slot.commit(
        Commit(
            id=claim_id,
            access=SecretBytes(answer.access_token.encode()),
            refresh=new_refresh,
            lifetime=lifetime,
            remaining=remaining,
        )
    )
    if isinstance(ended, ClaimLost) and ended.token is not None and wish.should_adopt(ended.token):
        return Adopted(token=ended.token, asked_at=arrived_at)
    return Renewed(
        access=answer.access_token,
        lifetime=lifetime,
        lifetime_assumed=answer.lifetime_assumed,
        sent_at=sent_at,
        seconds=arrived_at - sent_at,
        path=path,
        # Of a dropped commit too: what the record holds is then known to be another token than this.
        version=claim_id,
    )


def is_cancelled() -> bool:
    """Say whether somebody has cancelled the running task, and not a stand-in raised `CancelledError` of its own."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _call(account: Account, refresh: bytes | None) -> AccessToken | Failure:
    """Make the call. Whatever a stand-in raises or answers, this returns a value."""
    try:
        async with asyncio.timeout(account.patience):
            if refresh is None:
                answer: object = await account.api.authenticate(account.credentials)
            else:
                answer = await account.api.refresh(RefreshTokenPayload(refresh.decode()))
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        # Nobody cancelled this task: the error is the stand-in's own.
        return failure_from(error)
    except Exception as error:  # noqa: BLE001  as above
        return failure_from(error, account.credentials.api_key, "" if refresh is None else Secret(refresh.decode()))
    if isinstance(answer, AccessToken):
        return answer
    return Failure(kind="invalid", message=f"the api answered a {type(answer).__name__}, not an AccessToken")


def _usable_again(failure: Failure, refresh: bytes | None) -> bytes | None:
    """Return the refresh token if this failure proves that it was not used."""
    return refresh if not failure.sent or failure.kind == "rate_limited" else None


async def _fail(  # noqa: PLR0913, PLR0917  what the holder of a claim knows
    account: Account,
    wish: RenewalRequest,
    claim_id: str,
    claimed_at: float,
    path: Path,
    granted: Granted,
    failure: Failure,
    refresh: bytes | None,
) -> Outcome:
    """End the claim without a token, and say what follows."""
    if path == "/auth/refresh" and failure.kind == "credentials":
        await account.slot.release(Release(id=claim_id))
        return RefreshRejected(failure=failure)
    failures = granted.failures + 1
    pause = backoff_after(failure, failures=failures, draw=account.draw())
    failed_at = account.clock.monotonic()
    ended = await account.slot.release(Release(id=claim_id, backoff=pause, failure=failure, refresh=refresh))
    if isinstance(ended, ClaimLost):
        # Somebody else has claimed since: the pause is not the account's, and there may be a token.
        if ended.token is not None and wish.should_adopt(ended.token):
            return Adopted(token=ended.token, asked_at=failed_at)
        return ClaimLapsed()
    failing_for = granted.failing_for + (failed_at - claimed_at) if granted.failures else 0.0
    cooling = Backoff(retry_after=pause, failure=failure, failures=failures, failing_for=failing_for)
    return Failed(cooling=cooling, path=path)
