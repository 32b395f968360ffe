"""A store in Redis (or Valkey), for workers on any number of hosts."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from apivideo_auth._clock import Clock
from apivideo_auth._secrets import Secret
from apivideo_auth.stores.redis._client import Client, address_of, check_parts, checked_client, client_from_url
from apivideo_auth.stores.redis._connection import Connection
from apivideo_auth.stores.redis._slot import RedisSlot

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisStore:
    """Keeps records in Redis 6.2 or later, or Valkey, for workers on any number of hosts.

    - `url_or_client`: `redis://host:6379/0`, with TLS `rediss://user:password@host:6379/0`; or a client of
      `redis.asyncio`, which stays the user's to close and keeps its settings. It needs `decode_responses=False`, two
      connections at least, and had better not retry: a claim that was sent twice is held up by itself until its lease
      is over.
    - `prefix`: what the names of keys and channels start with. An account has one key and one channel, of one name.

    The server's clock dates the records. Every operation takes half a second at most and is tried once. A record is
    kept for eight days after its last change, which every renewal is. Nothing is opened before the first use; when the
    last manager has closed nothing is left but a client handed in. The store serves again when it is used again, and
    serves managers in several event loops, each over connections of its own.

    A record that cannot be read (a key of another type, missing fields) is reported once by each slot, as
    `TokenStoreError`; from then on it counts as an empty one, and the next claim replaces it. So a later format of the
    record has to take other keys.

    Raises `TypeError` or `ValueError` for arguments that are none, and `ImportError` where the parts of
    `apivideo-auth[redis]` are missing.
    """

    needs_encryption = True
    _address = "…"

    def __init__(self, url_or_client: "str | Redis", *, prefix: str = "apivideo-auth:") -> None:
        check_parts()
        if not isinstance(prefix, str):
            raise TypeError(f"a RedisStore's prefix must be a string, not {type(prefix).__name__}")
        self._prefix = prefix.encode()
        self._owned = isinstance(url_or_client, str)
        if isinstance(url_or_client, str):
            # Masked at once: a traceback that shows locals shows this one.
            url = url_or_client = Secret(url_or_client)
            self._client: Callable[[], Client] = partial(client_from_url, url)
        else:
            client = checked_client(url_or_client)
            self._client = lambda: client
        self._address = address_of(self._client())
        self._links: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<RedisStore {self._address}>"

    def open(self, account: str, *, clock: Clock, on_commit: Callable[[], None]) -> RedisSlot:  # noqa: ARG002
        """Return the slot of an account. `clock` is not used: the server has one."""
        return RedisSlot(self, self._prefix + account.encode(), on_commit)

    def link(self) -> Connection:
        """Return what the slots share in the running event loop."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            # Loops that ended before their managers were closed are let go of: nothing can be closed there any more.
            self._links = {other: kept for other, kept in self._links.items() if not other.is_closed()}
            # A client of the store's own is one per loop, since connections belong to the loop that opened them.
            link = self._links[loop] = Connection(self._client(), owned=self._owned)
        return link

    async def let_go(self, link: Connection) -> None:
        """Close what the slots shared, if none is left. Cancelling skips the waiting only."""
        if not link.idle:
            return
        self._links = {loop: kept for loop, kept in self._links.items() if kept is not link}
        closing = asyncio.Task(link.close(), loop=asyncio.get_running_loop(), name="apivideo-auth-closing")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)
