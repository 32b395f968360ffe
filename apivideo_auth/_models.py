"""The requests and responses of the two endpoints, as values.

Fields and names are those of the vendor's OpenAPI description of `POST /auth/api-key` and `POST /auth/refresh`. It
marks no field of a response as required, so the fields that a client needs are checked here.
"""

import json
import re
from typing import Any, Final, cast

import cattrs
from attrs import Attribute, evolve, field, frozen, validators
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from apivideo_auth._secrets import SecretBytes, masked

DEFAULT_LIFETIME: Final = 3600
"""Seconds. api.video documents this lifetime; it is assumed if a response has no `expires_in`."""

_HEADER_TEXT = re.compile(r"[\x21-\x7e]+", re.ASCII)
_QUOTES = "\"'`“”‘’"  # noqa: RUF001  as editors write them
_PLACEHOLDER = re.compile(r"<.*>|\$\{?\w+\}?|(my|your)[-_ ]?api[-_ ]?key([-_ ]here)?", re.ASCII | re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)


# The attrs validators below are not attrs' own, because those show the value in their messages.


def _check_api_key(_instance: object, _attribute: "Attribute[Any]", value: object) -> None:
    """Raise `TypeError` or `ValueError`, without the value in it, if `value` cannot be an API key."""
    if not isinstance(value, str):
        raise TypeError(f"the API key must be a string, not {type(value).__name__}")
    if not value.strip():
        raise ValueError("the API key is empty; copy one from the api.video dashboard")
    if value != value.strip() or not value.isprintable():
        raise ValueError("the API key contains white space or control characters; remove them")
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        raise ValueError("the API key has quotes around it; remove them")
    if value.lower().startswith("bearer "):
        raise ValueError("the API key begins with 'Bearer'; pass the key alone, it is not an access token")
    if _PLACEHOLDER.fullmatch(value):
        raise ValueError("the API key is a placeholder; copy a key from the api.video dashboard")


def _check_string(instance: object, attribute: "Attribute[Any]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be a string, not {type(value).__name__}")


def check_token(instance: object, attribute: "Attribute[Any]", value: object) -> None:
    _check_string(instance, attribute, value)
    assert isinstance(value, str)
    if not value:
        raise ValueError(f"{attribute.name} is empty")
    if not _HEADER_TEXT.fullmatch(value):
        raise ValueError(f"{attribute.name} has characters that a header cannot carry")


def _check_expires_in(_instance: object, _attribute: "Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expires_in must be an integer of seconds, not {type(value).__name__}")
    if value <= 0:
        raise ValueError("expires_in must be more than 0 seconds")


def _check_token_type(instance: object, attribute: "Attribute[Any]", value: object) -> None:
    _check_string(instance, attribute, value)
    assert isinstance(value, str)
    if value.lower() != "bearer":
        raise ValueError("token_type is not bearer")


@frozen(init=False)
class AuthenticatePayload:
    """The body of `POST /auth/api-key`. Raises `TypeError` or `ValueError` if `api_key` cannot be an API key."""

    api_key: str = field(validator=_check_api_key)

    def __init__(self, api_key: str) -> None:
        # Masked first: if a check raises, a traceback with locals shows this one.
        api_key = masked(api_key)
        self.__attrs_init__(api_key)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def to_json(self) -> SecretBytes:
        """Return the request's body."""
        return _to_json(self)


@frozen(init=False)
class RefreshTokenPayload:
    """The body of `POST /auth/refresh`: the refresh token from the last response of either endpoint."""

    refresh_token: str = field(validator=check_token)

    def __init__(self, refresh_token: str) -> None:
        refresh_token = masked(refresh_token)
        self.__attrs_init__(refresh_token)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def to_json(self) -> SecretBytes:
        """Return the request's body."""
        return _to_json(self)


@frozen(init=False)
class AccessToken:
    """The response of both endpoints.

    - `expires_in`: seconds, counted from when the request was sent.
    - `refresh_token`: for the next `refresh`, once. `None` means: authenticate next time.
    - `lifetime_assumed`: the response had no `expires_in`, and the documented 3,600 seconds are assumed.
    """

    access_token: str = field(validator=check_token)
    token_type: str = field(validator=_check_token_type)
    expires_in: int = field(validator=_check_expires_in)
    refresh_token: str | None = field(default=None, validator=validators.optional(check_token))
    lifetime_assumed: bool = field(default=False, kw_only=True, eq=False)

    def __init__(
        self,
        access_token: str,
        token_type: str,
        expires_in: int,
        refresh_token: str | None = None,
        *,
        lifetime_assumed: bool = False,
    ) -> None:
        access_token, refresh_token = masked(access_token), masked(refresh_token)
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            access_token, token_type, expires_in, refresh_token, lifetime_assumed=lifetime_assumed
        )


@frozen
class BadRequest:
    """The body of an error response.

    `type` is a link whose last part names the error. `name` is the offending parameter. Missing texts are empty.
    """

    type: str = ""
    title: str = ""
    name: str = ""
    status: int | None = None


def access_token_from(document: object) -> AccessToken:
    """Return the token of a response; raise `TypeError` or `ValueError`, without text from it, if it is invalid."""
    if not isinstance(document, dict):
        raise TypeError("not a JSON object")
    if "access_token" not in document:
        raise ValueError("access_token is missing")
    fields = cast("dict[str, object]", document)
    defaults: dict[str, object] = {"token_type": "bearer", "expires_in": DEFAULT_LIFETIME}
    if fields.get("refresh_token") == "":
        # The access token is good all the same.
        fields = fields | {"refresh_token": None}
    return evolve(_converter.structure(defaults | fields, AccessToken), lifetime_assumed="expires_in" not in fields)


def bad_request_from(document: object) -> BadRequest:
    """Return the error that a response describes; fields that are missing or of a wrong type are left empty."""
    if not isinstance(document, dict):
        return BadRequest()
    fields = cast("dict[str, object]", document)
    texts = {name: text for name in ("type", "title", "name") if isinstance(text := fields.get(name), str)}
    status = fields.get("status")
    return BadRequest(**texts, status=status if isinstance(status, int) and not isinstance(status, bool) else None)


def _to_json(payload: AuthenticatePayload | RefreshTokenPayload) -> SecretBytes:
    return SecretBytes(json.dumps(_converter.unstructure(payload)).encode())


def _strict_str(value: object, _type: object) -> str:
    """Accept strings only: cattrs would turn other values into strings, `None` too."""
    if not isinstance(value, str):
        raise TypeError(f"a string is expected, not {type(value).__name__}")
    return value


def _strict_int(value: object, _type: object) -> int:
    """Accept an integer or a string of digits: cattrs would round floats and convert booleans."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"an integer is expected, not {type(value).__name__}")
    return value


def _make_converter() -> cattrs.Converter:  # pragma: no mutate block
    # Detailed validation would wrap the first error in one that shows the offending value.
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(str, _strict_str)
    converter.register_structure_hook(int, _strict_int)
    structure_token = make_dict_structure_fn(AccessToken, converter, lifetime_assumed=override(omit=True))
    converter.register_structure_hook(AccessToken, structure_token)
    api_key = make_dict_unstructure_fn(AuthenticatePayload, converter, api_key=override(rename="apiKey"))
    converter.register_unstructure_hook(AuthenticatePayload, api_key)
    refresh = make_dict_unstructure_fn(RefreshTokenPayload, converter, refresh_token=override(rename="refreshToken"))
    converter.register_unstructure_hook(RefreshTokenPayload, refresh)
    return converter


_converter: Final = _make_converter()
