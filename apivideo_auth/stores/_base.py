"""The protocols of a token store, and what the stores have in common."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from typing import Final, Protocol, runtime_checkable

from apivideo_auth._clock import Clock
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Release, SharedToken

POLL_GROWTH: Final = 1.5


class Slot(Protocol):
    """The record of one account in a store, as one worker sees it.

    Every method may raise `TokenStoreError`, and must not wait for anything but the store itself. Operations
    are idempotent: repeating an event changes nothing.
    """

    async def read(self) -> SharedToken | None:
        """Return the record's token; `None` if there is none, or it has ended."""
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

    async def changed(self, timeout: float) -> None:
        """Return after a commit or release of any worker, or after `timeout` seconds; early if in doubt."""
        ...

    async def forget(self) -> None:
        """Delete the record."""
        ...

    async def close(self) -> None:
        """Close the slot. The last slot to close closes what the store opened itself."""
        ...


@runtime_checkable
class TokenStore(Protocol):
    """Keeps records. One store may serve several managers and accounts; it keeps accounts apart.

    An operation that takes longer than half a second counts as a failure. A store may have two more attributes:

    - `operation_timeout`: the seconds that an operation may take, if half a second is not enough. It is read when a
      manager opens the store.
    - `max_concurrent`: the number of operations that it gets at a time, by default 8. A store that works on a few at a
      time, and lets the others wait, needs it.
    """

    needs_encryption: bool
    """Whether other processes can read what is stored. If so, the store gets encrypted tokens only."""

    def open(
        self, account: str, *, clock: Clock, on_commit: Callable[[], None], on_damage: Callable[[str], None]
    ) -> Slot:
        """Return the slot of an account, in the event loop that will use it; does no I/O.

        - `account` is an opaque name. `clock` is for stores that have no clock of their own.
        - `on_commit` is called after another worker's commit. A store that cannot push need not call it.
        - `on_damage` is called with a message if the record cannot be read. The record then counts as empty, and the
          next claim replaces it.

        Both are called in that event loop.
        """
        ...


class Waiters:
    """The calls of `changed` that wait on one slot."""

    def __init__(self) -> None:
        self.wakes = 0
        # Set once by `wake`, which replaces it with a new one.
        self._next_wake = asyncio.Event()

    def wake(self) -> None:
        """End every call of `wait` and `poll`."""
        self.wakes += 1
        self._next_wake.set()
        self._next_wake = asyncio.Event()

    async def wait(self, timeout: float, *, since: int) -> None:
        """Return after `wake`, or after `timeout` seconds; at once if `wakes` is no longer `since`."""
        if self.wakes == since:
            await _wait_for(self._next_wake, timeout)

    async def poll(
        self, timeout: float, has_changed: Callable[[], Awaitable[bool]], *, interval: float, max_interval: float
    ) -> None:
        """Like `wait`, and return too when `has_changed` is true.

        `has_changed` is called first after `interval` seconds, then after longer and longer ones up to `max_interval`.
        Each is shorter or longer by up to a quarter, at random, so that workers do not poll at the same moment.
        """
        # The same event all the time: it is set as well if `wake` comes while `has_changed` runs.
        wake = self._next_wake
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    await _wait_for(wake, interval * random.uniform(0.75, 1.25))  # noqa: S311  not a secret
                    if wake.is_set() or await has_changed():
                        return
                    interval = min(interval * POLL_GROWTH, max_interval)


async def _wait_for(event: asyncio.Event, timeout: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event.wait()


def require_packages(user: str, extra: str, *packages: str) -> None:
    """Import the optional packages that `user` needs; raise `ImportError` with the command that installs them."""
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise ImportError(
                f"{user} needs the package {package}: pip install 'apivideo-auth[{extra}]'", name=package
            ) from None
