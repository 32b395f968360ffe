"""`doctor`, directly and through a proxy, with and without TLS."""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.cli._exits import ExitCode
from apivideo_auth.emulator import Emulator, Fault
from tests.cli.process import call, run

CHECKS = ["key", "store", "proxy", "host", "TLS", "authentication", "API", "clock"]


async def test_doctor_checks_everything(server: Emulator, environment: dict[str, str]) -> None:
    """Doctor prints a line per check, and exits 0 if all are good."""
    code, out, err = await run(environment, "doctor")
    assert (code, err) == (0, "")
    assert [line.split(":")[0].split() for line in out.splitlines()] == [["ok", check] for check in CHECKS]
    assert server.api_key not in out


@pytest.mark.parametrize(
    ("variables", "fault", "line", "code"),
    [
        ({"APIVIDEO_API_KEY": "made-up-wrong-key"}, None, "FAIL  authentication: ", ExitCode.REJECTED),
        ({}, Fault(status=500, on="/videos"), "FAIL  API: GET /videos responded with 500\n", ExitCode.UNREACHABLE),
        ({}, Fault(status=429, on="/videos"), "FAIL  API: GET /videos responded with 429\n", ExitCode.RATE_LIMITED),
        ({}, Fault(status=403, on="/videos"), "FAIL  API: GET /videos responded with 403\n", ExitCode.REJECTED),
        ({}, Fault(reset="before", on="/videos", times=None), "FAIL  API: GET /videos failed: ", ExitCode.UNREACHABLE),
        ({}, Fault(reset="before", on="/", times=None), "FAIL  host: 127.0.0.1", ExitCode.UNREACHABLE),
    ],
)
async def test_doctor_names_what_is_wrong(server, environment, variables, fault, line, code) -> None:  # noqa: PLR0917
    """The exit code is that of the first check that failed, and its line says what is wrong."""
    if fault is not None:
        server.inject(fault)
    got, out, err = await call(environment | variables, "doctor")
    assert (got, err) == (code, "")
    assert line in out


async def test_doctor_compares_the_clocks(server: Emulator, environment: dict[str, str]) -> None:
    """A clock that is wrong by minutes is a failure."""
    server.inject(Fault(status=200, on="/videos", headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}))
    code, out, _ = await call(environment, "doctor")
    assert code == ExitCode.FAILED
    assert "s ahead of the server's; set this machine's clock" in out


@pytest.fixture
def in_new_york(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An environment for the local api.video in a time zone that is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield environment | {"TZ": "America/New_York"}
    time.tzset()


@pytest.mark.parametrize("zone", ["-0000", "", "GMT", "+0000"])
async def test_a_date_without_a_zone_is_utc(server: Emulator, in_new_york: dict[str, str], zone: str) -> None:
    """The server's date is UTC also if it does not say so, whatever the zone of this machine."""
    date = formatdate(SYSTEM_CLOCK.utc()).replace("-0000", zone).strip()
    server.inject(Fault(status=200, on="/videos", headers={"Date": date}))
    code, out, _ = await call(in_new_york, "doctor")
    assert (code, out.splitlines()[-1]) == (0, "  ok  clock: differs from the server's by less than 30 s")


@pytest.mark.parametrize(
    "proxy",
    [
        "user:made-up-password@127.0.0.1:1",
        "http://user:made-up-password@127.0.0.1:99999",
        "http://user:made-up-password@127.0.0.1:abc",
        "http://user:made-up-password@a..b:1",
        "http://user:made-up-password@",
    ],
)
async def test_an_invalid_proxy_is_a_finding(environment: dict[str, str], proxy: str) -> None:
    """Doctor names the variable that holds an invalid proxy, not its value; `token` says the same."""
    environment |= {"APIVIDEO_BASE_URL": "https://127.0.0.1:9", "HTTPS_PROXY": proxy}
    code, out, err = await call(environment, "doctor")
    assert (code, err) == (ExitCode.UNREACHABLE, "")
    assert out.splitlines()[-1].startswith(
        "FAIL  proxy: the proxy in HTTPS_PROXY of the environment is not a valid URL; "
    )
    code, out_of_token, err = await call(environment, "token")
    assert (code, out_of_token) == (ExitCode.UNREACHABLE, "")
    assert err.startswith("Error: https://127.0.0.1:9/auth/api-key cannot be reached: the proxy in HTTPS_PROXY ")
    assert "password" not in out + err


async def test_doctor_checks_the_store(environment: dict[str, str], tmp_path: Path) -> None:
    """A folder that others can enter fails, and the other checks are made all the same."""
    folder = tmp_path / "open-to-all"
    folder.mkdir()
    folder.chmod(0o777)
    code, out, _ = await call(environment | {"APIVIDEO_TOKEN_STORE": f"file://{folder}"}, "doctor")
    assert code == ExitCode.STORE
    assert "FAIL  store: " in out
    assert "ok  clock: " in out


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    there = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))


@contextmanager
def _certificate(tmp_path: Path, *names: str) -> Iterator[tuple[ssl.SSLContext, str]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    yield context, str(path)


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[tuple[ssl.SSLContext, str]]:
    """A certificate for api.video's name and this machine's, and the file of the CA that signed it."""
    with _certificate(tmp_path, "ws.api.video", "127.0.0.1") as issued:
        yield issued


@asynccontextmanager
async def listening(serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections on a free port; give the port."""
    tasks = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait(tasks or {asyncio.ensure_future(asyncio.sleep(0))}, timeout=10)


@pytest.fixture
async def tls_port(server: Emulator, certificate: tuple[ssl.SSLContext, str]) -> AsyncIterator[int]:
    """A port where the local api.video speaks TLS."""
    port = int(server.url.rpartition(":")[2])
    async with listening(lambda reader, writer: _join(reader, writer, port), certificate[0]) as tls_port:
        yield tls_port


async def test_doctor_does_not_trust_an_unknown_certificate(environment: dict[str, str], tls_port: int) -> None:
    """An untrusted certificate is named as the cause, with advice."""
    code, out, _ = await run(environment | {"APIVIDEO_BASE_URL": f"https://127.0.0.1:{tls_port}"}, "doctor")
    assert code == ExitCode.UNREACHABLE
    assert f"FAIL  TLS: the certificate of 127.0.0.1:{tls_port} is not trusted (" in out
    assert "SSL_CERT_FILE" in out


async def test_doctor_says_that_a_certificate_is_for_another_host(
    environment: dict[str, str], certificate: tuple[ssl.SSLContext, str], tls_port: int
) -> None:
    """The reason and the advice are those of the certificate that was presented."""
    environment |= {"APIVIDEO_BASE_URL": f"https://localhost:{tls_port}", "SSL_CERT_FILE": certificate[1]}
    code, out, _ = await run(environment, "doctor")
    assert code == ExitCode.UNREACHABLE
    assert re.search(r"FAIL  TLS: .* not trusted \(Hostname mismatch, .*\); check the base URL\n", out)
    assert "SSL_CERT_FILE" not in out


async def test_https_goes_through_the_proxy_of_the_environment(
    server: Emulator, environment: dict[str, str], certificate: tuple[ssl.SSLContext, str], tls_port: int
) -> None:
    """Both the token call and requests go through HTTPS_PROXY, and doctor names it without its password."""
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0])
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _join(reader, writer, tls_port)

    async with listening(proxy) as port:
        environment |= {
            "APIVIDEO_BASE_URL": "https://ws.api.video",
            "HTTPS_PROXY": f"http://somebody:made-up-password@127.0.0.1:{port}",
            "SSL_CERT_FILE": certificate[1],
        }
        code, out, err = await run(environment, "doctor")
    assert (code, err) == (0, ""), out
    assert f"ok  proxy: 127.0.0.1:{port} works\n" in out
    assert "ok  TLS: the certificate is trusted\n" in out
    assert "made-up-password" not in out
    assert {*asked} == {b"CONNECT ws.api.video:443 HTTP/1.1"}
    assert [call.path for call in server.calls] == ["/", "/auth/api-key", "/videos"]


async def test_no_proxy_is_honoured(
    environment: dict[str, str], certificate: tuple[ssl.SSLContext, str], tls_port: int
) -> None:
    """A host in NO_PROXY is reached directly; plain http to this machine never goes through a proxy."""
    dead = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "SSL_CERT_FILE": certificate[1]}
    direct = dead | {"NO_PROXY": "127.0.0.1", "APIVIDEO_BASE_URL": f"https://127.0.0.1:{tls_port}"}
    assert (await run(environment | direct, "token"))[0] == 0
    assert (await run(environment | dead, "token"))[0] == 0
    code, out, _ = await run(environment | direct | {"NO_PROXY": ""}, "doctor")
    assert code == ExitCode.UNREACHABLE
    assert "FAIL  proxy: 127.0.0.1:9 cannot be reached" in out


async def test_a_proxy_that_refuses_is_named(environment: dict[str, str]) -> None:
    """The status of a proxy that wants a password is shown."""

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with listening(proxy) as port:
        environment |= {"APIVIDEO_BASE_URL": "https://ws.api.video", "HTTPS_PROXY": f"http://127.0.0.1:{port}"}
        code, out, _ = await call(environment, "doctor")
    assert code == ExitCode.UNREACHABLE
    assert f"FAIL  proxy: 127.0.0.1:{port} responded with 407 Proxy Authentication Required\n" in out
