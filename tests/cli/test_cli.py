"""The command: token, status, logout, doctor and serve, run as processes."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from apivideo_auth import AuthenticatePayload, AuthenticationApi, CredentialsRejectedError
from apivideo_auth.cli._exits import ExitCode
from apivideo_auth.emulator import Emulator, Fault

KEY = "made-up-key-of-the-test"


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    """A local api.video that takes a key of the test's own."""
    async with Emulator(api_key=KEY) as emulator:
        yield emulator


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment that names a store of the test's own, and nothing else of the package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    return kept | {"APIVIDEO_TOKEN_STORE": f"file://{tmp_path}/store", "PYTHONWARNINGS": "error"}


async def run(environment: dict[str, str], *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run the command; return its exit code and outputs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "apivideo_auth",
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_token_is_kept_between_calls(server: Emulator, environment: dict[str, str]) -> None:
    """Two calls print the same token; --force prints another; logout forgets it; each says so to the right place."""
    environment |= {"APIVIDEO_API_KEY": KEY, "APIVIDEO_BASE_URL": server.url}
    code, out, err = await run(environment, "status")
    assert (code, out, err) == (1, f"{server.url}: no token is stored\n", "")
    _, first, err = await run(environment, "token")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", first)
    assert err == ""
    assert (await run(environment, "token"))[1] == first
    assert [call.path for call in server.calls] == ["/auth/api-key"]
    code, out, _ = await run(environment, "status")
    assert (code, out.startswith(f"{server.url}: the stored token expires in 59 min")) == (0, True)
    code, out, _ = await run(environment, "status", "--json")
    assert json.loads(out)["expires_in"] > 3500
    code, forced, err = await run(environment, "token", "--force")
    assert (code, err) == (0, "")
    assert forced != first
    assert [call.path for call in server.calls] == ["/auth/api-key", "/auth/refresh"]
    code, out, err = await run(environment, "logout")
    assert (code, out) == (0, "")
    assert "the stored token is deleted" in err
    assert (await run(environment, "status"))[0] == 1


async def test_formats_of_a_token(server: Emulator, environment: dict[str, str]) -> None:
    """Each format is what its consumer takes."""
    environment |= {"APIVIDEO_API_KEY": KEY, "APIVIDEO_BASE_URL": server.url}
    token = (await run(environment, "token"))[1].strip()
    answers = {
        form: (await run(environment, "token", "--format", form))[1] for form in ("header", "env", "curl", "json")
    }
    assert answers["header"] == f"Authorization: Bearer {token}\n"
    assert answers["env"] == f"export APIVIDEO_ACCESS_TOKEN={token}\n"
    assert answers["curl"] == f'header = "Authorization: Bearer {token}"\n'
    document = json.loads(answers["json"])
    assert (document["access_token"], document["token_type"]) == (token, "Bearer")
    assert 3500 < document["expires_in"] <= 3600


async def test_the_key_comes_from_a_file_or_from_standard_input(
    server: Emulator, environment: dict[str, str], tmp_path: Path
) -> None:
    """--key-file reads the key from a file, or with - from standard input."""
    environment |= {"APIVIDEO_BASE_URL": server.url}
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    assert (await run(environment, "token", "--key-file", str(path)))[0] == 0
    assert (await run(environment, "token", "--key-file", "-", stdin=f"{KEY}\n"))[0] == 0
    code, out, err = await run(environment, "token", "--key-file", str(tmp_path / "none"))
    assert (code, out) == (ExitCode.USAGE, "")
    assert "No such file" in err
    path.write_bytes(b"\xff\xfe")
    assert "not a text file" in (await run(environment, "token", "--key-file", str(path)))[2]


async def test_exit_codes_tell_what_is_wrong(server: Emulator, environment: dict[str, str], tmp_path: Path) -> None:
    """Usage, refusal, limits and a bad store have codes of their own, and none shows a traceback."""
    code, out, err = await run(environment, "token")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "APIVIDEO_API_KEY is not set" in err
    environment |= {"APIVIDEO_API_KEY": KEY, "APIVIDEO_BASE_URL": server.url}
    assert (await run(environment, "token", "--min-ttl", "3500"))[0] == ExitCode.USAGE
    code, _, err = await run(environment | {"APIVIDEO_API_KEY": "made-up-wrong-key"}, "token")
    assert code == ExitCode.REJECTED
    assert "made-up" not in err
    assert (await run(environment | {"APIVIDEO_BASE_URL": "http://192.168.1.1"}, "token"))[0] == ExitCode.USAGE
    assert (await run(environment | {"APIVIDEO_TOKEN_STORE": "made-up:"}, "token"))[0] == ExitCode.USAGE
    await run(environment, "logout")
    server.inject(Fault(status=429, headers={"Retry-After": "60"}))
    assert (await run(environment, "token"))[0] == ExitCode.RATE_LIMITED
    closed = tmp_path / "open-to-all"
    closed.mkdir(mode=0o777)
    closed.chmod(0o777)
    environment |= {"APIVIDEO_TOKEN_STORE": f"file://{closed}"}
    assert (await run(environment, "status"))[0] == ExitCode.STORE
    assert (await run(environment, "logout"))[0] == ExitCode.STORE
    code, out, err = await run(environment, "token")
    assert (code, out.count(".")) == (0, 2)
    assert err.startswith("Warning: the token is not kept: TokenStoreError")


async def test_doctor_looks_at_everything(server: Emulator, environment: dict[str, str]) -> None:
    """Doctor says for each thing whether it is well; its exit code is that of the first thing that is not."""
    environment |= {"APIVIDEO_API_KEY": KEY, "APIVIDEO_BASE_URL": server.url}
    code, out, err = await run(environment, "doctor")
    assert (code, err) == (0, "")
    assert [line.split(":")[0].split()[1] for line in out.splitlines()] == [
        "key",
        "store",
        "authentication",
        "API",
        "clock",
    ]
    code, out, _ = await run(environment | {"APIVIDEO_API_KEY": "made-up-wrong-key"}, "doctor")
    assert code == ExitCode.REJECTED
    assert "FAIL  authentication" in out
    server.inject(Fault(status=500, on="/videos"))
    code, out, _ = await run(environment, "doctor")
    assert "FAIL  API: GET /videos answered 500" in out
    server.inject(Fault(reset="before", on="/videos", times=None))
    assert (await run(environment, "doctor"))[0] == ExitCode.UNREACHABLE


@asynccontextmanager
async def serving(
    environment: dict[str, str], *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `serve`; give the process and the first line of its standard output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "apivideo_auth",
        "serve",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_says_its_address_alone_and_ends_cleanly(environment: dict[str, str], number: int) -> None:
    """The address is all of standard output; a signal ends the server with code 0, in the middle of a request too."""
    async with serving(environment, "--fault", "hang,on=/videos") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        async with AuthenticationApi(url) as api:
            grant = await api.authenticate(AuthenticatePayload("made-up-api-key-of-the-emulator"))
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {grant.access_token}"}) as session:
            request = asyncio.create_task(session.get("/videos"))
            await asyncio.sleep(0)
            process.send_signal(number)
            out, err = await process.communicate()
            with pytest.raises(aiohttp.ClientError):
                await request
    assert (process.returncode, out) == (0, b"")
    assert b"made-up-api-key-of-the-emulator" in err
    assert b"Traceback" not in err


async def test_serve_never_prints_a_key_of_the_environment(environment: dict[str, str]) -> None:
    """A key of the environment is taken, and printed nowhere."""
    async with serving(environment | {"APIVIDEO_API_KEY": KEY}) as (process, url):
        async with AuthenticationApi(url) as api:
            await api.authenticate(AuthenticatePayload(KEY))
        process.terminate()
        out, err = await process.communicate()
    assert KEY.encode() not in out + err
    assert b"APIVIDEO_API_KEY" in err


async def test_serve_takes_its_switches(environment: dict[str, str]) -> None:
    """Lifetime, refused status, limits and faults are those of the options."""
    options = ("--ttl", "11", "--refused-status", "401", "--limits", "sandbox", "--fault", "omit=refresh_token")
    async with serving(environment, *options) as (_, url), AuthenticationApi(url) as api:
        grant = await api.authenticate(AuthenticatePayload("made-up-api-key-of-the-emulator"))
        assert (grant.expires_in, grant.refresh_token) == (11, None)
        with pytest.raises(CredentialsRejectedError) as caught:
            await api.authenticate(AuthenticatePayload("made-up-wrong-key"))
        assert caught.value.status == 401
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {grant.access_token}"}) as session:
            async with session.get("/videos") as response:
                assert response.headers["X-RateLimit-Limit"] == "100"


async def test_serve_on_a_taken_port_is_one_line(environment: dict[str, str]) -> None:
    """A taken port, or an address that is none, is one line on standard error and a code that is not 0."""
    async with serving(environment) as (_, url):
        code, out, err = await run(environment, "serve", "--port", url.rpartition(":")[2])
    assert code != 0
    assert out == ""
    assert len(err.splitlines()) == 1


async def test_serve_explains_faults(environment: dict[str, str]) -> None:
    """--help shows the syntax of faults, and a fault that is none is a usage error that says why."""
    _, out, _ = await run(environment, "serve", "--help")
    assert "override.NAME=VALUE" in out
    code, _, err = await run(environment, "serve", "--fault", "made-up")
    assert code == ExitCode.USAGE
    assert "--fault" in err


async def test_a_hostile_token_is_quoted(environment: dict[str, str]) -> None:
    """A token with quotes in it is data for the shell and for curl, not commands."""
    async with Emulator(api_key=KEY) as server:
        hostile = "x';echo${IFS}made-up;'\"\\\\"
        server.inject(Fault(on="/auth", override={"access_token": hostile}, times=None))
        environment |= {"APIVIDEO_API_KEY": KEY, "APIVIDEO_BASE_URL": server.url}
        _, out, _ = await run(environment, "token", "--format", "env")
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", f'{out}\nprintf %s "$APIVIDEO_ACCESS_TOKEN"', stdout=asyncio.subprocess.PIPE
        )
        assert (await shell.communicate())[0].decode() == hostile
        _, out, _ = await run(environment, "token", "--format", "curl")
        assert '\\"' in out


async def test_an_outage_of_the_service_is_unreachable(server: Emulator, environment: dict[str, str]) -> None:
    """A 503 of the token endpoint has the exit code of an outage; a number that is none is a usage error."""
    environment |= {"APIVIDEO_API_KEY": KEY, "APIVIDEO_BASE_URL": server.url}
    server.inject(Fault(status=503, headers={"Retry-After": "60"}, times=None))
    assert (await run(environment, "token"))[0] == ExitCode.UNREACHABLE
    assert (await run(environment, "demo", "--seconds", "nan"))[0] == ExitCode.USAGE
