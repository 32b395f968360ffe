"""A TCP proxy in front of a Redis, for networks and failovers that a test cannot have otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Forwards connections to the server at `target` as of the moment when they are made.

    - `accepted`: how many connections were made.
    - `lose_answers`: so many of the next answers are lost, each together with its connection.
    - `forget`: drop what comes in on the connections that are open now, and keep them open, like a network that has
      forgotten idle flows.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.accepted = 0
        self.lose_answers = 0
        self._flows: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None] | None] = set()

    def forget(self) -> None:
        for flow in self._flows:
            flow.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._tasks.add(asyncio.current_task())
        forgotten = asyncio.Event()
        self._flows.append(forgotten)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                self._pump(reader, inner_writer, forgotten),
                self._pump(inner_reader, writer, forgotten, are_answers=True),
            )
        for end in (writer, inner_writer):
            end.close()
            with suppress(OSError):
                await end.wait_closed()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        forgotten: asyncio.Event,
        *,
        are_answers: bool = False,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if are_answers and self.lose_answers:
                    self.lose_answers -= 1
                    break
                if not forgotten.is_set():
                    writer.write(data)
                    await writer.drain()
        writer.close()

    async def end(self) -> None:
        for task in self._tasks:
            assert task is not None
            task.cancel()
            await asyncio.wait({task})


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy to a server on this machine."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()
    await proxy.end()
    await server.wait_closed()
