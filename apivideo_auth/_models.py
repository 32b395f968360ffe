"""What goes over the wire, as values.

The fields and their names are those of the vendor's OpenAPI description of `POST /auth/api-key` and
`POST /auth/refresh`. No field of an answer is marked required there; what a client cannot do without is checked here.
"""

import json
import re
from typing import Any, Final, cast

import cattrs
from attrs import Attribute, evolve, field, frozen
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from apivideo_auth._secrets import masked

DEFAULT_LIFETIME: Final = 3600
"""Seconds; what api.video documents, assumed where an answer does not say."""

_SENDABLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)


def _check_text(instance: object, attribute: "Attribute[Any]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be a string, not {type(value).__name__}")


def _check_api_key(_instance: object, _attribute: "Attribute[Any]", value: object) -> None:
    check_api_key(value)


def check_api_key(value: object) -> None:
    """Raise `TypeError` or `ValueError`, without the value, for what cannot be an API key."""
    if not isinstance(value, str):
        kind = "bytes" if isinstance(value, bytes) else type(value).__name__
        raise TypeError(f"the API key must be a string, not {kind}")
    if not value.strip():
        raise ValueError("the API key is empty; copy one from the api.video dashboard")
    if value != value.strip() or not value.isprintable():
        raise ValueError("the API key has white space or control characters around or in it; strip them")


def _check_token(instance: object, attribute: "Attribute[Any]", value: object) -> None:
    _check_text(instance, attribute, value)
    assert isinstance(value, str)
    if not value:
        raise ValueError(f"{attribute.name} is empty")
    if not _SENDABLE.fullmatch(value):
        raise ValueError(f"{attribute.name} has characters that a header cannot carry")


def _check_refresh_token(instance: object, attribute: "Attribute[Any]", value: object) -> None:
    if value is not None:
        _check_token(instance, attribute, value)


def _check_expires_in(_instance: object, _attribute: "Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expires_in must be an integer of seconds, not {type(value).__name__}")
    if value <= 0:
        raise ValueError("expires_in must be more than 0 seconds")


def _check_token_type(instance: object, attribute: "Attribute[Any]", value: object) -> None:
    _check_text(instance, attribute, value)
    assert isinstance(value, str)
    if value.lower() != "bearer":
        raise ValueError("token_type is not bearer")


@frozen(init=False)
class AuthenticatePayload:
    """The body of `POST /auth/api-key`. Raises `TypeError` or `ValueError` for what cannot be an API key."""

    api_key: str = field(validator=_check_api_key)

    def __init__(self, api_key: str) -> None:
        # Masked before anything can raise: a traceback that shows locals shows this one.
        api_key = masked(api_key)
        self.__attrs_init__(api_key)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def to_json(self) -> bytes:
        """Return the body as it is sent."""
        return _to_json(self)


@frozen(init=False)
class RefreshTokenPayload:
    """The body of `POST /auth/refresh`: the refresh token of the last answer of either endpoint."""

    refresh_token: str = field(validator=_check_token)

    def __init__(self, refresh_token: str) -> None:
        refresh_token = masked(refresh_token)
        self.__attrs_init__(refresh_token)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def to_json(self) -> bytes:
        """Return the body as it is sent."""
        return _to_json(self)


@frozen(init=False)
class AccessToken:
    """The answer of both endpoints.

    - `expires_in`: seconds, counted from when the request was sent.
    - `refresh_token`: buys the next answer, once; `None` means: authenticate next time.
    - `lifetime_assumed`: the answer did not say `expires_in`, and the documented 3,600 stands in.
    """

    access_token: str = field(validator=_check_token)
    token_type: str = field(validator=_check_token_type)
    expires_in: int = field(validator=_check_expires_in)
    refresh_token: str | None = field(default=None, validator=_check_refresh_token)
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
    """The body of an error. The last part of `type` names the error; `name` is the offending parameter, or empty."""

    type: str = ""
    title: str = ""
    name: str = ""
    status: int | None = None
    problems: tuple["BadRequest", ...] = ()


def access_token_from(document: object) -> AccessToken:
    """Structure the answer of an endpoint; raise `TypeError` or `ValueError`, whose text holds nothing of it."""
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    if "access_token" not in document:
        raise ValueError("access_token is missing")
    fields = cast("dict[str, object]", document)
    answer = _converter.structure({"token_type": "bearer", "expires_in": DEFAULT_LIFETIME} | fields, AccessToken)
    return evolve(answer, lifetime_assumed="expires_in" not in fields)


def bad_request_from(document: object) -> BadRequest:
    """Structure the body of an error; what is missing or of a wrong type is left out."""
    if not isinstance(document, dict):
        return BadRequest()
    fields = cast("dict[str, object]", document)
    status, problems = fields.get("status"), fields.get("problems")
    return BadRequest(
        type=_text(fields.get("type")),
        title=_text(fields.get("title")),
        name=_text(fields.get("name")),
        status=status if isinstance(status, int) and not isinstance(status, bool) else None,
        problems=tuple(map(_problem, cast("list[object]", problems))) if isinstance(problems, list) else (),
    )


def _problem(document: object) -> BadRequest:
    """Structure one of the problems of an error; they have none of their own."""
    if not isinstance(document, dict):
        return BadRequest()
    return bad_request_from({**cast("dict[str, object]", document), "problems": None})


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _to_json(payload: AuthenticatePayload | RefreshTokenPayload) -> bytes:
    return json.dumps(_converter.unstructure(payload)).encode()


def _strict_str(value: object, _type: object) -> str:
    """Refuse what cattrs would turn into a string, `None` above all."""
    if not isinstance(value, str):
        raise TypeError(f"a string is expected, not {type(value).__name__}")
    return value


def _strict_int(value: object, _type: object) -> int:
    """Take an integer, or a string of digits; refuse what cattrs would round or count."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"an integer is expected, not {type(value).__name__}")
    return value


def _make_converter() -> cattrs.Converter:
    # Without detailed validation the first error comes as it is, not wrapped with the offending value.
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(str, _strict_str)
    converter.register_structure_hook(int, _strict_int)
    structure_answer = make_dict_structure_fn(AccessToken, converter, lifetime_assumed=override(omit=True))
    converter.register_structure_hook(AccessToken, structure_answer)
    api_key = make_dict_unstructure_fn(AuthenticatePayload, converter, api_key=override(rename="apiKey"))
    converter.register_unstructure_hook(AuthenticatePayload, api_key)
    refresh = make_dict_unstructure_fn(RefreshTokenPayload, converter, refresh_token=override(rename="refreshToken"))
    converter.register_unstructure_hook(RefreshTokenPayload, refresh)
    return converter


_converter: Final = _make_converter()
