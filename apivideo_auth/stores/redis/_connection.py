"""What the slots of a `RedisStore` share in one event loop."""

from collections.abc import Set as AbstractSet
from typing import Protocol

from apivideo_auth.stores.redis._client import Client, close
from apivideo_auth.stores.redis._subscription import Subscription


class Listener(Protocol):
    """A slot, as the subscription sees it."""

    def hear_commit(self, version: str) -> None: ...
    def hear_fail(self) -> None: ...
    def hear_again(self, *, missed: bool) -> None: ...


class Connection:
    """A client, which is closed in the end if it is `owned`, and one subscription for all slots."""

    def __init__(self, client: Client, *, owned: bool) -> None:
        self.client = client
        self._owned = owned
        self._feed = Subscription(client, self._on_message, self._on_subscribed)
        self._slots: dict[bytes, set[Listener]] = {}

    @property
    def idle(self) -> bool:
        """Whether no slot is left."""
        return not self._slots

    def join(self, key: bytes, slot: Listener) -> None:
        """Tell this slot of what happens on its channel. The first one starts the subscription."""
        if not self._slots:
            self._feed.start()
        self._slots.setdefault(key, set()).add(slot)
        self._feed.add(key)

    def leave(self, key: bytes, slot: Listener) -> None:
        """Tell this slot of nothing any more."""
        self._slots[key].discard(slot)
        if not self._slots[key]:
            del self._slots[key]
            self._feed.remove(key)

    def slots(self, key: bytes) -> AbstractSet[Listener]:
        """Return the slots of an account that are in this event loop."""
        return frozenset(self._slots.get(key, ()))

    async def close(self) -> None:
        """End the subscription, and the client's connections if they are not the user's."""
        await self._feed.stop()
        if self._owned:
            await close(self.client)

    def _on_message(self, channel: bytes, message: bytes) -> None:
        change, _, claim_id = message.partition(b" ")
        for slot in self.slots(channel):
            if change == b"commit":
                slot.hear_commit(claim_id.decode("ascii", "replace"))
            else:
                slot.hear_fail()

    def _on_subscribed(self, channel: bytes, again: bool) -> None:  # noqa: FBT001  a callback
        for slot in self.slots(channel):
            slot.hear_again(missed=again)
