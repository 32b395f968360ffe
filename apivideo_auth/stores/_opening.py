"""Opening an account's slot in a store, sealed if others than this process can read there."""

from collections.abc import Callable

from apivideo_auth._clock import Clock
from apivideo_auth._secrets import fingerprint
from apivideo_auth.stores._base import Slot, TokenStore


def account_name(base_url: str, api_key: str) -> str:
    """Return the opaque name of an account: it tells neither the place nor the key."""
    return fingerprint(base_url, api_key)


def open_slot(store: TokenStore, *, base_url: str, api_key: str, clock: Clock, on_commit: Callable[[], None]) -> Slot:
    """Return the slot of an account."""
    account = account_name(base_url, api_key)
    if not store.needs_encryption:
        return store.open(account, clock=clock, on_commit=on_commit)
    from apivideo_auth._seal import Sealer  # noqa: PLC0415  its cryptography is optional
    from apivideo_auth.stores._sealed import SealedSlot  # noqa: PLC0415  as above

    sealer = Sealer(api_key, account)
    return SealedSlot(store.open(account, clock=clock, on_commit=on_commit), sealer)
