"""The clock, on machines of several kinds."""

import time

import pytest

from apivideo_auth import _clock


def test_the_clock_counts_sleep_where_the_machine_can() -> None:
    """The monotonic clock goes forward, and utc is the wall clock."""
    first = _clock.SYSTEM_CLOCK.monotonic()
    assert _clock.SYSTEM_CLOCK.monotonic() >= first
    assert abs(_clock.SYSTEM_CLOCK.utc() - time.time()) < 60


@pytest.mark.parametrize(
    ("missing", "name"),
    [((), "CLOCK_BOOTTIME"), (("CLOCK_BOOTTIME",), "CLOCK_MONOTONIC"), (("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"), None)],
)
def test_the_best_clock_of_the_machine_is_taken(
    monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], name: str | None
) -> None:
    """Linux has CLOCK_BOOTTIME, macOS a CLOCK_MONOTONIC that counts sleep, Windows neither."""
    expected = time.monotonic if name is None else getattr(time, name)
    for constant in missing:
        monkeypatch.delattr(time, constant)
    clock = _clock._sleep_counting_clock()
    assert getattr(clock, "args", (clock,)) == (expected,)
