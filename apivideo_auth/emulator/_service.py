"""One request from its arrival to its answer: faults, the work, the record."""

import asyncio
import logging
from typing import Final

from aiohttp import web
from attrs import define, field

from apivideo_auth._clock import Clock
from apivideo_auth.emulator._answers import CONTENT_TYPE, Answer, answer_of, response_of
from apivideo_auth.emulator._bodies import read_ahead
from apivideo_auth.emulator._calls import Call, Outcome, printable_path, record
from apivideo_auth.emulator._cors import ANYBODY, preflight_headers
from apivideo_auth.emulator._delivery import cut, refuse_work, spoil
from apivideo_auth.emulator._fault_plan import FaultPlan
from apivideo_auth.emulator._faults import Fault
from apivideo_auth.emulator._problems import server_failed
from apivideo_auth.emulator._routes import Routes

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_logger: Final = logging.getLogger("apivideo_auth.emulator")


@define
class Service:
    """Answers requests, and records each before its answer goes out."""

    routes: Routes
    faults: FaultPlan
    calls: list[Call]
    clock: Clock
    api_key: str = field(repr=False)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request. Nothing that a client sends makes it raise."""
        arrived = self.clock.monotonic()
        if request.method == "OPTIONS":
            self._record(request, arrived, "preflight", 204)
            headers = preflight_headers(request.headers.get("Access-Control-Request-Headers"))
            return web.Response(status=204, headers={"Content-Type": CONTENT_TYPE, **headers})
        fault = self.faults.hit(request.path)
        try:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(_CONTINUE)
            if fault is not None and fault.delay:
                await read_ahead(request)
                await asyncio.sleep(fault.delay)
            if fault is not None and not fault.does_the_work:
                self._record(request, arrived, "faulted", fault.status_sent, fault=fault)
                return await refuse_work(request, fault, ANYBODY)
            answer = await self._answer(request)
        except ConnectionError:
            self._record(request, arrived, "abandoned", None, fault=fault)
            return cut(request)
        status = answer.status if fault is None else fault.status_of(answer.status)
        self._record(request, arrived, answer.outcome, status, generation=answer.generation, fault=fault)
        if fault is None:
            return response_of(answer, ANYBODY)
        return await spoil(request, fault, answer, ANYBODY)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        try:
            return await self.routes.answer(request)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  the last line before aiohttp's own page, which would show the request
            # Without a traceback, for the same reason.
            _logger.error("the emulator failed: %s", type(error).__name__)  # noqa: TRY400
            return answer_of(server_failed())

    def _record(  # noqa: PLR0913  the fields of the record
        self,
        request: web.BaseRequest,
        arrived: float,
        outcome: Outcome,
        status: int | None,
        *,
        generation: int | None = None,
        fault: Fault | None = None,
    ) -> None:
        path = printable_path(request.path, self.api_key)
        name = None if fault is None else fault.name
        record(self.calls, Call(arrived, request.method, path, status, outcome, generation, name))
        _logger.debug("%s %s: %s, %s, token %s, fault %s", request.method, path, status, outcome, generation, name)
