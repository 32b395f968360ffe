"""G9: no secret is in any repr, str, log record, event, exception, request_info, status or pickle."""

import asyncio
import copy
import io
import logging
import os
import pickle
import pydoc
import reprlib
import socket
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses
from rich.console import Console
from rich.traceback import Traceback

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    AuthenticationApi,
    AuthError,
    BearerAuth,
    CredentialsRejectedError,
    InsecureUrlError,
    InvalidResponseError,
    ManagerClosedError,
    MemoryStore,
    RateLimitedError,
    RefreshTokenPayload,
    Token,
    TokenManager,
    TokenRejectedError,
    TokenStoreError,
)
from apivideo_auth._middleware import drop_writer_frames, linked
from apivideo_auth._secrets import Secret, SecretBytes, fingerprint, masked, redact
from apivideo_auth.emulator import Emulator
from apivideo_auth.stores import store_from_url
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.loopback import serving
from tests.support.sources import FAR, Source
from tests.support.tracebacks import shown_with_locals

SECRET = "made-up-secret-0123456789"


@pytest.mark.parametrize(
    "value",
    [
        Secret(SECRET),
        SecretBytes(SECRET.encode()),
        AuthenticatePayload(SECRET),
        RefreshTokenPayload(SECRET),
        AccessToken(SECRET, "bearer", 3600, SECRET),
        Token(SECRET, FAR),
        TokenManager(SECRET),
        AuthenticationApi(),
        MemoryStore(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_g09_reprs_are_masked_and_pickling_fails(value: object) -> None:
    """Objects that hold a secret do not show it in repr, str or format, and cannot be pickled."""
    assert SECRET not in repr(value)
    assert SECRET not in f"{[value]} {value!r}"
    if not isinstance(value, Secret | SecretBytes):
        assert SECRET not in str(value)
    if not isinstance(value, MemoryStore | AuthenticationApi):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(value)


def test_g09_a_secret_is_a_string_for_all_else() -> None:
    """A masked string can be sent, formatted, compared and copied like any string."""
    secret = Secret(SECRET)
    assert secret == SECRET
    assert f"{secret}" == str(secret) == SECRET
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"key": secret}) == {"key": SECRET}
    token = Token(SECRET, FAR)
    assert copy.copy(token) is copy.deepcopy(token) is token


def test_g09_a_token_says_generation_expiry_and_fingerprint() -> None:
    """A token's repr identifies the token without showing it."""
    one, other = Token(SECRET, FAR, 3), Token(SECRET + "x", FAR, 3)
    assert str(one) == repr(one)
    assert "generation=3" in repr(one)
    assert "2099-01-01T00:00:00+00:00" in repr(one)
    assert repr(one) != repr(other)
    assert one.authorization == f"Bearer {SECRET}"
    assert SECRET not in repr(one.authorization)
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((5, FAR), TypeError),
        (("", FAR), ValueError),
        ((SECRET, "tomorrow"), TypeError),
        ((SECRET, datetime(2099, 1, 1)), ValueError),  # noqa: DTZ001  a naive one is the point
        ((SECRET + "\n", FAR), ValueError),
        ((SECRET + " x", FAR), ValueError),
        ((SECRET + "é", FAR), ValueError),
        ((SECRET + "\ud800", FAR), ValueError),
        ((SECRET, FAR, SECRET), TypeError),
        ((SECRET, FAR, True), TypeError),
        ((SECRET, FAR, -1), ValueError),
    ],
)
def test_g09_a_token_of_ones_own_is_checked(args: tuple, error: type[Exception]) -> None:
    """Stand-ins can make tokens; an invalid value, such as text that no header can carry, is an error that does not
    show it.
    """
    with pytest.raises(error) as caught:
        Token(*args)
    assert SECRET not in str(caught.value)


def test_g09_a_stand_ins_token_counts_by_the_wall_clock() -> None:
    """A token made by hand has no monotonic end, so its life counts to expires_at."""
    assert Token(SECRET, FAR).remaining() > 0
    assert Token(SECRET, datetime(2001, 1, 1, tzinfo=UTC)).remaining() == 0


@pytest.mark.parametrize(
    "error",
    [
        AuthError("m", retry_after=1.0),
        AuthConnectionError("m", sent=False),
        CredentialsRejectedError("m", status=400, type="t", title="T", name="n", retry_after=2.0),
        RateLimitedError("m", status=429),
        InvalidResponseError("m"),
        TokenRejectedError("m", retry_after=3.0),
        TokenStoreError("m"),
        ManagerClosedError(),
        InsecureUrlError("m"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_g09_errors_survive_pickling_with_their_data(error: AuthError) -> None:
    """An error that crosses to another process keeps its class, text and data."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.args == error.args
    assert again.__dict__ == error.__dict__
    assert isinstance(error, aiohttp.ClientError)
    assert not isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
async def test_g09_an_endpoint_that_echoes_the_key_leaks_nothing(mocked: aioresponses, status: int) -> None:
    """Whatever an endpoint puts into its response, the error's text, chain and captured locals show no secret."""
    body = {
        "title": f"no such key {SECRET}",
        "type": SECRET,
        "name": SECRET,
        "access_token": SECRET,
        "expires_in": SECRET,
    }
    mocked.post("https://ws.api.video/auth/api-key", status=status, payload=body)
    async with AuthenticationApi() as api:
        with pytest.raises(AuthError) as caught:
            await api.authenticate(AuthenticatePayload(SECRET))
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    # The test's own frame holds the body, so only the frames of the package are looked at.
    own = shown[shown.rindex("apivideo_auth/_api.py") :]
    assert SECRET not in own
    assert SECRET not in repr(error) + str(error) + repr(error.__dict__)


async def test_g09_request_info_shows_no_token() -> None:
    """After the request, neither the response nor an exception made from it has the header."""

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    service = Service(None)
    service.clock = LoopClock()
    async with (
        serving(handle) as url,
        TokenManager(API_KEY, api=service, base_url=url) as tokens,
        tokens.session() as session,
        session.get("/") as response,
    ):
        assert "Authorization" not in response.request_info.headers
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            response.raise_for_status()
    assert "made-up-access" not in repr(caught.value) + repr(caught.value.request_info)


@pytest.mark.virtual_time
async def test_g09_logs_events_and_status_show_no_secret(
    clock: LoopClock, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A manager with failures and a failing event handler writes no secret anywhere."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    def failing(event: object) -> None:
        raise RuntimeError(repr(event))

    async with TokenManager(SECRET, api=service, clock=clock, on_event=failing) as tokens:
        tokens.subscribe(lambda event: seen.append(repr(event)))
        await tokens.get_token()
        service.answers.extend([AuthConnectionError("made-up outage"), None, None])
        await asyncio.sleep(7200)
        seen.append(repr(tokens.status()) + repr(tokens))
    assert "an event handler failed on TokenRenewed" in caplog.text
    for text in (caplog.text, *seen):
        assert not any(secret in text for secret in (SECRET, "made-up-access", "made-up-refresh"))
    assert len(seen) > 3


def shown_by(make: object) -> str:
    """Return what a traceback with captured locals shows of the package's frames when a construction fails."""
    try:
        make()
    except (TypeError, ValueError) as error:
        trace = error.__traceback__.tb_next.tb_next
        shown = traceback.TracebackException(type(error), error, trace, capture_locals=True)
        return "".join(shown.format())
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TokenManager(SECRET, base_url="http://example.com"),
        lambda: TokenManager(SECRET, policy=5),
        lambda: TokenManager(SECRET + "\n"),
        lambda: TokenManager(SECRET.encode()),
        lambda: AuthenticatePayload(SECRET + "\n"),
        lambda: RefreshTokenPayload(SECRET + " x"),
        lambda: AccessToken(SECRET, "mac", 3600, SECRET),
        lambda: AccessToken(SECRET, "bearer", 0, SECRET + " x"),
        lambda: Token(SECRET, "tomorrow"),
        lambda: Emulator(api_key=SECRET, ttl=-1),
        lambda: store_from_url(f"made-up://{SECRET}"),
        lambda: TokenManager((SECRET,)),
        lambda: TokenManager({"key": [SECRET]}),
        lambda: TokenManager({SECRET}),
        lambda: AuthenticatePayload((SECRET,)),
        lambda: RefreshTokenPayload({SECRET: 1}),
        lambda: AccessToken([SECRET.encode()], "bearer", 3600, SECRET),
        lambda: Token((SECRET,), FAR),
        lambda: Token(SECRET + "\n", FAR),
        lambda: Token("made-up", FAR, SECRET),
        lambda: Token(memoryview(SECRET.encode()), FAR),
        lambda: TokenManager(bytearray(SECRET.encode())),
        lambda: TokenManager(memoryview(SECRET.encode())),
        lambda: AuthenticatePayload({"apiKey": bytearray(SECRET.encode())}),
        lambda: RefreshTokenPayload(bytearray(SECRET.encode())),
        lambda: Token(SECRET, SECRET),
        lambda: TokenManager("made-up-key", base_url=SECRET),
        lambda: TokenManager("made-up-key", base_url=(SECRET,)),
        lambda: TokenManager("made-up-key", base_url=f"https://ws.api.video/{SECRET}"),
        lambda: TokenManager("made-up-key", base_url=f"https://key:{SECRET}@ws.api.video"),
        lambda: TokenManager("made-up-key", base_url=f"https://ws.api.video?key={SECRET}"),
        lambda: TokenManager("made-up-key", base_url=f"https://{SECRET}:x"),
        lambda: TokenManager("made-up-key", api=Source(f"https://key:{SECRET}@ws.api.video")),
        lambda: TokenManager("made-up-key", application=(SECRET, SECRET)),
        lambda: TokenManager("made-up-key", application=(SECRET * 3, "1")),
        lambda: TokenManager("made-up-key", application={SECRET: SECRET}),
        lambda: TokenManager("made-up-key", store=f"redis://:{SECRET}@127.0.0.1"),
        lambda: TokenManager.from_env(api_key=SECRET, policy=5),
        lambda: TokenManager.from_env(api_key=(SECRET,)),
        lambda: TokenManager.from_env(api_key="made-up-key", base_url=SECRET),
        lambda: AuthenticationApi(SECRET),
        lambda: AuthenticationApi(application=(SECRET, SECRET)),
        lambda: BearerAuth(Source(None), origins=[SECRET]),
    ],
    ids=range(43),
)
def test_g09_a_failed_construction_shows_no_secret(make: object) -> None:
    """A traceback with captured locals of a failed construction can be made, and shows no secret wherever it is."""
    shown = shown_by(make)
    assert "apivideo_auth" in shown
    assert SECRET not in shown


@pytest.mark.parametrize("name", ["APIVIDEO_API_KEY", "APIVIDEO_BASE_URL", "APIVIDEO_TOKEN_STORE"])
def test_g09_a_variable_of_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The API key in the wrong variable, or with a blank in it, is not shown either."""
    monkeypatch.setenv("APIVIDEO_API_KEY", "made-up-key")
    monkeypatch.setenv(name, f"{SECRET} ")
    shown = shown_by(lambda: TokenManager.from_env())  # noqa: PLW0108  its frame is left out
    assert "apivideo_auth" in shown
    assert SECRET not in shown


@pytest.mark.virtual_time
@pytest.mark.parametrize("method", ["get_token", "authenticate", "refresh"])
async def test_g09_a_string_in_the_place_of_an_object_is_not_shown(
    clock: LoopClock, service: Service, method: str
) -> None:
    """A token or key that is passed as it is, instead of in its object, is a `TypeError` that does not show it."""
    async with AuthenticationApi() as api, TokenManager("made-up-key", api=service, clock=clock) as tokens:
        with pytest.raises(TypeError) as caught:
            await (tokens.get_token(rejected=SECRET) if method == "get_token" else getattr(api, method)(SECRET))
        trace = caught.value.__traceback__.tb_next
        shown = traceback.TracebackException(TypeError, caught.value, trace, capture_locals=True)
        assert SECRET not in "".join(shown.format())


def test_g09_containers_are_masked_with_what_they_contain() -> None:
    """A container keeps its type and its values; only their `repr` changes."""
    plain = {"a": [SECRET, 5], "b": (SECRET.encode(), None), "c": {SECRET}, "d": frozenset({SECRET})}
    hidden = masked(plain)
    assert hidden == plain
    assert [type(value) for value in hidden.values()] == [list, tuple, set, frozenset]
    assert SECRET not in repr(hidden)
    assert masked(None) is None


async def test_g09_a_stand_ins_error_is_masked() -> None:
    """The API key in the text of a stand-in's error is masked."""

    class Leaky(Service):
        async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
            raise CredentialsRejectedError(f"no such key {payload.api_key}", status=400)

    async with TokenManager(SECRET, api=Leaky(None)) as tokens:
        with pytest.raises(CredentialsRejectedError) as caught:
            await tokens.get_token()
        assert SECRET not in str(caught.value) + repr(tokens.status())


LONG = "made-up-" + "0123456789abcdef" * 20


@pytest.mark.parametrize("length", [16, 100, len(LONG)])
@pytest.mark.parametrize("before", ["", "x" * 100, "x" * 190])
@pytest.mark.parametrize("status", [400, 404, 500])
async def test_g09_an_echo_is_masked_before_it_is_cut(
    mocked: aioresponses, status: int, before: str, length: int
) -> None:
    """If a response repeats the API key or the refresh token, or its first 16 or more characters, the error shows none
    of it, wherever its texts are cut.
    """
    body = dict.fromkeys(("title", "type", "name"), before + LONG[:length] + "\x00")
    for path in ("api-key", "refresh"):
        mocked.post(f"https://ws.api.video/auth/{path}", status=status, payload=body)
    async with AuthenticationApi() as api:
        for call, payload in ((api.authenticate, AuthenticatePayload(LONG)), (api.refresh, RefreshTokenPayload(LONG))):
            with pytest.raises(AuthError) as caught:
                await call(payload)
            error = caught.value
            shown = f"{error!r} {error} {error.title} {error.type} {error.name} {error.body}"
            assert "***" in shown
            assert LONG[:16] not in shown


async def test_g09_an_echo_with_control_characters_in_it_is_masked(mocked: aioresponses) -> None:
    """Characters that are removed before a text is shown do not hide a secret from the mask."""
    hidden = "\x00".join(LONG)
    mocked.post("https://ws.api.video/auth/api-key", status=400, payload={"title": hidden})
    async with AuthenticationApi() as api:
        with pytest.raises(AuthError) as caught:
            await api.authenticate(AuthenticatePayload(LONG))
    assert LONG[:16] not in str(caught.value)


def test_g09_pieces_of_a_secret_are_masked_in_texts() -> None:
    """The whole secret and every piece of 16 or more characters are replaced, once for each run; other text stays."""
    assert redact(f"a {LONG} b {LONG[:16]} c {LONG[7:]} d {LONG[:15]}", LONG) == f"a *** b *** c *** d {LONG[:15]}"
    assert redact("key-12 key-1", "key-12") == "*** key-1"
    assert redact("a short one stays: abcde", "abcde", "") == "a short one stays: abcde"


@pytest.mark.parametrize("secret", [Secret(LONG), SecretBytes(LONG.encode())], ids=["str", "bytes"])
def test_g09_a_piece_of_a_masked_string_is_masked(secret: Secret | SecretBytes) -> None:
    """Slices, indexes and the other encoding of a masked string are masked, and equal to those of a plain one."""
    plain = LONG if isinstance(secret, Secret) else LONG.encode()
    for piece, same in (
        (secret[:80], plain[:80]),
        (secret[-40:], plain[-40:]),
        (secret[::2], plain[::2]),
        (secret[3:4], plain[3:4]),
    ):
        assert piece == same
        assert "***" in repr(piece)
    assert secret[0] == plain[0]
    other = secret.encode() if isinstance(secret, Secret) else secret.decode()
    assert "***" in repr(other)


def test_g09_tools_that_shorten_strings_show_no_secret() -> None:
    """A traceback of rich, which cuts long locals with a slice, shows none of a token or a key."""

    def fail(key: object, token: object, header: object) -> None:
        raise LookupError

    token = Token(LONG, FAR)
    console = Console(file=io.StringIO(), width=400)
    try:
        fail(AuthenticatePayload(LONG).api_key, token.access_token, token.authorization)
    except LookupError as error:
        trace = Traceback.from_exception(LookupError, error, error.__traceback__.tb_next, show_locals=True)
        console.print(trace)
    assert "***" in console.file.getvalue()
    assert LONG[:16] not in console.file.getvalue()


async def ok(_request: web.Request) -> web.Response:
    return web.Response()


@pytest.mark.parametrize(
    "break_it",
    [
        lambda transport: transport.abort(),
        # The write fails: asyncio catches the error in a frame of its own, and aiohttp links it to another exception.
        lambda transport: transport.get_extra_info("socket").shutdown(socket.SHUT_WR),
    ],
    ids=["before the write", "at the write"],
)
@pytest.mark.parametrize("body", [None, b"made-up body", {"a": "form"}], ids=["none", "bytes", "form"])
async def test_g09_a_connection_that_breaks_shows_no_header(body: object, break_it: Callable[[Any], None]) -> None:
    """If a connection breaks before or at the write of a request, no frame of the exception or of its chain shows the
    token: neither aiohttp's writer nor asyncio's transport, which hold the bytes of the header.
    """

    async def cut(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        send = request.send

        async def send_on_a_broken_connection(connection: Any) -> aiohttp.ClientResponse:
            break_it(connection.transport)
            return await send(connection)

        request.send = send_on_a_broken_connection
        return await handler(request)

    async with serving(ok) as url:
        source = Source(url)
        source.current = Token(LONG, FAR)
        async with aiohttp.ClientSession(url, middlewares=(cut, BearerAuth(source))) as session:
            with pytest.raises(aiohttp.ClientError) as caught:
                await session.post("/", data=body)
    shown = shown_with_locals(caught.value)
    assert "aiohttp/client.py" in shown
    assert LONG[:16] not in shown


def run_in(module: str, then: Callable[[], object]) -> None:
    """Call a function from a frame of a module of this name."""
    names = {"__name__": module, "then": then}
    exec("def call(): then()", names)  # noqa: S102
    names["call"]()


def modules_of(error: BaseException | None) -> list[str]:
    """Return the names of the modules in a traceback."""
    frames = [] if error is None else traceback.walk_tb(error.__traceback__)
    return [frame.f_globals["__name__"] for frame, _ in frames]


@pytest.mark.parametrize(
    "writer", ["aiohttp.http_writer", "httpcore._async.http11", "h11._connection", "anyio.streams"]
)
@pytest.mark.parametrize("link", ["itself", "cause", "context", "cause of a context"])
def test_g09_only_the_writers_frames_are_taken_out_of_a_traceback(link: str, writer: str) -> None:
    """The frames above and below them stay, in the exception and in those that it is linked to."""

    def fail() -> None:
        raise OSError

    error: BaseException = OSError()
    try:
        run_in("made_up.above", lambda: run_in(writer, lambda: run_in(writer, lambda: run_in("made_up.below", fail))))
    except OSError as caught:
        error = written = caught
    outer = RuntimeError()
    if link == "cause":
        outer.__cause__, error = error, outer
    elif link == "context":
        outer.__context__, error = error, outer
    elif link == "cause of a context":
        outer.__cause__ = error
        error = ValueError()
        error.__context__ = outer
    before = modules_of(written)
    assert before.count(writer) == 2
    for each in linked(error):
        drop_writer_frames(each)
    assert modules_of(written) == [module for module in before if module != writer]
    assert {"made_up.above", "made_up.below"} <= set(before)


def test_g09_a_traceback_that_starts_in_a_transport_loses_its_start() -> None:
    """If asyncio's transport has caught the error itself, the traceback starts there, and keeps only other frames."""
    try:
        run_in("asyncio.selector_events", lambda: os.strerror("made up"))  # type: ignore[arg-type]
    except TypeError as caught:
        error = caught
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next.tb_next
    assert modules_of(error) == ["asyncio.selector_events", __name__]
    drop_writer_frames(error)
    assert modules_of(error) == [__name__]


async def test_g09_a_header_that_cannot_be_sent_shows_no_token() -> None:
    """If another header of the request is invalid, no frame of the exception shows the token beside it."""
    async with serving(ok) as url:
        source = Source(url)
        source.current = Token(LONG, FAR)
        async with aiohttp.ClientSession(url, middlewares=(BearerAuth(source),)) as session:
            with pytest.raises(ValueError, match="header") as caught:
                await session.get("/", headers={"Made-Up": "two\nlines"})
    shown = shown_with_locals(caught.value)
    assert "aiohttp/client.py" in shown
    assert LONG[:16] not in shown


async def test_g09_the_frames_of_the_programs_own_callbacks_stay() -> None:
    """If a callback that aiohttp's writer calls fails, the traceback shows where, and no token."""

    async def failing_callback(*_args: object) -> None:
        raise LookupError

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(failing_callback)
    async with serving(ok) as url:
        source = Source(url)
        source.current = Token(LONG, FAR)
        bearer = BearerAuth(source)
        async with aiohttp.ClientSession(url, middlewares=(bearer,), trace_configs=[trace]) as session:
            with pytest.raises(LookupError) as caught:
                await session.get("/")
    shown = shown_with_locals(caught.value)
    assert "in failing_callback" in shown
    assert LONG[:16] not in shown


async def test_g09_a_context_beside_a_cause_shows_no_header() -> None:
    """Both exceptions that one exception is linked to are cleaned, also if they form a circle."""
    causes: list[OSError] = []

    async def fail(request: aiohttp.ClientRequest, _handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        for _ in range(2):
            reader, writer = await asyncio.open_connection(request.url.host, request.url.port)
            writer.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
            writer.write(str(request.headers["Authorization"]).encode())
            with pytest.raises(OSError, match="pipe") as caught:
                await reader.read()
            causes.append(caught.value)
        error = aiohttp.ClientPayloadError("made up")
        error.__cause__, error.__context__ = causes
        causes[1].__context__ = error
        raise error

    async with serving(ok) as url:
        source = Source(url)
        source.current = Token(LONG, FAR)
        async with aiohttp.ClientSession(url, middlewares=(BearerAuth(source), fail)) as session:
            with pytest.raises(aiohttp.ClientPayloadError):
                await session.get("/")
    assert len(causes) == 2
    for cause in causes:
        shown = shown_with_locals(cause)
        assert "test_g09" in shown
        assert LONG[:16] not in shown


@pytest.mark.parametrize("secret", [Secret(LONG), SecretBytes(LONG.encode())], ids=["str", "bytes"])
def test_g09_pieces_and_sums_are_masked(secret: Any) -> None:
    """A piece of a masked string, and its sum with another string, are equal to those of a plain one, and masked."""
    plain = type(secret).__mro__[1](secret)
    dash, dots, start = ("-", "...", "made-") if isinstance(secret, str) else (b"-", b"...", b"made-")
    results = [
        (secret[:20] + dots + secret[-20:], plain[:20] + dots + plain[-20:]),
        (dots + secret, dots + plain),
        (secret + secret, plain + plain),
        (secret.strip(start), plain.strip(start)),
        (secret.lstrip(start), plain.lstrip(start)),
        (secret.rstrip(start), plain.rstrip(start)),
        (secret.removeprefix(start), plain.removeprefix(start)),
        (secret.removesuffix(start), plain.removesuffix(start)),
        (secret.split(dash), plain.split(dash)),
        (secret.rsplit(dash, maxsplit=1), plain.rsplit(dash, maxsplit=1)),
        (secret.partition(dash), plain.partition(dash)),
        (secret.rpartition(dash), plain.rpartition(dash)),
        (secret.splitlines(), plain.splitlines()),
    ]
    for masked_one, plain_one in results:
        assert masked_one == plain_one
        assert "0123" in repr(plain_one)
        assert "0123" not in repr(masked_one)


def test_g09_a_sum_with_another_type_is_that_types() -> None:
    """A sum with an object that is not a string is what it is for a plain string: its own, or a `TypeError`."""

    class Path:
        def __add__(self, other: object) -> str:
            return "left"

        def __radd__(self, other: object) -> str:
            return "right"

    for secret in (Secret(LONG), SecretBytes(LONG.encode())):
        assert secret + Path() == "right"
        assert Path() + secret == "left"
        with pytest.raises(TypeError):
            secret + 5
        with pytest.raises(TypeError):
            5 + secret
    data = bytearray(b"made-up ")
    data += SecretBytes(b"bytes")
    assert data == bytearray(b"made-up ") + SecretBytes(b"bytes") == bytearray(b"made-up bytes")
    assert repr(SecretBytes(b"bytes") + data) == "b'***'"


def test_g09_text_that_a_program_asks_for_is_plain() -> None:
    """`str`, f-strings, `%`, `format` and `join` give the text, so that a program can send or write it."""
    secret = Secret(LONG)
    for text in (str(secret), f"{secret}", "%s" % secret, "{}".format(secret), "".join([secret, ""])):  # noqa: UP031, UP032, FLY002  each of them
        assert type(text) is str
        assert text == LONG


def test_g09_tools_that_cut_strings_show_no_secret() -> None:
    """`pydoc` and `reprlib`, which build a short text of the two ends of a string, show none of a secret. The `cgitb`
    module and IPython use them for their tracebacks.
    """
    short = reprlib.Repr()
    short.maxstring = 4
    for secret in (Secret(LONG), SecretBytes(LONG.encode()), Token(LONG, FAR).authorization):
        for shown in (pydoc.text.repr(secret), pydoc.html.repr(secret), short.repr(secret)):
            assert not any(piece in shown for piece in ("made", "up", "def", "0123"))
