"""`exec`: a program with a token."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from apivideo_auth.cli._exits import ExitCode
from apivideo_auth.emulator import Emulator
from tests.cli.conftest import API_KEY
from tests.cli.process import COMMAND, call, on_a_terminal, read_terminal, run, started

SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


async def test_the_program_gets_the_token_and_not_the_key(server: Emulator, environment: dict[str, str]) -> None:
    """The program has the token and the base URL in its environment, everything else as it was, and not the API key."""
    code, out, err = await run(environment | {"MADE_UP": "1"}, "exec", "--", sys.executable, "-c", SHOW, "-v", "--x=1")
    assert (code, err) == (0, "")
    arguments, variables = json.loads(out)
    token = (await call(environment, "token"))[1].strip()
    assert arguments == ["-v", "--x=1"]
    assert (variables["APIVIDEO_ACCESS_TOKEN"], variables["APIVIDEO_BASE_URL"]) == (token, server.url)
    assert (variables["MADE_UP"], "APIVIDEO_API_KEY" in variables) == ("1", False)
    assert API_KEY not in out


async def test_options_of_the_program_need_no_dashes(environment: dict[str, str]) -> None:
    """The first argument that is not an option is the program; options after it are the program's."""
    code, out, _ = await run(environment, "exec", "--min-ttl", "60", "sh", "-c", 'printf %s "$1"', "sh", "--force")
    assert (code, out) == (0, "--force")


async def test_min_ttl_asks_for_a_longer_life(environment: dict[str, str]) -> None:
    """A --min-ttl that no token reaches is a usage error, and the program does not start."""
    code, out, err = await call(environment, "exec", "--min-ttl", "4000", "--", "echo", "started")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "min_ttl" in err


async def test_the_exit_code_is_the_programs(environment: dict[str, str]) -> None:
    """The exit code and standard input pass through."""
    assert (await run(environment, "exec", "--", "sh", "-c", "read line; exit $line", stdin="41\n"))[0] == 41


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_reach_the_program(environment: dict[str, str], number: int) -> None:
    """A signal to the command is a signal to the program, and ends it as it would without the command."""
    program = (
        "import signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_DFL); print('up', flush=True); signal.pause()"
    )
    async with started(environment, "exec", "--", sys.executable, "-c", program, str(int(number))) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert await process.wait() == -number


async def test_the_program_dies_of_a_closed_pipe(environment: dict[str, str]) -> None:
    """The program does not inherit that Python ignores SIGPIPE."""
    code, out, _ = await run(environment, "exec", "--", "sh", "-c", "kill -PIPE $$; echo survived")
    assert (code, out) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("", ExitCode.NOT_FOUND, "Error: command not found: ''\n"),
        ("made-up-program", ExitCode.NOT_FOUND, "Error: command not found: made-up-program\n"),
        ("{folder}", ExitCode.NOT_EXECUTABLE, "Error: cannot execute {folder}: Permission denied\n"),
    ],
)
async def test_a_program_that_cannot_run(
    environment: dict[str, str], tmp_path: Path, program: str, code: ExitCode, message: str
) -> None:
    """A program that is not found, or cannot be executed, has the shell's code for that, and one line."""
    got = await run(environment, "exec", "--", program.format(folder=tmp_path))
    assert got == (code, "", message.format(folder=tmp_path))


async def test_without_a_token_the_program_does_not_start(environment: dict[str, str]) -> None:
    """A rejected key has its own exit code; a missing program is a usage error."""
    environment |= {"APIVIDEO_API_KEY": "made-up-wrong-key"}
    code, out, _ = await call(environment, "exec", "--", "echo", "started")
    assert (code, out) == (ExitCode.REJECTED, "")
    assert (await call(environment, "exec"))[0] == ExitCode.USAGE


async def test_the_program_has_the_terminal(environment: dict[str, str]) -> None:
    """On a terminal, Ctrl-C reaches the program as if it had been started alone."""
    program = (
        "import time\ntry:\n print('up', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('interrupted')"
    )

    def use() -> None:
        command = (*COMMAND, "exec", "--", sys.executable, "-c", program)
        with on_a_terminal(environment, *command) as (process, terminal):
            read_terminal(terminal, "up")
            os.write(terminal, b"\x03")
            assert process.wait() == 0
            assert "interrupted" in read_terminal(terminal)

    # In a thread, so that the local api.video can answer.
    await asyncio.to_thread(use)
