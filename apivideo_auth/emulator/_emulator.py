"""The emulator: the object that a test starts, controls and inspects."""

import logging
import socket
from asyncio import AbstractEventLoop, get_running_loop
from contextlib import suppress
from typing import Final, Self

from aiohttp import web

from apivideo_auth._clock import SYSTEM_CLOCK, Clock
from apivideo_auth._secrets import masked
from apivideo_auth._validation import check_choice, check_instance, check_int, check_methods, check_number, check_text
from apivideo_auth.emulator._account import Account, Tokens
from apivideo_auth.emulator._app import Service
from apivideo_auth.emulator._calls import Call
from apivideo_auth.emulator._faults import Fault, FaultPlan
from apivideo_auth.emulator._limits import RateLimiter, RateLimits
from apivideo_auth.emulator._videos import Videos

DEFAULT_API_KEY: Final = "made-up-api-key-of-the-emulator"
"""The API key that an emulator accepts by default. It is made up and works nowhere else."""

_REFUSED_STATUSES: Final = (400, 401, 403)
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not bound to
_CLOSE_TIMEOUT: Final = 1.0
"""Seconds that aborted connections get to end. They need none."""

# aiohttp logs requests that it cannot parse with a traceback, which would show a token in a broken header.
_http_logger: Final = logging.getLogger("apivideo_auth.emulator.http")
_http_logger.setLevel(logging.CRITICAL)


class EmulatorClock:
    """The event loop's time, plus the seconds that were added by `advance`. It is created inside that loop.

    `utc()` starts at the machine's wall clock.
    """

    def __init__(self) -> None:
        self._loop_time = get_running_loop().time
        self._epoch = SYSTEM_CLOCK.utc() - self._loop_time()
        self._advanced = 0.0

    def monotonic(self) -> float:
        """Seconds; under virtual time these are virtual."""
        return self._loop_time() + self._advanced

    def utc(self) -> float:
        """Seconds since the Unix epoch."""
        return self._epoch + self.monotonic()

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._advanced += seconds


class Emulator:
    """A local api.video with one account, in memory, on a port of this machine.

    A wrong type of an argument is a `TypeError`, a wrong value a `ValueError`.

    - `api_key`: the only API key that is accepted.
    - `host`, `port`: the address to listen on. Port 0 is a free one.
    - `ttl`: the lifetime of access tokens in seconds, also a fraction. `expires_in` is rounded down, and at least 1.
    - `limits`: a `RateLimits`; None for no limits.
    - `single_use`: a refresh token is accepted once. A second use is rejected; tokens issued by the first stay valid.
    - `refresh_revokes`: a refresh revokes the access token that was issued with the refresh token.
    - `authenticate_invalidates`: a call with the API key invalidates the refresh tokens issued before.
    - `refused_status`: the status for a wrong API key or refresh token: 400, 401 or 403.
    - `clock`: an object with `monotonic()` and `utc()`, which decide when tokens expire and rate limits reset. None
      follows the event loop, so that under virtual time the emulator's time is virtual too.

    An emulator runs in the event loop that starts it, and is started once.
    """

    def __init__(  # noqa: PLR0913  each is a way in which the real service may behave
        self,
        *,
        api_key: str = DEFAULT_API_KEY,
        host: str = "127.0.0.1",
        port: int = 0,
        ttl: float = 3600,
        limits: RateLimits | None = None,
        single_use: bool = True,
        refresh_revokes: bool = False,
        authenticate_invalidates: bool = False,
        refused_status: int = 400,
        clock: Clock | None = None,
    ) -> None:
        # Masked before anything can raise: a traceback may show locals.
        api_key = masked(api_key)
        check_text("api_key", api_key)
        check_text("host", host)
        check_int("port", port, 0, 65_535)
        check_number("ttl", ttl, 0)
        limits = RateLimits.NONE if limits is None else limits
        check_instance("limits", limits, RateLimits)
        check_instance("single_use", single_use, bool)
        check_instance("refresh_revokes", refresh_revokes, bool)
        check_instance("authenticate_invalidates", authenticate_invalidates, bool)
        check_choice("refused_status", refused_status, _REFUSED_STATUSES)
        if clock is not None:
            check_methods("clock", clock, "monotonic", "utc")
        self._api_key = api_key
        self._address = (host, port)
        self._limits = limits
        self._refused_status = refused_status
        self._clock = clock
        self._tokens = Tokens(ttl, single_use, refresh_revokes, authenticate_invalidates)
        self._faults = FaultPlan()
        self._calls: list[Call] = []
        self._service: Service | None = None
        self._runner: web.AppRunner | None = None
        self._url: str | None = None
        self._loop: AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Emulator {getattr(self, '_url', None) or 'not started'}>"

    @property
    def url(self) -> str:
        """The address, without a slash at its end.

        Raises `RuntimeError` before the start, and in another event loop while the emulator's own is not running, since
        no request would be answered.
        """
        if self._url is None:
            raise RuntimeError("the emulator is not started; use `async with Emulator() as server`")
        if self._is_paused():
            raise RuntimeError(
                "the emulator was started in another event loop, which is not running; start it in this one (with "
                "pytest-asyncio, give the fixture the loop_scope of the test)"
            )
        return self._url

    def _is_paused(self) -> bool:
        """Return whether another loop runs in this thread instead of the emulator's. A closed loop has no server."""
        loop = self._loop
        if loop is None or loop.is_running() or loop.is_closed():
            return False
        with suppress(RuntimeError):  # no loop runs here
            get_running_loop()
            return True
        return False

    @property
    def api_key(self) -> str:
        """The API key that is accepted."""
        return self._api_key

    @property
    def clock(self) -> Clock:
        """The clock by which tokens expire. Raises `RuntimeError` before the start unless a clock was given."""
        if self._clock is None:
            raise RuntimeError("the emulator is not started; its clock follows the event loop that it is started in")
        return self._clock

    @property
    def calls(self) -> list[Call]:
        """The requests and their outcomes, in the order of the responses. The list is live and may be cleared."""
        return self._calls

    def advance(self, seconds: float) -> None:
        """Move `clock` forward, so that tokens expire and rate limits reset without waiting.

        A `TokenManager` that was given `clock=server.clock` notices at its next `get_token()`. Its timer, delays and
        timeouts follow the event loop and stay where they are. Raises `RuntimeError` before the start, and if a clock
        was given to the emulator: move that one instead.
        """
        check_number("seconds", seconds)
        if not isinstance(self.clock, EmulatorClock):
            message = "advance() moves the emulator's own clock; move the clock that was given to it instead"
            raise RuntimeError(message)  # noqa: TRY004  the type is right, the method is not available
        self.clock.advance(seconds)

    def revoke_all(self, *, refresh: bool = False) -> None:
        """Revoke all access tokens issued so far, and with `refresh` the refresh tokens too."""
        self._tokens.revoke_all(refresh=refresh)

    def inject(self, *faults: Fault) -> None:
        """Add faults after those that are already there. Also works before the start."""
        self._faults.inject(*faults)

    def clear_faults(self) -> None:
        """Remove all faults. Requests that a fault already delays or hangs are not affected."""
        self._faults.clear()

    async def start(self) -> None:
        """Start to listen. Raises `OSError` if the address is not available, `RuntimeError` after the first start."""
        if self._runner is not None:
            raise RuntimeError("an emulator is started once; create another one")
        self._loop = get_running_loop()
        host, port = self._address
        # One address, also if the name has more: each would get its own free port.
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        host = _WILDCARDS.get(host, host)
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        self._clock = EmulatorClock() if self._clock is None else self._clock
        account = Account(self._api_key, self._refused_status, self._tokens, self._clock)
        limiter = RateLimiter(self._limits)
        videos = Videos(self._url, self._clock)
        self._service = Service(account, videos, limiter, self._faults, self._calls, self._clock)
        app = self._service.application()
        app.on_shutdown.append(self._abort_connections)
        # Compressed bodies stay compressed, and are rejected as invalid JSON: a small one could become very large.
        self._runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, logger=_http_logger, shutdown_timeout=_CLOSE_TIMEOUT
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Stop at once: requests in progress are aborted, and no task or connection is left. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _abort_connections(self, _app: web.Application) -> None:
        assert self._runner is not None, "the application of this runner"
        assert self._runner.server is not None, "running until the runner has cleaned up"
        assert self._service is not None, "created with the runner"
        for task in self._service.running:
            task.cancel()
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.close()
