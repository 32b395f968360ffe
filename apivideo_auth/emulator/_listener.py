"""The listening socket and its connections: aiohttp's server, with an end that leaves nothing behind."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from apivideo_auth.emulator._connection import Connection, request_of

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_GRACE: Final = 1.0
"""Seconds that connections get to end, once they have been cut. They need none."""

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not bound to
_logger: Final = logging.getLogger("apivideo_auth.emulator")


class Listener:
    """Holds an address from `bind` to `close`, and accepts connections from `serve` on."""

    def __init__(self) -> None:
        self._requests: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._web_server: web.Server | None = None

    async def bind(self, host: str, port: int) -> str:
        """Take an address, and return the URL by which clients on this machine reach it. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, await _address_of(host), port, start_serving=False)
        bound: int = self._server.sockets[0].getsockname()[1]
        reachable = _WILDCARDS.get(host, host)
        return f"http://[{reachable}]:{bound}" if ":" in reachable else f"http://{reachable}:{bound}"

    async def serve(self, handler: Handler) -> None:
        """Answer requests by `handler`."""
        assert self._server is not None, "bound before"

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            task = asyncio.current_task()
            assert task is not None, "aiohttp handles requests in tasks"
            self._requests.add(task)
            try:
                return await handler(request)
            finally:
                self._requests.discard(task)

        self._web_server = web.Server(handle, request_factory=request_of)
        await self._server.start_serving()

    async def close(self) -> None:
        """Stop listening and cut all connections, in the middle of a request too."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        if self._web_server is not None:
            await self._cut_all(self._web_server)
        await server.wait_closed()

    async def _cut_all(self, web_server: web.Server) -> None:
        for task in self._requests:
            task.cancel()
        for connection in web_server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        web_server.pre_shutdown()
        await web_server.shutdown(_GRACE)

    def _connection(self) -> Connection:
        assert self._web_server is not None, "nothing is accepted before `serve`"
        # Compressed bodies stay so, and are refused as no JSON: a small one could become a very large one.
        return Connection(
            self._web_server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            logger=_logger,
            auto_decompress=False,
        )


async def _address_of(host: str) -> str:
    """Return the one address that a host name stands for, IPv4 if it has one.

    `localhost` has two on many machines, and with port 0 each would get a port of its own.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])
