"""G8: the token goes to the allowed origins alone, the API key and the refresh token to the auth origin alone."""

from ipaddress import IPv6Address

import aiohttp
import pytest
from aiohttp import web

from apivideo_auth import (
    PRODUCTION,
    SANDBOX,
    AuthenticatePayload,
    AuthenticationApi,
    BearerAuth,
    InsecureUrlError,
    InvalidResponseError,
    RefreshTokenPayload,
    TokenManager,
)
from tests.conftest import API_KEY
from tests.support.doubles import Service
from tests.support.loopback import serving
from tests.support.sources import Source


def recorder(seen: list[tuple[str, str | None]], location: str | None = None):
    """Return a handler that records the path and the Authorization header, and redirects to `location` if given."""

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        if location is not None and request.path == "/start":
            raise web.HTTPTemporaryRedirect(location)
        return web.Response(text="ok")

    return handle


async def test_g08_a_redirect_to_another_origin_carries_no_token() -> None:
    """A redirect to another port of the same host gets no token; a way back to the origin gets it again."""
    home: list[tuple[str, str | None]] = []
    foreign: list[tuple[str, str | None]] = []
    back = ""

    async def foreign_handler(request: web.Request) -> web.Response:
        foreign.append((request.path, request.headers.get("Authorization")))
        raise web.HTTPTemporaryRedirect(f"{back}/end")

    async with serving(foreign_handler) as foreign_url, serving(recorder(home, f"{foreign_url}/elsewhere")) as url:
        back = url
        async with (
            aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url)),)) as session,
            session.get("/start") as response,
        ):
            assert response.status == 200
    assert foreign == [("/elsewhere", None)]
    assert home == [("/start", "Bearer made-up-access-1"), ("/end", "Bearer made-up-access-1")]


async def test_g08_a_redirect_within_the_origin_keeps_the_token() -> None:
    """A redirect to another path of the origin is authenticated as well."""
    seen: list[tuple[str, str | None]] = []
    async with (
        serving(recorder(seen, "/end")) as url,
        aiohttp.ClientSession(url, middlewares=(BearerAuth(Source(url)),)) as session,
        session.get("/start"),
    ):
        pass
    assert [value for _, value in seen] == ["Bearer made-up-access-1"] * 2


async def test_g08_another_host_scheme_or_port_gets_no_token() -> None:
    """A session of several hosts sends the token to the named origin alone."""
    seen: list[tuple[str, str | None]] = []
    async with serving(recorder(seen)) as url:
        port = url.rpartition(":")[2]
        bearer = BearerAuth(Source(), origins=[f"https://127.0.0.1:{port}", "http://127.0.0.1:1", PRODUCTION])
        async with aiohttp.ClientSession(middlewares=(bearer,)) as session:
            for address in (url, f"http://localhost:{port}"):
                async with session.get(address):
                    pass
    assert [value for _, value in seen] == [None, None]


async def test_g08_a_default_port_is_the_same_origin() -> None:
    """An origin with its default port equals the same origin without it."""
    bearer = BearerAuth(Source(), origins=["https://ws.api.video:443/", "http://localhost:80"])
    assert bearer._origins == {("https", "ws.api.video", 443), ("http", "localhost", 80)}


async def test_g08_an_authorization_of_the_callers_own_is_left_alone() -> None:
    """A request that brings its own Authorization header is sent with that, and its 401 causes no renewal."""
    seen: list[tuple[str, str | None]] = []
    async with serving(recorder(seen)) as url:
        source = Source(url)
        async with (
            aiohttp.ClientSession(url, middlewares=(BearerAuth(source),)) as session,
            session.get("/", headers={"Authorization": "Basic made-up"}),
        ):
            pass
    assert seen == [("/", "Basic made-up")]
    assert source.rejected == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_g08_the_api_key_follows_no_redirect(status: int) -> None:
    """A redirect from an endpoint is an error, and nothing is sent to its target."""
    foreign: list[tuple[str, str | None]] = []
    async with serving(recorder(foreign)) as foreign_url:

        async def redirect(_request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": f"{foreign_url}/auth/api-key"})

        async with serving(redirect) as url, AuthenticationApi(url) as api:
            with pytest.raises(InvalidResponseError, match="redirects are not followed"):
                await api.authenticate(AuthenticatePayload(API_KEY))
            with pytest.raises(InvalidResponseError, match="redirects are not followed"):
                await api.refresh(RefreshTokenPayload("made-up-refresh"))
    assert foreign == []


@pytest.mark.parametrize("trust_env", [False, True])
async def test_g08_a_proxy_of_the_environment_is_used_only_if_trusted(
    monkeypatch: pytest.MonkeyPatch, *, trust_env: bool
) -> None:
    """HTTP_PROXY sees the API key only with trust_env."""
    direct: list[tuple[str, str | None]] = []
    proxied: list[tuple[str, str | None]] = []
    async with serving(recorder(proxied)) as proxy, serving(recorder(direct)) as url:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy)
        async with AuthenticationApi(url, trust_env=trust_env) as api:
            with pytest.raises(InvalidResponseError):
                await api.authenticate(AuthenticatePayload(API_KEY))
    assert (len(direct), len(proxied)) == ((0, 1) if trust_env else (1, 0))


@pytest.mark.parametrize(
    "url",
    [
        "http://ws.api.video",
        "http://api.video",
        "http://192.168.1.1",
        "http://0.0.0.0:8080",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://[::ffff:127.0.0.1]",
        "http://emulator:8080",
    ],
)
def test_g08_plain_http_is_rejected(url: str) -> None:
    """Plain http to another machine is rejected at construction, for managers, the api and origins alike."""
    for make in (lambda: TokenManager(API_KEY, base_url=url), lambda: AuthenticationApi(url)):
        with pytest.raises(InsecureUrlError, match="write https://") as caught:
            make()
        # The variable has no effect on api.video's hosts.
        assert ("APIVIDEO_INSECURE_HOSTS" in str(caught.value)) is ("api.video" not in url)
    with pytest.raises(InsecureUrlError):
        BearerAuth(Source(), origins=[url])


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.8.9.10", "http://[::1]:1", "http://localhost:1"])
def test_g08_plain_http_to_this_machine_is_allowed(url: str) -> None:
    """Plain http to the loopback addresses and to localhost is allowed."""
    assert TokenManager(API_KEY, base_url=url).base_url == url


def test_g08_named_hosts_may_be_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """APIVIDEO_INSECURE_HOSTS allows hosts by name, never api.video's."""
    monkeypatch.setenv("APIVIDEO_INSECURE_HOSTS", "emulator, ws.api.video")
    assert TokenManager(API_KEY, base_url="http://emulator:8080").base_url == "http://emulator:8080"
    for url in ("http://other:8080", "http://ws.api.video", "http://emulator.example"):
        with pytest.raises(InsecureUrlError):
            TokenManager(API_KEY, base_url=url)


async def test_g08_the_token_call_uses_a_session_of_its_own() -> None:
    """Neither cookies nor default headers nor trace hooks of a session reach the token call."""
    seen: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        response = web.Response(text="{}")
        response.set_cookie("made-up", "cookie")
        return response

    async with serving(handle) as url, AuthenticationApi(url, application=("my-app", "1.2.3")) as api:
        for _ in range(2):
            with pytest.raises(InvalidResponseError):
                await api.authenticate(AuthenticatePayload(API_KEY))
    assert all("Cookie" not in headers and "Authorization" not in headers for headers in seen)
    assert seen[0]["Content-Type"] == "application/json"
    assert seen[0]["Accept"] == "application/json"
    assert seen[0]["AV-Origin-App"] == "my-app:1.2.3"
    assert seen[0]["AV-Origin-Sdk"].startswith("apivideo-auth:")


def test_g08_api_and_manager_ask_the_same_place() -> None:
    """An api with another base URL than the manager's is a ValueError; without a base_url the api decides."""
    api = AuthenticationApi(SANDBOX)
    assert TokenManager(API_KEY, api=api).base_url == SANDBOX
    with pytest.raises(ValueError, match="leave base_url out"):
        TokenManager(API_KEY, api=api, base_url="http://127.0.0.1:1")
    assert TokenManager(API_KEY, api=Service(None)).base_url == PRODUCTION


def test_g08_a_mapped_address_is_rejected_by_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPv4 address inside an IPv6 address is rejected, although newer Pythons count 127.0.0.1 there as loopback."""
    monkeypatch.setattr(IPv6Address, "is_loopback", True)
    with pytest.raises(InsecureUrlError):
        AuthenticationApi("http://[::ffff:127.0.0.1]")
    assert AuthenticationApi("http://[::1]").base_url == "http://[::1]"
