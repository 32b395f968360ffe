"""Uses of the public names that type checkers must accept; checked, never run."""

from datetime import datetime
from typing import assert_type

import aiohttp

from apivideo_auth import (
    PRODUCTION,
    AccessToken,
    AuthenticatePayload,
    AuthenticationApi,
    AuthError,
    AuthResponseError,
    BadRequest,
    BearerAuth,
    Clock,
    ManagerStatus,
    MemoryStore,
    RefreshPolicy,
    RefreshTokenPayload,
    Token,
    TokenEndpoints,
    TokenManager,
    TokenSource,
    TokenStore,
)
from apivideo_auth.events import Event, TokenRenewed


class StandIn:
    """A token source of one's own."""

    async def get_token(self, *, rejected: Token | None = None) -> Token:
        """Return a token."""
        raise LookupError(rejected)


def on_event(event: Event) -> None:
    """Receive events of every kind."""
    if isinstance(event, TokenRenewed):
        assert_type(event.expires_at, datetime)


async def manager() -> None:
    """The manager's members."""
    store: TokenStore = MemoryStore()
    policy = RefreshPolicy(refresh_at=0.7, leeway=None)
    async with TokenManager("key", base_url=PRODUCTION, store=store, policy=policy, on_event=on_event) as tokens:
        source: TokenSource = tokens
        assert_type(tokens, TokenManager)
        assert_type(await tokens.get_token(), Token)
        assert_type(await source.get_token(rejected=None), Token)
        assert_type(await tokens.get_token(min_ttl=5), Token)
        assert_type(tokens.status(), ManagerStatus)
        assert_type((await tokens.get_token()).authorization, str)
        tokens.subscribe(print)()
        async with tokens.session(raise_for_status=True) as session:
            assert_type(session, aiohttp.ClientSession)
    assert_type(TokenManager.from_env(application=("a", "1")), TokenManager)


async def api() -> None:
    """The endpoints by themselves, and as a manager's api."""
    async with AuthenticationApi() as endpoints:
        grant = await endpoints.authenticate(AuthenticatePayload(api_key="key"))
        assert_type(grant, AccessToken)
        assert_type(grant.refresh_token, str | None)
        if grant.refresh_token is not None:
            grant = await endpoints.refresh(RefreshTokenPayload(refresh_token=grant.refresh_token))
        stand_in: TokenEndpoints = endpoints
        TokenManager("key", api=stand_in)


def errors(error: AuthError) -> None:
    """What errors carry."""
    assert_type(error.retryable, bool)
    assert_type(error.retry_after, float | None)
    if isinstance(error, AuthResponseError):
        assert_type(error.status, int | None)
        assert_type(error.body, BadRequest | None)


def clock(clock: Clock) -> None:
    """A clock of one's own."""
    assert_type(clock.monotonic(), float)
    TokenManager("key", clock=clock)


async def middleware() -> None:
    """The middleware takes any source."""
    bearer = BearerAuth(StandIn(), origins=["https://example.com"])
    async with aiohttp.ClientSession(middlewares=(bearer,)):
        pass
