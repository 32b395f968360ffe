"""Origins, to which secrets may be sent."""

import os
from ipaddress import ip_address
from typing import Final, TypeAlias
from urllib.request import getproxies

from yarl import URL

from apivideo_auth._errors import InsecureUrlError
from apivideo_auth._secrets import masked

PRODUCTION: Final = "https://ws.api.video"
SANDBOX: Final = "https://sandbox.api.video"

INSECURE_HOSTS_VARIABLE: Final = "APIVIDEO_INSECURE_HOSTS"

Origin: TypeAlias = tuple[str, str | None, int | None]
"""Scheme, host and port. `URL.origin()` cannot replace it: there `https://h:443` and `https://h` differ."""

_HTTP_SCHEME = {"ws": "http", "wss": "https"}
_PROXY_SCHEMES: Final = ("http", "https", "ws", "wss")
_MAX_LABEL_LENGTH: Final = 63


def origin_of(url: URL) -> Origin:
    """Return the origin of a URL. The origin of a websocket is that of its handshake."""
    return (_HTTP_SCHEME.get(url.scheme, url.scheme), url.host, url.port)


def normal_base_url(base_url: object, *, what: str = "base_url") -> str:
    """Return `base_url` as an origin, `scheme://host[:port]`, without a slash at its end.

    Raises `TypeError` if it is not a string, `ValueError` if it is not an origin, and
    `InsecureUrlError` if it is plain http to another machine. `what` names it in messages.
    """
    base_url = masked(str(base_url) if isinstance(base_url, URL) else base_url)
    if not isinstance(base_url, str):
        raise TypeError(f"{what} must be a string such as {PRODUCTION!r}, not {type(base_url).__name__}")
    try:
        return _normal(base_url, what)
    except ValueError as error:
        # Without the frames that hold the parsed URL: it may be an API key in the wrong place.
        raise error.with_traceback(None) from None


def _normal(base_url: str, what: str) -> str:
    url = _parsed(base_url, what)
    if url.user is not None or url.password is not None:
        raise ValueError(f"{what} must not name a user or a password; write {PRODUCTION!r}")
    if url.path not in ("", "/") or url.query_string or url.fragment or base_url.endswith(("?", "#")):
        raise ValueError(
            f"{what} must be an origin alone, without path, query or fragment; write {str(url.origin())!r}"
        )
    host = url.host or ""
    if url.scheme == "http" and not _allows_plain_http(host):
        # The variable has no effect on api.video's hosts.
        test = "" if _is_api_video(host) else f", or name the host in {INSECURE_HOSTS_VARIABLE} if it is a test server"
        raise InsecureUrlError(f"{what} is plain http to {host!r}, which would expose secrets; write https://{test}")
    return str(url.origin())


def _parsed(text: str, what: str) -> URL:
    """Return `text` as a URL with scheme http or https, a host, and a port; raise `ValueError` otherwise."""
    try:
        url = URL(text)
        known = url.scheme in ("http", "https") and _has_valid_host(url) and bool(url.port)
        if known and text.isprintable() and " " not in text:
            return url
    except (ValueError, IndexError):  # yarl raises IndexError for some texts, such as "https://host[]@"
        pass
    # The message does not repeat the text: it may be an API key in the wrong place.
    raise ValueError(f"{what} is not an http(s) URL; write an origin such as {PRODUCTION!r}")


def _has_valid_host(url: URL) -> bool:
    """Return whether a connection to the host can be tried. Raises `ValueError` if its name cannot be decoded."""
    host = url.raw_host
    if not host or not url.host:
        return False
    if ":" in host:  # IPv6, checked by yarl
        return True
    if host.replace(".", "").isdigit():
        try:
            return bool(ip_address(host))
        except ValueError:
            return False
    # The root's label is empty, and may be written: "ws.api.video."
    labels = host.removesuffix(".").split(".")
    return all(1 <= len(label) <= _MAX_LABEL_LENGTH for label in labels)


def invalid_proxy() -> str | None:
    """Return the variable of the environment that holds an invalid URL of a proxy, or None if there is none.

    With such a proxy aiohttp raises a `ValueError` of some kind before it connects.
    """
    for scheme, proxy in getproxies().items():
        if scheme in _PROXY_SCHEMES and not _is_proxy(proxy):
            return f"{scheme.upper()}_PROXY"
    return None


def _is_proxy(text: str) -> bool:
    try:
        return _has_valid_host(URL(text))
    except (ValueError, IndexError):
        return False


def _allows_plain_http(host: str) -> bool:
    """Return whether plain http to this host is allowed: the host is this machine, or is named in the variable."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is not None and address.is_loopback:
        return address.version == 4 or str(address) == "::1"  # noqa: PLR2004  the two versions of IP
    if _is_api_video(host):
        return False
    named = os.environ.get(INSECURE_HOSTS_VARIABLE, "")
    return host in {name.strip().lower() for name in named.split(",") if name.strip()}


def _is_api_video(host: str) -> bool:
    return f".{host.rstrip('.')}".endswith(".api.video")
