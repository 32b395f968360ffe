"""The client of a `RedisStore`: its own or one handed in, and one command of it within a budget."""

import asyncio
import inspect
import os
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._secrets import Secret
from apivideo_auth.stores.redis._script import SCRIPT, SHA, Answer, Arguments, UnreadableError, answer_of

BUDGET: Final = 0.45
"""Seconds for one operation, whole: to connect, to send the script again where Redis does not know it, to answer.

What is left of an operation's 0.5 is for whoever waits for it: the error is to come from where its cause is known.
"""
CANCEL_AGAIN: Final = 0.02
"""Seconds until a task that goes on after it was cancelled is cancelled again."""

_CODE: Final = re.compile(r"[A-Z]{3,20}\b")


class PubSub(Protocol):
    """What a subscription needs of redis-py's `PubSub`."""

    connection: Any

    async def subscribe(self, *channels: bytes) -> object: ...
    async def unsubscribe(self, *channels: bytes) -> object: ...
    async def get_message(self, *, timeout: float | None) -> dict[str, object] | None: ...  # noqa: ASYNC109  redis-py's
    async def ping(self) -> object: ...
    async def aclose(self) -> None: ...


class Client(Protocol):
    """What a `RedisStore` needs of redis-py's asyncio clients."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: bytes) -> Awaitable[object]: ...
    def eval(self, script: str, numkeys: int, *keys_and_args: bytes) -> Awaitable[object]: ...
    def pubsub(self) -> PubSub: ...


def check_parts() -> None:
    """Raise `ImportError` where the parts of `apivideo-auth[redis]` are missing."""
    for package in ("redis", "cryptography"):
        try:
            import_module(package)
        except ImportError:
            raise ImportError(
                f"a RedisStore needs the package {package}: pip install 'apivideo-auth[redis]'", name=package
            ) from None


def client_from_url(url: Secret) -> Client:
    """Return a new client that tries everything once, within the budget; does no I/O. Raises `ValueError`."""
    made = None
    with suppress(Exception):
        made = _client_from_url(url)
    if made is None:
        # Raised here, and not where redis-py raised: its errors and their chain may hold the URL, with its password.
        raise ValueError("a RedisStore's URL must be like redis://host:6379/0 or rediss://user:password@host:6379/0")
    _refuse_decoding(made)
    return made


def _client_from_url(url: Secret) -> Client | None:
    from redis.asyncio import Redis  # noqa: PLC0415  an optional part
    from redis.asyncio.retry import Retry  # noqa: PLC0415  as above
    from redis.backoff import NoBackoff  # noqa: PLC0415  as above

    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or parts.port == 0:
        return None
    client: Redis = cast("Any", Redis).from_url(
        url,
        # RESP2 has all that is needed, and costs no command when connecting.
        protocol=2,
        # A command that was sent twice is answered the second time, and a claim would be held up by itself.
        retry=Retry(NoBackoff(), 0),
        socket_timeout=BUDGET,
        socket_connect_timeout=BUDGET,
        socket_keepalive=True,
        health_check_interval=0,
    )
    # Options of the URL are looked at when a connection is made, which connects nothing yet.
    cast("Any", client.connection_pool).make_connection()
    return cast("Client", client)


def checked_client(client: object) -> Client:
    """Return a client that was handed in; raise `TypeError` or `ValueError` for one that does not suit."""
    wanted = ("evalsha", "eval", "pubsub")
    if isinstance(client, type) or not all(callable(getattr(client, name, None)) for name in wanted):
        raise TypeError(f"a RedisStore needs a URL or a client of redis.asyncio, not {type(client).__name__}")
    command = getattr(client, "execute_command", None)
    if command is not None and not inspect.iscoroutinefunction(command):
        raise TypeError("a RedisStore needs a client of redis.asyncio, not one that blocks or a pipeline")
    suitable = cast("Client", client)
    _refuse_decoding(suitable)
    return suitable


def _refuse_decoding(client: Client) -> None:
    get_encoder: Callable[[], object] | None = getattr(client, "get_encoder", None)
    if get_encoder is not None and getattr(get_encoder(), "decode_responses", False):
        raise ValueError("a RedisStore needs a client with decode_responses=False: sealed tokens are no text")


def address_of(client: Client) -> str:
    """Return where a client connects to, for texts: without user, password and options."""
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


async def close(client: Client) -> None:
    """Close the connections of a client, which is ours."""
    closing = asyncio.Task(cast("Any", client).aclose(), loop=asyncio.get_running_loop())
    await asyncio.wait({closing}, timeout=BUDGET)
    await end(closing)


async def run(client: Client, key: bytes, arguments: Arguments, *, now: bytes, heal: bool) -> Answer:
    """Run the script once. Raises `TokenStoreError` after the budget at the latest; it may have been run even so."""
    operation, *values = arguments
    outcome = await _outcome(client, (key, operation, now, b"1" if heal else b"0", *values))
    if isinstance(outcome, str):
        # Neither the client's error nor an answer is near, as context or as a local: they may hold what was sent.
        raise TokenStoreError(f"the token store at {address_of(client)} failed: {outcome}")
    return outcome


async def _outcome(client: Client, sent: tuple[bytes, ...]) -> Answer | str:
    """Return the answer, or why there is none."""
    # A task of its own: the budget and the caller's cancellation hold whatever the client makes of a cancellation.
    command = asyncio.Task(_run(client, sent), loop=asyncio.get_running_loop(), name="apivideo-auth-command")
    try:
        await asyncio.wait({command}, timeout=BUDGET)
    finally:
        await end(command)
    if command.cancelled():
        return f"no answer within {BUDGET:g} seconds"
    error = command.exception()
    if error is not None:
        return what_happened(error)
    try:
        return answer_of(command.result())
    except UnreadableError:
        return "its answer cannot be read"


async def end(task: "asyncio.Task[Any]", *, again: float = CANCEL_AGAIN) -> None:
    """End a task, whatever it makes of being cancelled: `asyncio.wait_for` may lose it before Python 3.12."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=again)
    if not task.cancelled():
        # Looked at, so that nobody complains that it was not.
        task.exception()


async def _run(client: Client, sent: tuple[bytes, ...]) -> object:
    from redis.exceptions import NoScriptError  # noqa: PLC0415  an optional part

    with suppress(NoScriptError):
        return await client.evalsha(SHA, 1, *sent)
    return await client.eval(SCRIPT, 1, *sent)


def what_happened(error: BaseException) -> str:
    """Return the gist of an error: its class, and the code of Redis or of the system, but never its text."""
    gist = type(error).__name__
    code = _CODE.match(str(error))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and isinstance(cause.errno, int):
            return f"{gist} ({os.strerror(cause.errno)})"
        cause = cause.__cause__ or cause.__context__
    return f"{gist} ({code.group()})" if code else gist
