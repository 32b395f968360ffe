"""Places where the workers of an account keep their one record."""

from apivideo_auth.stores._memory import MemoryStore
from apivideo_auth.stores._protocol import TokenStore

__all__ = ["store_from_url"]


def store_from_url(url: str) -> TokenStore:
    """Return the store that a URL names: `memory:`.

    Raises `TypeError` for what is no string and `ValueError` for another scheme.
    """
    if not isinstance(url, str):
        raise TypeError(f"a store's URL must be a string, not {type(url).__name__}")
    scheme = url.partition(":")[0].lower()
    if scheme == "memory":
        return MemoryStore()
    raise ValueError(f"no token store has the scheme {scheme!r}; write memory:")
