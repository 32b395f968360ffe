"""A web service in front of api.video, with one token for all its requests.

    APIVIDEO_API_KEY=… python examples/service.py           # production, or APIVIDEO_BASE_URL
    python examples/service.py                              # no key: a local api.video

    GET  /videos      the account's videos
    POST /videos      {"title": "…"} creates a video
    GET  /health      the state of the authentication: 200, or 503 if no token is available

HOST and PORT say where it listens. Its log shows requests, renewals and failures.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from apivideo_auth import AuthError, TokenManager
from apivideo_auth.emulator import Emulator

TOKENS = web.AppKey("TOKENS", TokenManager)
API = web.AppKey("API", aiohttp.ClientSession)


async def api_video(app: web.Application) -> AsyncIterator[None]:
    """Open the manager and the session when the application starts, and close them when it stops."""
    async with AsyncExitStack() as stack:
        if os.environ.get("APIVIDEO_API_KEY"):
            tokens = TokenManager.from_env(application=("example-service", "1.0.0"))
        else:
            server = await stack.enter_async_context(Emulator())
            tokens = TokenManager(server.api_key, base_url=server.url)
        app[TOKENS] = await stack.enter_async_context(tokens)
        app[API] = await stack.enter_async_context(tokens.session())
        yield


async def list_videos(request: web.Request) -> web.Response:
    """Return the account's videos."""
    async with request.app[API].get("/videos", params=request.query) as response:
        return web.json_response(await response.json(), status=response.status)


async def create_video(request: web.Request) -> web.Response:
    """Create a video. A JSON body can be sent again, so that a revoked token does not fail the request."""
    async with request.app[API].post("/videos", json=await request.json()) as response:
        return web.json_response(await response.json(), status=response.status)


async def health(request: web.Request) -> web.Response:
    """Return the state of the authentication, which contains no secret."""
    status = request.app[TOKENS].status()
    body = {"phase": status.phase, "renewals": status.renewals, "failures": status.failures, "error": status.last_error}
    healthy = status.phase in ("fresh", "stale") or status.last_error is None
    return web.json_response(body, status=200 if healthy else 503)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Respond with 503 if no token is available, and 502 if api.video cannot be reached, with the cause."""
    try:
        return await handler(request)
    except AuthError as error:
        headers = {} if error.retry_after is None else {"Retry-After": str(round(error.retry_after) + 1)}
        return web.json_response({"error": str(error)}, status=503, headers=headers)
    except aiohttp.ClientError as error:
        return web.json_response({"error": type(error).__name__}, status=502)


def make_app() -> web.Application:
    """Return the application."""
    app = web.Application(middlewares=[errors])
    app.cleanup_ctx.append(api_video)
    app.router.add_get("/videos", list_videos)
    app.router.add_post("/videos", create_video)
    app.router.add_get("/health", health)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    web.run_app(make_app(), host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
