"""What an emulator is made with, and its public names."""

from typing import Any

import pytest

import apivideo_auth.emulator
from apivideo_auth.emulator import Emulator
from apivideo_auth.emulator._emulator import DEFAULT_API_KEY
from apivideo_auth.emulator._limits import RateLimits
from tests.support.doubles import ManualClock


def test_the_public_names_are_two() -> None:
    """`apivideo_auth.emulator` offers the emulator and its faults."""
    assert apivideo_auth.emulator.__all__ == ["Emulator", "Fault"]


def test_the_default_key_is_made_up_and_says_so() -> None:
    """An emulator that is given no key takes a fixed one that nobody takes for real."""
    assert Emulator().api_key == DEFAULT_API_KEY == "made-up-api-key-of-the-emulator"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("api_key", None, TypeError),
        ("api_key", b"x", TypeError),
        ("api_key", "", ValueError),
        ("api_key", "a\nb", ValueError),
        ("api_key", "\ud800", ValueError),
        ("host", None, TypeError),
        ("host", "", ValueError),
        ("port", "80", TypeError),
        ("port", True, TypeError),
        ("port", 80.0, TypeError),
        ("port", -1, ValueError),
        ("port", 65_536, ValueError),
        ("ttl", "1", TypeError),
        ("ttl", None, TypeError),
        ("ttl", True, TypeError),
        ("ttl", 0, ValueError),
        ("ttl", -1, ValueError),
        ("ttl", float("nan"), ValueError),
        ("ttl", float("inf"), ValueError),
        ("limits", "sandbox", TypeError),
        ("limits", 5, TypeError),
        ("single_use", 1, TypeError),
        ("refresh_revokes", None, TypeError),
        ("authenticate_invalidates", "no", TypeError),
        ("refused_status", 404, ValueError),
        ("refused_status", "400", TypeError),
        ("refused_status", True, TypeError),
        ("refused_status", None, TypeError),
        ("clock", 5, TypeError),
        ("clock", object(), TypeError),
    ],
)
def test_a_wrong_argument_is_an_error_at_once(name: str, value: Any, error: type[Exception]) -> None:
    """A wrong type is a `TypeError`, a wrong value a `ValueError`, and the message names the argument."""
    with pytest.raises(error, match=name) as caught:
        Emulator(**{name: value})
    if name == "api_key" and value:
        assert str(value) not in str(caught.value)


def test_arguments_have_names() -> None:
    """Nothing is given by position."""
    with pytest.raises(TypeError, match="positional"):
        Emulator("key")


def test_right_arguments_are_taken() -> None:
    """Each argument has values that are right, and an emulator may be made where no event loop runs."""
    Emulator(
        api_key="made up: ä",
        host="localhost",
        port=65_535,
        ttl=0.001,
        limits=RateLimits.SANDBOX,
        single_use=False,
        refresh_revokes=True,
        authenticate_invalidates=True,
        refused_status=403,
        clock=ManualClock(),
    )
