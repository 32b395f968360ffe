"""The arguments of an emulator, and the public names."""

from typing import Any

import pytest

import apivideo_auth.emulator
from apivideo_auth.emulator import Emulator, RateLimits
from apivideo_auth.emulator._emulator import DEFAULT_API_KEY
from tests.support.doubles import ManualClock


def test_the_public_names() -> None:
    """`apivideo_auth.emulator` exports the emulator and the types of its arguments and records."""
    assert apivideo_auth.emulator.__all__ == ["Call", "Emulator", "Fault", "RateLimits"]


def test_the_default_key_is_made_up_and_says_so() -> None:
    """By default an emulator accepts a fixed API key that is clearly made up."""
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


def test_arguments_are_keyword_only() -> None:
    """A positional argument is a `TypeError`."""
    with pytest.raises(TypeError, match="positional"):
        Emulator("key")


def test_valid_arguments_are_accepted() -> None:
    """Each argument accepts its valid values, and an emulator may be created without a running event loop."""
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
