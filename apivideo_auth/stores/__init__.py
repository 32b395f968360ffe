"""Places where the workers of an account keep their one record.

`FileStore` is for the processes of a machine, `RedisStore` for a fleet; each needs an extra of the package, which is
imported on use. `MemoryStore`, for the managers of one process, is in `apivideo_auth` itself.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from apivideo_auth._secrets import Secret
from apivideo_auth.stores._base import TokenStore
from apivideo_auth.stores._memory import MemoryStore

if TYPE_CHECKING:
    from apivideo_auth.stores._file import FileStore
    from apivideo_auth.stores.redis._store import RedisStore

__all__ = ["FileStore", "RedisStore", "store_from_url"]

_HOME_OF = {"FileStore": "_file", "RedisStore": "redis._store"}


def __getattr__(name: str) -> object:
    """Import a store on its first use."""
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def store_from_url(url: str) -> TokenStore:
    """Return the store that a URL names.

    - `memory:` a `MemoryStore`
    - `file:` a `FileStore` in its default place, `file:///absolute/folder` in another
    - `redis://host:6379/0`, `rediss://user:password@host:6379/0` a `RedisStore`, the second one over TLS

    Raises `TypeError` for what is no string and `ValueError`, without the URL in it, for what names none of these.
    """
    if not isinstance(url, str):
        raise TypeError(f"a store's URL must be a string, not {type(url).__name__}")
    # Masked at once: tracebacks show locals, and a URL may hold a password.
    url = Secret(url)
    scheme = url.partition(":")[0] if ":" in url else ""
    if url == "memory:":
        return MemoryStore()
    if scheme == "file":
        return _file_store(url)
    if scheme in ("redis", "rediss"):
        from apivideo_auth.stores.redis._store import RedisStore  # noqa: PLC0415  imported on use

        return RedisStore(url)
    raise ValueError("a token store's URL is memory:, file:, file:///absolute/folder, redis://… or rediss://…")


def _file_store(url: str) -> "FileStore":
    from apivideo_auth.stores._file import FileStore  # noqa: PLC0415  imported on use

    parts = urlsplit(url)
    folder = unquote(parts.path)
    elsewhere = parts.netloc not in ("", "localhost")
    if elsewhere or parts.query or parts.fragment or (folder and not folder.startswith("/")):
        raise ValueError("a file store's URL is file: or file:///absolute/folder")
    return FileStore(Path(folder)) if folder else FileStore()
