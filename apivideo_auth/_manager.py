"""The token manager: what a program holds."""

import asyncio
import os
import random
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import aiohttp
from multidict import CIMultiDict

from apivideo_auth import events
from apivideo_auth._api import AuthenticationApi, origin_headers
from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._middleware import BearerAuth
from apivideo_auth._models import AuthenticatePayload
from apivideo_auth._policy import RefreshPolicy
from apivideo_auth._refresher import Refresher
from apivideo_auth._renewal import Account, TokenEndpoints
from apivideo_auth._secrets import masked
from apivideo_auth._state import ManagerStatus, State
from apivideo_auth._token import Token
from apivideo_auth._urls import PRODUCTION, normal_base_url
from apivideo_auth._validation import check_callable, check_instance, check_methods
from apivideo_auth.stores._base import TokenStore
from apivideo_auth.stores._failover import FailoverSlot
from apivideo_auth.stores._memory import MemoryStore
from apivideo_auth.stores._encrypted import open_slot

_DEFAULT_POLICY: Final = RefreshPolicy()

API_KEY_VARIABLE = "APIVIDEO_API_KEY"
BASE_URL_VARIABLE = "APIVIDEO_BASE_URL"
STORE_VARIABLE = "APIVIDEO_TOKEN_STORE"


class TokenManager:
    """Keeps a program authenticated to api.video.

    The API key is sent once; from then on refresh tokens buy the next access token, in the background, before the
    current one expires. One renewal serves any number of callers.

    - `base_url`: `PRODUCTION`, `SANDBOX`, or the origin of a local server.
    - `store`: where workers share one token; by default it is this manager's own, in memory.
    - `api`: stands in for `AuthenticationApi`; it and `connector` stay the caller's to close.
    - `application`: `("name", "1.2.3")`, sent as `AV-Origin-App`.
    - `trust_env`: whether proxies of the environment may carry secrets. For `session()` aiohttp then also reads netrc,
      whose entry for the host takes the place of the token.
    - `on_event`: the first receiver of events; see `subscribe`.

    Construction does no I/O and needs no running loop; it raises `TypeError`, `ValueError` or `InsecureUrlError` for
    arguments that cannot be meant. A manager works in one event loop and has to be closed.
    """

    def __init__(  # noqa: PLR0913  each is optional and right by default
        self,
        api_key: str,
        *,
        base_url: str = PRODUCTION,
        store: TokenStore | None = None,
        policy: RefreshPolicy = _DEFAULT_POLICY,
        api: TokenEndpoints | None = None,
        connector: aiohttp.BaseConnector | None = None,
        application: tuple[str, str] | None = None,
        trust_env: bool = False,
        on_event: events.EventHandler | None = None,
        clock: Clock | None = None,
    ) -> None:
        # Masked before anything can raise: a traceback that shows locals shows this one.
        api_key = masked(api_key)
        credentials = AuthenticatePayload(api_key)
        clock = SYSTEM_CLOCK if clock is None else clock
        check_instance("policy", policy, RefreshPolicy)
        check_instance("trust_env", trust_env, bool)
        check_methods("clock", clock, "monotonic", "utc")
        if store is not None:
            check_methods("store", store, "open")
            check_instance("store.needs_encryption", getattr(store, "needs_encryption", None), bool)
        if on_event is not None:
            check_callable("on_event", on_event)
        self._base_url = base_url_with(api, base_url)
        self._own_api: AuthenticationApi | None = None
        if api is None:
            api = self._own_api = AuthenticationApi(
                self._base_url,
                connector=connector,
                application=application,
                trust_env=trust_env,
                attempt_timeout=policy.attempt_timeout,
            )
            self._own_api.keep_time_by(clock)
        else:
            check_methods("api", api, "authenticate", "refresh")
            if connector is not None or application is not None or trust_env:
                raise ValueError(
                    "connector, application and trust_env belong to the api that is passed; set them there"
                )
        self._origin_headers = origin_headers(application)
        self._trust_env = trust_env
        self._policy = policy
        self._clock = clock
        self._receivers: list[events.EventHandler] = [] if on_event is None else [on_event]
        self._private = store is None
        self._cleaned: asyncio.Future[None] | None = None
        self._state = State(policy=policy, clock=clock, draw=random.random)
        opened = partial(
            open_slot,
            MemoryStore() if store is None else store,
            base_url=self._base_url,
            api_key=credentials.api_key,
            clock=clock,
            on_commit=self._look,
        )
        endpoints = api
        # The own api keeps the time itself, and can tell whether the request was sent; this only backs it up.
        patience = policy.attempt_timeout + (1.0 if self._own_api is not None else 0.0)

        def open_account() -> Account:
            # A private record in memory cannot fail; a store that was passed can.
            slot = opened() if store is None else FailoverSlot(opened, clock=clock, emit=self._emit, look=self._look)
            return Account(
                slot=slot,
                api=endpoints,
                patience=patience,
                credentials=credentials,
                policy=policy,
                clock=clock,
                draw=random.random,
            )

        self._refresher = Refresher(self._state, open_account, self._emit)
        self._monotonic = clock.monotonic

    def _look(self) -> None:
        self._refresher.on_commit()

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:  # noqa: ANN401  the constructor's own arguments
        """Return a manager of `APIVIDEO_API_KEY`, `APIVIDEO_BASE_URL` and `APIVIDEO_TOKEN_STORE`.

        `overrides` are arguments of the constructor and win. Raises `ValueError` if no API key is named.
        """
        return cls(**from_environment(overrides))

    def __repr__(self) -> str:
        # Tolerant, since a traceback may show a manager whose construction has just failed.
        if not hasattr(self, "_state"):
            return "<TokenManager not constructed>"
        status = self.status()
        return f"<TokenManager {self._base_url} {status.phase} generation={status.generation}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a TokenManager is not pickled; make one in each process, with a store that they share")

    @property
    def base_url(self) -> str:
        """The origin of the API, normalised."""
        return self._base_url

    async def get_token(self, *, rejected: Token | None = None, min_ttl: float | None = None) -> Token:
        """Return a token that is usable now: at once while there is one, else after one renewal.

        - `rejected`: the token that the API has just refused. It is never the answer: a newer one is given, or one
          renewal is made for it.
        - `min_ttl`: seconds of life that this caller needs, at most 90 % of a lifetime.

        Raises an `AuthError` when no token can be had: the cause of the failed renewal, `TokenRejectedError` (with
        `retry_after`) when a renewal because of a 401 may not be made yet, or `ManagerClosedError`.
        """
        state = self._state
        if rejected is None and min_ttl is None and self._monotonic() < state.fresh_until:
            assert state.token is not None
            return state.token
        check_wanted(rejected, min_ttl)
        return await self._refresher.serve(rejected, min_ttl)

    def session(self, **kwargs: Any) -> aiohttp.ClientSession:  # noqa: ANN401  ClientSession's own arguments
        """Return a session that is authenticated at `base_url`; it is the caller's to close.

        `kwargs` are `ClientSession`'s. Middlewares among them come before `BearerAuth`, which stays innermost.
        """
        self._refresher.enter()
        bearer = BearerAuth(self, on_event=self._emit)
        headers = CIMultiDict(kwargs.pop("headers", None) or {})
        for name, value in self._origin_headers.items():
            headers.setdefault(name, value)
        middlewares = (*(kwargs.pop("middlewares", None) or ()), bearer)
        options: dict[str, Any] = {"base_url": self._base_url, "trust_env": self._trust_env} | kwargs
        return aiohttp.ClientSession(headers=headers, middlewares=middlewares, **options)

    def status(self) -> ManagerStatus:
        """Return a snapshot without secrets and without I/O."""
        return self._state.status(self._monotonic())

    def subscribe(self, callback: events.EventHandler) -> Callable[[], None]:
        """Add a receiver of events (see `apivideo_auth.events`); return what takes it away again.

        It is called in the event loop, outside every lock. An exception in it is logged and changes nothing.
        """
        check_callable("callback", callback)

        # A wrapper has an identity of its own, so that one callback can be added twice and taken away once.
        def receiver(event: events.Event) -> None:
            callback(event)

        self._receivers.append(receiver)

        def unsubscribe() -> None:
            if receiver in self._receivers:
                self._receivers.remove(receiver)

        return unsubscribe

    def _emit(self, event: events.Event) -> None:
        for receiver in [*self._receivers]:
            events.deliver(receiver, event)

    async def close(self) -> None:
        """Refuse every caller from now on, and leave nothing behind. Closing twice is closing once.

        A renewal in flight gets the policy's `close_timeout` to reach a store that was passed. Cancelling skips that
        wait, not the cleaning.
        """
        if self._cleaned is not None:
            if not self._cleaned.done():
                self._refresher.check_loop()
                await asyncio.shield(self._cleaned)
            return
        self._refresher.check_loop()
        self._cleaned = asyncio.get_running_loop().create_future()
        try:
            await self._refresher.close(patience=0.0 if self._private else self._policy.close_timeout)
        finally:
            try:
                if self._own_api is not None:
                    await self._own_api.close()
            finally:
                self._cleaned.set_result(None)

    async def __aenter__(self) -> Self:
        self._refresher.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def base_url_with(api: object, base_url: object) -> str:
    """Return the base URL of a manager that is given an `api`, which may have one of its own.

    A session and an api of two places would send the token of one to the other.
    """
    normal = normal_base_url(base_url)
    theirs = getattr(api, "base_url", None)
    if not isinstance(theirs, str):
        return normal
    theirs = normal_base_url(theirs, what="api.base_url")
    if normal not in (PRODUCTION, theirs):
        raise ValueError(f"api asks {theirs} and base_url is {normal}; make them the same")
    return theirs


def check_wanted(rejected: object, min_ttl: object) -> None:
    """Raise `TypeError` or `ValueError` for arguments of `get_token` that cannot be meant."""
    if rejected is not None and not isinstance(rejected, Token):
        raise TypeError(f"rejected must be a Token that get_token returned, not {type(rejected).__name__}")
    if min_ttl is None:
        return
    if isinstance(min_ttl, bool) or not isinstance(min_ttl, int | float):
        raise TypeError(f"min_ttl must be a number of seconds, not {type(min_ttl).__name__}")
    # More than any lifetime is told by the token, which knows how long tokens live.
    if not min_ttl >= 0:
        raise ValueError("min_ttl must be a number of seconds, 0 or more")


def from_environment(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a manager that the environment names, under those given.

    Raises `ValueError` if neither names an API key.
    """
    arguments: dict[str, Any] = {}
    if base_url := os.environ.get(BASE_URL_VARIABLE):
        arguments["base_url"] = base_url
    # Masked where they are read: tracebacks show locals, and a store's URL may hold a password.
    if (store := masked(os.environ.get(STORE_VARIABLE))) and "store" not in overrides:
        from apivideo_auth.stores import store_from_url  # noqa: PLC0415  stores are imported on use

        arguments["store"] = store_from_url(store)
    if api_key := masked(os.environ.get(API_KEY_VARIABLE)):
        arguments["api_key"] = api_key
    arguments |= overrides
    if "api_key" not in arguments:
        raise ValueError(f"{API_KEY_VARIABLE} is not set; put the API key there")
    return arguments
