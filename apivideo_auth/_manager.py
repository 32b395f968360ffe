"""`TokenManager`, the object that a program holds: its arguments, environment, session and events."""

import asyncio
import os
import random
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, Unpack

import aiohttp
from multidict import CIMultiDict

from apivideo_auth import events
from apivideo_auth._api import AuthenticationApi, TokenEndpoints, origin_headers
from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._middleware import BearerAuth
from apivideo_auth._models import AuthenticatePayload
from apivideo_auth._policy import RefreshPolicy
from apivideo_auth._refresher import Refresher
from apivideo_auth._renewal import Renewer
from apivideo_auth._secrets import masked
from apivideo_auth._state import ManagerStatus, State
from apivideo_auth._token import Token
from apivideo_auth._urls import PRODUCTION, normal_base_url
from apivideo_auth._validation import check_callable, check_instance, check_int, check_methods, check_number
from apivideo_auth.stores import store_from_url
from apivideo_auth.stores._base import Slot, TokenStore
from apivideo_auth.stores._failover import FailoverSlot, open_failover_slot
from apivideo_auth.stores._memory import MemoryStore

if TYPE_CHECKING:
    from apivideo_auth._options import ManagerOptions, SessionOptions

API_KEY_VARIABLE: Final = "APIVIDEO_API_KEY"
BASE_URL_VARIABLE: Final = "APIVIDEO_BASE_URL"
STORE_VARIABLE: Final = "APIVIDEO_TOKEN_STORE"

OWN_API_GRACE: Final = 1.0
"""The manager's own api enforces the timeout and knows whether the request was sent. The renewal's is a backup."""

_DEFAULT_POLICY: Final = RefreshPolicy()


class TokenManager:
    """Keeps a program authenticated to api.video.

    The API key is sent once. After that, each token is renewed with a refresh token, in the background, before it
    expires. One renewal serves any number of callers.

    - `api_key`: from the api.video dashboard. It is never shown in a message or a `repr`.
    - `base_url`: `PRODUCTION`, `SANDBOX`, or the origin of a local server.
    - `store`: the token store that workers share. By default the token is kept in memory, for this manager alone.
    - `policy`: the timing of renewals.
    - `api`: a replacement for `AuthenticationApi`. The caller closes `api` and `connector`.
    - `connector`: is used for the endpoints and by `session()`.
    - `application`: `("name", "1.2.3")`, sent as `AV-Origin-App`.
    - `trust_env`: whether to use the proxies of the environment. In a `session()` aiohttp then also reads netrc, and an
      entry for the host replaces the token.
    - `on_event`: the first event handler; see `subscribe`.
    - `clock`: a replacement for the system's clocks, for tests.

    Construction does no I/O and needs no running loop. It raises `TypeError`, `ValueError` or `InsecureUrlError` if an
    argument is invalid. A manager works in one event loop at a time, and must be closed.
    """

    def __init__(  # noqa: PLR0913  each is optional
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
        # Masked before anything can raise: tracebacks may show locals, and a secret may be in the wrong place.
        api_key, base_url, store, application = masked(api_key), masked(base_url), masked(store), masked(application)
        credentials = AuthenticatePayload(api_key)
        clock = SYSTEM_CLOCK if clock is None else clock
        check_instance("policy", policy, RefreshPolicy)
        check_instance("trust_env", trust_env, bool)
        check_methods("clock", clock, "monotonic", "utc")
        if store is not None:
            check_methods("store", store, "open")
            check_instance("store.needs_encryption", getattr(store, "needs_encryption", None), bool)
            check_int("store.max_concurrent", getattr(store, "max_concurrent", 1), 1)
            check_number("store.operation_timeout", getattr(store, "operation_timeout", 1), 0)
        if on_event is not None:
            check_callable("on_event", on_event)
        self._base_url = _base_url_of(api, base_url)
        self._own_api: AuthenticationApi | None = None
        if api is None:
            api = self._own_api = AuthenticationApi(
                self._base_url,
                connector=connector,
                application=application,
                trust_env=trust_env,
                attempt_timeout=policy.attempt_timeout,
            )
            api.clock = clock
        else:
            check_methods("api", api, "authenticate", "refresh")
            if connector is not None or application is not None or trust_env:
                raise ValueError(
                    "api cannot be combined with connector, application or trust_env; pass them to the api"
                )
        self._api = api
        self._credentials = credentials
        self._is_shared = store is not None
        self._store = MemoryStore() if store is None else store
        self._clock = clock
        self._connector = connector
        self._origin_headers = origin_headers(application)
        self._trust_env = trust_env
        self._handlers: list[events.EventHandler] = [] if on_event is None else [on_event]
        self._closed: asyncio.Future[None] | None = None
        self._failover_slot: FailoverSlot | None = None
        self._state = State(policy=policy)
        self._refresher = Refresher(
            self._state, clock=clock, open_renewer=self._open_renewer, emit=self._emit, is_shared=self._is_shared
        )
        self._monotonic = clock.monotonic

    @classmethod
    def from_env(cls, **overrides: Unpack["ManagerOptions"]) -> Self:
        """Return a manager configured by `APIVIDEO_API_KEY`, `APIVIDEO_BASE_URL` and `APIVIDEO_TOKEN_STORE`.

        `overrides` are arguments of the constructor and take precedence. Raises `ValueError` if there is no API key.
        """
        # Masked at once, as in the constructor. The URL of a store may contain a password.
        overrides = masked(overrides)
        arguments: dict[str, Any] = {}
        if base_url := masked(os.environ.get(BASE_URL_VARIABLE)):
            arguments["base_url"] = base_url
        if (store := masked(os.environ.get(STORE_VARIABLE))) and "store" not in overrides:
            arguments["store"] = store_from_url(store)
        if api_key := masked(os.environ.get(API_KEY_VARIABLE)):
            arguments["api_key"] = api_key
        arguments |= dict(overrides)
        if "api_key" not in arguments:
            raise ValueError(f"{API_KEY_VARIABLE} is not set; put the API key there")
        return cls(**arguments)

    def __repr__(self) -> str:
        # A traceback may show a manager whose construction has just failed.
        if not hasattr(self, "_state"):
            return "<TokenManager not constructed>"
        status = self.status()
        return f"<TokenManager {self._base_url} {status.phase} generation={status.generation}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a TokenManager cannot be pickled; make one in each process, with a store that they share")

    @property
    def base_url(self) -> str:
        """The origin of the API, normalised."""
        return self._base_url

    async def get_token(self, *, rejected: Token | None = None, min_ttl: float | None = None) -> Token:
        """Return a token that is usable now: at once if there is one, otherwise after one renewal.

        - `rejected`: the token that the API has just rejected. It is never returned: a different one is returned, or
          one renewal is made.
        - `min_ttl`: seconds that the token must still live, at most 90 % of a lifetime.

        Raises an `AuthError` if no token can be had: the cause of the failed renewal, `TokenRejectedError` (with
        `retry_after`) if a renewal because of a 401 may not be made yet, or `ManagerClosedError`. Raises `TypeError`
        if an argument is of a wrong type, `ValueError` if `min_ttl` is too long for the lifetime of the tokens, and
        `RuntimeError` if the manager is in use in another event loop, which is still open.
        """
        state = self._state
        # The fast path: a fresh token that suits the caller. Every other case is the refresher's.
        if rejected is None and min_ttl is None:
            if self._monotonic() < state.fresh_until:
                assert state.token is not None
                return state.token
        elif rejected is None:
            assert min_ttl is not None
            if type(min_ttl) in (int, float) and 0 <= min_ttl < state.suits_until - self._monotonic():
                assert state.token is not None
                return state.token
        elif min_ttl is None and type(rejected) is Token and self._monotonic() < state.fresh_until:
            assert state.token is not None
            if rejected.access_token != state.token.access_token:
                state.rejections += 1
                return state.token
        if rejected is not None or min_ttl is not None:
            rejected = masked(rejected)
            _check_arguments(rejected, min_ttl)
        return await self._refresher.get(rejected, min_ttl)

    def session(self, **kwargs: Unpack["SessionOptions"]) -> aiohttp.ClientSession:
        """Return a session that is authenticated at `base_url`. The caller must close it.

        Raises `ManagerClosedError`, or `RuntimeError` if the manager is in use in another event loop, which is still
        open.

        `kwargs` are arguments of `ClientSession`. Its `middlewares` come before `BearerAuth`, which stays innermost.
        """
        self._refresher.bind()
        options: dict[str, Any] = {"base_url": self._base_url, "trust_env": self._trust_env}
        if self._connector is not None and "connector" not in kwargs:
            options |= {"connector": self._connector, "connector_owner": False}
        options |= kwargs
        headers = options["headers"] = CIMultiDict(options.get("headers") or {})
        for name, value in self._origin_headers.items():
            headers.setdefault(name, value)
        options["middlewares"] = (*(options.get("middlewares") or ()), BearerAuth(self))
        return aiohttp.ClientSession(**options)

    def status(self) -> ManagerStatus:
        """Return a snapshot without secrets and without I/O."""
        return self._state.status(self._monotonic(), self._clock.utc())

    def subscribe(self, callback: events.EventHandler) -> Callable[[], None]:
        """Add an event handler (see `apivideo_auth.events`), and return a function that removes it.

        It is called in the event loop, outside every lock. An exception in it is logged and changes nothing.
        Raises `TypeError` if `callback` is not an ordinary function.
        """
        check_callable("callback", callback)

        # A wrapper has an identity of its own, so that one callback can be added twice and removed once.
        def handler(event: events.Event) -> None:
            callback(event)

        self._handlers.append(handler)

        def unsubscribe() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return unsubscribe

    async def close(self) -> None:
        """Close everything that the manager has opened. From now on every caller gets `ManagerClosedError`.

        If a store was passed, a renewal in flight gets the policy's `close_timeout` to commit its token. Cancelling
        skips that wait, but not the cleanup. Closing twice has no further effect. Raises `RuntimeError` if the manager
        is in use in another event loop, which is still open.
        """
        self._refresher.check_loop()
        if self._closed is not None and (self._closed.done() or not self._closed.get_loop().is_closed()):
            if not self._closed.done():
                await asyncio.shield(self._closed)
            return
        self._closed = asyncio.get_running_loop().create_future()
        try:
            await self._refresher.close(timeout=self._state.policy.close_timeout if self._is_shared else 0.0)
        finally:
            try:
                if self._own_api is not None:
                    await self._own_api.close()
            finally:
                self._closed.set_result(None)

    def __enter__(self) -> NoReturn:
        raise TypeError("a TokenManager is an asynchronous context manager: use 'async with'")

    def __exit__(self, *_exception: object) -> None: ...

    def __del__(self) -> None:
        # A manager whose construction failed has no refresher.
        if getattr(self, "_refresher", None) is not None and self._refresher.is_open:
            message = f"unclosed TokenManager {self._base_url}: use 'async with' or close()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    async def __aenter__(self) -> Self:
        self._refresher.bind()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open_renewer(self) -> Renewer:
        """Open the account in the running event loop."""
        slot: Slot
        if not self._is_shared:
            # A record in memory cannot fail.
            slot = self._store.open("private", clock=self._clock, on_commit=_ignore, on_damage=_ignore)
        else:
            slot = self._failover_slot = open_failover_slot(
                self._store,
                base_url=self._base_url,
                api_key=self._credentials.api_key,
                clock=self._clock,
                emit=self._emit,
                on_commit=self._refresher.on_commit,
                previous=self._failover_slot,
            )
        return Renewer(
            slot=slot,
            api=self._api,
            call_timeout=self._state.policy.attempt_timeout + (0.0 if self._own_api is None else OWN_API_GRACE),
            credentials=self._credentials,
            clock=self._clock,
            jitter=random.random,
        )

    def _emit(self, event: events.Event) -> None:
        events.log(event)
        self._deliver(event)

    def _deliver(self, event: events.Event) -> None:
        for handler in [*self._handlers]:
            events.deliver(handler, event)


def _ignore(*_arguments: object) -> None:
    """Ignore the commits of a private record: nobody else sees it."""


def _base_url_of(api: object, base_url: object) -> str:
    """Return the base URL of a manager whose `api` may have one as well.

    Raises `ValueError` if they differ, because the session would send the token of one place to the other.
    """
    normal = normal_base_url(base_url)
    other = masked(getattr(api, "base_url", None))
    if not isinstance(other, str):
        return normal
    other = normal_base_url(other, what="api.base_url")
    # `PRODUCTION` is the default, so it cannot be told from an argument that was not passed.
    if normal in (PRODUCTION, other):
        return other
    raise ValueError(f"base_url is {normal!r}, but the api that is passed is at {other!r}; leave base_url out")


def _check_arguments(rejected: object, min_ttl: object) -> None:
    """Raise `TypeError` or `ValueError` if an argument of `get_token` is invalid."""
    if rejected is not None and not isinstance(rejected, Token):
        raise TypeError(f"rejected must be a Token that get_token returned, not {type(rejected).__name__}")
    if min_ttl is None:
        return
    if isinstance(min_ttl, bool) or not isinstance(min_ttl, int | float):
        raise TypeError(f"min_ttl must be a number of seconds, not {type(min_ttl).__name__}")
    if not min_ttl >= 0:
        raise ValueError("min_ttl must be a number of seconds, 0 or more")
