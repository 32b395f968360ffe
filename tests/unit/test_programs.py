"""The blocks of the README and the examples, run as a reader would run them."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from apivideo_auth.emulator import Emulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TESTS = dict(re.findall(r"```python\n# (test_\w+\.py)\n(.*?)```", README, re.DOTALL))
BLOCKS = re.findall(r"```python\n(?!# test_)(.*?)```", README, re.DOTALL)
OPTIONS = (
    *("-o", "asyncio_default_fixture_loop_scope=function"),
    *("-p", "no:looptime_plugin", "-p", "no:cacheprovider", "-W", "error"),
)


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    """A local api.video."""
    async with Emulator() as emulator:
        yield emulator


async def run(*arguments: str, server: Emulator | None = None, **variables: str) -> tuple[int, str, str]:
    """Run Python as a process whose environment names the server, or none; return its exit code and outputs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    if server is not None:
        environment |= {"APIVIDEO_API_KEY": server.api_key, "APIVIDEO_BASE_URL": server.url}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        cwd=ROOT,
        env=environment | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
async def test_every_block_of_the_readme_runs(server: Emulator, block: str) -> None:
    """Each Python block of the README is a program that works with the environment set, and logs nothing but INFO."""
    code, _, err = await run("-c", block, server=server)
    assert (code, [line for line in err.splitlines() if not line.startswith("INFO:")]) == (0, [])
    assert server.calls


def test_the_tests_of_the_readme_pass(pytester: pytest.Pytester) -> None:
    """The pytest blocks of the README pass as written, in pytest-asyncio's default mode."""
    for name, text in TESTS.items():
        pytester.path.joinpath(name).write_text(text, "utf-8")
    result = pytester.runpytest_subprocess(*OPTIONS)
    result.assert_outcomes(passed=sum(text.count("async def test_") for text in TESTS.values()))


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"^\$ apivideo-auth (.*?)(?: +#.*| \|.*)?$", README, re.MULTILINE)))
)
async def test_the_commands_of_the_readme_exist(line: str) -> None:
    """Each command of the README has the options that the README uses."""
    command, *arguments = line.split(" -- ", maxsplit=1)[0].split()
    code, out, _ = await run("-m", "apivideo_auth", command, "--help")
    assert code == 0
    assert [word for word in arguments if word.startswith("--") and word not in out] == []


def test_the_readme_names_the_key_of_the_local_server() -> None:
    """The README sets the API key that `apivideo-auth serve` accepts."""
    assert f"APIVIDEO_API_KEY={Emulator().api_key} " in README


def test_the_readme_begins_with_ten_lines() -> None:
    """The first block is short enough to be taken in at a glance."""
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10


async def test_the_script_lists_videos(server: Emulator) -> None:
    """examples/script.py works with a key, and without one against a local server; a wrong key is one line."""
    code, out, err = await run("examples/script.py")
    assert (code, out.endswith("  A first video\n")) == (0, True)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+: 1 video\n", err)
    code, out, err = await run("examples/script.py", server=server)
    assert (code, out, err) == (0, "", f"{server.url}: 0 videos\n")
    assert [call.path for call in server.calls] == ["/auth/api-key", "/videos"]
    code, out, err = await run("examples/script.py", server=server, APIVIDEO_API_KEY="made-up-wrong-key")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert re.match(r"script\.py: .*\bAPI key\b", err)


@asynccontextmanager
async def service(**variables: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run examples/service.py, which must end cleanly on SIGTERM; give the process and its URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        "examples/service.py",
        cwd=ROOT,
        env=environment | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        assert b"Running on" in line
        yield process, f"http://127.0.0.1:{variables['PORT']}"
    finally:
        process.terminate()
        _, err = await process.communicate()
    assert process.returncode == 0, err


async def test_the_service_serves(unused_port: int) -> None:
    """examples/service.py passes requests on, reports its health, and ends cleanly on SIGTERM."""
    async with service(PORT=str(unused_port)) as (_, url), aiohttp.ClientSession(url) as session:
        async with session.post("/videos", json={"title": "Made up"}) as response:
            assert response.status == 201
        async with session.get("/videos") as response:
            assert [video["title"] for video in (await response.json())["data"]] == ["Made up"]
        async with session.get("/health") as response:
            assert (response.status, (await response.json())["phase"]) == (200, "fresh")


async def test_the_service_says_why_it_cannot_serve(server: Emulator, unused_port: int) -> None:
    """Without a token examples/service.py answers 503 with the cause, and says so in its health."""
    variables = {"APIVIDEO_API_KEY": "made-up-wrong-key", "APIVIDEO_BASE_URL": server.url, "PORT": str(unused_port)}
    async with service(**variables) as (_, url), aiohttp.ClientSession(url) as session:
        async with session.get("/videos") as response:
            assert (response.status, "API key" in (await response.json())["error"]) == (503, True)
        async with session.get("/health") as response:
            assert (response.status, (await response.json())["phase"]) == (503, "empty")


async def test_the_containers_of_the_compose_file_show_something(unused_port: int) -> None:
    """What examples/compose.yaml runs works on one machine, and its health check shows in both logs."""
    text = (ROOT / "examples" / "compose.yaml").read_text()
    (serve,) = re.findall(r"exec apivideo-auth (.*?)\"", text)
    assert re.findall(r"exec python -u /src/(.*?)\"", text) == ["examples/service.py"]
    (check,) = re.findall(r'"(import urllib.*?)"\]', text)
    key = {"APIVIDEO_API_KEY": "made-up-key-for-compose"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "apivideo_auth"),
        *serve.replace("0.0.0.0", "127.0.0.1").replace("8080", "0").split(),
        env=os.environ | key,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        async with service(**key, APIVIDEO_BASE_URL=url, PORT=str(unused_port)) as (shown, _):
            assert (await run("-c", check.replace("8000", str(unused_port))))[0] == 0
            assert shown.stderr is not None
            while b'"GET /videos ' not in (line := await shown.stderr.readline()):
                assert line
    finally:
        process.terminate()
        _, err = await process.communicate()
    assert b"POST /auth/api-key" in err
    assert b"GET /videos" in err


@pytest.fixture
async def unused_port() -> int:
    """A port that was free a moment ago."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        return server.sockets[0].getsockname()[1]


def test_the_example_of_a_tested_service_passes(pytester: pytest.Pytester) -> None:
    """examples/tested_service passes as its reader would run it."""
    shutil.copytree(ROOT / "examples" / "tested_service", pytester.path, dirs_exist_ok=True)
    pytester.runpytest_subprocess("-o", "asyncio_mode=auto", *OPTIONS).assert_outcomes(passed=3)
