"""OpenTelemetry metrics and traces of a `TokenManager`. Needs `apivideo-auth[otel]`.

| instrument | kind, unit | attributes |
| --- | --- | --- |
| `apivideo_auth.renewals` | counter | `…endpoint`, `…outcome`, `…reason`, `error.type` |
| `apivideo_auth.renewal.duration` | histogram, s | the same |
| `apivideo_auth.adoptions` | counter | |
| `apivideo_auth.rejections` | counter | `…replayed` |
| `apivideo_auth.store.failures` | counter | |
| `apivideo_auth.token.remaining` | observable gauge, s | `…manager.id` |

`…` stands for `apivideo_auth.`. The outcome is `renewed`, `failed` or `refresh_token_rejected`; a failure has an
`error.type`. All have `server.address` and `server.port`. `manager.id` numbers the managers of the process.

Each renewal is a span `apivideo_auth.renewal` with the attributes of the counter. Nothing here contains a secret.
"""

from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from yarl import URL

from apivideo_auth import events
from apivideo_auth._manager import TokenManager
from apivideo_auth._validation import check_instance
from apivideo_auth._version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.trace import Tracer, TracerProvider

__all__ = ["instrument"]

_NAME: Final = "apivideo_auth"

# Those of `http.client.request.duration`. The SDK's own are for milliseconds.
_DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

_numbers = count(1)


def instrument(
    tokens: TokenManager,
    *,
    meter_provider: "MeterProvider | None" = None,
    tracer_provider: "TracerProvider | None" = None,
) -> Callable[[], None]:
    """Report a manager's events and token from now on, and return a function that stops it.

    The providers default to the global ones. Raises `TypeError` if `tokens` is not a `TokenManager`, and `ImportError`
    if opentelemetry-api is missing.
    """
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415  optional
    except ImportError:
        raise ImportError("instrument needs opentelemetry-api: pip install 'apivideo-auth[otel]'") from None
    check_instance("tokens", tokens, TokenManager)
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    meter = metrics.get_meter(_NAME, __version__, provider)
    watched = _managers_watched_with(provider, meter)
    number = next(_numbers)
    watched[number] = tokens
    unsubscribe = tokens.subscribe(_recorder(tokens, meter, trace.get_tracer(_NAME, __version__, tracer_provider)))

    def stop() -> None:
        watched.pop(number, None)
        unsubscribe()

    return stop


def _recorder(  # noqa: C901  one branch for each event
    tokens: TokenManager, meter: "Meter", tracer: "Tracer"
) -> events.EventHandler:
    """Return an event handler that counts the events of a manager and makes spans of its renewals."""
    from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415  optional

    server, clock = _server(tokens), tokens._clock  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    renewals = meter.create_counter(
        f"{_NAME}.renewals", unit="{renewal}", description="Calls to the token endpoints, by outcome."
    )
    duration = meter.create_histogram(
        f"{_NAME}.renewal.duration",
        unit="s",
        description="Duration of calls to the token endpoints.",
        explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
    )
    adoptions = meter.create_counter(
        f"{_NAME}.adoptions", unit="{token}", description="Tokens of other workers, taken from the store."
    )
    rejections = meter.create_counter(
        f"{_NAME}.rejections", unit="{token}", description="Responses of the API with status 401."
    )
    store_failures = meter.create_counter(
        f"{_NAME}.store.failures", unit="{failure}", description="Failures of the token store."
    )

    def renewal(attributes: dict[str, str | int], seconds: float | None, *, failed: bool) -> None:
        attributes = server | attributes
        renewals.add(1, attributes)
        if seconds is None:
            return
        duration.record(seconds, attributes)
        ended_at = clock.utc()
        span = tracer.start_span(
            f"{_NAME}.renewal",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=int((ended_at - seconds) * 1e9),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(int(ended_at * 1e9))

    def record(event: events.Event) -> None:
        match event:
            case events.TokenRenewed():
                renewal(_attributes("renewed", event.endpoint, event.reason), event.seconds, failed=False)
            case events.RenewalFailed():
                attributes = _attributes("failed", event.endpoint, event.reason) | {"error.type": event.error_class}
                renewal(attributes, event.seconds, failed=True)
            case events.RefreshTokenRejected():
                attributes = _attributes("refresh_token_rejected", "/auth/refresh", None)
                renewal(attributes | {"error.type": "CredentialsRejectedError"}, None, failed=True)
            case events.TokenAdopted():
                adoptions.add(1, server)
            case events.TokenRejected():
                rejections.add(1, server | {f"{_NAME}.replayed": event.replayed})
            case events.StoreDegraded():
                store_failures.add(1, server)
            case events.StoreRecovered():
                pass

    return record


def _attributes(outcome: str, endpoint: str, reason: str | None) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {f"{_NAME}.outcome": outcome, f"{_NAME}.endpoint": endpoint}
    return attributes if reason is None else attributes | {f"{_NAME}.reason": reason}


def _server(tokens: TokenManager) -> dict[str, str | int]:
    url = URL(tokens.base_url)
    return {"server.address": url.host or "", "server.port": url.port or 0}


# A provider has one gauge for all managers: of several callbacks of one instrument, the SDK calls only the first.
_watched: "WeakKeyDictionary[MeterProvider, WeakValueDictionary[int, TokenManager]]" = WeakKeyDictionary()


def _managers_watched_with(provider: "MeterProvider", meter: "Meter") -> "WeakValueDictionary[int, TokenManager]":
    """Return the managers that the provider's gauge shows, by number; make the gauge if there is none yet."""
    from opentelemetry.metrics import Observation  # noqa: PLC0415  optional

    if provider in _watched:
        return _watched[provider]
    managers: WeakValueDictionary[int, TokenManager] = WeakValueDictionary()

    def remaining(_options: "CallbackOptions") -> "Iterable[Observation]":
        for number, tokens in [*managers.items()]:
            expires_at = tokens.status().expires_at
            if expires_at is not None:
                now = tokens._clock.utc()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                attributes = _server(tokens) | {f"{_NAME}.manager.id": number}
                yield Observation(max(0.0, expires_at.timestamp() - now), attributes)

    meter.create_observable_gauge(
        f"{_NAME}.token.remaining",
        callbacks=[remaining],
        unit="s",
        description="Time until the current token expires.",
    )
    _watched[provider] = managers
    return managers
