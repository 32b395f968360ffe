"""What an Authorization header says."""

from base64 import b64decode

from attrs import field, frozen

from apivideo_auth.emulator._problems import authorization_missing, authorization_unreadable


@frozen
class Bearer:
    """An access token."""

    token: str = field(repr=False)


@frozen
class Basic:
    """An API key as a user without a password."""

    credentials: bytes = field(repr=False)


def parse_authorization(header: str | None) -> Bearer | Basic:
    """Return what the header carries, or raise a 401."""
    if header is None:
        raise authorization_missing()
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return Bearer(value)
    if scheme.lower() == "basic" and value:
        try:
            return Basic(b64decode(value, validate=True))
        except ValueError:
            raise authorization_unreadable() from None
    raise authorization_unreadable()
