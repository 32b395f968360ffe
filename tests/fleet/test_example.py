"""examples/fleet.py and the block of docs/fleet.md, run as their reader would run them."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

from apivideo_auth.emulator import Emulator
from tests.fleet.fleet import ROOT
from tests.support.redis_server import RedisServer

WORKERS = 3
SUMMARY = re.compile(
    rf"{WORKERS} workers: (\d+) requests, (\d+) failed; the endpoint saw (\d+) api-key and (\d+) refresh calls\n"
)


async def start(*options: str) -> asyncio.subprocess.Process:
    """Start the example without a key, in a session of its own, so that it can be sent what a terminal sends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "examples/fleet.py", "--workers", str(WORKERS), *options),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


def figures(out: bytes) -> tuple[int, ...]:
    """Return the requests, the failures, and the calls to the two endpoints."""
    found = SUMMARY.fullmatch(out.decode())
    assert found is not None, out
    return tuple(map(int, found.groups()))


async def test_g12_the_example_on_a_redis_and_on_files(module_redis: RedisServer, tmp_path: Path) -> None:
    """Three processes share their token and renew in turn; the summary alone goes to standard output. Both runs keep
    to what they were given: a Redis, a folder.
    """
    folder = tmp_path / "tokens"
    runs = [
        await start("--seconds", "5", "--ttl", "2", "--redis", module_redis.url),
        await start("--seconds", "5", "--ttl", "2", "--files", str(folder)),
    ]
    for process in runs:
        out, err = await process.communicate()
        requests, failures, api_key, refresh = figures(out)
        assert (process.returncode, failures) == (0, 0), err
        assert requests > WORKERS
        # One, but for workers that had to wait too long for their store on a machine that is short of breath.
        assert 1 <= api_key <= WORKERS
        assert refresh >= 1
        assert len(SUMMARY.findall(err.decode())) >= 4
        assert SUMMARY.sub("", err.decode()) == ""
    assert {path.suffix for path in folder.iterdir()} == {".json", ".lock"}


async def test_g12_the_example_ends_cleanly_on_ctrl_c() -> None:
    """Ctrl-C, which reaches every process of a terminal, ends all of them without a traceback, with the summary."""
    process = await start("--seconds", "60")
    assert process.stderr is not None
    # Bounded by the test's timeout.
    while not (line := await process.stderr.readline()) or not figures(line)[0]:
        assert process.returncode is None
    os.killpg(process.pid, signal.SIGINT)
    out, err = await process.communicate()
    assert figures(out)[1] == 0
    assert SUMMARY.sub("", err.decode()) == ""
    assert process.returncode == 0


async def test_g12_the_page_on_fleets_runs(tmp_path: Path) -> None:
    """The program of docs/fleet.md works with its environment set, and leaves its token in the store."""
    # A machine that is busy must not look like a store that is down.
    patient = "from tests.support.time_limits import set_operation_timeout\nset_operation_timeout(20.0)\n"
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "fleet.md").read_text(), re.DOTALL)
    async with Emulator() as server:
        environment = {
            "APIVIDEO_API_KEY": server.api_key,
            "APIVIDEO_BASE_URL": server.url,
            "APIVIDEO_TOKEN_STORE": f"file://{tmp_path}/tokens",
        }
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", "-c", patient + block),
                cwd=ROOT,
                env=os.environ | environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert await process.communicate() == (b"200\n", b"")
        assert [call.path for call in server.calls] == ["/auth/api-key", "/videos", "/videos"]
