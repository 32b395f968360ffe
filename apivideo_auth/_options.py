"""Checks of what a manager is constructed with: the earliest moment at which a mistake can be told."""

import os
from typing import Any

from apivideo_auth._secret import masked
from apivideo_auth._token import Token
from apivideo_auth._urls import PRODUCTION, normal_base_url

API_KEY_VARIABLE = "APIVIDEO_API_KEY"
BASE_URL_VARIABLE = "APIVIDEO_BASE_URL"
STORE_VARIABLE = "APIVIDEO_TOKEN_STORE"


def base_url_with(api: object, base_url: object) -> str:
    """Return the base URL of a manager that is given an `api`, which may have one of its own.

    A session and an api of two places would send the token of one to the other.
    """
    normal = normal_base_url(base_url)
    theirs = getattr(api, "base_url", None)
    if not isinstance(theirs, str):
        return normal
    theirs = normal_base_url(theirs, what="api.base_url")
    if normal not in (PRODUCTION, theirs):
        raise ValueError(f"api asks {theirs} and base_url is {normal}; make them the same")
    return theirs


def check_wanted(rejected: object, min_ttl: object) -> None:
    """Raise `TypeError` or `ValueError` for arguments of `get_token` that cannot be meant."""
    if rejected is not None and not isinstance(rejected, Token):
        raise TypeError(f"rejected must be a Token that get_token returned, not {type(rejected).__name__}")
    if min_ttl is None:
        return
    if isinstance(min_ttl, bool) or not isinstance(min_ttl, int | float):
        raise TypeError(f"min_ttl must be a number of seconds, not {type(min_ttl).__name__}")
    # More than any lifetime is told by the token, which knows how long tokens live.
    if not min_ttl >= 0:
        raise ValueError("min_ttl must be a number of seconds, 0 or more")


def from_environment(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a manager that the environment names, under those given.

    Raises `ValueError` if neither names an API key.
    """
    arguments: dict[str, Any] = {}
    if base_url := os.environ.get(BASE_URL_VARIABLE):
        arguments["base_url"] = base_url
    # Masked where they are read: tracebacks show locals, and a store's URL may hold a password.
    if (store := masked(os.environ.get(STORE_VARIABLE))) and "store" not in overrides:
        from apivideo_auth.stores import store_from_url  # noqa: PLC0415  stores are imported on use

        arguments["store"] = store_from_url(store)
    if api_key := masked(os.environ.get(API_KEY_VARIABLE)):
        arguments["api_key"] = api_key
    arguments |= overrides
    if "api_key" not in arguments:
        raise ValueError(f"{API_KEY_VARIABLE} is not set; put the API key there")
    return arguments
