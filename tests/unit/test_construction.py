"""Invalid arguments: one clear error at construction, without a secret in it."""

import functools
from typing import Any

import aiohttp
import pytest
from yarl import URL

from apivideo_auth import (
    SANDBOX,
    AuthenticatePayload,
    AuthenticationApi,
    BearerAuth,
    InsecureUrlError,
    MemoryStore,
    RefreshPolicy,
    RefreshTokenPayload,
    TokenManager,
)
from tests.conftest import API_KEY
from tests.support.doubles import Service
from tests.support.sources import Source


async def a_coroutine_function(event: object) -> None:
    """Take an event."""


class AsyncHandler:
    """A handler whose calls make coroutines."""

    async def __call__(self, event: object) -> None:
        """Take an event."""


@pytest.mark.parametrize("key", [None, 5, b"made-up-key", ["made-up-key"], object()])
def test_an_api_key_of_a_wrong_type_is_a_type_error(key: object) -> None:
    """A value that is not a string is a TypeError that names its type."""
    with pytest.raises(TypeError, match=f"must be a string, not {type(key).__name__}"):
        TokenManager(key)


@pytest.mark.parametrize("key", ["", "   ", " made-up-key", "made-up-key\n", "made-up\x00key"])
def test_an_api_key_that_cannot_be_one_is_a_value_error(key: str) -> None:
    """An empty key, and one with white space or control characters, is a ValueError that does not show it."""
    with pytest.raises(ValueError, match="API key") as caught:
        TokenManager(key)
    assert "made-up" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ('"made-up-key"', "quotes"),
        ("'made-up-key'", "quotes"),
        ("“made-up-key”", "quotes"),
        ('made-up-key"', "quotes"),
        ("Bearer made-up-key", "pass the key alone"),
        ("bearer made-up-key", "pass the key alone"),
        ("YOUR_API_KEY", "placeholder"),
        ("your-api-key", "placeholder"),
        ("YOUR_API_KEY_HERE", "placeholder"),
        ("<made-up-key>", "placeholder"),
        ("$APIVIDEO_API_KEY", "placeholder"),
        ("${APIVIDEO_API_KEY}", "placeholder"),
    ],
)
def test_an_api_key_that_was_pasted_wrong_is_a_value_error(key: str, advice: str) -> None:
    """A key in quotes, with a scheme, or a placeholder is a ValueError that says what to do and does not show it."""
    for make in (TokenManager, AuthenticatePayload):
        with pytest.raises(ValueError, match=advice) as caught:
            make(key)
        assert "made-up" not in str(caught.value)


@pytest.mark.parametrize("key", ["made-up-api-key", "b" * 44, "bearing-made-up", "a'b", "key<1>"])
def test_an_unusual_api_key_is_accepted(key: str) -> None:
    """A key is not judged by its form beyond that."""
    assert AuthenticatePayload(key).api_key == key


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "not an http\\(s\\) URL"),
        ("ws.api.video", "not an http\\(s\\) URL"),
        ("ftp://ws.api.video", "not an http\\(s\\) URL"),
        ("https://", "not an http\\(s\\) URL"),
        ("https://ws.api.video:99999", "not an http\\(s\\) URL"),
        ("https://ws.api.video:0", "not an http\\(s\\) URL"),
        ("https://ws.api.video: 443", "not an http\\(s\\) URL"),
        ("https://ws.api video", "not an http\\(s\\) URL"),
        ("https://ws.api.video\n", "not an http\\(s\\) URL"),
        ("https://ws.api.video/v1", "an origin alone.*'https://ws.api.video'"),
        ("https://ws.api.video/?a=b", "an origin alone"),
        ("https://ws.api.video?", "an origin alone"),
        ("https://ws.api.video#top", "an origin alone"),
        ("https://user@ws.api.video", "user or a password"),
        ("https://:made-up@ws.api.video", "user or a password"),
        ("https://ws..api.video", "not an http\\(s\\) URL"),
        ("https://ws.api.video..", "not an http\\(s\\) URL"),
        ("https://.ws.api.video", "not an http\\(s\\) URL"),
        (f"https://{'a' * 64}.video", "not an http\\(s\\) URL"),
        (f"https://{'é' * 60}.video", "not an http\\(s\\) URL"),
        ("https://xn--zz--.video", "not an http\\(s\\) URL"),
        ("https://.", "not an http\\(s\\) URL"),
        ("https://999.1.1.1", "not an http\\(s\\) URL"),
        ("https://127.1", "not an http\\(s\\) URL"),
        ("https://ws.api.video[]@", "not an http\\(s\\) URL"),
    ],
)
def test_a_base_url_that_is_not_an_origin_is_a_value_error(url: str, hint: str) -> None:
    """An invalid base URL, or one that is more than an origin, is a ValueError that says what to write."""
    for make in (
        lambda: TokenManager(API_KEY, base_url=url),
        lambda: AuthenticationApi(url),
        lambda: BearerAuth(TokenManager(API_KEY), origins=[url]),
    ):
        with pytest.raises(ValueError, match=hint) as caught:
            make()
        assert "made-up" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://WS.API.video/", "https://ws.api.video"),
        ("https://ws.api.video:443", "https://ws.api.video"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("https://ws.api.video.", "https://ws.api.video."),
        (f"https://{'a' * 63}.video", f"https://{'a' * 63}.video"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        (SANDBOX, SANDBOX),
        # As aiohttp's test servers have it.
        (URL("http://localhost:8080/"), "http://localhost:8080"),
    ],
)
def test_a_base_url_is_normalised(given: Any, normal: str) -> None:
    """The base URL comes back as a string in lower case, without a default port and without a slash."""
    assert TokenManager(API_KEY, base_url=given).base_url == normal
    assert AuthenticationApi(given).base_url == normal


@pytest.mark.parametrize(
    "kwargs",
    [
        {"base_url": 5},
        {"base_url": None},
        {"store": "memory:"},
        {"policy": 0.8},
        {"policy": None},
        {"api": object()},
        {"api": "https://ws.api.video"},
        {"connector": "tcp"},
        {"application": "my-app"},
        {"application": ("my-app",)},
        {"application": ("my-app", 1)},
        {"trust_env": "yes"},
        {"on_event": "print"},
        {"on_event": a_coroutine_function},
        {"on_event": AsyncHandler()},
        {"on_event": functools.partial(AsyncHandler())},
        {"api": AuthenticationApi},
        {"store": MemoryStore},
        {"clock": object()},
    ],
)
def test_an_argument_of_a_wrong_type_is_a_type_error(kwargs: dict) -> None:
    """Each argument of a wrong type is a TypeError at construction."""
    with pytest.raises(TypeError):
        TokenManager(API_KEY, **kwargs)


@pytest.mark.parametrize(
    "application",
    [
        ("", "1"),
        ("my app", "1"),
        ("x" * 51, "1"),
        ("my-app", ""),
        ("my-app", "1.2.3.4"),
        ("my-app", "1234"),
        ("é", "1"),
    ],
)
def test_an_application_in_a_wrong_format_is_a_value_error(application: tuple[str, str]) -> None:
    """A name or version that does not have the vendor's format is a ValueError that describes the format."""
    with pytest.raises(ValueError, match="application"):
        TokenManager(API_KEY, application=application)


@pytest.mark.parametrize(
    "kwargs", [{"application": ("my-app", "1")}, {"trust_env": True}], ids=["application", "trust_env"]
)
def test_arguments_that_belong_to_the_api_are_rejected_beside_one(kwargs: dict) -> None:
    """Arguments that have no effect because an api is passed are a ValueError."""
    with pytest.raises(ValueError, match="cannot be combined"):
        TokenManager(API_KEY, api=Service(None), **kwargs)


async def test_a_connector_beside_an_api_is_rejected() -> None:
    """A connector beside an api is a ValueError, and stays open."""
    async with aiohttp.TCPConnector() as connector:
        with pytest.raises(ValueError, match="cannot be combined"):
            TokenManager(API_KEY, api=Service(None), connector=connector)
        assert not connector.closed


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"refresh_at": 0}, ValueError),
        ({"refresh_at": 0.05}, ValueError),
        ({"refresh_at": 1}, ValueError),
        ({"refresh_at": 80}, ValueError),
        ({"refresh_at": "0.8"}, TypeError),
        ({"refresh_at": True}, TypeError),
        ({"refresh_at": float("nan")}, ValueError),
        ({"leeway": -1}, ValueError),
        ({"leeway": "30"}, TypeError),
        ({"leeway": float("inf")}, ValueError),
        ({"attempt_timeout": 0}, ValueError),
        ({"attempt_timeout": 61}, ValueError),
        ({"attempt_timeout": None}, TypeError),
        ({"deadline": -0.1}, ValueError),
        ({"close_timeout": float("inf")}, ValueError),
    ],
    ids=str,
)
def test_an_invalid_policy_is_rejected(kwargs: dict, error: type[Exception]) -> None:
    """A policy's numbers are checked when it is made, and the message names the field."""
    with pytest.raises(error, match=next(iter(kwargs))):
        RefreshPolicy(**kwargs)


@pytest.mark.parametrize("timeout", [0, -1, 61, "10", True])
def test_an_attempt_timeout_is_checked(timeout: object) -> None:
    """AuthenticationApi checks its timeout at construction."""
    with pytest.raises((TypeError, ValueError), match="attempt_timeout"):
        AuthenticationApi(attempt_timeout=timeout)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"source": object()}, TypeError),
        ({"source": Source()}, ValueError),
        ({"source": Source(), "origins": "https://ws.api.video"}, TypeError),
        ({"source": Source(), "origins": 5}, TypeError),
        ({"source": Source(), "origins": []}, ValueError),
        ({"source": Source(), "origins": ["https://ws.api.video/v1"]}, ValueError),
        ({"source": Source(), "origins": ["http://ws.api.video"]}, InsecureUrlError),
        ({"source": Source(SANDBOX), "on_event": 5}, TypeError),
    ],
)
def test_bearer_auth_checks_its_arguments(kwargs: dict, error: type[Exception]) -> None:
    """BearerAuth needs a source, and origins to which its token may be sent."""
    with pytest.raises(error):
        BearerAuth(**kwargs)


async def test_get_token_checks_its_arguments() -> None:
    """`rejected` must be a Token, and `min_ttl` a finite number of seconds, 0 or more."""
    async with TokenManager(API_KEY, api=Service(None)) as tokens:
        for kwargs, error in (
            ({"rejected": "made-up-access"}, TypeError),
            ({"min_ttl": "60"}, TypeError),
            ({"min_ttl": True}, TypeError),
            ({"min_ttl": -1}, ValueError),
            ({"min_ttl": float("nan")}, ValueError),
        ):
            with pytest.raises(error):
                await tokens.get_token(**kwargs)


async def test_the_api_takes_payloads_alone() -> None:
    """A string instead of a payload is a TypeError that does not show it."""
    async with AuthenticationApi() as api:
        for call in (api.authenticate, api.refresh):
            with pytest.raises(TypeError, match="not str"):
                await call("made-up-secret")
    with pytest.raises(TypeError):
        AuthenticatePayload(5)
    with pytest.raises(ValueError, match="refresh_token"):
        RefreshTokenPayload("")


def test_from_env_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, the base URL and the store come from the environment, and arguments win."""
    monkeypatch.setenv("APIVIDEO_API_KEY", API_KEY)
    monkeypatch.setenv("APIVIDEO_BASE_URL", "http://127.0.0.1:8080/")
    monkeypatch.setenv("APIVIDEO_TOKEN_STORE", "memory:")
    assert TokenManager.from_env().base_url == "http://127.0.0.1:8080"
    assert TokenManager.from_env(base_url=SANDBOX, store=MemoryStore()).base_url == SANDBOX


@pytest.mark.parametrize("value", [None, ""])
def test_from_env_names_the_missing_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """Without a key, from_env is a ValueError that names the variable; a key that is passed needs none."""
    monkeypatch.delenv("APIVIDEO_BASE_URL", raising=False)
    monkeypatch.delenv("APIVIDEO_TOKEN_STORE", raising=False)
    if value is None:
        monkeypatch.delenv("APIVIDEO_API_KEY", raising=False)
    else:
        monkeypatch.setenv("APIVIDEO_API_KEY", value)
    with pytest.raises(ValueError, match="APIVIDEO_API_KEY is not set"):
        TokenManager.from_env()
    assert TokenManager.from_env(api_key=API_KEY)


def test_from_env_rejects_an_unknown_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with an unknown scheme is a ValueError."""
    monkeypatch.setenv("APIVIDEO_API_KEY", API_KEY)
    monkeypatch.setenv("APIVIDEO_TOKEN_STORE", "mongodb://made-up")
    with pytest.raises(ValueError, match="a token store's URL is memory:"):
        TokenManager.from_env()
