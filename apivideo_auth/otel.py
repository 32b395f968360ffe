"""OpenTelemetry: a manager's events as metrics. Needs `apivideo-auth[otel]`.

| instrument | kind | attributes |
| --- | --- | --- |
| `apivideo_auth.renewals` | counter | `endpoint`, `reason` |
| `apivideo_auth.renewal.duration` | histogram, seconds | `endpoint` |
| `apivideo_auth.renewal.failures` | counter | `endpoint`, `error.type` |
| `apivideo_auth.refresh_tokens.refused` | counter | |
| `apivideo_auth.tokens.adopted` | counter | |
| `apivideo_auth.tokens.rejected` | counter | `replayed` |
| `apivideo_auth.store.outages` | counter | |
| `apivideo_auth.token.remaining` | gauge, seconds | |

Each carries `server.address`, the base URL. No secret is in any.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from apivideo_auth import events
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._manager import TokenManager
from apivideo_auth._version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

__all__ = ["instrument"]


def instrument(  # noqa: C901  one branch for each event
    tokens: TokenManager, *, meter_provider: "MeterProvider | None" = None
) -> Callable[[], None]:
    """Count what a manager does, from now on; return what ends the counting.

    `meter_provider` is the global one by default. Raises `TypeError` for what is no `TokenManager`, and `ImportError`
    where opentelemetry-api is missing.
    """
    try:
        from opentelemetry import metrics  # noqa: PLC0415  optional
    except ImportError:
        raise ImportError("instrument needs opentelemetry-api: pip install 'apivideo-auth[otel]'") from None
    if not isinstance(tokens, TokenManager):
        raise TypeError(f"instrument takes a TokenManager, not {type(tokens).__name__}")
    meter = metrics.get_meter("apivideo_auth", __version__, meter_provider)
    common = {"server.address": tokens.base_url}
    renewals = meter.create_counter("apivideo_auth.renewals")
    duration = meter.create_histogram("apivideo_auth.renewal.duration", unit="s")
    failures = meter.create_counter("apivideo_auth.renewal.failures")
    refused = meter.create_counter("apivideo_auth.refresh_tokens.refused")
    adopted = meter.create_counter("apivideo_auth.tokens.adopted")
    rejected = meter.create_counter("apivideo_auth.tokens.rejected")
    outages = meter.create_counter("apivideo_auth.store.outages")
    counting = True

    def count(event: events.Event) -> None:
        match event:
            case events.TokenRenewed():
                renewals.add(1, common | {"endpoint": event.endpoint, "reason": event.reason})
                duration.record(event.seconds, common | {"endpoint": event.endpoint})
            case events.RenewalFailed():
                failures.add(1, common | {"endpoint": event.endpoint, "error.type": event.error_class})
            case events.RefreshTokenRejected():
                refused.add(1, common)
            case events.TokenAdopted():
                adopted.add(1, common)
            case events.TokenRejected():
                rejected.add(1, common | {"replayed": event.replayed})
            case events.StoreDegraded():
                outages.add(1, common)
            case events.StoreRecovered():
                pass

    def remaining(_options: "CallbackOptions") -> "Iterable[Observation]":
        expires_at = tokens.status().expires_at
        if counting and expires_at is not None:
            yield metrics.Observation(_seconds_until(expires_at), common)

    meter.create_observable_gauge("apivideo_auth.token.remaining", callbacks=[remaining], unit="s")
    unsubscribe = tokens.subscribe(count)

    def end() -> None:
        nonlocal counting
        counting = False
        unsubscribe()

    return end


def _seconds_until(moment: datetime) -> float:
    return max(0.0, moment.timestamp() - SYSTEM_CLOCK.utc())
