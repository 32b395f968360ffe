"""Token stores: where the workers of an account keep their record.

`FileStore` is for the processes of one machine, `RedisStore` for a fleet. Each needs optional packages, which are
imported when a store is constructed. `MemoryStore`, for the managers of one process, is in `apivideo_auth`.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from apivideo_auth._secrets import Secret
from apivideo_auth.stores._base import TokenStore
from apivideo_auth.stores._file import FileStore
from apivideo_auth.stores._memory import MemoryStore

if TYPE_CHECKING:
    from apivideo_auth.stores.redis import RedisStore

__all__ = ["FileStore", "RedisStore", "store_from_url"]

# Hidden from type checkers, which would otherwise accept every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import `RedisStore` on its first use, so that programs without Redis start faster."""
        if name != "RedisStore":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from apivideo_auth.stores.redis import RedisStore  # noqa: PLC0415

        return RedisStore


def store_from_url(url: str) -> TokenStore:
    """Return the store for a URL.

    - `memory:` is a `MemoryStore`.
    - `file:` is a `FileStore` in the default directory, `file:///absolute/directory` in another one.
    - `redis://host:6379/0` is a `RedisStore`, `rediss://user:password@host:6379/0` one over TLS,
      `unix:///path/of/redis.sock?db=0` one over a Unix socket.

    Raises `TypeError` if the URL is not a string, and `ValueError`, without the URL in its message, if it is invalid.
    """
    if not isinstance(url, str):
        raise TypeError(f"a token store's URL must be a string, not {type(url).__name__}")
    # Masked at once: tracebacks show locals, and a URL may contain a password.
    url = Secret(url)
    if url == "memory:":
        return MemoryStore()
    if url.startswith("file:"):
        return _file_store(url)
    if url.startswith(("redis:", "rediss:", "unix:")):
        from apivideo_auth.stores.redis import RedisStore  # noqa: PLC0415  as above

        return RedisStore(url)
    raise ValueError(
        "a token store's URL is memory:, file:, file:///absolute/directory, redis://host:6379/0, rediss://… or unix://…"
    )


def _file_store(url: str) -> FileStore:
    parts = urlsplit(url)
    directory = unquote(parts.path)
    remote = parts.netloc not in ("", "localhost")
    if remote or parts.query or parts.fragment or (directory and not directory.startswith("/")):
        raise ValueError("a file store's URL is file: or file:///absolute/directory")
    return FileStore(Path(directory)) if directory else FileStore()
