"""The types of the keyword arguments that `TokenManager` passes on."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypedDict

import aiohttp
from aiohttp.abc import AbstractCookieJar
from aiohttp.typedefs import LooseCookies, LooseHeaders, StrOrURL

from apivideo_auth import events
from apivideo_auth._api import TokenEndpoints
from apivideo_auth._clock import Clock
from apivideo_auth._policy import RefreshPolicy
from apivideo_auth.stores._base import TokenStore


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
