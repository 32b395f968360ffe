"""The emulator: what a test starts, steers and asks."""

from types import TracebackType
from typing import Final, Self

from apivideo_auth._clock import Clock
from apivideo_auth._secrets import masked
from apivideo_auth.emulator._calls import Call
from apivideo_auth.emulator._checks import check_choice, check_flag, check_int, check_number, check_text, check_type
from apivideo_auth.emulator._endpoints import AuthEndpoints
from apivideo_auth.emulator._fault_plan import FaultPlan
from apivideo_auth.emulator._faults import Fault
from apivideo_auth.emulator._limits import RateLimiter, RateLimits
from apivideo_auth.emulator._listener import Listener
from apivideo_auth.emulator._loop_clock import LoopClock
from apivideo_auth.emulator._resources import Resources
from apivideo_auth.emulator._routes import Routes
from apivideo_auth.emulator._service import Service
from apivideo_auth.emulator._tokens import Ledger

DEFAULT_API_KEY: Final = "made-up-api-key-of-the-emulator"
"""The API key that an emulator takes unless it is given another. It opens nothing anywhere else."""

REFUSED_STATUSES: Final = (400, 401, 403)
"""What api.video is known, or said, to answer to a bad API key or refresh token."""


class Emulator:
    """An api.video of one's own: one account, in memory, on a port of this machine.

    Arguments are checked at once: a wrong type is a `TypeError`, a wrong value a `ValueError`.

    - `api_key`: the one key that is taken.
    - `host`, `port`: where to listen; port 0 is a free one.
    - `ttl`: seconds that an access token lives, a fraction too. On the wire it is rounded down, and at least 1.
    - `limits`: a `RateLimits`; None limits nothing.
    - `single_use`: a refresh token is taken once. A second use is refused and does not harm the tokens of the first.
    - `refresh_revokes`: a refresh ends the access token that came with the refresh token used.
    - `authenticate_invalidates`: a token for the API key ends the refresh tokens issued before.
    - `refused_status`: the status for a bad API key or refresh token: 400, 401 or 403.
    - `clock`: what tells the age of tokens and the minutes of rate limits, by `monotonic()` and `utc()`. None follows
      the event loop, so that under virtual time all of it is virtual.

    It runs in the event loop in which it is started, once.
    """

    def __init__(  # noqa: PLR0913  each is a way in which the real service may be, or may turn out to be
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
        # Masked before anything can raise: a traceback that shows locals shows this one.
        api_key = masked(api_key)
        check_text("api_key", api_key)
        check_text("host", host)
        check_int("port", port, 0, 65_535)
        check_number("ttl", ttl, above=0)
        if limits is not None:
            check_type("limits", limits, RateLimits, "a RateLimits")
        check_flag("single_use", single_use)
        check_flag("refresh_revokes", refresh_revokes)
        check_flag("authenticate_invalidates", authenticate_invalidates)
        check_choice("refused_status", refused_status, REFUSED_STATUSES)
        if clock is not None and not (hasattr(clock, "monotonic") and hasattr(clock, "utc")):
            raise TypeError(f"clock must have monotonic() and utc(); {type(clock).__name__} has not")
        self._api_key = api_key
        self._host = host
        self._port = port
        self._limits = RateLimits.NONE if limits is None else limits
        self._refused_status = refused_status
        self._clock = clock
        self._ledger = Ledger(
            ttl=ttl,
            single_use=single_use,
            refresh_revokes=refresh_revokes,
            authenticate_invalidates=authenticate_invalidates,
        )
        self._faults = FaultPlan()
        self._calls: list[Call] = []
        self._listener: Listener | None = None
        self._url: str | None = None

    def __repr__(self) -> str:
        return f"<Emulator {getattr(self, '_url', None) or 'not started'}>"

    @property
    def url(self) -> str:
        """The address, without a slash at its end. Raises `RuntimeError` before the start."""
        if self._url is None:
            raise RuntimeError("the emulator is not started; use `async with Emulator() as server`")
        return self._url

    @property
    def api_key(self) -> str:
        """The API key that is taken."""
        return self._api_key

    @property
    def clock(self) -> Clock:
        """The clock by which tokens expire. Raises `RuntimeError` before the start if none was given."""
        if self._clock is None:
            raise RuntimeError("the emulator is not started, and follows the event loop that it is started in")
        return self._clock

    @property
    def calls(self) -> list[Call]:
        """What was asked and answered, in the order of the answers. The list is live and may be cleared."""
        return self._calls

    def revoke_all(self, *, refresh: bool = False) -> None:
        """End all access tokens issued so far; with `refresh` the refresh tokens too."""
        self._ledger.revoke_all(refresh=refresh)

    def inject(self, *faults: Fault) -> None:
        """Let things go wrong, behind the faults that are already there. Works before the start too."""
        for fault in faults:
            check_type("a fault", fault, Fault, "a Fault")
        for fault in faults:
            self._faults.inject(fault)

    def clear_faults(self) -> None:
        """Let things go well again. Requests that a fault already holds stay held."""
        self._faults.clear()

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had, `RuntimeError` if it was started before."""
        if self._listener is not None:
            raise RuntimeError("an emulator is started once; make another one")
        clock = LoopClock() if self._clock is None else self._clock
        listener = Listener()
        try:
            url = await listener.bind(self._host, self._port)
            await listener.serve(self._service(clock, url).handle)
        except BaseException:
            await listener.close()
            raise
        self._clock, self._url, self._listener = clock, url, listener

    async def close(self) -> None:
        """Stop at once, in the middle of answers too. Idempotent; nothing is left behind."""
        if self._listener is not None:
            await self._listener.close()

    def _service(self, clock: Clock, url: str) -> Service:
        routes = Routes(
            AuthEndpoints(self._api_key, self._refused_status, self._ledger, clock),
            Resources(self._api_key, self._ledger, RateLimiter(self._limits), clock, url),
        )
        return Service(routes, self._faults, self._calls, clock, self._api_key)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
