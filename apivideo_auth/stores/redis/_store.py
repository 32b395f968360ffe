"""A store in Redis or Valkey, for workers on any number of hosts."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from apivideo_auth._clock import Clock
from apivideo_auth._secrets import Secret
from apivideo_auth.stores._base import require_packages
from apivideo_auth.stores.redis._client import check_client, client_from_url
from apivideo_auth.stores.redis._connection import Connections
from apivideo_auth.stores.redis._slot import RedisSlot

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisStore:
    """Keeps records in Redis 6.2 or later, or Valkey, for workers on any number of hosts.

    - `url_or_client`: `redis://host:6379/0`, with TLS `rediss://user:password@host:6379/0`, over a Unix socket
      `unix:///path/of/redis.sock?db=0`; or a client of `redis.asyncio` or `valkey.asyncio`, for Sentinel, a cluster, or
      your own settings.
    - `prefix`: the start of the names of keys and channels. An account has one key and one channel, of the same name.

    A client that is passed in keeps its settings, and the user closes it. It needs `decode_responses=False` and at
    least two connections, one of them for the subscription. Its retries are harmless: a command that is sent again
    has no further effect. If a server answers that it is a read-only replica, the store closes the idle connections of
    the client, so that after a failover behind one name it reaches the new primary; connections that are in use are
    left alone. The client can be used in one event loop; in another one, while the first is open, operations
    raise `TokenStoreError`.

    Records are dated by the server's clock. An operation takes half a second at most. A record is kept for eight days
    after its last change, and every renewal changes it.

    Nothing is opened before the first use. With a URL, each event loop has its own connections: one for the
    subscription, and as many as there are operations at a time, up to eight. A connection that failed, or that was idle
    for half a minute, is replaced. When the last manager has closed, or the event loop ends, all of them are closed;
    the next use opens them again.

    A record that cannot be read (missing or invalid fields, another version) counts as empty at once, and the next
    claim replaces it. A key of another type is an error, and stays as it is.

    Raises `TypeError` or `ValueError` if an argument is invalid, and `ImportError` if a package of the extra
    `apivideo-auth[redis]` is missing.
    """

    needs_encryption = True

    def __init__(self, url_or_client: "str | Redis", *, prefix: str = "apivideo-auth:") -> None:
        require_packages("a RedisStore", "redis", "redis", "cryptography")
        if not isinstance(prefix, str):
            raise TypeError(f"a RedisStore's prefix must be a string, not {type(prefix).__name__}")
        self._prefix = prefix.encode()
        if isinstance(url_or_client, str):
            # Masked at once: a traceback that shows locals shows this one.
            url = url_or_client = Secret(url_or_client)
            self._connections = Connections(partial(client_from_url, url), owned=True)
        else:
            client = check_client(url_or_client)
            self._connections = Connections(lambda: client, owned=False)

    @property
    def max_concurrent(self) -> int:
        """The number of commands that are sent at a time; further ones wait."""
        return self._connections.max_commands

    def __repr__(self) -> str:
        # Without an address if the constructor raised.
        connections = getattr(self, "_connections", None)
        return f"<RedisStore {'…' if connections is None else connections.address}>"

    def open(
        self,
        account: str,
        *,
        clock: Clock,  # noqa: ARG002
        on_commit: Callable[[], None],
        on_damage: Callable[[str], None],
    ) -> RedisSlot:
        """Return the slot of an account. `clock` is not used: the server has one."""
        return RedisSlot(self._connections, self._prefix + account.encode(), on_commit=on_commit, on_damage=on_damage)
