"""The aiohttp application: the routes, and the middlewares around them."""

import asyncio
import logging
import re
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler
from attrs import define, field

from apivideo_auth._clock import Clock
from apivideo_auth.emulator._account import Account
from apivideo_auth.emulator._calls import Call, printable_path, record
from apivideo_auth.emulator._faults import FaultPlan
from apivideo_auth.emulator._limits import Kind, RateLimiter
from apivideo_auth.emulator._messages import PAYLOAD_LIMIT, Problem, Response, too_many_requests
from apivideo_auth.emulator._videos import Videos

_ALLOWED_METHODS: Final = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_ALLOWED_HEADERS: Final = "Authorization, Content-Type, Content-Range, AV-Origin-Client, AV-Origin-App, AV-Origin-Sdk"
_HEADER_NAMES: Final = re.compile(r"[\w!#$%&'*+.^`|~, -]{1,1000}", re.ASCII)
_NO_LINGERING: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_logger: Final = logging.getLogger("apivideo_auth.emulator")


@define(eq=False)
class Service:
    """The handlers and their state. `running` has the tasks of the requests in progress."""

    account: Account
    videos: Videos
    limiter: RateLimiter
    faults: FaultPlan
    calls: list[Call]
    clock: Clock
    running: set["asyncio.Task[Any]"] = field(factory=set["asyncio.Task[Any]"], init=False)

    def application(self) -> web.Application:
        """Return the application. Its middlewares are listed from the outermost to the innermost."""
        app = web.Application(middlewares=[self.record_calls, self.respond], client_max_size=PAYLOAD_LIMIT)
        app.add_routes(
            [
                web.post("/auth/api-key", self.account.authenticate),
                web.post("/auth/refresh", self.account.refresh),
                web.get("/videos", self._resource("reads", self.videos.list), allow_head=False),
                web.post("/videos", self._resource("writes", self.videos.create)),
                web.get("/videos/{videoId}", self._resource("reads", self.videos.show), allow_head=False),
                web.post("/videos/{videoId}/source", self._resource("uploads", self.videos.upload)),
            ]
        )
        return app

    @web.middleware
    async def record_calls(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Record each call before its response is sent. If a fault loses the response, reset the connection instead."""
        arrived = self.clock.monotonic()
        task = asyncio.current_task()
        assert task is not None, "aiohttp runs handlers in tasks"
        self.running.add(task)
        try:
            response = await handler(request)
            assert isinstance(response, Response), "the other middleware returns nothing else"
            status = None if response.lost else response.status
            path = printable_path(request.path, self.account.api_key)
            call = Call(arrived, request.method, path, status, response.outcome, response.generation, response.fault)
            record(self.calls, call)
            _logger.debug("%s %s: %s, %s", call.method, call.path, call.status, call.outcome)
            if response.fault == "hang":
                await asyncio.get_running_loop().create_future()
            if response.lost:
                _reset(request)
            return response
        finally:
            self.running.discard(task)

    @web.middleware
    async def respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Respond to preflights, and apply the fault that hits a request, if any, before the handler or after it."""
        if request.method == "OPTIONS":
            return _preflight(request)
        fault = self.faults.hit(request.path)
        if fault is None:
            return await _response_of(handler, request)
        if fault.delay:
            if not request.content_type.startswith("multipart/"):
                # aiohttp keeps the body, so that the work can be done even if the client disconnects meanwhile.
                with suppress(Exception):
                    await request.read()
            await asyncio.sleep(fault.delay)
        if fault.replaces_work:
            response = fault.replacement()
        else:
            response = await _response_of(handler, request)
            fault.alter(response)
        response.fault = fault.name
        return response

    def _resource(
        self, kind: Kind, work: Callable[[web.Request], Awaitable[Response]]
    ) -> Callable[[web.Request], Awaitable[Response]]:
        """Return a handler that checks the authorization and the rate limit before it does the work."""

        async def handler(request: web.Request) -> Response:
            generation = None
            try:
                generation = self.account.check(request)
                if not self.limiter.admit(kind, self.clock.monotonic()):
                    raise too_many_requests(generation)
                response = await work(request)
            except Problem as problem:
                response = problem.response
            response.generation = response.generation if generation is None else generation
            response.headers.update(self.limiter.headers(kind, self.clock.monotonic()))
            return response

        return handler


def _preflight(request: web.Request) -> Response:
    """Respond to a CORS preflight. The requested names are repeated, since `*` does not cover Authorization."""
    requested = request.headers.get("Access-Control-Request-Headers", "")
    names = f"{_ALLOWED_HEADERS}, {requested}" if _HEADER_NAMES.fullmatch(requested) else _ALLOWED_HEADERS
    headers = {
        "Access-Control-Allow-Methods": _ALLOWED_METHODS,
        "Access-Control-Allow-Headers": names,
        "Access-Control-Max-Age": "600",
    }
    return Response(b"", "preflight", status=204, headers=headers)


async def _response_of(handler: Handler, request: web.Request) -> Response:
    """Return the handler's response, or the API's error for its exception."""
    try:
        response = await handler(request)
    except Problem as problem:
        return problem.response
    except web.HTTPNotFound:
        return Problem(404, "unrecognized-request-url", "Unrecognized request URL.", outcome="missing").response
    except web.HTTPMethodNotAllowed as error:
        title = "Method is not allowed for this route."
        return Problem(405, "method-not-allowed", title, headers={"Allow": error.headers["Allow"]}).response
    except ConnectionError:
        response = Response(b"", "abandoned")
        response.lost = True
        return response
    except Exception as error:  # noqa: BLE001  a traceback, and aiohttp's own page, would show the request
        _logger.error("the emulator failed: %s", type(error).__name__)  # noqa: TRY400  for the same reason
        return Problem(500, "internal-server-error", "The emulator failed.", outcome="failed").response
    assert isinstance(response, Response), "every handler returns one"
    return response


def _reset(request: web.Request) -> None:
    """Close the connection with a TCP reset."""
    if request.transport is not None:
        # Without lingering, closing sends RST instead of FIN.
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        request.transport.abort()
