"""OpenTelemetry: events become metrics."""

import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from apivideo_auth import TokenManager, events
from apivideo_auth.otel import instrument
from tests.conftest import API_KEY
from tests.support.doubles import LoopClock, Service


def metrics_of(reader: InMemoryMetricReader) -> dict[str, list]:
    """Return the data points of each instrument."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


async def test_events_are_counted(service: Service) -> None:
    """Each kind of event has its instrument, and none carries a secret."""
    service.clock = LoopClock()
    reader = InMemoryMetricReader()
    async with TokenManager(API_KEY, api=service) as tokens:
        end = instrument(tokens, meter_provider=MeterProvider([reader]))
        await tokens.get_token()
        tokens._emit(
            events.RenewalFailed(
                endpoint="/auth/refresh",
                error_class="RateLimitedError",
                message="made-up",
                failures=1,
                still_serving=True,
                next_try_in=1.0,
            )
        )
        tokens._emit(events.RefreshTokenRejected(message="made-up"))
        tokens._emit(events.TokenAdopted(generation=2, expires_at=tokens.status().expires_at, remaining=1.0))
        tokens._emit(events.TokenRejected(generation=1, replayed=True, why_not=None))
        tokens._emit(events.StoreDegraded(message="made-up", next_try_in=1.0))
        tokens._emit(events.StoreRecovered(seconds=1.0))
        seen = metrics_of(reader)
        assert seen["apivideo_auth.renewals"][0].attributes == {
            "server.address": "https://ws.api.video",
            "endpoint": "/auth/api-key",
            "reason": "first",
        }
        assert seen["apivideo_auth.renewal.failures"][0].attributes["error.type"] == "RateLimitedError"
        assert seen["apivideo_auth.renewal.duration"][0].count == 1
        assert 3590 < seen["apivideo_auth.token.remaining"][0].value <= 3600
        for name in ("refresh_tokens.refused", "tokens.adopted", "tokens.rejected", "store.outages"):
            assert seen[f"apivideo_auth.{name}"][0].value == 1
        assert "made-up" not in repr(seen)
        end()
        tokens._emit(events.RefreshTokenRejected(message="made-up"))
        seen = metrics_of(reader)
        assert seen["apivideo_auth.refresh_tokens.refused"][0].value == 1
        assert not seen.get("apivideo_auth.token.remaining")


def test_what_is_no_manager_is_a_type_error() -> None:
    """Instrument takes a manager."""
    with pytest.raises(TypeError):
        instrument(object())


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without opentelemetry-api the error names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"apivideo-auth\[otel\]"):
        instrument(TokenManager(API_KEY))
