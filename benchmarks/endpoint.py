"""The endpoint that all peers call: aiohttp.web on the loopback address, in a process of its own.

    python -m benchmarks.endpoint [--emulator | --bare]

It prints its URL, and runs until it is terminated. It answers the same token document to each kind of request for a
token (the two endpoints of api.video, an OAuth 2.0 token request, a managed identity's request), counts the requests,
and can be told to be slow or to fail. `GET /resource` answers 401 to a token that it has not issued or has revoked.

`--emulator` runs the package's emulator, and `--bare` one handler that answers the same document as the emulator's list
of videos, to compare the two.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import aiohttp
from aiohttp import web

HOST = "127.0.0.1"
LIFETIME = 3600
STATIC_TOKEN = "made-up-static-token"  # noqa: S105  made up
TOKEN_PATHS = ("/auth/api-key", "/auth/refresh", "/token")


class Service:
    """The state of the endpoint and its handlers."""

    def __init__(self) -> None:
        self.calls = 0
        self.issued = 0
        self.revoked = 0
        self.settings: dict[str, float] = {}
        self.reset({})

    def reset(self, settings: dict[str, float]) -> None:
        """Forget the calls, and take new settings. Tokens that were issued before stay valid."""
        self.calls = 0
        self.settings = {"delay": 0.0, "status": 200, **settings}

    async def token(self, request: web.Request) -> web.Response:
        """Issue a token."""
        self.calls += 1
        await request.read()
        await asyncio.sleep(self.settings["delay"])
        if self.settings["status"] != web.HTTPOk.status_code:
            return web.json_response({"error": "temporarily_unavailable"}, status=int(self.settings["status"]))
        self.issued += 1
        return web.json_response(
            {
                "access_token": f"made-up-token-{self.issued}",
                "refresh_token": f"made-up-refresh-token-{self.issued}",
                "token_type": "Bearer",
                "expires_in": LIFETIME,
                "resource": request.query.get("resource", "made-up"),
            }
        )

    async def resource(self, request: web.Request) -> web.Response:
        """Answer a request that has a valid token."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        number = token.removeprefix("made-up-token-")
        if token == STATIC_TOKEN or (number.isdigit() and self.revoked < int(number) <= self.issued):
            return web.json_response({"data": []})
        return web.json_response({"title": "The access token is invalid."}, status=401)

    async def state(self, request: web.Request) -> web.Response:
        """Return the number of calls; with `POST`, start anew; with `DELETE`, revoke all tokens."""
        calls = self.calls
        if request.method == "POST":
            self.reset(await request.json())
        elif request.method == "DELETE":
            self.revoked = self.issued
        return web.json_response({"calls": calls})

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        for path in TOKEN_PATHS:
            app.router.add_post(path, self.token)
        app.router.add_get("/token", self.token)
        app.router.add_get("/resource", self.resource)
        app.router.add_route("*", "/state", self.state)
        return app


class Endpoint:
    """The client of a running endpoint, for the measurements."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Self:
        # Without keep-alive: a clock that is moved would find the connections too old anyway.
        self._session = aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def reset(self, **settings: float) -> None:
        """Count from zero; `delay` in seconds and `status` are those of the calls to come."""
        await self._ask("POST", json=settings)

    async def calls(self) -> int:
        """Return how many requests for a token have come since `reset`."""
        return int((await self._ask("GET"))["calls"])

    async def revoke(self) -> None:
        """Let the resource reject all tokens issued so far."""
        await self._ask("DELETE")

    async def _ask(self, method: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401  aiohttp's
        async with self._session.request(method, "/state", **options) as response:
            document: dict[str, Any] = await response.json()
            return document


@contextmanager
def running(*options: str) -> Iterator[str]:
    """Run the endpoint in a process of its own; yield its URL."""
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, *options], stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the endpoint does not start")
        yield url
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, backlog=4096)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


async def _serve_emulator() -> None:
    from apivideo_auth.emulator import Emulator  # noqa: PLC0415  the other modes do not need it

    async with Emulator() as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


async def _serve_bare() -> None:
    links = [{"rel": rel, "uri": "/videos?currentPage=1&pageSize=25"} for rel in ("self", "first", "last")]
    numbers = {"currentPage": 1, "pageSize": 25, "pagesTotal": 1, "itemsTotal": 0, "currentPageItems": 0}
    document = {"data": [], "pagination": {**numbers, "links": links}}

    async def videos(_request: web.Request) -> web.Response:
        return web.json_response(document)

    app = web.Application()
    app.router.add_get("/videos", videos)
    await _serve(app)


def main() -> None:
    """Serve until the process is terminated."""
    match sys.argv[1:]:
        case ["--emulator"]:
            asyncio.run(_serve_emulator())
        case ["--bare"]:
            asyncio.run(_serve_bare())
        case _:
            asyncio.run(_serve(Service().application()))


if __name__ == "__main__":
    main()
