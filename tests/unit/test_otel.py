"""OpenTelemetry: events become metrics and spans."""

import gc
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from apivideo_auth import TokenManager, events
from apivideo_auth.emulator import Emulator
from apivideo_auth.httpx import BearerAuth
from apivideo_auth.otel import instrument
from tests.conftest import API_KEY
from tests.support.doubles import START_OF_2026, ManualClock, Service

SERVER = {"server.address": "ws.api.video", "server.port": 443}
FAILED = events.RenewalFailed(
    endpoint="/auth/refresh",
    error_class="RateLimitedError",
    cause="made-up",
    failures=1,
    still_serving=True,
    next_try_in=1.0,
    reason="stale",
    seconds=0.5,
)


class Telemetry:
    """A meter and a tracer that keep in memory what they get."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.meter_provider = MeterProvider([self.reader])
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrument(self, tokens: TokenManager) -> Any:
        return instrument(tokens, meter_provider=self.meter_provider, tracer_provider=self.tracer_provider)

    def metrics(self) -> list:
        """Return the metrics that have data."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return [metric for scope in scopes for metric in scope.metrics]

    def points(self) -> dict[str, list]:
        """Return the data points of each instrument, by name."""
        return {metric.name.removeprefix("apivideo_auth."): [*metric.data.data_points] for metric in self.metrics()}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """In-memory telemetry."""
    telemetry = Telemetry()
    yield telemetry
    telemetry.meter_provider.shutdown()
    telemetry.tracer_provider.shutdown()


def own(attributes: Any) -> dict[str, object]:
    """Return the attributes without the server's, which must be there."""
    assert {name: attributes[name] for name in SERVER} == SERVER
    return {name.removeprefix("apivideo_auth."): attributes[name] for name in attributes if name not in SERVER}


async def test_events_are_counted(service: Service, telemetry: Telemetry) -> None:
    """Each kind of event has its instrument, and none carries a secret or a text of the service."""
    async with TokenManager(API_KEY, api=service) as tokens:
        end = telemetry.instrument(tokens)
        await tokens.get_token()
        for event in (
            FAILED,
            events.RefreshTokenRejected(cause="made-up"),
            events.TokenAdopted(generation=2, expires_at=tokens.status().expires_at, remaining=1.0),
            events.TokenRejected(generation=1, replayed=True, why_not=None),
            events.TokenRejected(generation=1, replayed=False, why_not="body"),
            events.StoreDegraded(cause="made-up", next_try_in=1.0),
            events.StoreRecovered(seconds=1.0),
        ):
            tokens._emit(event)
        seen = telemetry.points()
        assert [(own(point.attributes), point.value) for point in seen["renewals"]] == [
            ({"outcome": "renewed", "endpoint": "/auth/api-key", "reason": "first"}, 1),
            (
                {
                    "outcome": "failed",
                    "endpoint": "/auth/refresh",
                    "reason": "stale",
                    "error.type": "RateLimitedError",
                },
                1,
            ),
            (
                {
                    "outcome": "refresh_token_rejected",
                    "endpoint": "/auth/refresh",
                    "error.type": "CredentialsRejectedError",
                },
                1,
            ),
        ]
        assert [(own(point.attributes)["outcome"], point.count) for point in seen["renewal.duration"]] == [
            ("renewed", 1),
            ("failed", 1),
        ]
        assert [(own(point.attributes), point.value) for point in seen["rejections"]] == [
            ({"replayed": True}, 1),
            ({"replayed": False}, 1),
        ]
        for name in ("adoptions", "store.failures"):
            assert [(own(point.attributes), point.value) for point in seen[name]] == [({}, 1)]
        assert "made-up" not in repr(seen)
        end()
        end()
        tokens._emit(events.StoreDegraded(cause="made-up", next_try_in=1.0))
        seen = telemetry.points()
        assert seen["store.failures"][0].value == 1
        assert not seen.get("token.remaining")


async def test_a_service_reports_its_401s_and_renewals(telemetry: Telemetry) -> None:
    """A manager with a real server: renewals, a 401 that httpx replays and one that it does not, all with units and
    descriptions. The buckets of the duration fit calls of milliseconds to seconds.
    """

    async def stream() -> AsyncIterator[bytes]:
        yield b"made-up"

    async with Emulator() as server:
        async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
            telemetry.instrument(tokens)
            async with httpx.AsyncClient(base_url=server.url, auth=BearerAuth(tokens), trust_env=False) as client:
                await tokens.get_token()
                for body in (b"made-up", stream()):
                    server.advance(60)
                    server.revoke_all()
                    await client.post("/videos", content=body)
            metrics = telemetry.metrics()
    units = {metric.name.removeprefix("apivideo_auth."): metric.unit for metric in metrics}
    assert units == {"renewals": "{renewal}", "renewal.duration": "s", "rejections": "{token}", "token.remaining": "s"}
    assert all(metric.description for metric in metrics)
    points = telemetry.points()
    assert [point.value for point in points["renewals"]] == [1, 2]
    assert [point.attributes["apivideo_auth.replayed"] for point in points["rejections"]] == [True, False]
    bounds = points["renewal.duration"][0].explicit_bounds
    assert (bounds[0], bounds[-1]) == (0.005, 10)


async def test_a_renewal_is_a_span(service: Service, telemetry: Telemetry) -> None:
    """Each call to an endpoint is a span with the times of the call, and a failed one is marked as an error."""
    service.clock = clock = ManualClock()
    async with TokenManager(API_KEY, api=service, clock=clock) as tokens:
        telemetry.instrument(tokens)
        await tokens.get_token()
        tokens._emit(FAILED)
    good, bad = telemetry.exporter.get_finished_spans()
    assert (good.name, good.status.status_code) == ("apivideo_auth.renewal", StatusCode.UNSET)
    assert own(good.attributes) == {"outcome": "renewed", "endpoint": "/auth/api-key", "reason": "first"}
    assert bad.status.status_code == StatusCode.ERROR
    assert own(bad.attributes)["error.type"] == "RateLimitedError"
    assert bad.end_time == int((START_OF_2026 + clock.now) * 1e9)
    assert bad.end_time - bad.start_time == pytest.approx(0.5e9, rel=1e-3)


async def test_the_gauge_counts_by_the_managers_clock(service: Service, telemetry: Telemetry) -> None:
    """The remaining life is that of the manager's clock, and each of several managers of one URL has its own point."""
    service.clock = clock = ManualClock()
    async with TokenManager(API_KEY, api=service, clock=clock) as one:
        async with TokenManager("made-up-other-key", api=service, clock=clock) as other:
            telemetry.instrument(one)
            telemetry.instrument(other)
            assert not telemetry.points().get("token.remaining")
            await one.get_token()
            clock.now += 1000
            await other.get_token()
            clock.now += 100
            points = telemetry.points()["token.remaining"]
            assert sorted(point.value for point in points) == [2500.0, 3500.0]
            assert len({own(point.attributes)["manager.id"] for point in points}) == 2
        assert [point.value for point in telemetry.points()["token.remaining"]] == [2500.0]
        clock.now += 10_000
        assert [point.value for point in telemetry.points()["token.remaining"]] == [0.0]


def test_telemetry_keeps_no_manager_alive(telemetry: Telemetry) -> None:
    """A manager that nobody holds any more is freed although nobody ended its telemetry."""
    tokens = TokenManager(API_KEY)
    telemetry.instrument(tokens)
    alive = weakref.ref(tokens)
    del tokens
    gc.collect()
    assert alive() is None


def test_what_is_not_a_manager_is_a_type_error() -> None:
    """Instrument takes a manager."""
    with pytest.raises(TypeError):
        instrument(object())


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without opentelemetry-api the error names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"apivideo-auth\[otel\]"):
        instrument(TokenManager(API_KEY))
