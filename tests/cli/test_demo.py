"""`demo`: what it announces, shows and sums up."""

import os
import re
import subprocess

import pytest

from apivideo_auth.cli._exits import ExitCode
from apivideo_auth.emulator import Emulator, Fault
from tests.cli.process import COMMAND, call, read_terminal, run

SHORT = ("demo", "--seconds", "5", "--workers", "5")


async def test_the_demo_shows_renewals_and_a_revocation(bare: dict[str, str]) -> None:
    """The demo says what it will show, shows it as a timeline, and ends with figures alone on standard output."""
    code, out, err = await run(bare, *SHORT)
    assert code == 0, err
    figures = dict(re.findall(r"^ *([a-z ]+?)  (.+)$", out, re.MULTILINE))
    assert out.startswith("local api.video: no request failed\n")
    assert (figures["failures"], figures["revocations"]) == ("0", "1")
    assert int(figures["renewals"]) >= 2
    announced, events = err.split("No request should fail.\n")
    assert "5 workers" in announced
    assert "for 5 s" in announced
    assert "Tokens live for 3 s" in announced
    assert "Halfway" in announced
    lines = events.splitlines()
    assert all(re.match(r" *\d+\.\d\d s  ", line) for line in lines)
    assert lines[0].endswith("token 1  from /auth/api-key, lives for 3 s: the first token")
    taken = [int(number) for number in re.findall(r"token (\d+)  from", events)]
    assert taken == [*range(1, int(figures["renewals"]) + 2)]
    ((revoked, token),) = re.findall(r"revokes all tokens\n.*?token (\d+)  from /auth/(\w+)", events)
    assert (int(revoked) in taken, token) == (True, "refresh")
    moments = {int(number): float(at) for at, number in re.findall(r"([\d.]+) s  token (\d+)  from", events)}
    (moment,) = re.findall(r"([\d.]+) s  the server revokes", events)
    # Both moments are rounded.
    assert float(moment) - moments[int(revoked) - 1] >= 1.5 - 0.02


def test_on_a_terminal_the_timeline_remains_and_the_panel_goes(bare: dict[str, str]) -> None:
    """On a terminal a panel shows the current token and the requests; it is erased before the summary."""
    parent, child = os.openpty()
    process = subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "4", "--workers", "3"],
        env=bare | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=child,
    )
    os.close(child)
    try:
        text = read_terminal(parent)
    finally:
        os.close(parent)
        out, _ = process.communicate()
    assert (process.returncode, out.splitlines()[0]) == (0, b"local api.video: no request failed")
    assert re.search(r"token 1 .*fresh  \d+ requests  0 failed", text)
    assert "the server revokes all tokens" in text
    assert text.endswith("\x1b[2K")


async def test_against_a_real_server_it_stops_at_a_rejected_key(server: Emulator, environment: dict[str, str]) -> None:
    """With --live a rejected key ends the demo with one line and its exit code."""
    code, out, err = await call(environment | {"APIVIDEO_API_KEY": "made-up-wrong-key"}, "demo", "--live")
    assert (code, out) == (ExitCode.REJECTED, "")
    assert re.search(r"^Error: .*\bAPI key\b", err, re.MULTILINE)
    assert server.url in err.splitlines()[0]
    assert "made-up" not in err
    assert "Traceback" not in err


async def test_a_failed_request_fails_the_demo(server: Emulator, environment: dict[str, str]) -> None:
    """A failed request is shown at once, counted, and makes the exit code 1. With --live nothing is revoked."""
    server.inject(Fault(status=500, on="/videos"))
    code, out, err = await run(environment, "demo", "--live", "--seconds", "4", "--workers", "2")
    assert code == ExitCode.FAILED
    assert out.startswith(f"{server.url}: FAILED\n")
    figures = dict(re.findall(r"^ *([a-z ]+?)  (.+)$", out, re.MULTILINE))
    assert (figures["failures"], figures["renewals"], figures["revocations"]) == ("1", "0", "0")
    assert figures["last failure"] == "status 500"
    assert "request failed: status 500" in err
    # Its token is kept for the other commands.
    await call(environment, "token")
    assert [call.path for call in server.calls].count("/auth/api-key") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--live",), "APIVIDEO_API_KEY is not set"),
        (("--sandbox",), "--sandbox needs --live"),
        (("--seconds", "nan"), "not a finite number"),
        (("--ttl", "2"), "2"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_wrong_usage(bare: dict[str, str], arguments: tuple[str, ...], message: str) -> None:
    """Wrong options are usage errors that say why."""
    code, out, err = await call(bare, "demo", *arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert message in err
