"""The requests and responses of the two endpoints, as values."""

import json

import pytest

from apivideo_auth import AccessToken, AuthenticatePayload, RefreshTokenPayload
from apivideo_auth._models import BadRequest, access_token_from, bad_request_from


@pytest.mark.parametrize(
    ("payload", "document"),
    [
        (AuthenticatePayload("made-up-key"), {"apiKey": "made-up-key"}),
        (RefreshTokenPayload("made-up-refresh"), {"refreshToken": "made-up-refresh"}),
    ],
    ids=["authenticate", "refresh"],
)
def test_a_payload_is_the_documented_json(
    payload: AuthenticatePayload | RefreshTokenPayload, document: dict[str, str]
) -> None:
    """The body of a request has the vendor's names, and its repr does not show the secret."""
    body = payload.to_json()
    assert json.loads(body) == document
    assert "made-up" not in repr(body)


def test_structuring_takes_objects_alone() -> None:
    """Tokens are parsed strictly, errors leniently."""
    with pytest.raises(TypeError):
        access_token_from([])
    assert bad_request_from([]) == BadRequest()
    problem = {"type": "t", "title": "T", "name": "n", "status": 400}
    assert bad_request_from(problem | {"problems": [problem, 5]}) == BadRequest("t", "T", "n", 400)
    assert bad_request_from({"type": 5, "title": None, "status": True}) == BadRequest()


def test_an_expires_in_of_a_second_is_enough() -> None:
    """Any whole number of seconds above 0 is taken; booleans and texts are no numbers."""
    assert AccessToken("made-up-access", "bearer", 1).expires_in == 1
    for wrong in (True, "5", 1.0):
        with pytest.raises(TypeError, match=f"expires_in must be an integer of seconds, not {type(wrong).__name__}"):
            AccessToken("made-up-access", "bearer", wrong)
    with pytest.raises(ValueError, match="more than 0"):
        AccessToken("made-up-access", "bearer", 0)


def test_a_token_type_of_a_wrong_type_is_named() -> None:
    """The message says which field of which class it is."""
    with pytest.raises(TypeError, match=r"AccessToken\.token_type must be a string, not int"):
        AccessToken("made-up-access", 5, 3600)


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
def test_a_token_of_a_wrong_type_is_named(name: str) -> None:
    """The message says which field it is; a lifetime is not assumed unless that is said."""
    fields = {"access_token": "made-up-access", "token_type": "bearer", "expires_in": 3600}
    assert AccessToken(**fields).lifetime_assumed is False
    with pytest.raises(TypeError, match=rf"^AccessToken\.{name} must be a string, not int$"):
        AccessToken(**fields | {name: 5})
