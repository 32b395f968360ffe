"""What holds for every command: help, output, interrupts, completion, logs and the page about it."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest

from apivideo_auth import (
    AuthConnectionError,
    AuthResponseError,
    CredentialsRejectedError,
    InsecureUrlError,
    InvalidResponseError,
    RateLimitedError,
    TokenRejectedError,
    TokenStoreError,
)
from apivideo_auth.cli import command
from apivideo_auth.cli._exits import ExitCode, exit_code
from apivideo_auth.emulator import Emulator
from tests.cli.conftest import API_KEY
from tests.cli.process import COMMAND, clean_environment, on_a_terminal, read_terminal, read_until, run, started

COMMANDS = {(name,): each for name, each in command.commands.items()} | {(): command}
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_imports_no_http_client(path: tuple[str, ...]) -> None:
    """--help of every command answers without importing aiohttp, attrs or asyncio."""
    code = (
        "import sys, apivideo_auth.__main__ as program\n"
        "try: program.main()\n"
        "finally: print({'aiohttp', 'attr', 'asyncio', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *path, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: apivideo-auth ")
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_page_names_every_option(path: tuple[str, ...]) -> None:
    """docs/cli.md has a section for every command, with exactly the options that --help shows."""
    (title,) = path or ("Options of several commands",)
    shared = {"-h", "--help", "--verbose"}
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    options = {name for each in COMMANDS[path].params for name in each.opts if name.startswith("-")}
    if path:
        table = "\n".join(line.split("|")[1] for line in section[1].splitlines() if line.startswith("| `-"))
        assert set(re.findall(r"`(--?[\w-]+)", table)) == options - shared
    else:
        assert shared | options <= set(re.findall(r"(?<=[` ])--?[a-z-]+", section[1]))


def test_the_page_names_every_command_and_exit_code() -> None:
    """docs/cli.md lists every command at its top, and every exit code."""
    assert set(re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE)) == {*command.commands}
    table = PAGE.partition("## Exit codes")[2]
    codes = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in cell.split(",")}
    assert codes == {*ExitCode}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CredentialsRejectedError("made up", status=400), ExitCode.REJECTED),
        (TokenRejectedError("made up"), ExitCode.REJECTED),
        (AuthConnectionError("made up"), ExitCode.UNREACHABLE),
        (AuthResponseError("made up", status=503), ExitCode.UNREACHABLE),
        (AuthResponseError("made up", status=404), ExitCode.UNEXPECTED_RESPONSE),
        (InvalidResponseError("made up", status=200), ExitCode.UNEXPECTED_RESPONSE),
        (RateLimitedError("made up", status=429), ExitCode.RATE_LIMITED),
        (TokenStoreError("made up"), ExitCode.STORE),
        (InsecureUrlError("made up"), ExitCode.USAGE),
        (ValueError("made up"), ExitCode.USAGE),
        (KeyError("made up"), None),
    ],
)
def test_exit_codes_of_errors(error: Exception, code: ExitCode | None) -> None:
    """Each kind of error has its exit code; a defect has none and shows its traceback."""
    assert exit_code(error) == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [("token",), ("--help",)], ids=" ".join)
async def test_a_full_disk_is_one_line(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    """Where standard output cannot be written the command says so in one line and exits 1."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with started(environment, *arguments, stdout=full) as process:
            _, err = await process.communicate()
    finally:
        os.close(full)
    assert (process.returncode, err) == (1, b"Error: No space left on device\n")


@pytest.mark.parametrize("arguments", [("token",), ("--help",)], ids=" ".join)
async def test_a_closed_pipe_is_quiet(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    """Where nobody reads standard output, as after `| head -0`, the command exits 1 and says nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        async with started(environment, *arguments, stdout=writer) as process:
            _, err = await process.communicate()
    finally:
        os.close(writer)
    assert (process.returncode, err) == (1, b"")


async def test_an_interrupt_exits_130(bare: dict[str, str]) -> None:
    """Ctrl-C ends a command with code 130 and without a traceback. -vv shows what the package logs."""
    async with started(bare, "demo", "-vv") as process:
        assert "DEBUG" in await read_until(process.stderr, "/videos")
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, b"")
    assert b"Traceback" not in err


async def test_an_interrupt_of_a_call_exits_130(environment: dict[str, str]) -> None:
    """Ctrl-C while the endpoint does not answer ends the command in the same way."""
    connected: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _reader, writer: connected.set_result(writer), "127.0.0.1", 0)
    async with server:
        environment |= {"APIVIDEO_BASE_URL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        async with started(environment, "token") as process:
            writer = await connected
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
            writer.close()
            await writer.wait_closed()
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, b"")
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("token",), ""),
        (("token", "--key-file", "-"), "API key: "),
        (("exec", "--", "echo", "started"), ""),
        (("doctor",), "no token is stored"),
        (("demo",), "token 1"),
    ],
    ids=["token", "key", "exec", "doctor", "demo"],
)
def test_an_interrupt_on_a_terminal_exits_130(bare: dict[str, str], arguments: tuple[str, ...], shown: str) -> None:
    """Ctrl-C on a terminal ends whatever the command waits for: a response, a key, the time of the demo. Nothing but
    the ^C of the terminal is shown, and the cursor is visible again.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as stack:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = bare | {"APIVIDEO_API_KEY": API_KEY, "APIVIDEO_BASE_URL": url, "TERM": "xterm"}
        process, terminal = stack.enter_context(on_a_terminal(environment, *COMMAND, *arguments))
        text = read_terminal(terminal, shown) if shown else ""
        if shown not in ("API key: ", "token 1"):
            stack.enter_context(silent.accept()[0])
        os.write(terminal, b"\x03")
        text += read_terminal(terminal)
        assert process.wait() == ExitCode.INTERRUPTED
    assert "Traceback" not in text
    assert "Error" not in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


async def test_a_key_that_is_typed_is_not_shown(server: Emulator, bare: dict[str, str]) -> None:
    """On a terminal `--key-file -` asks for the key, and does not show what is typed."""

    def use() -> tuple[int, str]:
        environment = bare | {"APIVIDEO_BASE_URL": server.url}
        with on_a_terminal(environment, *COMMAND, "status", "--key-file", "-") as (process, terminal):
            text = read_terminal(terminal, "API key: ")
            os.write(terminal, f"{API_KEY}\n".encode())
            return process.wait(), text + read_terminal(terminal)

    code, text = await asyncio.to_thread(use)
    assert (code, text.splitlines()[-1]) == (ExitCode.FAILED, f"{server.url}: no token is stored")
    assert API_KEY not in text


async def test_completion(bare: dict[str, str]) -> None:
    """The lines in docs/cli.md print completion scripts, which ask the command and get its commands."""
    for shell in ("bash", "zsh", "fish"):
        assert f"_APIVIDEO_AUTH_COMPLETE={shell}_source apivideo-auth" in PAGE
        code, out, _ = await run(bare | {"_APIVIDEO_AUTH_COMPLETE": f"{shell}_source", "PYTHONWARNINGS": ""})
        assert (code, f"_APIVIDEO_AUTH_COMPLETE={shell}_complete" in out) == (0, True)
    asked = {"_APIVIDEO_AUTH_COMPLETE": "bash_complete", "COMP_WORDS": "apivideo-auth lo", "COMP_CWORD": "1"}
    assert await run(bare | asked) == (0, "plain,logout\n", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion_in_bash(bare: dict[str, str], tmp_path: Path) -> None:
    """With the line of docs/cli.md in its start-up file, bash completes a command when Tab is pressed."""
    (line,) = re.findall(r"^\$ echo '(.*?)' >> ~/\.bashrc$", PAGE, re.MULTILINE)
    program = tmp_path / "apivideo-auth"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore -m apivideo_auth "$@"\n')
    program.chmod(0o755)
    (tmp_path / ".bashrc").write_text(f"PS1=ready:\n{line}\n")
    environment = bare | {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{bare['PATH']}", "TERM": "xterm"}
    with on_a_terminal(environment, "bash", "-i") as (_, terminal):
        read_terminal(terminal, "ready:")
        os.write(terminal, b"apivideo-auth log\t")
        assert "apivideo-auth logout " in read_terminal(terminal, "logout ")


def test_the_extra_brings_the_file_store() -> None:
    """The extra `cli` brings what the store between calls needs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "apivideo-auth[file]" in extras["cli"]


def test_without_click_the_command_says_what_to_install() -> None:
    """Without the extra `cli` the command names it instead of a traceback."""
    code = (
        "import sys; sys.modules['click'] = None; import runpy; sys.argv[1:] = ['demo'];"
        "runpy.run_module('apivideo_auth', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=clean_environment()
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "install apivideo-auth[cli]" in done.stderr
