"""A web service in front of api.video: one token for all its requests, renewed behind their backs.

APIVIDEO_API_KEY=… python examples/service.py           # production, or APIVIDEO_BASE_URL
python examples/service.py                              # no key: a local api.video

GET  /videos      what the account has
POST /videos      {"title": "…"} makes a video
GET  /health      how the authentication does: 200, or 503 when none can be had
"""

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
    """Open the manager and the session with the application, and close them with it."""
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
    """Pass the account's videos on."""
    async with request.app[API].get("/videos", params=request.query) as answer:
        return web.json_response(await answer.json(), status=answer.status)


async def create_video(request: web.Request) -> web.Response:
    """Make a video; the body is passed on as JSON, so it can be sent again after a revocation."""
    async with request.app[API].post("/videos", json=await request.json()) as answer:
        return web.json_response(await answer.json(), status=answer.status)


async def health(request: web.Request) -> web.Response:
    """Say how the authentication does; nothing in a status is secret."""
    status = request.app[TOKENS].status()
    body = {"phase": status.phase, "renewals": status.renewals, "failures": status.failures, "error": status.last_error}
    healthy = status.phase in ("fresh", "stale") or status.last_error is None
    return web.json_response(body, status=200 if healthy else 503)


@web.middleware
async def unavailable(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 503 with the cause when no token can be had."""
    try:
        return await handler(request)
    except AuthError as error:
        wait = {} if error.retry_after is None else {"Retry-After": str(round(error.retry_after) + 1)}
        return web.json_response({"error": str(error)}, status=503, headers=wait)


def make_app() -> web.Application:
    """Return the application."""
    app = web.Application(middlewares=[unavailable])
    app.cleanup_ctx.append(api_video)
    app.router.add_get("/videos", list_videos)
    app.router.add_post("/videos", create_video)
    app.router.add_get("/health", health)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
