"""Bearer authentication for httpx's `AsyncClient`. Needs `apivideo-auth[httpx]`.

`httpx.AsyncClient(base_url=tokens.base_url, auth=BearerAuth(tokens))` is a client that is always authenticated.
"""

import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Final, NoReturn

from yarl import URL

from apivideo_auth import events
from apivideo_auth._errors import AuthError, message_of
from apivideo_auth._middleware import TokenSender, drop_writer_frames, linked
from apivideo_auth._token import Token, TokenSource
from apivideo_auth._urls import Origin

try:
    import httpx
except ImportError:
    raise ImportError("apivideo_auth.httpx needs httpx: pip install 'apivideo-auth[httpx]'") from None

__all__ = ["BearerAuth"]

_AUTHORIZATION: Final = "Authorization"
_UNAUTHORIZED: Final = 401
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# The class of a multipart body has no public name.
_MULTIPART: Final = type(httpx.Request("POST", "http://localhost", files={"file": b""}).stream)


class BearerAuth(TokenSender, httpx.Auth):
    """Sets `Authorization` on requests to the allowed origins, and replays a request once after a 401.

    Pass it as `auth` to an `httpx.AsyncClient`, or to one request. A synchronous `Client` gets a `RuntimeError`.
    Requests to other origins and requests that already have the header are not changed. A redirect within an
    origin keeps the token. A redirect to another origin removes it, also if that origin is allowed. The header is
    removed from the requests when the response has arrived. If a request fails, it is removed from the request of the
    exception, and the frames of httpcore and asyncio that hold its bytes from the tracebacks.

    - `origins`: where the token may be sent; by default the source's `base_url`.
    - `on_event`: a function that gets each `events.TokenRejected`. A `TokenManager`'s subscribers get it in any case.

    A request raises the `AuthError` of the source if no token is available. Construction raises `TypeError`,
    `ValueError` or `InsecureUrlError` if an argument is invalid.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        origins: Iterable[str] | None = None,
        on_event: events.EventHandler | None = None,
    ) -> None:
        super().__init__(source, origins=origins, on_event=on_event)
        for scheme, host, port in self._origins:
            # httpx counts this redirect as safe, and leaves the header in place.
            if (scheme, port) == ("http", 80) and ("https", host, 443) not in self._origins:
                plain, secure = (URL.build(scheme=name, host=host or "") for name in ("http", "https"))
                raise ValueError(
                    f"httpx would keep the token on a redirect from {plain} to {secure}; "
                    f"add {str(secure)!r} to origins, or use another port than 80"
                )

    def sync_auth_flow(self, request: httpx.Request) -> NoReturn:  # noqa: ARG002  httpx's signature
        """Raise `RuntimeError`: tokens are asynchronous."""
        raise RuntimeError("BearerAuth works with httpx.AsyncClient only; this is a synchronous Client")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request with a token; after a 401 send it once more with another one, if that is possible."""
        if _origin_of(request.url) not in self._origins or _AUTHORIZATION in request.headers:
            yield request
            return
        token = await self._source.get_token()
        request.headers[_AUTHORIZATION] = token.authorization
        response: httpx.Response | None = None
        with suppress(GeneratorExit):
            response = yield request
        rejected = _remove_token(token, request, response)
        if response is None or not rejected or response.status_code != _UNAUTHORIZED:
            return
        try:
            token_now = await self._source.get_token(rejected=token)
        except AuthError as error:
            self._emit(token, "no_token", cause=message_of(error))
            return
        # After a redirect this is the last request: work that the server has already done is not repeated.
        request = response.request
        if not _can_be_sent_again(request):
            self._emit(token, "body")
            return
        # Frees the connection.
        await response.aread()
        self._emit(token, None)
        request.headers[_AUTHORIZATION] = token_now.authorization
        response = None
        with suppress(GeneratorExit):
            response = yield request
        _remove_token(token_now, request, response)


def _origin_of(url: httpx.URL) -> Origin:
    # Not by yarl: the host that is compared must be the one that httpx connects to.
    return (url.scheme, url.host, _DEFAULT_PORTS.get(url.scheme) if url.port is None else url.port)


def _remove_token(token: Token, request: httpx.Request, response: httpx.Response | None) -> bool:
    """Remove the token from a request that is over, and from its redirects; return whether the last one had it.

    If the request failed, there is no response: httpx closes the auth flow while it handles the exception. The flow has
    left its own handler of `GeneratorExit` by now, so that `sys.exception()` is that exception.
    """
    requests = [request]
    if response is not None:
        requests += _requests_of(response)
    else:
        for link in linked(sys.exception()):
            drop_writer_frames(link)
            # The properties raise if there is no request.
            with suppress(RuntimeError):
                if isinstance(link, httpx.HTTPStatusError):
                    requests += _requests_of(link.response)
                elif isinstance(link, httpx.RequestError):
                    requests.append(link.request)
    with_token = [each for each in requests if each.headers.get(_AUTHORIZATION) == token.authorization]
    rejected = response is not None and response.request in with_token
    for each in with_token:
        each.headers.pop(_AUTHORIZATION, None)
    return rejected


def _requests_of(response: httpx.Response) -> list[httpx.Request]:
    requests = [earlier.request for earlier in response.history] + [response.request]
    return requests if response.next_request is None else [*requests, response.next_request]


def _can_be_sent_again(request: httpx.Request) -> bool:
    """Return whether the body would be sent in full a second time: bytes, and multipart bodies of bytes.

    Generators would be sent empty or fail, and files from their current position.
    """
    if isinstance(request.stream, _MULTIPART):
        fields: list[object] = getattr(request.stream, "fields", [None])
        return all(isinstance(getattr(field, "file", getattr(field, "value", None)), str | bytes) for field in fields)
    return isinstance(request.stream, httpx.ByteStream)
