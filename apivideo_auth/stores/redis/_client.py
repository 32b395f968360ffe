"""The redis-py client of a `RedisStore`: made from a URL, or passed in by the user."""

import asyncio
import inspect
import os
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from apivideo_auth._secrets import Secret

BUDGET: Final = 0.45
"""Seconds for one operation in all: connecting, sending the script if Redis does not know it, waiting for the answer.

An operation of a store has 0.5 seconds; the difference makes sure that the error comes from here, with its cause.
"""

MAX_COMMANDS: Final = 8
"""Commands that a store sends at a time, each on its own connection. Further ones wait."""

_KEEPALIVE: Final = {
    getattr(socket, name): seconds
    for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}

_CODE: Final = re.compile(r"[A-Z]{3,20}\b")

_READ_ONLY: Final = re.compile("READONLY|read only replica")
# Found in the text, because redis-py, valkey-py and the versions of the server disagree on classes and codes.
_EXPLANATIONS: Final = (
    (re.compile("WRONGTYPE"), "the key holds something other than a record (WRONGTYPE)"),
    (re.compile("NOPERM|no permissions|can't run this command"), "the user lacks a permission (ACL)"),
    (_READ_ONLY, "the server is a read-only replica (READONLY)"),
    (re.compile("OOM|'maxmemory'"), "the server is out of memory (OOM)"),
    (re.compile("event loop|different loop"), "the client was used in another event loop"),
)
_NO_SCRIPT: Final = re.compile("NOSCRIPT|No matching script")


class PubSub(Protocol):
    """The part of redis-py's `PubSub` that a subscription uses."""

    connection: Any

    async def subscribe(self, *channels: bytes) -> object: ...
    async def unsubscribe(self, *channels: bytes) -> object: ...
    async def get_message(self, *, timeout: float | None) -> dict[str, object] | None: ...
    async def ping(self) -> object: ...
    async def aclose(self) -> None: ...


class Client(Protocol):
    """The part of redis-py's asyncio clients that a `RedisStore` uses."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: bytes) -> Awaitable[object]: ...
    def eval(self, script: str, numkeys: int, *keys_and_args: bytes) -> Awaitable[object]: ...
    def pubsub(self) -> PubSub: ...


def client_from_url(url: Secret) -> Client:
    """Return a new client that tries each command once, within the budget; does no I/O. Raises `ValueError`."""
    client = None
    with suppress(Exception):
        client = _client_from_url(url)
    if client is None:
        # Raised outside of the handler: redis-py's errors may contain the URL, with its password.
        raise ValueError(
            "a RedisStore's URL must be like redis://host:6379/0, rediss://user:password@host:6379/0 or "
            "unix:///path/of/redis.sock?db=0"
        )
    _check_decoding(client)
    return client


def _client_from_url(url: Secret) -> Client | None:
    from redis.asyncio import Redis  # noqa: PLC0415  an optional package
    from redis.asyncio.retry import Retry  # noqa: PLC0415  as above
    from redis.backoff import NoBackoff  # noqa: PLC0415  as above

    parts = urlsplit(url)
    tcp: dict[str, Any] = {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
    if parts.scheme == "unix" and parts.path and not parts.hostname:
        tcp = {}
    elif parts.scheme not in {"redis", "rediss"} or not parts.hostname or parts.port == 0:
        return None
    client: Redis = cast("Any", Redis).from_url(
        url,
        # RESP2 suffices, and needs no command to connect.
        protocol=2,
        # The budget is too short for a retry.
        retry=Retry(NoBackoff(), 0),
        # The budget ends a command. A timeout here would lose an answer that arrives while the event loop is blocked.
        socket_timeout=None,
        socket_connect_timeout=BUDGET,
        health_check_interval=0,
        **tcp,
    )
    # The options in the URL are checked when a connection is made; this does not connect yet.
    cast("Any", client.connection_pool).make_connection()
    return cast("Client", client)


def check_client(client: object) -> Client:
    """Return a client that was passed in; raise `TypeError` or `ValueError` if it cannot be used."""
    methods = ("evalsha", "eval", "pubsub")
    if isinstance(client, type) or not all(callable(getattr(client, name, None)) for name in methods):
        raise TypeError(f"a RedisStore needs a URL or a client of redis.asyncio, not {type(client).__name__}")
    execute = getattr(client, "execute_command", None)
    if execute is not None and not inspect.iscoroutinefunction(execute):
        raise TypeError("a RedisStore needs a client of redis.asyncio, not a blocking client or a pipeline")
    usable = cast("Client", client)
    _check_decoding(usable)
    if max_connections(usable) < 2:  # noqa: PLR2004  the subscription has one for itself
        raise ValueError("a RedisStore needs a client with at least two connections: raise max_connections")
    return usable


def max_connections(client: Client) -> int:
    """Return how many connections a client opens at most."""
    limit = getattr(getattr(client, "connection_pool", None), "max_connections", None)
    return limit if isinstance(limit, int) else MAX_COMMANDS + 1


def _check_decoding(client: Client) -> None:
    get_encoder: Callable[[], object] | None = getattr(client, "get_encoder", None)
    if get_encoder is not None and getattr(get_encoder(), "decode_responses", False):
        raise ValueError("a RedisStore needs a client with decode_responses=False: encrypted tokens are not text")


def address_of(client: Client) -> str:
    """Return where a client connects to, for messages: without user, password and options."""
    pool = getattr(client, "connection_pool", None)
    options = cast("dict[str, object]", getattr(pool, "connection_kwargs", {}))
    if "path" in options:
        return f"unix:{options['path']}"
    if "host" not in options:
        return type(client).__name__
    scheme = "rediss" if "SSL" in getattr(getattr(pool, "connection_class", None), "__name__", "") else "redis"
    host = str(options["host"])
    port, database = options.get("port", 6379), options.get("db") or 0
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{database}"


def is_unknown_script(error: Exception) -> bool:
    """Return whether the server does not know the script by its hash."""
    return _NO_SCRIPT.search(str(error)) is not None


def is_read_only(error: BaseException) -> bool:
    """Return whether the server is a replica, which cannot be written."""
    return _READ_ONLY.search(str(error)) is not None


async def close_idle(client: Client) -> None:
    """Close the connections of a client that was passed in, except those that are in use now: those may be others'.

    The client connects again by itself. Clients without one pool, such as those of a cluster, follow a failover.
    """
    pool: Any = getattr(client, "connection_pool", None)
    with suppress(Exception):
        async with asyncio.timeout(BUDGET):
            await pool.disconnect(inuse_connections=False)


def describe_error(error: BaseException) -> str:
    """Return the meaning of an error, or its class and code, but never its text, which may hold secrets."""
    name, text = type(error).__name__, str(error)
    for pattern, explanation in _EXPLANATIONS:
        if pattern.search(text):
            return explanation
    code = _CODE.match(text)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and isinstance(cause.errno, int):
            return f"{name} ({os.strerror(cause.errno)})"
        cause = cause.__cause__ or cause.__context__
    return f"{name} ({code.group()})" if code else name
