"""Keeps an asyncio program authenticated to api.video.

One `await` gives a token that is good now; aiohttp sessions draw on it by themselves:

    async with TokenManager(api_key) as tokens, tokens.session() as session:
        async with session.get("/videos") as response:
            ...
"""

from importlib import import_module
from typing import TYPE_CHECKING

from apivideo_auth._version import __version__ as __version__

if TYPE_CHECKING:
    from apivideo_auth._api import AuthenticationApi
    from apivideo_auth._errors import (
        AuthConnectionError,
        AuthError,
        AuthResponseError,
        CredentialsRejectedError,
        InsecureUrlError,
        InvalidResponseError,
        ManagerClosedError,
        RateLimitedError,
        TokenRejectedError,
        TokenStoreError,
    )
    from apivideo_auth._manager import TokenManager
    from apivideo_auth._middleware import BearerAuth
    from apivideo_auth._models import AccessToken, AuthenticatePayload, BadRequest, RefreshTokenPayload
    from apivideo_auth._policy import RefreshPolicy
    from apivideo_auth._state import ManagerStatus
    from apivideo_auth._token import Token, TokenSource
    from apivideo_auth._urls import PRODUCTION, SANDBOX
    from apivideo_auth.stores._base import TokenStore
    from apivideo_auth.stores._memory import MemoryStore

__all__ = [
    "PRODUCTION",
    "SANDBOX",
    "AccessToken",
    "AuthConnectionError",
    "AuthError",
    "AuthResponseError",
    "AuthenticatePayload",
    "AuthenticationApi",
    "BadRequest",
    "BearerAuth",
    "CredentialsRejectedError",
    "InsecureUrlError",
    "InvalidResponseError",
    "ManagerClosedError",
    "ManagerStatus",
    "MemoryStore",
    "RateLimitedError",
    "RefreshPolicy",
    "RefreshTokenPayload",
    "Token",
    "TokenManager",
    "TokenRejectedError",
    "TokenSource",
    "TokenStore",
    "TokenStoreError",
]

# The names are imported on use, so that the pytest plugin and the command's --help do not pay for aiohttp.
_HOMES = {
    "_api": ("AuthenticationApi",),
    "_errors": (
        "AuthConnectionError",
        "AuthError",
        "AuthResponseError",
        "CredentialsRejectedError",
        "InsecureUrlError",
        "InvalidResponseError",
        "ManagerClosedError",
        "RateLimitedError",
        "TokenRejectedError",
        "TokenStoreError",
    ),
    "_manager": ("TokenManager",),
    "_middleware": ("BearerAuth",),
    "_models": ("AccessToken", "AuthenticatePayload", "BadRequest", "RefreshTokenPayload"),
    "_policy": ("RefreshPolicy",),
    "_state": ("ManagerStatus",),
    "_token": ("Token", "TokenSource"),
    "_urls": ("PRODUCTION", "SANDBOX"),
    "stores._memory": ("MemoryStore",),
    "stores._base": ("TokenStore",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on its first use."""
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
