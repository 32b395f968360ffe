"""`serve`: the emulator as a process."""

import asyncio
import re
import signal

import aiohttp
import pytest

from apivideo_auth import AuthenticatePayload, AuthenticationApi, CredentialsRejectedError
from apivideo_auth.cli._exits import ExitCode
from tests.cli.conftest import API_KEY
from tests.cli.process import call, read_until, run, serving

DEFAULT_API_KEY = "made-up-api-key-of-the-emulator"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_prints_its_address_alone_and_ends_cleanly(bare: dict[str, str], number: int) -> None:
    """The address is all of standard output; a signal ends the server with code 0, in the middle of a request too."""
    async with serving(bare, "--fault", "hang,on=/videos") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        async with AuthenticationApi(url) as api:
            grant = await api.authenticate(AuthenticatePayload(DEFAULT_API_KEY))
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {grant.access_token}"}) as session:
            request = asyncio.create_task(session.get("/videos"))
            # A request behind it has been answered: the first one is held by the server.
            async with session.get("/nowhere") as response:
                assert response.status == 404
            process.send_signal(number)
            out, err = await process.communicate()
            with pytest.raises(aiohttp.ClientError):
                await request
    assert (process.returncode, out) == (0, b"")
    assert DEFAULT_API_KEY.encode() in err
    assert b"Traceback" not in err


async def test_serve_never_prints_a_key_of_the_environment(bare: dict[str, str]) -> None:
    """A key of the environment is accepted and never printed."""
    async with serving(bare | {"APIVIDEO_API_KEY": API_KEY}) as (process, url):
        async with AuthenticationApi(url) as api:
            await api.authenticate(AuthenticatePayload(API_KEY))
        process.terminate()
        out, err = await process.communicate()
    assert API_KEY.encode() not in out + err
    assert b"APIVIDEO_API_KEY" in err


@pytest.mark.parametrize("key", [" ", "made-up\n", "<key>", "'made-up'"])
async def test_serve_rejects_a_key_that_no_client_accepts(bare: dict[str, str], key: str) -> None:
    """A key of the environment that every client rejects is a usage error, which does not show the key."""
    code, out, err = await call(bare | {"APIVIDEO_API_KEY": key}, "serve")
    assert (code, out) == (ExitCode.USAGE, "")
    assert re.fullmatch(r"Error: the API key .*\n", err)
    assert key not in err or key == " "


async def test_serve_logs_each_request(bare: dict[str, str]) -> None:
    """Each request is one line on standard error, at once: method, path, status and outcome, nothing unprintable."""
    async with serving(bare) as (process, url), aiohttp.ClientSession(url) as session:
        async with session.post("/auth/api-key", json={"apiKey": DEFAULT_API_KEY}) as response:
            token = (await response.json())["access_token"]
        assert re.search(r"^\d\d:\d\d:\d\d POST /auth/api-key\b.*\b200\b.*authenticated", await _line(process, "POST"))
        async with session.get("/videos", headers={"Authorization": "Bearer made-up"}):
            assert re.search(r" GET /videos\b.*\b401\b.*unauthorized", await _line(process, "GET"))
        async with session.get(f"/videos/%1B%5B31m?token={token}"):
            line = await _line(process, "GET")
            assert re.search(r"\b401\b", line)
            assert line.strip().isprintable()
            assert token not in line


async def _line(process: asyncio.subprocess.Process, text: str) -> str:
    return (await read_until(process.stderr, text)).splitlines()[-1]


async def test_serve_takes_its_options(bare: dict[str, str]) -> None:
    """Lifetime, status of a wrong key, limits and faults are those of the options."""
    options = ("--ttl", "11", "--refused-status", "401", "--limits", "sandbox", "--fault", "omit=refresh_token")
    async with serving(bare, *options) as (_, url), AuthenticationApi(url) as api:
        grant = await api.authenticate(AuthenticatePayload(DEFAULT_API_KEY))
        assert (grant.expires_in, grant.refresh_token) == (11, None)
        with pytest.raises(CredentialsRejectedError) as caught:
            await api.authenticate(AuthenticatePayload("made-up-wrong-key"))
        assert caught.value.status == 401
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {grant.access_token}"}) as session:
            async with session.get("/videos") as response:
                assert response.headers["X-RateLimit-Limit"] == "100"


async def test_serve_on_a_port_in_use_is_one_line(bare: dict[str, str]) -> None:
    """A port in use is one line on standard error and a code that is not 0."""
    async with serving(bare) as (_, url):
        code, out, err = await run(bare, "serve", "--port", url.rpartition(":")[2])
    assert (code, out) == (ExitCode.FAILED, "")
    assert re.fullmatch(r"Error: cannot listen: .*\n", err)


async def test_serve_explains_faults(bare: dict[str, str]) -> None:
    """--help shows the syntax of faults, and an invalid fault is a usage error that says why."""
    _, out, _ = await call(bare, "serve", "--help")
    parts = "status= hang reset=before reset=after malformed omit= override. oversized= redirect= delay= retry_after="
    for part in (*parts.split(), "header.", "body=", "on=", "times=", "probability=", "seed="):
        assert part in out
    code, _, err = await call(bare, "serve", "--fault", "made-up")
    assert code == ExitCode.USAGE
    assert "--fault" in err
