"""A slot that cannot fail, for each manager.

The managers of one process and event loop that use one account of one store are one worker: they share a
`FailoverAccount`, so that the store sees one claim of them at a time, and one look at the record serves all.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

from apivideo_auth import events
from apivideo_auth._clock import Clock
from apivideo_auth._record import Claim, ClaimAnswer, Commit, EndAnswer, Granted, Release, SharedToken
from apivideo_auth._tasks import finish, run_to_end, start
from apivideo_auth.stores._account import OPERATION_TIMEOUT, FailoverAccount
from apivideo_auth.stores._base import TokenStore
from apivideo_auth.stores._breaker import Limiter
from apivideo_auth.stores._encrypted import account_name, open_slot


class FailoverSlot:
    """One manager's view of a `FailoverAccount`. No method raises.

    `emit` takes `StoreDegraded` and `StoreRecovered`. `on_commit` takes a token that another manager or worker has
    committed, and the moment when the store was asked for it.
    """

    def __init__(
        self,
        account: FailoverAccount,
        *,
        emit: Callable[[events.Event], None],
        on_commit: Callable[[SharedToken, float], None],
        kept: set[FailoverAccount],
    ) -> None:
        self.emit = emit
        self.on_commit = on_commit
        self.account = account
        # Where the last claim was granted: a claim of the private record does not exist in the store.
        self.holds_shared_claim = False
        # So that `changed` does not miss a change between the last answer and its own call.
        self.wakes_seen = 0
        self._kept = kept
        account.slots.append(self)

    async def read(self) -> SharedToken | None:
        """Return the token of the account; `None` while the store is down."""
        return await run_to_end(self.account.read(self))

    async def claim(self, event: Claim) -> ClaimAnswer:
        """Ask for the right to renew: in the store, or while it is down in the private record."""
        task = start(self.account.claim(event, self), name="apivideo-auth-claim")
        try:
            await finish(task)
        except asyncio.CancelledError:
            answer = task.result()
            if isinstance(answer, Granted):
                # Nobody will use the refresh token, and no other worker needs to wait for the lease.
                await self.release(Release(id=event.id, refresh=answer.refresh))
            raise
        return task.result()

    async def commit(self, event: Commit) -> EndAnswer:
        """End a claim with a token."""
        return await run_to_end(self.account.commit(event, self))

    async def release(self, event: Release) -> EndAnswer:
        """End a claim without a token."""
        return await run_to_end(self.account.end(event, self))

    async def changed(self, timeout: float) -> None:
        """Return after a commit or release, or after `timeout` seconds; early if in doubt."""
        await self.account.changed(timeout, self)

    async def forget(self) -> None:
        """Delete the record."""
        await run_to_end(self.account.forget())

    async def close(self) -> None:
        """Leave the account; the last one to leave closes the store's slot, even if the store is down."""
        if self in self.account.slots:
            self.account.slots.remove(self)
            if not self.account.slots:
                await run_to_end(self.account.close())
                if not self.account.slots:
                    self.account.open_slot = None
                    if self.account.remembers:
                        with _accounts_lock:
                            self._kept.add(self.account)


MAX_CONCURRENT: Final = 8
"""Operations that a store gets at a time, unless it has a `max_concurrent` of its own."""

_Accounts: TypeAlias = "WeakValueDictionary[tuple[str, int, int], FailoverAccount]"
# The accounts that the managers of this process share, by store. Event loops may run in several threads.
_accounts_of: "WeakKeyDictionary[TokenStore, _Accounts]" = WeakKeyDictionary()
# Accounts that no manager uses, and that remember what the next one has to know. They hold no store.
_kept_of: "WeakKeyDictionary[TokenStore, set[FailoverAccount]]" = WeakKeyDictionary()
# Guards both, and the sets in them.
_accounts_lock: Final = Lock()


def open_failover_slot(  # noqa: PLR0913  they belong together, and are keywords
    store: TokenStore,
    *,
    base_url: str,
    api_key: str,
    clock: Clock,
    emit: Callable[[events.Event], None],
    on_commit: Callable[[SharedToken, float], None],
    previous: FailoverSlot | None,
) -> FailoverSlot:
    """Return a manager's view of an account, which the managers of the running event loop share.

    `previous` is the manager's slot in an event loop that was closed.
    """
    loop = asyncio.get_running_loop()
    key = (account_name(base_url, api_key), id(clock), id(loop))
    with _accounts_lock:
        try:
            accounts: _Accounts = _accounts_of.setdefault(store, WeakValueDictionary())
            kept: set[FailoverAccount] = _kept_of.setdefault(store, set())
        except TypeError:
            # A store without a hash or weak references: its managers do not share.
            accounts, kept = WeakValueDictionary(), set()
        account = accounts.get(key)
        if account is None:
            limiter = next((other.limiter for other in accounts.values() if other.loop is loop), None)
            account = accounts[key] = FailoverAccount(
                clock=clock,
                limiter=limiter or Limiter(getattr(store, "max_concurrent", MAX_CONCURRENT)),
                operation_timeout=getattr(store, "operation_timeout", OPERATION_TIMEOUT),
            )
        account.open_slot = partial(open_slot, store, base_url=base_url, api_key=api_key, clock=clock)
        kept.difference_update([other for other in kept if other is account or other.loop.is_closed()])
        if previous is not None:
            account.private.merge(previous.account.private)
            previous.account.private = account.private
            previous.account.slots.clear()
        return FailoverSlot(account, emit=emit, on_commit=on_commit, kept=kept)
