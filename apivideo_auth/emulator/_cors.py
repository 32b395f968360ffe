"""What a browser needs to be told before it lets a page talk to the server."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

ANYBODY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": (
            "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Retry-After, Retry-After, Location"
        ),
    }
)
"""On every answer."""

_METHODS: Final = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Content-Range",
    "AV-Origin-Client",
    "AV-Origin-App",
    "AV-Origin-Sdk",
)
_TOKEN: Final = re.compile(r"[\w!#$%&'*+.^`|~-]{1,100}", re.ASCII)


def preflight_headers(requested: str | None) -> Mapping[str, str]:
    """Return what a preflight is answered, given the value of its `Access-Control-Request-Headers`.

    The names are repeated, since `*` does not cover Authorization.
    """
    names = [name.strip() for name in (requested or "").split(",")]
    allowed = dict.fromkeys([*_HEADERS, *(name for name in names if _TOKEN.fullmatch(name))])
    return {
        **ANYBODY,
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": ", ".join(allowed),
        "Access-Control-Max-Age": "600",
    }
