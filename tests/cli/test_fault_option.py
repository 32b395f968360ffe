"""Faults as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apivideo_auth.cli._faults import parse_fault
from apivideo_auth.emulator import Fault
from tests.emulator.properties import repeatable


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("503", Fault(status=503)),
        ("status=503", Fault(status=503)),
        (
            "503,on=/auth/refresh,times=2,retry_after=5",
            Fault(status=503, on="/auth/refresh", times=2, headers={"Retry-After": "5"}),
        ),
        (
            "429,header.X-RateLimit-Retry-After=3,header.X-Made=up=x",
            Fault(status=429, headers={"X-RateLimit-Retry-After": "3", "X-Made": "up=x"}),
        ),
        ('500,body={"a": 1, "b": 2}', Fault(status=500, body='{"a": 1, "b": 2}')),
        ("500, body= spaced ", Fault(status=500, body=" spaced ")),
        ("hang", Fault(hang=True)),
        ("hang,times=forever", Fault(hang=True, times=None)),
        ("reset=before", Fault(reset="before")),
        (" reset = after , on = /videos ", Fault(reset="after", on="/videos")),
        ("malformed,probability=0.25,seed=7", Fault(malformed=True, probability=0.25, seed=7)),
        ("omit=refresh_token+expires_in", Fault(omit=("refresh_token", "expires_in"))),
        ('override.expires_in="x"', Fault(override={"expires_in": "x"})),
        ("override.expires_in=-1,override.access_token=null", Fault(override={"expires_in": -1, "access_token": None})),
        ("override.access_token=no json", Fault(override={"access_token": "no json"})),
        ("override.access_token=" + "[" * 100_000, Fault(override={"access_token": "[" * 100_000})),
        ("oversized=1000000", Fault(oversized=1_000_000)),
        ("redirect=https://elsewhere.example/?a=b,308", Fault(redirect="https://elsewhere.example/?a=b", status=308)),
        ("delay=1.5", Fault(delay=1.5)),
        ("delay=1,503", Fault(delay=1, status=503)),
    ],
)
def test_a_fault_is_parsed(spec: str, fault: Fault) -> None:
    """Each kind and each setting has a notation."""
    assert parse_fault(spec) == fault


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "NAME=VALUE"),
        ("503,", "NAME=VALUE"),
        ("nonsense", "no 'nonsense'"),
        ("5" * 5000, "NAME=VALUE"),
        ("colour=red", "no 'colour'"),
        ("headers=x", "no 'headers'"),
        ("header=x", "no 'header'"),
        ("on.x=1", "no 'on.x'"),
        ("retry_after.x=1", "no 'retry_after.x'"),
        ("status=x", "status=x cannot be parsed"),
        ("hang=no", "hang=no cannot be parsed"),
        ("503,503", "'status' only once"),
        ("503,retry_after=1,header.Retry-After=2", "'header.Retry-After' only once"),
        ("times=2", "needs a kind"),
        ("503,hang", "not hang and status"),
        ("700", "status must be 200 to 599"),
        ("503,probability=nan", "probability must be"),
    ],
)
def test_an_invalid_specification_is_rejected(spec: str, message: str) -> None:
    """Text that cannot be parsed, or describes an invalid fault, is a `ValueError` that says why."""
    with pytest.raises(ValueError, match=message):
        parse_fault(spec)


@repeatable
@given(
    st.text()
    | st.lists(st.sampled_from(["503", "hang", "=", ",", "on", "/", "times", "body", "header.", "x"])).map("".join)
)
def test_any_text_is_parsed_or_rejected(spec: str) -> None:
    """The result is a fault or a `ValueError`, never anything else."""
    try:
        assert isinstance(parse_fault(spec), Fault)
    except ValueError:
        return
