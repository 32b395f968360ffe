"""`token`, `status` and `logout`."""

import asyncio
import json
import re
import shlex
import sys
from datetime import datetime
from pathlib import Path

import pytest

from apivideo_auth.cli import _token
from apivideo_auth.cli._exits import ExitCode
from apivideo_auth.emulator import Emulator, Fault
from apivideo_auth.stores._account import FailoverAccount
from tests.cli.process import COMMAND, call, run


async def test_a_token_is_kept_between_calls(server: Emulator, environment: dict[str, str]) -> None:
    """Two calls print the same token; --force prints another; logout deletes it; each message goes to its place."""
    code, out, err = await call(environment, "status")
    assert (code, out, err) == (1, f"{server.url}: no token is stored\n", "")
    _, first, err = await run(environment, "token")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", first)
    assert err == ""
    assert (await run(environment, "token"))[1] == first
    assert [call.path for call in server.calls] == ["/auth/api-key"]
    code, out, _ = await call(environment, "status")
    assert (code, out.startswith(f"{server.url}: the stored token expires in 59 min")) == (0, True)
    code, out, _ = await call(environment, "status", "--json")
    assert json.loads(out)["expires_in"] > 3500
    code, forced, err = await call(environment, "token", "--force")
    assert (code, err) == (0, "")
    assert forced != first
    assert [call.path for call in server.calls] == ["/auth/api-key", "/auth/refresh"]
    code, out, err = await call(environment, "logout")
    assert (code, out, err) == (0, "", f"{server.url}: the stored token is deleted\n")
    assert (await call(environment, "status"))[0] == 1


@pytest.mark.real_limits
async def test_a_slow_store_keeps_the_token(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command gives its store more time than a service does, so that a busy machine does not lose the token."""
    monkeypatch.setitem(FailoverAccount._ask.__kwdefaults__, "limit", 0.0)
    code, first, err = await call(environment, "token")
    assert (code, err) == (0, "")
    assert await call(environment, "token") == (0, first, "")


async def test_force_in_a_row(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """--force waits until a token may be replaced. If that takes too long it says when to try again."""
    monkeypatch.setattr(_token, "_MAX_WAIT", 1.0)
    _, first, _ = await call(environment, "token")
    code, second, _ = await call(environment, "token", "--force")
    assert (code, second not in ("", first)) == (0, True)
    # Each pause is twice as long as the one before.
    for _ in range(10):
        code, out, err = await call(environment, "token", "--force")
        if code:
            break
    assert (code, out) == (ExitCode.RATE_LIMITED, "")
    assert re.fullmatch(r"Error: a token was replaced moments ago; try again in \d+ seconds\n", err)


async def test_formats_of_a_token(environment: dict[str, str]) -> None:
    """Each format is what its consumer takes."""
    token = (await call(environment, "token"))[1].strip()
    printed = {form: (await call(environment, "token", "--format", form))[1] for form in ("header", "env", "curl")}
    assert printed == {
        "header": f"Authorization: Bearer {token}\n",
        "env": f"export APIVIDEO_ACCESS_TOKEN={token}\n",
        "curl": f'header = "Authorization: Bearer {token}"\n',
    }


async def test_the_json_format_has_exactly_these_fields(server: Emulator, environment: dict[str, str]) -> None:
    """--format json prints version 1: the token, its expiry in three forms, the API, and no refresh token."""
    _, out, _ = await call(environment, "token", "--format", "json")
    document = json.loads(out)
    expires_at = datetime.fromisoformat(document.pop("expires_at"))
    assert expires_at.tzinfo is not None
    assert document.pop("expires_on") == expires_at.timestamp()
    assert 3500 < document.pop("expires_in") <= 3600
    token = (await call(environment, "token"))[1].strip()
    assert document == {"version": 1, "access_token": token, "token_type": "Bearer", "base_url": server.url}


async def test_the_key_comes_from_a_file_or_from_standard_input(
    server: Emulator, bare: dict[str, str], tmp_path: Path
) -> None:
    """--key-file reads the key from a file, or with - from standard input."""
    environment = bare | {"APIVIDEO_BASE_URL": server.url}
    path = tmp_path / "key"
    path.write_text(f"{server.api_key}\n")
    assert (await call(environment, "token", "--key-file", str(path)))[0] == 0
    assert (await call(environment, "token", "--key-file", "-", stdin=f"{server.api_key}\n"))[0] == 0
    code, out, err = await call(environment, "token", "--key-file", str(tmp_path / "none"))
    assert (code, out) == (ExitCode.USAGE, "")
    assert "No such file" in err
    path.write_bytes(b"\xff\xfe")
    assert "not a text file" in (await call(environment, "token", "--key-file", str(path)))[2]
    path.write_text("x" * 5000)
    assert "more than 4096 characters" in (await call(environment, "token", "--key-file", str(path)))[2]


@pytest.mark.parametrize(
    ("closed", "code", "message"),
    [
        ("<&-", ExitCode.USAGE, "Error: cannot read the API key: standard input is closed\n"),
        (">&-", ExitCode.FAILED, "Error: cannot print the token: standard output is closed\n"),
    ],
)
async def test_a_closed_stream_is_one_line(
    server: Emulator, environment: dict[str, str], closed: str, code: ExitCode, message: str
) -> None:
    """A token that cannot be printed is not asked for, and a key cannot come from a closed standard input."""
    arguments = "--key-file -" if closed == "<&-" else ""
    shell = await asyncio.create_subprocess_shell(
        f"exec {shlex.join(COMMAND)} token {arguments} {closed}",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await shell.communicate()
    assert (shell.returncode, out.decode(), err.decode()) == (code, "", message)
    assert server.calls == []


@pytest.mark.parametrize(
    ("variables", "arguments", "code"),
    [
        ({"APIVIDEO_API_KEY": ""}, (), ExitCode.USAGE),
        ({}, ("--min-ttl", "4000"), ExitCode.USAGE),
        ({}, ("--min-ttl", "nan"), ExitCode.USAGE),
        ({"APIVIDEO_BASE_URL": "http://192.168.1.1"}, (), ExitCode.USAGE),
        ({"APIVIDEO_TOKEN_STORE": "made-up:"}, (), ExitCode.USAGE),
        ({"APIVIDEO_API_KEY": "made-up-wrong-key"}, (), ExitCode.REJECTED),
    ],
)
async def test_exit_codes_of_a_wrong_call(
    environment: dict[str, str], variables: dict[str, str], arguments: tuple[str, ...], code: ExitCode
) -> None:
    """Wrong usage and a rejected key have codes of their own, print nothing to standard output, and no secret."""
    got, out, err = await call(environment | variables, "token", *arguments)
    assert (got, out) == (code, "")
    assert "Error: " in err
    assert "Traceback" not in err
    assert "made-up-" not in err


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(status=429, headers={"Retry-After": "60"}), ExitCode.RATE_LIMITED),
        (Fault(status=503, headers={"Retry-After": "60"}), ExitCode.UNREACHABLE),
    ],
    ids=["429", "503"],
)
async def test_exit_codes_of_a_failing_endpoint(
    server: Emulator, environment: dict[str, str], fault: Fault, code: ExitCode
) -> None:
    """Rate limits and an outage have codes of their own, and one line each."""
    server.inject(fault)
    got, out, err = await call(environment, "token")
    assert (got, out) == (code, "")
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1


async def test_a_store_that_cannot_be_used(environment: dict[str, str], tmp_path: Path) -> None:
    """A bad store is the error of status and logout; token prints one all the same, with a warning."""
    folder = tmp_path / "open-to-all"
    folder.mkdir()
    folder.chmod(0o777)
    environment |= {"APIVIDEO_TOKEN_STORE": f"file://{folder}"}
    assert (await call(environment, "status"))[0] == ExitCode.STORE
    assert (await call(environment, "logout"))[0] == ExitCode.STORE
    code, out, err = await call(environment, "token")
    assert (code, out.count(".")) == (0, 2)
    assert err.startswith("Warning: the token is not kept: ")


async def test_a_hostile_token_is_quoted(server: Emulator, environment: dict[str, str]) -> None:
    """A token with quotes in it is data for the shell and for curl, not commands."""
    hostile = "x';echo${IFS}made-up;'\"\\\\"
    server.inject(Fault(on="/auth", override={"access_token": hostile}, times=None))
    _, out, _ = await call(environment, "token", "--format", "env")
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", f'{out}\nprintf %s "$APIVIDEO_ACCESS_TOKEN"', stdout=asyncio.subprocess.PIPE
    )
    assert (await shell.communicate())[0].decode() == hostile
    _, out, _ = await call(environment, "token", "--format", "curl")
    assert '\\"' in out


async def test_the_example_of_the_help_can_be_pasted(
    server: Emulator, environment: dict[str, str], tmp_path: Path
) -> None:
    """The command line in `token --help` stands on one line and works in a shell."""
    _, out, _ = await call(environment, "token", "--help")
    (line,) = re.findall(r"^ +(apivideo-auth token .*\| curl .*)$", out, re.MULTILINE)
    assert line.endswith(" https://ws.api.video/videos")
    # Programs of these names: the command from the sources, and a curl that prints its configuration.
    for name, script in (("apivideo-auth", 'exec python -m apivideo_auth "$@"'), ("curl", 'cat; echo "$@"')):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", line, env=environment | {"PATH": _path(environment, tmp_path)}, stdout=asyncio.subprocess.PIPE
    )
    out = (await shell.communicate())[0].decode()
    assert shell.returncode == 0
    assert out.startswith('header = "Authorization: Bearer ')
    assert out.endswith("--config - https://ws.api.video/videos\n")


def _path(environment: dict[str, str], first: Path) -> str:
    return f"{first}:{Path(sys.executable).parent}:{environment['PATH']}"
