"""The token store in Redis. The package redis is imported when a store is constructed."""

from apivideo_auth.stores.redis._store import RedisStore

__all__ = ["RedisStore"]
