"""Keeps an asyncio program authenticated to api.video.

`get_token` returns a valid access token. A session adds it to every request:

    async with TokenManager(api_key) as tokens, tokens.session() as session:
        async with session.get("/videos") as response:
            ...
"""

from importlib import import_module
from typing import TYPE_CHECKING

from apivideo_auth._version import __version__ as __version__

# Type checkers read these imports. At run time `__getattr__` makes them when a name is first used, so that pytest
# (which loads the plugin in every project) and `apivideo-auth --help` do not import aiohttp.
if TYPE_CHECKING:
    from apivideo_auth._api import AuthenticationApi, TokenEndpoints
    from apivideo_auth._clock import Clock
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
    "Clock",
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
    "TokenEndpoints",
    "TokenManager",
    "TokenRejectedError",
    "TokenSource",
    "TokenStore",
    "TokenStoreError",
]

# Where the names are looked for, in this order.
_MODULES = (
    "_clock",
    "_urls",
    "_errors",
    "_models",
    "_policy",
    "_token",
    "_state",
    "_api",
    "_middleware",
    "stores._base",
    "stores._memory",
    "_manager",
)

# Hidden from type checkers, which would otherwise accept every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name on its first use."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in _MODULES:
            found = import_module(f"{__name__}.{module}")
            if hasattr(found, name):
                return globals().setdefault(name, getattr(found, name))
        raise AssertionError(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
