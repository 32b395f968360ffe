"""How long it takes to import each peer, and to run the command, in fresh processes.

Each is measured in turn with `import aiohttp`, as a ratio to it. An import is timed inside the process, so that the
start of Python does not count; a command is timed from outside, as a user waits for it.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from apivideo_auth.emulator import Emulator
from benchmarks.measure import Figure, figure
from benchmarks.peers import PEERS
from benchmarks.scenarios import Figures, Size

TIMED = "import time; before = time.perf_counter(); {}; print(time.perf_counter() - before)"


def imports(size: Size, peers: Iterable[str]) -> dict[str, Figures]:
    """Return the ratios of the peers to `import aiohttp`."""
    ratios: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(_rounds(size) + 1):
        floor = _import_seconds("import aiohttp")
        for name, rounds in ratios.items():
            ratio = _import_seconds(PEERS[name].imports) / floor
            # The first round compiles the modules.
            if number:
                rounds.append(ratio)
    return {name: {"import": figure(rounds, "×")} for name, rounds in ratios.items()}


def _rounds(size: Size) -> int:
    return 1 if size.quick else 9


def _import_seconds(statement: str) -> float:
    command = [sys.executable, "-W", "ignore", "-c", TIMED.format(statement)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)  # noqa: S603


def commands(size: Size) -> dict[str, Figures]:
    """Return the seconds of the commands, and their ratios to a process that imports aiohttp and ends."""
    program = str(Path(sys.executable).with_name("apivideo-auth"))
    with tempfile.TemporaryDirectory() as directory:
        api_key = Emulator().api_key
        environment = {
            **os.environ,
            "APIVIDEO_API_KEY": api_key,
            "APIVIDEO_BASE_URL": asyncio.run(_store_a_token(program, api_key, directory)),
            "APIVIDEO_TOKEN_STORE": f"file://{directory}/tokens",
        }
        lines = {
            "apivideo-auth --help": [program, "--help"],
            "apivideo-auth token": [program, "token"],
            "python -c 'import aiohttp'": [sys.executable, "-c", "import aiohttp"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        took: dict[str, list[float]] = {name: [] for name in lines}
        for number in range(_rounds(size) + 1):
            for name, line in lines.items():
                seconds = _process_seconds(line, environment)
                if number:
                    took[name].append(seconds)
    floor = took["python -c 'import aiohttp'"]
    return {name: _row(rounds, floor) for name, rounds in took.items()}


def _row(took: list[float], floor: list[float]) -> dict[str, Figure]:
    ratios = (own / least for own, least in zip(took, floor, strict=True))
    return {"time": figure((1000 * seconds for seconds in took), "ms"), "ratio": figure(ratios, "×")}


async def _store_a_token(program: str, api_key: str, directory: str) -> str:
    """Run the command once against an emulator, which is gone afterwards: the next ones find the token."""
    async with Emulator(api_key=api_key) as server:
        environment = {
            **os.environ,
            "APIVIDEO_API_KEY": api_key,
            "APIVIDEO_BASE_URL": server.url,
            "APIVIDEO_TOKEN_STORE": f"file://{directory}/tokens",
        }
        process = await asyncio.create_subprocess_exec(
            program, "token", env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError("the command cannot get a token")
        return server.url


def _process_seconds(command: list[str], environment: dict[str, str]) -> float:
    before = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    return time.perf_counter() - before
