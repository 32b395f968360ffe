"""A connection of a client, and the requests on it: aiohttp's, made proof against what is hardly HTTP."""

import asyncio
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from yarl import URL

from apivideo_auth.emulator._answers import CONTENT_TYPE, answer_of, response_of
from apivideo_auth.emulator._cors import ANYBODY
from apivideo_auth.emulator._problems import request_malformed

_BODY: Final = answer_of(request_malformed()).body
_HEAD: Final = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(_BODY)}\r\n"
_MALFORMED: Final = f"{_HEAD}Connection: close\r\n\r\n".encode() + _BODY


class Connection(web.RequestHandler):
    """A connection that says when it is gone, and answers what is no HTTP in the API's form."""

    def __init__(self, manager: web.Server, **kwargs: Any) -> None:  # noqa: ANN401  aiohttp's own signature
        super().__init__(manager, **kwargs)
        self.gone = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Answer by hand where the parser fails, before the loop logs a traceback with the request in it."""
        try:
            super().data_received(data)
        except Exception:  # noqa: BLE001  whatever it is, it is the client's doing
            assert self.transport is not None, "the data came by it"
            self.transport.write(_MALFORMED)
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wake who waits for the end of the connection."""
        super().connection_lost(exc)
        self.gone.set()

    def handle_error(self, *_args: object, **_kwargs: object) -> web.StreamResponse:
        """Answer a malformed request. Nothing of it is logged: a broken header may be one with a token."""
        response = response_of(answer_of(request_malformed()), ANYBODY)
        response.force_close()
        return response

    def log_exception(self, *_args: object, **_kwargs: object) -> None:
        """Log no traceback, since it would show the request."""


def request_of(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """Return a request. One whose target is no URL, on which older versions of aiohttp fail, is taken to be for `/`."""
    loop = asyncio.get_running_loop()
    try:
        return web.BaseRequest(message, payload, protocol, writer, task, loop)
    except ValueError:
        message = message._replace(url=URL("/"), path="/")
        return web.BaseRequest(message, payload, protocol, writer, task, loop)
