"""`TokenManager`, the object that a program holds: its arguments, environment, session and events."""

import asyncio
import os
import random
import warnings
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypedDict, Unpack

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
from apivideo_auth._validation import check_callable, check_instance, check_methods
from apivideo_auth.stores import store_from_url
from apivideo_auth.stores._base import Slot, TokenStore
from apivideo_auth.stores._encrypted import account_name, open_slot
from apivideo_auth.stores._failover import FailoverAccount, FailoverSlot, shared_account
from apivideo_auth.stores._memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from aiohttp.abc import AbstractCookieJar
    from aiohttp.typedefs import LooseCookies, LooseHeaders, StrOrURL

    class ManagerOptions(TypedDict, total=False):
        """The arguments of `TokenManager`, all of them optional."""

        api_key: str
        base_url: str
        store: TokenStore | None
        policy: RefreshPolicy
        api: TokenEndpoints | None
        connector: aiohttp.BaseConnector | None
        application: tuple[str, str] | None
        trust_env: bool
        on_event: events.EventHandler | None
        clock: Clock | None

    class SessionOptions(TypedDict, total=False):
        """The arguments of `aiohttp.ClientSession` that make sense for a session of a `TokenManager`."""

        base_url: StrOrURL
        connector: aiohttp.BaseConnector | None
        cookies: LooseCookies | None
        headers: LooseHeaders | None
        proxy: StrOrURL | None
        proxy_auth: aiohttp.BasicAuth | None
        skip_auto_headers: Iterable[str] | None
        json_serialize: Callable[[Any], str]
        request_class: type[aiohttp.ClientRequest]
        response_class: type[aiohttp.ClientResponse]
        ws_response_class: type[aiohttp.ClientWebSocketResponse]
        version: aiohttp.HttpVersion
        cookie_jar: AbstractCookieJar | None
        connector_owner: bool
        raise_for_status: bool | Callable[[aiohttp.ClientResponse], Awaitable[None]]
        timeout: aiohttp.ClientTimeout
        auto_decompress: bool
        trust_env: bool
        requote_redirect_url: bool
        trace_configs: list[aiohttp.TraceConfig] | None
        read_bufsize: int
        max_line_size: int
        max_field_size: int
        max_headers: int
        fallback_charset_resolver: Callable[[aiohttp.ClientResponse, bytes], str]
        middlewares: Sequence[aiohttp.ClientMiddlewareType]
        ssl_shutdown_timeout: float


API_KEY_VARIABLE: Final = "APIVIDEO_API_KEY"
BASE_URL_VARIABLE: Final = "APIVIDEO_BASE_URL"
STORE_VARIABLE: Final = "APIVIDEO_TOKEN_STORE"

_DEFAULT_POLICY: Final = RefreshPolicy()


class TokenManager:
    """Keeps a program authenticated to api.video.

    The API key is sent once. From then on refresh tokens buy the next access token, in the background, before the
    current one expires. One renewal serves any number of callers.

    - `base_url`: `PRODUCTION`, `SANDBOX`, or the origin of a local server.
    - `store`: the token store that workers share. By default the token is kept in memory, for this manager alone.
    - `api`: a replacement for `AuthenticationApi`. `api` and `connector` stay the caller's to close.
    - `connector`: is used for the endpoints and by `session()`.
    - `application`: `("name", "1.2.3")`, sent as `AV-Origin-App`.
    - `trust_env`: whether to use the proxies of the environment. In a `session()` aiohttp then also reads netrc, and an
      entry for the host replaces the token.
    - `on_event`: the first event handler; see `subscribe`.

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
        # Masked before anything can raise: tracebacks may show locals.
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
        self._policy = policy
        self._clock = clock
        self._connector = connector
        self._origin_headers = origin_headers(application)
        self._trust_env = trust_env
        self._handlers: list[events.EventHandler] = [] if on_event is None else [on_event]
        self._cleaned: asyncio.Future[None] | None = None
        self._account: FailoverAccount | None = None
        self._state = State(policy=policy)
        self._refresher = Refresher(self._state, self._open_renewer, self._emit)
        self._monotonic = clock.monotonic

    @classmethod
    def from_env(cls, **overrides: Unpack["ManagerOptions"]) -> Self:
        """Return a manager configured by `APIVIDEO_API_KEY`, `APIVIDEO_BASE_URL` and `APIVIDEO_TOKEN_STORE`.

        `overrides` are arguments of the constructor and take precedence. Raises `ValueError` if there is no API key.
        """
        arguments: dict[str, Any] = {}
        if base_url := os.environ.get(BASE_URL_VARIABLE):
            arguments["base_url"] = base_url
        # Masked at once: tracebacks may show locals, and the URL of a store may contain a password.
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
        `retry_after`) if a renewal because of a 401 may not be made yet, or `ManagerClosedError`. Raises `ValueError`
        if `min_ttl` is too long for the lifetime of the tokens.
        """
        state = self._state
        if rejected is None and min_ttl is None and self._monotonic() < state.fresh_until:
            assert state.token is not None
            return state.token
        if rejected is not None or min_ttl is not None:
            _check_arguments(rejected, min_ttl)
        return await self._refresher.get(rejected, min_ttl)

    def session(self, **kwargs: Unpack["SessionOptions"]) -> aiohttp.ClientSession:
        """Return a session that is authenticated at `base_url`. The caller must close it.

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
        options["middlewares"] = (*(options.get("middlewares") or ()), BearerAuth(self, on_event=self._deliver))
        return aiohttp.ClientSession(**options)

    def status(self) -> ManagerStatus:
        """Return a snapshot without secrets and without I/O."""
        return self._state.status(self._monotonic(), self._clock.utc())

    def subscribe(self, callback: events.EventHandler) -> Callable[[], None]:
        """Add an event handler (see `apivideo_auth.events`), and return a function that removes it.

        It is called in the event loop, outside every lock. An exception in it is logged and changes nothing.
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
        """Reject every caller from now on, and leave nothing behind. Closing twice has no further effect.

        If a store was passed, a renewal in flight gets the policy's `close_timeout` to reach it. Cancelling skips that
        wait, but not the cleaning.
        """
        self._refresher.check_loop()
        if self._cleaned is not None:
            if not self._cleaned.done():
                await asyncio.shield(self._cleaned)
            return
        self._cleaned = asyncio.get_running_loop().create_future()
        try:
            await self._refresher.close(timeout=self._policy.close_timeout if self._is_shared else 0.0)
        finally:
            try:
                if self._own_api is not None:
                    await self._own_api.close()
            finally:
                self._cleaned.set_result(None)

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
            key = self._credentials.api_key
            open_shared = partial(open_slot, self._store, base_url=self._base_url, api_key=key, clock=self._clock)
            account = shared_account(
                self._store, account_name(self._base_url, key), open_shared, clock=self._clock, previous=self._account
            )
            self._account = account
            slot = FailoverSlot(account, emit=self._emit, on_commit=self._refresher.on_commit)
        return Renewer(
            slot=slot,
            is_shared=self._is_shared,
            api=self._api,
            # The own api limits its calls itself, and knows whether a request was sent.
            call_timeout=self._policy.attempt_timeout + (1.0 if self._own_api is not None else 0.0),
            credentials=self._credentials,
            policy=self._policy,
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
    other = getattr(api, "base_url", None)
    if not isinstance(other, str):
        return normal
    other = normal_base_url(other, what="api.base_url")
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
