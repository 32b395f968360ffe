"""Start and stop: the address, and that nothing is left."""

import asyncio
import contextlib
import socket
from typing import Any

import aiohttp
import pytest

from apivideo_auth.emulator import Emulator, Fault
from tests.emulator.client import Client, until


async def test_the_url_is_where_it_listens(session: aiohttp.ClientSession) -> None:
    """`url` is a string without a slash at its end; port 0 is a free port."""
    async with Emulator() as first, Emulator() as second:
        assert first.url.startswith("http://127.0.0.1:")
        assert not first.url.endswith("/")
        assert first.url != second.url
        assert [(await Client(server, session).authenticate()).status for server in (first, second)] == [200, 200]


async def test_a_port_can_be_chosen(session: aiohttp.ClientSession) -> None:
    """A port that is taken is an `OSError`; a free one is listened on, and again as soon as it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await Emulator(port=port).start()
    for _ in range(2):
        async with Emulator(port=port) as server:
            assert server.url == f"http://127.0.0.1:{port}"
            assert (await Client(server, session).authenticate()).status == 200


@pytest.mark.parametrize(
    ("host", "shown"),
    [("localhost", "localhost"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],
)
async def test_a_host_can_be_chosen(session: aiohttp.ClientSession, host: str, shown: str) -> None:
    """Any address of this machine will do; the URL of a wildcard is one by which it is reached."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(Emulator(host=host))
        except OSError:
            assert ":" in host
            pytest.skip("this machine has no IPv6")
        assert server.url.rpartition(":")[0] == f"http://{shown}"
        assert (await Client(server, session).authenticate()).status == 200


async def test_a_host_that_is_not_here_is_an_error() -> None:
    """An address that is not this machine's is an `OSError` at the start."""
    server = Emulator(host="192.0.2.1")
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await server.start()
    await server.close()


async def test_a_start_that_fails_can_be_repeated(session: aiohttp.ClientSession) -> None:
    """If the address is taken, nothing is left of the attempt, and a later start succeeds."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        server = Emulator(port=probe.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await server.start()
    async with server:
        assert (await Client(server, session).authenticate()).status == 200


async def test_one_address_of_a_name_is_bound() -> None:
    """Of a name with two addresses, like localhost, the IPv4 one is bound: each would get another port."""
    async with Emulator(host="localhost") as server:
        addresses = server._runner.addresses
        assert [address[0] for address in addresses] == ["127.0.0.1"]


async def test_it_can_be_started_and_closed_by_hand(session: aiohttp.ClientSession) -> None:
    """`start` and `close` do what `async with` does; closing twice, or without a start, is nothing."""
    server = Emulator()
    await server.close()
    await server.start()
    assert (await Client(server, session).authenticate()).status == 200
    await server.close()
    await server.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await Client(server, session).authenticate()


async def test_it_starts_once() -> None:
    """A second start is a `RuntimeError`, also after `close`."""
    async with Emulator() as server:
        with pytest.raises(RuntimeError, match="started once"):
            await server.start()
    with pytest.raises(RuntimeError, match="started once"):
        await server.start()


def test_address_and_clock_exist_after_the_start() -> None:
    """Before the start there is no address and no clock, and the error says so."""
    server = Emulator()
    assert repr(server) == "<Emulator not started>"
    for name in ("url", "clock"):
        with pytest.raises(RuntimeError, match="not started"):
            getattr(server, name)


async def test_in_a_loop_that_stands_still_it_is_an_error() -> None:
    """If the loop that started it does not run, another loop gets an error instead of an address that never answers.
    Outside of a loop, and while its loop runs in another thread, the address is given.
    """
    server, loop, stop = Emulator(), asyncio.new_event_loop(), asyncio.Event()

    def run(coroutine: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(asyncio.to_thread(loop.run_until_complete, coroutine))

    try:
        await run(server.start())
        with pytest.raises(RuntimeError, match=r"started in another event loop, which is not running; .*loop_scope"):
            _ = server.url
        assert await asyncio.to_thread(lambda: server.url) == repr(server).strip("<>").split()[1]
        started = asyncio.Event()
        here = asyncio.get_running_loop()

        async def wait() -> None:
            here.call_soon_threadsafe(started.set)
            await stop.wait()

        running = run(wait())
        await started.wait()
        assert server.url.startswith("http://127.0.0.1:")
        loop.call_soon_threadsafe(stop.set)
        await running
        await run(server.close())
    finally:
        loop.close()


async def test_it_shows_its_address(server: Emulator) -> None:
    """The `repr` of an emulator is its address."""
    assert repr(server) == f"<Emulator {server.url}>"


async def _idle(client: Client, stack: contextlib.AsyncExitStack) -> None:
    session = await stack.enter_async_context(aiohttp.ClientSession())
    await Client(client.server, session).authenticate()


async def _silent(client: Client, stack: contextlib.AsyncExitStack) -> None:
    _, writer = await asyncio.open_connection(*client.server.url.removeprefix("http://").split(":"))
    stack.callback(writer.close)
    await client.get("/nope")


async def _hanging(client: Client, stack: contextlib.AsyncExitStack) -> None:
    await _held(client, stack, Fault(hang=True))


async def _delayed(client: Client, stack: contextlib.AsyncExitStack) -> None:
    await _held(client, stack, Fault(delay=3600))


async def _held(client: Client, stack: contextlib.AsyncExitStack, fault: Fault) -> None:
    client.server.inject(fault)
    request = asyncio.create_task(client.authenticate())
    await until(lambda: client.server._service.running)
    stack.callback(request.cancel)


async def _unread(client: Client, stack: contextlib.AsyncExitStack) -> None:
    client.server.inject(Fault(oversized=2**40))
    payload = {"apiKey": client.server.api_key}
    await stack.enter_async_context(client.session.post(f"{client.server.url}/auth/api-key", json=payload))


async def _half_sent(client: Client, stack: contextlib.AsyncExitStack) -> None:
    _, writer = await asyncio.open_connection(*client.server.url.removeprefix("http://").split(":"))
    stack.callback(writer.close)
    writer.write(b"POST /auth/api-key HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await until(lambda: client.server._service.running)


@pytest.mark.parametrize("situation", [_idle, _silent, _hanging, _delayed, _unread, _half_sent])
@pytest.mark.parametrize("time", [pytest.param("virtual", marks=pytest.mark.virtual_time), "real"])
async def test_it_stops_at_once(session: aiohttp.ClientSession, situation: Any, time: str) -> None:
    """Closing ends idle, silent, hanging, delayed, unread and half-sent requests, and leaves no task."""
    loop = asyncio.get_running_loop()
    server = Emulator()
    async with contextlib.AsyncExitStack() as stack:
        await server.start()
        before = asyncio.all_tasks()
        await situation(Client(server, session), stack)
        start = loop.time()
        await server.close()
        assert time == "real" or loop.time() - start < 0.5
        mine = {task for task in asyncio.all_tasks() - before if "aiohttp/web" in repr(task.get_stack())}
        assert mine == set()
        assert not server._service.running


async def test_a_client_that_waits_is_cut_off(client: Client) -> None:
    """A client that waits for a hanging response is disconnected at once."""
    client.server.inject(Fault(hang=True))
    request = asyncio.create_task(client.authenticate())
    await until(lambda: client.server.calls)
    await client.server.close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await request


@pytest.mark.virtual_time
async def test_a_day_of_hourly_tokens_passes(session: aiohttp.ClientSession) -> None:
    """A day of virtual time, a token each hour, goes by in a moment and stays right."""
    async with Emulator() as server:
        client = Client(server, session)
        reply = await client.authenticate()
        for _ in range(24):
            await asyncio.sleep(3600)
            reply = await client.refresh(reply.document["refresh_token"])
            assert reply.status == 200
        assert server.calls[-1].generation == 25
        assert server.calls[-1].at - server.calls[0].at == pytest.approx(86_400, abs=60)
