"""A slot whose store sees sealed parts only."""

from attrs import evolve

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import (
    Changed,
    Claim,
    ClaimAnswer,
    ClaimLost,
    Commit,
    EndAnswer,
    Granted,
    Release,
    SharedToken,
)
from apivideo_auth._seal import Sealer
from apivideo_auth.stores._base import Slot


class SealedSlot:
    """Seals what goes into a slot, and opens what comes out of it.

    A part that does not open was altered, or written by somebody without the API key. It is reported once, as
    `TokenStoreError`, and is as good as absent from then on, so that the account heals: a claim past an access token
    that does not open is granted, a refresh token that does not open leaves the record with the claim that it came
    with, and the next commit replaces both.
    """

    def __init__(self, slot: Slot, sealer: Sealer) -> None:
        self._slot = slot
        self._sealer = sealer
        self._reported: SharedToken | None = None

    def __repr__(self) -> str:
        return f"<SealedSlot {self._slot!r}>"

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        sealed = await self._slot.read()
        return None if sealed is None or self._was_reported(sealed) else self._opened(sealed)

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew."""
        answer = await self._slot.claim(event)
        if isinstance(answer, Changed) and self._was_reported(answer.token):
            answer = await self._slot.claim(evolve(event, seen=answer.token.version))
        if isinstance(answer, Changed):
            return Changed(token=self._opened(answer.token))
        if isinstance(answer, Granted) and answer.refresh is not None:
            return await self._granted(event, answer, answer.refresh)
        return answer

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        refresh = None if event.refresh is None else self._sealer.seal("refresh", event.refresh)
        return self._ended(
            await self._slot.commit(evolve(event, access=self._sealer.seal("access", event.access), refresh=refresh))
        )

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        refresh = None if event.refresh is None else self._sealer.seal("refresh", event.refresh)
        return self._ended(await self._slot.release(evolve(event, refresh=refresh)))

    async def changed(self, wait: float) -> None:
        """Return when somebody has committed, or failed, or when `wait` seconds are over."""
        await self._slot.changed(wait)

    async def forget(self) -> None:
        """Delete the record."""
        await self._slot.forget()

    async def close(self) -> None:
        """Let go of the record."""
        await self._slot.close()

    async def _granted(self, event: Claim, answer: Granted, sealed: bytes) -> Granted:
        """Open the refresh token of a claim; end the claim without it where it does not open."""
        try:
            return evolve(answer, refresh=self._sealer.open("refresh", sealed))
        except TokenStoreError:
            await self._slot.release(Release(id=event.id))
            raise

    def _ended(self, answer: EndAnswer) -> EndAnswer:
        """Open the token that is there instead. To the holder of a lost claim, one that does not open is none."""
        if isinstance(answer, ClaimLost) and answer.token is not None:
            try:
                access = self._sealer.open("access", answer.token.access)
            except TokenStoreError:
                return ClaimLost(token=None)
            return ClaimLost(token=evolve(answer.token, access=access))
        return answer

    def _opened(self, token: SharedToken) -> SharedToken:
        try:
            return evolve(token, access=self._sealer.open("access", token.access))
        except TokenStoreError:
            self._reported = token
            raise

    def _was_reported(self, token: SharedToken) -> bool:
        """Say whether this is the token that has been reported as one that does not open."""
        reported = self._reported
        return reported is not None and (reported.version, reported.access) == (token.version, token.access)
