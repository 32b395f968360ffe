"""Each block of code in the documents, run as a reader would run it. Three pages have test files of their own."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from apivideo_auth.cli import command
from apivideo_auth.emulator import Emulator

ROOT = Path(__file__).parents[2]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [*ROOT.glob("*.md"), *ROOT.rglob("docs/**/*.md")]
}
TESTED_ELSEWHERE = {"README.md", "docs/fleet.md", "docs/recipes.md", "docs/testing.md"}
BLOCK = re.compile(r"(?P<mark><!-- not run: .+? -->\n+)?^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"\A# (\w+\.py)\n")

# Pauses are for the reader. The tests need none.
WITHOUT_PAUSES = """
import asyncio
_sleep = asyncio.sleep
asyncio.sleep = lambda seconds, *result: _sleep(min(seconds, 0.01), *result)
del asyncio
"""


def blocks(page: str) -> list[str]:
    """Return the blocks of a page, without those that cannot run."""
    return [found["code"] for found in BLOCK.finditer(TEXTS[page]) if found["mark"] is None]


PAGES = sorted(page for page in TEXTS if page not in TESTED_ELSEWHERE and blocks(page))
PROGRAMS = [(page, code) for page in PAGES for code in blocks(page) if not NAME.match(code)]
PAGES_WITH_FILES = [page for page in PAGES if any(NAME.match(code) for code in blocks(page))]


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    """A local api.video."""
    async with Emulator() as emulator:
        yield emulator


@pytest.mark.parametrize(
    ("page", "code"), PROGRAMS, ids=[f"{page}-{number}" for number, (page, _) in enumerate(PROGRAMS)]
)
async def test_every_program_of_the_documents_runs(server: Emulator, tmp_path: Path, page: str, code: str) -> None:
    """A block without a file name is a program that gets a token, and ends without an error or a warning."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    environment |= {
        "APIVIDEO_API_KEY": server.api_key,
        "APIVIDEO_BASE_URL": server.url,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", WITHOUT_PAUSES + code),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    # The logs of the programs that show logging.
    lines = [
        line for line in err.decode().splitlines() if not re.match(r"INFO:|\d{4}-\d\d-\d\d .* (renewed|GET) ", line)
    ]
    assert (page, process.returncode, lines) == (page, 0, [])
    assert "/auth/api-key" in [call.path for call in server.calls]


@pytest.mark.parametrize("page", PAGES_WITH_FILES)
def test_the_files_of_a_page_work_together(pytester: pytest.Pytester, page: str) -> None:
    """The blocks that begin with a file name are saved in one folder, and their tests pass."""
    tests = 0
    for code in blocks(page):
        match = NAME.match(code)
        if match is None or ("apivideo.apis" in code and find_spec("apivideo") is None):
            continue
        pytester.path.joinpath(match[1]).write_text(code, "utf-8")
        tests += code.count("\nasync def test_")
    # Warnings are shown: the vendor's client has some.
    options = ("-o", "asyncio_default_fixture_loop_scope=function", "-o", "pythonpath=.")
    result = pytester.runpytest_subprocess(*options, "-p", "no:looptime_plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=tests)
    assert tests


def test_all_blocks_are_tested_somewhere() -> None:
    """Each Python block runs here or in the file of its page; the few that cannot run say why."""
    every = sum(text.count("```python\n") for text in TEXTS.values())
    elsewhere = sum(TEXTS[page].count("```python\n") for page in TESTED_ELSEWHERE)
    marked = [found["mark"] for text in TEXTS.values() for found in BLOCK.finditer(text) if found["mark"]]
    here = len(PROGRAMS) + sum(bool(NAME.match(code)) for page in PAGES for code in blocks(page))
    assert every == elsewhere + here + len(marked)


COMMANDS = sorted(
    {
        (page, found[1], found[2])
        for page, text in TEXTS.items()
        for console in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for found in re.finditer(
            r"(?:^\$ |\$\(|\| )apivideo-auth (\w+)((?: +(?!-- |#)[^\s|)]+)*)", console, re.MULTILINE
        )
    }
)


@pytest.mark.parametrize(("page", "name", "arguments"), COMMANDS)
def test_the_commands_of_the_documents_exist(page: str, name: str, arguments: str) -> None:
    """Each command line in the documents names a command and options that exist."""
    known = {option for each in command.commands[name].params for option in each.opts} | {"--help"}
    assert {word for word in arguments.split() if word.startswith("--")} <= known, page


async def test_getting_started_with_the_commands_own_server(tmp_path: Path) -> None:
    """The first program of "Getting started" works against `apivideo-auth serve` as the page starts it."""
    page = TEXTS["docs/getting-started.md"]
    (arguments,) = re.findall(r"^\$ apivideo-auth (serve .*)$", page, re.MULTILINE)
    (key,) = re.findall(r"APIVIDEO_API_KEY=(made-up\S+)", page)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    environment |= {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "apivideo_auth", *arguments.replace("8080", "0").split()),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        first = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", blocks("docs/getting-started.md")[0]),
            cwd=tmp_path,
            env=environment | {"APIVIDEO_API_KEY": key, "APIVIDEO_BASE_URL": url},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await first.communicate()
    finally:
        process.terminate()
        await process.wait()
    shown = re.search(r"^\$ python first.py\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert shown is not None
    # Times and fingerprints differ.
    changing = r"\d{4}-\S+|fingerprint=\w+|\d+ seconds"
    assert re.sub(changing, "…", out.decode()) == re.sub(changing, "…", shown[1])
