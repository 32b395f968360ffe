"""G9: no secret is in any repr, str, log record, event, exception, request_info, status or pickle."""

import asyncio
import copy
import logging
import pickle
import traceback
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses

from apivideo_auth import (
    AccessToken,
    AuthConnectionError,
    AuthenticatePayload,
    AuthenticationApi,
    AuthError,
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
from apivideo_auth._secrets import Secret, SecretBytes, fingerprint
from apivideo_auth.emulator import Emulator
from apivideo_auth.stores import store_from_url
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service
from tests.support.loopback import serving
from tests.support.sources import FAR

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
def test_g09_reprs_are_masked_and_pickles_refused(value: object) -> None:
    """What holds a secret does not show it in repr, str of a container or format, and is not pickled."""
    assert SECRET not in repr(value)
    assert SECRET not in f"{[value]} {value!r}"
    if not isinstance(value, Secret | SecretBytes):
        assert SECRET not in str(value)
    if not isinstance(value, MemoryStore | AuthenticationApi):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(value)


def test_g09_a_secret_is_a_string_for_all_else() -> None:
    """A masked string is sent, formatted, compared and copied as what it is."""
    secret = Secret(SECRET)
    assert secret == SECRET
    assert f"{secret}" == str(secret) == SECRET
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"key": secret}) == {"key": SECRET}
    token = Token(SECRET, FAR)
    assert copy.copy(token) is copy.deepcopy(token) is token


def test_g09_a_token_says_generation_expiry_and_fingerprint() -> None:
    """A token's repr tells tokens apart without showing them."""
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
    ],
)
def test_g09_a_token_of_ones_own_is_checked(args: tuple, error: type[Exception]) -> None:
    """Stand-ins can make tokens; what cannot be one is refused without being shown."""
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
    """Whatever an endpoint writes into its answer, the error's text, chain and captured locals show no secret."""
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
    """After the request, neither the response nor an exception made of it has the header any more."""

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
    """A manager's life with failures, and a receiver that fails, writes no secret anywhere."""
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
    assert "a receiver of TokenRenewed failed" in caplog.text
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
    ],
    ids=range(11),
)
def test_g09_a_failed_construction_shows_no_secret(make: object) -> None:
    """A report with captured locals of a construction that failed shows no secret, and can be made at all."""
    shown = shown_by(make)
    assert "apivideo_auth" in shown
    assert SECRET not in shown


async def test_g09_a_stand_ins_error_is_scrubbed() -> None:
    """A stand-in that writes the key into its error shows it to nobody."""

    class Leaky(Service):
        async def authenticate(self, payload: AuthenticatePayload) -> AccessToken:
            raise CredentialsRejectedError(f"no such key {payload.api_key}", status=400)

    async with TokenManager(SECRET, api=Leaky(None)) as tokens:
        with pytest.raises(CredentialsRejectedError) as caught:
            await tokens.get_token()
        assert SECRET not in str(caught.value) + repr(tokens.status())
