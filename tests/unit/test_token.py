"""`Token`: its end, and when two of them are equal."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from apivideo_auth import Token
from tests.support.doubles import START_OF_2026, ManualClock

EXPIRES_AT = datetime.fromtimestamp(START_OF_2026 + 4600, UTC)


def test_remaining_counts_by_the_monotonic_clock_of_the_manager() -> None:
    """`remaining()` of a manager's token counts down to its end by the clock that no one sets, and stays at 0."""
    clock = ManualClock(1000.0)
    token = Token("made-up", EXPIRES_AT, clock=clock, ends_at=1010.0)
    clock.now = 1004.0
    assert token.remaining() == 6.0
    clock.now = 1010.0
    assert token.remaining() == 0.0
    clock.now = 2000.0
    assert token.remaining() == 0.0


def test_remaining_of_a_token_made_by_hand_counts_by_the_wall_clock() -> None:
    """A token that no manager made has only its date, so `remaining()` counts by the wall clock."""
    clock = ManualClock(1000.0)
    token = Token("made-up", EXPIRES_AT, clock=clock)
    assert token.remaining() == 3600.0
    clock.now = 5000.0
    assert token.remaining() == 0.0


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (lambda: Token("made-up", EXPIRES_AT, 1), True),
        (lambda: Token("made-up", EXPIRES_AT, clock=ManualClock(), ends_at=7.0), True),
        (lambda: Token("made-up-other", EXPIRES_AT), False),
        (lambda: Token("made-up", datetime(2026, 1, 1, tzinfo=UTC)), False),
        (lambda: Token("made-up", EXPIRES_AT, 2), False),
    ],
    ids=["the same values", "another clock", "another token", "another end", "another generation"],
)
def test_equality(other: Callable[[], Token], equal: bool) -> None:
    """Tokens are equal if their public values are; the clock that they count by does not matter."""
    token = Token("made-up", EXPIRES_AT)
    assert (token == other()) is equal
    assert (hash(token) == hash(other())) is equal


def test_authorization_is_derived() -> None:
    """The value of the header follows from the token, and cannot be passed."""
    assert Token("made-up", EXPIRES_AT).authorization == "Bearer made-up"
    with pytest.raises(TypeError):
        Token("made-up", EXPIRES_AT, authorization="Bearer made-up-other")  # type: ignore[call-arg]
