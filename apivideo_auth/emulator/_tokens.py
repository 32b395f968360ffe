"""Tokens: issued, rotated and revoked. Pure; the caller passes the time.

Tokens are kept as digests only, so this state cannot reveal one.
"""

import json
import secrets
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from attrs import define, field, frozen

_REFRESH_TOKEN_PREFIX: Final = "def502"  # noqa: S105  how such tokens begin, not a token
_REFRESH_TOKEN_BYTES: Final = 347
_SIGNATURE_BYTES: Final = 256


@frozen
class Grant:
    """A pair of tokens on its way to the client."""

    generation: int
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@define(eq=False)
class Issued:
    """What is known about an issued pair of tokens."""

    generation: int
    expires_at: float
    access_revoked: bool = False
    refresh_revoked: bool = False

    def is_valid(self, now: float) -> bool:
        """Return whether the access token is accepted."""
        return not self.access_revoked and now < self.expires_at


@define
class Tokens:
    """All tokens of the account. Times are seconds of one monotonic clock; the other fields are `Emulator`'s."""

    ttl: float
    single_use: bool
    refresh_revokes: bool
    authenticate_invalidates: bool
    _issued: list[Issued] = field(factory=list[Issued], init=False)
    _by_digest: dict[bytes, Issued] = field(factory=dict[bytes, Issued], init=False, repr=False)

    def authenticate(self, now: float) -> Grant:
        """Issue tokens for the API key."""
        if self.authenticate_invalidates:
            for issued in self._issued:
                issued.refresh_revoked = True
        return self._issue(now)

    def refresh(self, used: Issued, now: float) -> Grant:
        """Issue tokens for the refresh token of `used`."""
        used.refresh_revoked = self.single_use
        used.access_revoked = used.access_revoked or self.refresh_revokes
        return self._issue(now)

    def find_access_token(self, token: str) -> Issued | None:
        """Return the pair that an access token belongs to, None if it is unknown."""
        return self._by_digest.get(_digest("access", token))

    def find_refresh_token(self, token: str) -> Issued | None:
        """Return the pair that a refresh token belongs to, None if it is unknown."""
        return self._by_digest.get(_digest("refresh", token))

    def revoke_all(self, *, refresh: bool) -> None:
        """Revoke every access token issued so far, and with `refresh` every refresh token too."""
        for issued in self._issued:
            issued.access_revoked = True
            issued.refresh_revoked = issued.refresh_revoked or refresh

    def _issue(self, now: float) -> Grant:
        issued = Issued(generation=len(self._issued) + 1, expires_at=now + self.ttl)
        grant = Grant(issued.generation, _new_access_token(), _new_refresh_token())
        self._issued.append(issued)
        self._by_digest[_digest("access", grant.access_token)] = issued
        self._by_digest[_digest("refresh", grant.refresh_token)] = issued
        return grant


def _digest(kind: str, token: str) -> bytes:
    # A client can send anything that JSON or a header can carry, lone surrogates included.
    return blake2b(token.encode("utf-8", "surrogatepass"), digest_size=16, person=kind.encode()).digest()


def _new_access_token() -> str:
    """Return a made-up token of three parts, like a JWT, that nobody can take for a signed one."""
    header = _base64url(json.dumps({"typ": "JWT", "alg": "none"}).encode())
    claims = _base64url(json.dumps({"iss": "apivideo-auth emulator", "jti": secrets.token_hex(40)}).encode())
    return f"{header}.{claims}.{_base64url(secrets.token_bytes(_SIGNATURE_BYTES))}"


def _new_refresh_token() -> str:
    return _REFRESH_TOKEN_PREFIX + secrets.token_hex(_REFRESH_TOKEN_BYTES)


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
