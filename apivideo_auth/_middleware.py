"""Bearer authentication as an aiohttp client middleware."""

import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final

import aiohttp
from aiohttp import BytesPayload, ClientHandlerType, ClientRequest, ClientResponse, MultipartWriter, hdrs
from yarl import URL

from apivideo_auth import events
from apivideo_auth._errors import AuthError, message_of
from apivideo_auth._secrets import masked
from apivideo_auth._token import Token, TokenSource
from apivideo_auth._urls import Origin, normal_base_url, origin_of
from apivideo_auth._validation import check_callable, check_methods

MAX_READ_AHEAD: Final = 65_536
"""A 401's body of at most this size (bytes) is read ahead, so that the renewal can use the 401's connection."""

_UNAUTHORIZED = 401

_WRITERS: Final = (
    "aiohttp.http_writer",
    *("httpcore._async.http", "httpcore._backends.", "h11.", "h2.", "hpack.", "anyio."),
    # A transport catches the error of a write and passes it on, so that its traceback may start here.
    *("asyncio.selector_events", "asyncio.proactor_events", "asyncio.sslproto"),
)
"""The modules of aiohttp and of httpx that turn a request into bytes and write them: the beginnings of their names."""


class TokenSender:
    """The parts that `BearerAuth` for aiohttp and for httpx share: the source, the allowed origins and the event."""

    def __init__(
        self,
        source: TokenSource,
        *,
        origins: Iterable[str] | None = None,
        on_event: events.EventHandler | None = None,
    ) -> None:
        check_methods("source", source, "get_token")
        if origins is None:
            base_url = getattr(source, "base_url", None)
            if base_url is None:
                raise ValueError("source has no base_url; pass origins=[…], where its token may be sent")
            origins = [base_url]
        # Masked: a traceback may show locals, and a secret may be in the wrong place.
        origins = masked(origins)
        if isinstance(origins, str) or not isinstance(origins, Iterable):
            raise TypeError('origins must be a collection of URLs, such as ["https://ws.api.video"]')
        if on_event is not None:
            check_callable("on_event", on_event)
        self._source = source
        self._origins: frozenset[Origin] = frozenset(_allowed(origin) for origin in origins)
        # A manager's subscribers get the 401s of each client that uses it.
        handlers = [getattr(source, "_deliver", None), on_event]
        self._handlers: list[events.EventHandler] = [handler for handler in handlers if handler is not None]
        if not self._origins:
            raise ValueError("origins is empty; name the origins to which the token may be sent")

    def _emit(self, token: Token, why_not: events.NotReplayed | None, *, cause: str | None = None) -> None:
        event = events.TokenRejected(
            generation=token.generation, replayed=why_not is None, why_not=why_not, cause=cause
        )
        events.log(event)
        for handler in self._handlers:
            events.deliver(handler, event)


class BearerAuth(TokenSender):
    """Sets `Authorization` on requests to the allowed origins, and replays a request once after a 401.

    Put it last, `middlewares=(retry, logging, BearerAuth(tokens))`, so that each retry gets the current token.
    Requests to other origins (also after a redirect) and requests that already have the header are not changed. The
    header is removed when the request is over, so that no `request_info` shows it.

    - `origins`: where the token may be sent; by default the source's `base_url`.
    - `on_event`: a function that gets each `events.TokenRejected`. A `TokenManager`'s subscribers get it in any case.
    """

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
        """Replay the request with another token, or return the 401 unchanged if that is not possible."""
        await _read_ahead(response)
        try:
            token_now = await self._source.get_token(rejected=token)
        except AuthError as error:
            self._emit(token, "no_token", cause=message_of(error))
            return response
        if not _can_be_sent_again(request):
            self._emit(token, "body")
            return response
        response.release()
        self._emit(token, None)
        # With `Expect: 100-continue`, a second send needs a new future for the server's 100 Continue.
        request.update_expect_continue()
        try:
            return await _send(request, handler, token_now)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            # aiohttp would repeat the whole exchange after these: a third and a fourth request.
            broken = f"the connection broke when the request was sent again ({type(error).__name__})"
            raise aiohttp.ClientConnectionError(broken) from error


def _allowed(url: str) -> Origin:
    return origin_of(URL(normal_base_url(url, what="an origin")))


async def _send(request: ClientRequest, handler: ClientHandlerType, token: Token) -> ClientResponse:
    request.headers[hdrs.AUTHORIZATION] = token.authorization
    try:
        return await handler(request)
    except BaseException as error:
        for link in linked(error):
            drop_writer_frames(link)
        raise
    finally:
        request.headers.popall(hdrs.AUTHORIZATION, None)


def linked(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, and all that are linked to it as a cause or a context."""
    seen: set[int] = set()
    found = [error]
    while found:
        link = found.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            found += [link.__cause__, link.__context__]


def drop_writer_frames(error: BaseException) -> None:
    """Take the frames that write a request out of a traceback: their locals hold the bytes of the header.

    The frames below them stay. They may be the program's own: a callback, or a generator that makes the body.
    """
    trace = error.__traceback__
    while trace is not None and _is_of_writer(trace):
        trace = trace.tb_next
    error.__traceback__ = trace
    while trace is not None:
        while trace.tb_next is not None and _is_of_writer(trace.tb_next):
            trace.tb_next = trace.tb_next.tb_next
        trace = trace.tb_next


def _is_of_writer(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).startswith(_WRITERS)


async def _read_ahead(response: ClientResponse) -> None:
    """Read the body if it is small, and put it back: the caller can still read or stream it."""
    if response.content_length is None or response.content_length > MAX_READ_AHEAD:
        return
    content, data = response.content, bytearray()
    try:
        # A compressed body may turn out to be large.
        while not content.at_eof() and len(data) <= MAX_READ_AHEAD:
            data += await content.readany()
    except aiohttp.ClientError:
        # The status is known, and the caller gets this error when reading the body.
        pass
    if data:
        # Deprecated, but `wait_eof` waits for ever if the body is larger than the session's `read_bufsize`.
        with warnings.catch_warnings(action="ignore"):
            content.unread_data(bytes(data))


def _can_be_sent_again(request: ClientRequest) -> bool:
    """Return whether the body would be sent in full a second time.

    Bytes are, and multipart bodies whose parts are all bytes. Generators and pipes would be sent empty or truncated,
    without an error. A file may still be read by the thread that the first attempt started.
    """
    body = request.body
    if isinstance(body, MultipartWriter):
        return all(isinstance(part, BytesPayload) for part, _, _ in body)
    return body == b"" or isinstance(body, BytesPayload)
