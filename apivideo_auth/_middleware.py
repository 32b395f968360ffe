"""Bearer authentication as an aiohttp client middleware."""

from collections.abc import Iterable
from typing import Final

import aiohttp
from aiohttp import BytesPayload, ClientHandlerType, ClientRequest, ClientResponse, hdrs
from yarl import URL

from apivideo_auth import events
from apivideo_auth._errors import AuthError
from apivideo_auth._token import Token, TokenSource
from apivideo_auth._urls import Origin, normal_base_url, origin_of
from apivideo_auth._validation import check_callable

READABLE_401: Final = 65_536
"""Bytes of a 401's body that are read ahead, so that its connection is free before a renewal waits for one."""

_UNAUTHORIZED = 401


class BearerAuth:
    """Sets `Authorization` on requests to the allowed origins, and replays a request once after a 401.

    Put it innermost, `middlewares=(retry, logging, BearerAuth(tokens))`, so that each retry gets the then-current
    token. Requests to other origins, redirects among them, and requests that bring an `Authorization` of their own pass
    untouched. The header is taken out again when the request is over, so that no `request_info` shows it.

    `origins` are those of URLs that may see the token; by default the source's `base_url`.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        origins: Iterable[str] | None = None,
        on_event: events.EventHandler | None = None,
    ) -> None:
        if not callable(getattr(source, "get_token", None)):
            raise TypeError(f"source must have get_token, like a TokenManager; {type(source).__name__} has none")
        if origins is None:
            base_url = getattr(source, "base_url", None)
            if base_url is None:
                raise ValueError("source has no base_url; pass origins=[…], the places that may see its token")
            origins = [base_url]
        elif isinstance(origins, str) or not isinstance(origins, Iterable):
            raise TypeError('origins must be a collection of URLs, such as ["https://ws.api.video"]')
        if on_event is not None:
            check_callable("on_event", on_event)
        self._source = source
        self._origins: frozenset[Origin] = frozenset(_allowed(origin) for origin in origins)
        self._on_event = on_event
        if not self._origins:
            raise ValueError("origins is empty; name the places that may see the token")

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send the request with a token."""
        if origin_of(request.url) not in self._origins or hdrs.AUTHORIZATION in request.headers:
            return await handler(request)
        token = await self._source.get_token()
        response = await _send(request, handler, token)
        if response.status != _UNAUTHORIZED:
            return response
        try:
            return await self._after_401(request, handler, token, response)
        except BaseException:
            response.close()
            raise

    async def _after_401(
        self, request: ClientRequest, handler: ClientHandlerType, token: Token, response: ClientResponse
    ) -> ClientResponse:
        """Report the token; replay the request if there is another one, else give back the 401 as it is."""
        await _read_if_small(response)
        try:
            token_now = await self._source.get_token(rejected=token)
        except AuthError:
            self._emit(token, why_not="no_token")
            return response
        if not _can_be_sent_again(request):
            self._emit(token, why_not="body")
            return response
        response.release()
        self._emit(token, why_not=None)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            # The future of the first exchange is used up; sending again without a new one crashes.
            request.update_expect_continue(expect=True)
        try:
            return await _send(request, handler, token_now)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            # aiohttp would begin the whole exchange anew after these, and send a third and a fourth time.
            broke = f"the connection broke when the request was sent again ({type(error).__name__})"
            raise aiohttp.ClientConnectionError(broke) from error

    def _emit(self, token: Token, *, why_not: events.NotReplayed | None) -> None:
        if self._on_event is not None:
            event = events.TokenRejected(generation=token.generation, replayed=why_not is None, why_not=why_not)
            events.deliver(self._on_event, event)


def _allowed(url: str) -> Origin:
    return origin_of(URL(normal_base_url(url, what="an origin")))


async def _send(request: ClientRequest, handler: ClientHandlerType, token: Token) -> ClientResponse:
    request.headers[hdrs.AUTHORIZATION] = token.authorization
    try:
        return await handler(request)
    finally:
        request.headers.popall(hdrs.AUTHORIZATION, None)


async def _read_if_small(response: ClientResponse) -> None:
    """Read a body that says it is small; it stays readable for the caller."""
    length = response.content_length
    if length is not None and length <= READABLE_401:
        try:
            await response.read()
        except aiohttp.ClientError:
            # Who reads it later gets the same error; the 401 itself has arrived.
            return


def _can_be_sent_again(request: ClientRequest) -> bool:
    """Say whether the body goes out in full a second time.

    Bytes do. Generators, pipes and multipart bodies that hold one are sent empty or cut without an error, and a slow
    file may still be read by the thread of the first attempt.
    """
    body = request.body
    return body == b"" or isinstance(body, BytesPayload)
