"""The package as a user installs it: each extra alone, and the set-up of `make demo`."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from apivideo_auth.emulator import Emulator
from tests.cli.conftest import API_KEY
from tests.cli.process import clean_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "file": """
        from apivideo_auth.stores import FileStore
        options = {"store": FileStore(sys.argv[1])}
    """,
    "redis": """
        from apivideo_auth.stores import RedisStore
        options = {"store": RedisStore("redis://127.0.0.1:1/0")}  # no server: a token all the same
    """,
    "httpx": """
        import httpx
        from apivideo_auth.httpx import BearerAuth

        async def use(tokens):
            async with httpx.AsyncClient(base_url=tokens.base_url, auth=BearerAuth(tokens)) as client:
                (await client.get("/videos")).raise_for_status()
    """,
    "otel": """
        from apivideo_auth.otel import instrument

        async def use(tokens):
            instrument(tokens)()
    """,
}
FRAME = """
import asyncio, sys
from apivideo_auth import TokenManager

options = {{}}

async def use(tokens):
    pass

{program}

async def main():
    async with TokenManager.from_env(**options) as tokens:
        await use(tokens)
        print((await tokens.get_token()).generation)

asyncio.run(main())
"""


def installed(place: Path, requirement: str) -> Path:
    """Make a virtual environment with this requirement, and return the folder of its programs."""
    venv.create(place, symlinks=True)
    programs = place / ("Scripts" if sys.platform == "win32" else "bin")
    pip = (sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet")
    subprocess.run([*pip, "--disable-pip-version-check", requirement], check=True, env=clean_environment())
    return programs


async def run(*command: object, **variables: str) -> tuple[int, str, str]:
    """Run a program whose environment has only these variables of the package; return its exit code and outputs."""
    environment = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=environment | variables,
        cwd=Path(sys.prefix),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_extra_cli_is_all_that_the_command_needs(server: Emulator, tmp_path: Path) -> None:
    """With `apivideo-auth[cli]` alone every command works; the token is kept in the home folder between calls."""
    program = await asyncio.to_thread(installed, tmp_path / "venv", f"{ROOT}[cli]") / "apivideo-auth"
    variables = {"APIVIDEO_API_KEY": API_KEY, "APIVIDEO_BASE_URL": server.url, "HOME": str(tmp_path)}
    code, out, err = await run(program, "token", "--format", "json", **variables)
    assert (code, err) == (0, "")
    token = json.loads(out)["access_token"]
    assert await run(program, "exec", "--", "sh", "-c", "printf %s $APIVIDEO_ACCESS_TOKEN", **variables) == (
        0,
        token,
        "",
    )
    code, out, err = await run(program, "status", **variables)
    assert (code, "expires in 59 min" in out, err) == (0, True, "")
    code, out, err = await run(program, "doctor", **variables)
    assert (code, "FAIL" in out, err) == (0, False, "")
    assert (await run(program, "logout", **variables))[0] == 0
    assert (await run(program, "status", **variables))[0] == 1
    assert [call.path for call in server.calls].count("/auth/api-key") == 1
    code, out, _ = await run(program, "token", **variables, APIVIDEO_TOKEN_STORE="redis://127.0.0.1:1/0")
    assert (code, out) == (2, "")


@pytest.mark.parametrize("extra", PROGRAMS)
async def test_each_extra_is_all_that_its_part_needs(server: Emulator, tmp_path: Path, extra: str) -> None:
    """With one extra alone, a program that uses its part works."""
    python = await asyncio.to_thread(installed, tmp_path / "venv", f"{ROOT}[{extra}]") / "python"
    program = FRAME.format(program="\n".join(line[8:] for line in PROGRAMS[extra].splitlines()))
    variables = {"APIVIDEO_API_KEY": API_KEY, "APIVIDEO_BASE_URL": server.url}
    assert await run(python, "-W", "error", "-c", program, tmp_path / "tokens", **variables) == (0, "1\n", "")


def test_make_demo_installs_what_the_demo_needs(tmp_path: Path) -> None:
    """`make demo` sets up an environment without test and lint tools, and shows the demo."""
    place = tmp_path / "venv"
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    environment = clean_environment() | {"PYTHON": sys.executable}
    made = subprocess.run(
        [make, "demo", f"VENV={place}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "local api.video: no request failed" in made.stdout
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "list", "--format", "json"]
    listed = subprocess.run(pip, env=os.environ, capture_output=True, text=True, check=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"apivideo-auth", "click", "rich", "filelock"} <= names
    assert not {"pytest", "mypy", "pyright", "ruff", "twine", "build", "redis", "httpx"} & names
