"""Each block of docs/recipes.md, run as a reader would run it."""

import asyncio
import os
import re
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme
from yarl import URL

from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / "docs" / "recipes.md").read_text("utf-8")
BLOCKS = [
    (heading, block)
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", RECIPES, re.DOTALL | re.MULTILINE)
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
]


def blocks(heading: str) -> list[str]:
    """Return the blocks under a heading."""
    return [block for found, block in BLOCKS if found == heading]


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    """A local api.video."""
    async with Emulator() as emulator:
        yield emulator


async def run(
    program: str, server: Emulator, place: Path, *, warnings: str = "error", **variables: str
) -> tuple[int, str, str]:
    """Run a program as a process in a directory; return its exit code and outputs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    environment = {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}
    environment |= {"APIVIDEO_API_KEY": server.api_key, "APIVIDEO_BASE_URL": server.url, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", warnings, "-c", program),
        cwd=place,
        env=environment | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_all_recipes_are_tested() -> None:
    """This file knows every block of the page."""
    assert [heading for heading, _ in BLOCKS] == [
        "httpx",
        "Synchronous code",
        "The vendor's Python client",
        "Django",
        "Django",
        "FastAPI",
        "FastAPI",
        "A company's proxy and CA",
    ]


@pytest.mark.parametrize("heading", ["httpx", "Synchronous code"])
async def test_requests_are_authenticated(server: Emulator, tmp_path: Path, heading: str) -> None:
    """The program gets a token, sends a request with it, and ends without a warning."""
    (block,) = blocks(heading)
    assert await run(block, server, tmp_path) == (0, "200\n", "")
    assert [(call.path, call.status) for call in server.calls] == [("/auth/api-key", 200), ("/videos", 200)]


async def test_the_vendors_client_uses_our_token(server: Emulator, tmp_path: Path) -> None:
    """The vendor's client sends the manager's token, and makes no token call of its own."""
    pytest.importorskip("apivideo.api_client", reason="the vendor's client is not installed")
    (block,) = blocks("The vendor's Python client")
    code, out, err = await run(block, server, tmp_path, warnings="ignore")
    assert (code, err) == (0, "")
    assert out.startswith("vi")
    assert [(call.path, call.status) for call in server.calls] == [("/auth/api-key", 200), ("/videos", 201)]


THREADS = """
import atexit
from concurrent.futures import ThreadPoolExecutor

from tokens import connected, get_token

atexit.register(lambda: print(connected()[1].status().phase))
with ThreadPoolExecutor(8) as pool:
    assert len({pool.submit(get_token).result().generation for _ in range(100)}) == 1
"""


async def test_a_django_process_has_one_manager(server: Emulator, tmp_path: Path) -> None:
    """Threads share one manager, which is closed when the process ends."""
    (tmp_path / "tokens.py").write_text(blocks("Django")[0], "utf-8")
    assert await run(THREADS, server, tmp_path) == (0, "closed\n", "")
    assert [call.path for call in server.calls] == ["/auth/api-key"]


async def test_a_program_with_one_thread_can_use_asgiref(server: Emulator, tmp_path: Path) -> None:
    """Three calls get the same token, by one token call, and the program ends without a warning."""
    code, out, err = await run(blocks("Django")[1], server, tmp_path)
    assert (code, err) == (0, "")
    assert len(set(out.splitlines())) == 1
    assert [call.path for call in server.calls] == ["/auth/api-key"]


async def test_min_ttl_renews_before_the_token_is_stale(server: Emulator) -> None:
    """With asgiref and the page's `min_ttl` the call itself renews, with the refresh token, and is never stale."""
    from asgiref.sync import async_to_sync  # noqa: PLC0415  with the test that needs it

    assert "min_ttl=900" in blocks("Django")[1]
    tokens = TokenManager(server.api_key, base_url=server.url, clock=server.clock)
    phases = set()

    def work() -> None:
        for _ in range(20):
            async_to_sync(tokens.get_token)(min_ttl=900)
            phases.add(tokens.status().phase)
            server.advance(500)
        async_to_sync(tokens.close)()

    await asyncio.to_thread(work)
    assert phases == {"fresh"}
    assert [call.path for call in server.calls] == ["/auth/api-key", "/auth/refresh", "/auth/refresh", "/auth/refresh"]


def test_the_fastapi_service_passes_its_test(pytester: pytest.Pytester) -> None:
    """The service and its test work as they are written, in pytest-asyncio's default mode."""
    for block in blocks("FastAPI"):
        (name,) = re.findall(r"\A# (\w+\.py)\n", block)
        pytester.path.joinpath(name).write_text(block, "utf-8")
    options = ("-o", "asyncio_default_fixture_loop_scope=function", "-o", "pythonpath=.")
    options += ("-p", "no:looptime_plugin", "-p", "no:cacheprovider", "-W", "error")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=1)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Pass bytes on in both directions until both sides have ended."""

    async def one_way(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
        target.close()

    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(one_way(reader, other_writer), one_way(other_reader, writer), return_exceptions=True)


@asynccontextmanager
async def company(server: Emulator, place: Path) -> AsyncIterator[tuple[str, str, list[str]]]:
    """Give the https URL of a server that a company's CA signed, a proxy, and the list of what the proxy was asked."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(place / "company.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("video.example").configure_cert(context)
    asked: list[str] = []

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.decode().splitlines()[0])
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await pipe(reader, writer, tls_port)

    async with AsyncExitStack() as stack:
        to_emulator = partial(pipe, port=URL(server.url).port or 0)
        tls = await stack.enter_async_context(await asyncio.start_server(to_emulator, "127.0.0.1", 0, ssl=context))
        tls_port = tls.sockets[0].getsockname()[1]
        proxy = await stack.enter_async_context(await asyncio.start_server(connect, "127.0.0.1", 0))
        yield "https://video.example", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", asked


async def test_a_companys_proxy_and_ca_are_used(server: Emulator, tmp_path: Path) -> None:
    """The token call and the session go through the proxy, to a host that only the company's CA vouches for."""
    (block,) = blocks("A company's proxy and CA")
    async with company(server, tmp_path) as (url, proxy, asked):
        code, out, err = await run(
            block, server, tmp_path, warnings="ignore", APIVIDEO_BASE_URL=url, HTTPS_PROXY=proxy, HOME=str(tmp_path)
        )
    assert (code, out, err) == (0, "200\n", "")
    # One connector, one connection.
    assert asked == ["CONNECT video.example:443 HTTP/1.1"]
    assert [(call.path, call.status) for call in server.calls] == [("/auth/api-key", 200), ("/videos", 200)]
