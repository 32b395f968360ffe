"""The command: as a process, and in this process, which takes a tenth of the time."""

import asyncio
import io
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest

from apivideo_auth import cli

COMMAND = (sys.executable, "-m", "apivideo_auth")
PIPE = asyncio.subprocess.PIPE
MAX_SILENCE = 60
"""Seconds that a program may show nothing on a terminal."""


async def call(environment: Mapping[str, str], *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run the command in a thread of this process; return its exit code and outputs.

    For commands that end by themselves and are not replaced by a program, without -v and without TLS.
    """
    return await asyncio.to_thread(_call, environment, arguments, stdin)


def _call(environment: Mapping[str, str], arguments: tuple[str, ...], stdin: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", ["apivideo-auth", *arguments]),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    # sys.exit(None) is success.
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


async def run(environment: Mapping[str, str], *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run the command; return its exit code and outputs."""
    async with started(environment, *arguments) as process:
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def started(
    environment: Mapping[str, str], *arguments: str, stdout: int = PIPE, stderr: int = PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the command; kill it in the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=environment, stdin=PIPE, stdout=stdout, stderr=stderr
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def serving(
    environment: Mapping[str, str], *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `serve`; give the process and the first line of its standard output."""
    async with started(environment, "serve", *arguments) as process:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()


async def read_until(stream: asyncio.StreamReader | None, text: str) -> str:
    """Read lines until one contains this text; return all of them."""
    assert stream is not None
    lines = ""
    while text not in lines:
        line = (await stream.readline()).decode()
        assert line, f"{text!r} is missing in {lines!r}"
        lines += line
    return lines


def read_terminal(terminal: int, until: str | None = None) -> str:
    """Read what programs wrote to a pseudo-terminal until this text, or else until the last program has ended."""
    shown = b""
    try:
        while until is None or until.encode() not in shown:
            # A thread that waits for ever would keep the test from ending.
            readable, _, _ = select.select([terminal], [], [], MAX_SILENCE)
            assert readable, shown
            shown += os.read(terminal, 65_536)
    except OSError:
        # What Linux says when no program has the terminal open any more.
        assert until is None, shown
    return shown.decode()


@contextmanager
def on_a_terminal(environment: Mapping[str, str], *command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a program with a pseudo-terminal of its own, where Ctrl-C is a signal; give it and the terminal."""
    parent, child = os.openpty()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509  the function takes no lock
    )
    os.close(child)
    try:
        yield process, parent
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def _take_terminal() -> None:
    import fcntl  # noqa: PLC0415  not on Windows
    import termios  # noqa: PLC0415  not on Windows

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the package's and the proxies' variables."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("APIVIDEO_") and not name.lower().endswith("_proxy")
    }
