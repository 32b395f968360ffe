"""What a token store is."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from apivideo_auth._clock import Clock
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken


class Slot(Protocol):
    """The record of one account in a store, as one worker sees it.

    Every method may raise `TokenStoreError`, and must not wait for anything but the store itself.
    """

    async def read(self) -> SharedToken | None:
        """Return the record's token, if it still lives."""
        ...

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask to renew."""
        ...

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token, and wake every worker."""
        ...

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        ...

    async def changed(self, wait: float) -> None:
        """Return when somebody has committed, or failed, or when `wait` seconds are over; early if in doubt."""
        ...

    async def forget(self) -> None:
        """Delete the record."""
        ...

    async def close(self) -> None:
        """Let go of the record. The last one to do so closes what the store opened itself."""
        ...


@runtime_checkable
class TokenStore(Protocol):
    """Where records are kept. One store may serve several managers and accounts; it keeps accounts apart."""

    needs_encryption: bool
    """Whether others than this process can read what is stored: then it is sealed before it gets here."""

    def open(self, account: str, *, clock: Clock, on_commit: Callable[[], None]) -> Slot:
        """Return the slot of an account; does no I/O.

        `account` is an opaque name. `clock` is for stores that have no clock of their own. `on_commit` is called, in
        the event loop that opened the slot, after another worker's commit; a store that cannot push may leave it.
        """
        ...
