"""The record that a worker uses while its store is down, and its memory of commits and sent tokens; no I/O."""

from collections import deque
from typing import Final

from attrs import define, evolve, field

from apivideo_auth import _record
from apivideo_auth._policy import MAX_LEASE
from apivideo_auth._record import (
    EMPTY,
    NEVER,
    Backoff,
    Changed,
    Claim,
    ClaimAnswer,
    ClaimLost,
    Commit,
    Done,
    EndAnswer,
    Event,
    Granted,
    Record,
    Release,
    SharedToken,
)
from apivideo_auth._secrets import SecretBytes, fingerprint

MAX_REMEMBERED: Final = 16
"""Refresh tokens that a worker remembers to have sent."""


@define
class PrivateRecord:
    """The knowledge that a worker keeps even if the store is down or loses the record.

    - `record`: serves while the store is down. Its moments are on the worker's monotonic clock, `now`.
    - `unconfirmed`: an event that the store may not have executed. It is sent again before any other.
    """

    record: Record = field(default=EMPTY, repr=False)
    unconfirmed: Event | None = field(default=None, repr=False)
    # Fingerprints of the refresh tokens that were sent, and the newest commit that was seen, on the store's clock.
    _sent: deque[str] = field(factory=lambda: deque[str](maxlen=MAX_REMEMBERED), repr=False, init=False)
    _newest: float = field(default=NEVER, init=False)

    def clear(self) -> None:
        """Forget the private record: the store has a better one."""
        self.record = EMPTY

    def token(self, now: float) -> SharedToken | None:
        """Return the private token, if it is still alive and no renewal is under way."""
        return None if self.record.claim_id is not None else _record.shared_token(self.record, now)

    def claim(self, event: Claim, now: float) -> ClaimAnswer:
        """Claim in the private record."""
        self.record, answer = _record.claim(self.record, event, now)
        # A commit of the private record says nothing about those of the store.
        return evolve(answer, committed_at=None) if isinstance(answer, Granted | Backoff) else answer

    def end(self, event: Commit | Release, now: float) -> EndAnswer:
        """End a claim of the private record."""
        if isinstance(event, Commit):
            self.record, answer = _record.commit(self.record, event, now)
        else:
            self.record, answer = _record.release(self.record, event, now)
        return answer

    def take_over(self, claim_id: str, now: float) -> None:
        """Put the store's claim into the private record, so that the renewal can end there."""
        self.record = evolve(self.record, claim_id=claim_id, claimed_at=now, claim_until=now + MAX_LEASE)

    def take_refresh(self) -> SecretBytes | None:
        """Return the private refresh token, and forget it: from now on it belongs to all workers."""
        refresh = self.record.refresh
        self.record = evolve(self.record, refresh=None)
        return None if refresh is None else SecretBytes(refresh)

    def note_answer(self, answer: ClaimAnswer | EndAnswer) -> None:
        """Remember the commit that an answer of the store shows."""
        if isinstance(answer, Done) and answer.committed_at is not None:
            # This worker's own commit is the newest, also if the store's clock was set back.
            self._newest = answer.committed_at
        if isinstance(answer, Changed | ClaimLost) and answer.token is not None:
            self.note_commit(answer.token.committed_at)

    def note_commit(self, committed_at: float | None) -> None:
        """Remember a commit of the store, this worker's own or another's."""
        if committed_at is not None:
            self._newest = max(self._newest, committed_at)

    def merge(self, other: "PrivateRecord") -> None:
        """Add what another private record of the same account holds. Its token counts if there is none here."""
        if self.record == EMPTY:
            self.record = other.record
        if self.unconfirmed is None:
            self.unconfirmed = other.unconfirmed
        self._newest = max(self._newest, other._newest)  # noqa: SLF001  the same class
        self._sent.extend([sent for sent in other._sent if sent not in self._sent])  # noqa: SLF001  as above

    def use_refresh(self, granted: Granted) -> Granted:
        """Remember that the refresh token is sent; take it away if it was sent before, or is known to be an old one.

        A store may restore an old record, and a refresh token may be sent only once.
        """
        is_old = granted.committed_at is not None and granted.committed_at < self._newest
        self.note_commit(granted.committed_at)
        if granted.refresh is None:
            return granted
        sent = _fingerprint(granted.refresh)
        if is_old or sent in self._sent:
            return evolve(granted, refresh=None)
        self._sent.append(sent)
        return granted

    def give_back(self, refresh: bytes | None) -> None:
        """Remember that the refresh token was not used."""
        if refresh is not None and (sent := _fingerprint(refresh)) in self._sent:
            self._sent.remove(sent)


def _fingerprint(refresh: bytes) -> str:
    return fingerprint(refresh.decode(errors="replace"))
