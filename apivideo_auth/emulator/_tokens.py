"""Issuing, rotating and revoking tokens: pure, with the time handed in.

Tokens are known by their digests alone, so nothing here can show one.
"""

import json
import secrets
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from attrs import define, field, frozen

_REFRESH_TOKEN_PREFIX: Final = "def502"  # noqa: S105  how such tokens begin, no token
_REFRESH_TOKEN_BYTES: Final = 347
_SIGNATURE_BYTES: Final = 256


@frozen
class Grant:
    """A token as it is given out. Neither its `repr` nor its `str` shows the two tokens."""

    generation: int
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int


class RefreshTokenRefusedError(Exception):
    """A refresh token is not taken. `generation` says with which token it came, if that is known."""

    def __init__(self, generation: int | None) -> None:
        super().__init__("the refresh token is unknown, used or revoked")
        self.generation = generation


@frozen
class Standing:
    """How an access token stands: with which number it was issued, and whether it is good now."""

    generation: int
    good: bool


@define
class _Issued:
    """An access token and the refresh token that came with it."""

    generation: int
    expires_at: float
    access_ended: bool = False
    refresh_ended: bool = False


@define
class Ledger:
    """All tokens of the account. Times are seconds of one monotonic clock.

    `single_use`: a refresh token is taken once; a second use is refused and harms no other token.
    `refresh_revokes`: a refresh ends the access token that came with the refresh token used.
    `authenticate_invalidates`: a token for an API key ends the refresh tokens issued before.
    """

    ttl: float
    single_use: bool
    refresh_revokes: bool
    authenticate_invalidates: bool
    _issued: list[_Issued] = field(factory=list[_Issued], init=False)
    _by_access_token: dict[bytes, _Issued] = field(factory=dict[bytes, _Issued], init=False, repr=False)
    _by_refresh_token: dict[bytes, _Issued] = field(factory=dict[bytes, _Issued], init=False, repr=False)

    def authenticate(self, now: float) -> Grant:
        """Issue a token for the API key."""
        if self.authenticate_invalidates:
            for issued in self._issued:
                issued.refresh_ended = True
        return self._issue(now)

    def refresh(self, refresh_token: str, now: float) -> Grant:
        """Issue a token for a refresh token, or raise `RefreshTokenRefusedError`."""
        came_with = self._by_refresh_token.get(_digest(refresh_token))
        if came_with is None:
            raise RefreshTokenRefusedError(None)
        if came_with.refresh_ended:
            raise RefreshTokenRefusedError(came_with.generation)
        if self.single_use:
            came_with.refresh_ended = True
        if self.refresh_revokes:
            came_with.access_ended = True
        return self._issue(now)

    def standing(self, access_token: str, now: float) -> Standing | None:
        """Return how an access token stands, or None if it was never issued."""
        issued = self._by_access_token.get(_digest(access_token))
        if issued is None:
            return None
        return Standing(issued.generation, good=not issued.access_ended and now < issued.expires_at)

    def revoke_all(self, *, refresh: bool) -> None:
        """End every access token issued so far, and with `refresh` every refresh token too."""
        for issued in self._issued:
            issued.access_ended = True
            issued.refresh_ended = issued.refresh_ended or refresh

    def _issue(self, now: float) -> Grant:
        issued = _Issued(generation=len(self._issued) + 1, expires_at=now + self.ttl)
        grant = Grant(issued.generation, _new_access_token(), _new_refresh_token(), max(1, int(self.ttl)))
        self._issued.append(issued)
        self._by_access_token[_digest(grant.access_token)] = issued
        self._by_refresh_token[_digest(grant.refresh_token)] = issued
        return grant


def _digest(token: str) -> bytes:
    # What a client sends as a token may be anything that JSON or a header can carry, lone surrogates included.
    return blake2b(token.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _new_access_token() -> str:
    """Make up a token of three parts, like a JWT, that nobody can take for a signed one."""
    header = _base64url(json.dumps({"typ": "JWT", "alg": "none"}).encode())
    claims = _base64url(json.dumps({"iss": "apivideo-auth emulator", "jti": secrets.token_hex(40)}).encode())
    return f"{header}.{claims}.{_base64url(secrets.token_bytes(_SIGNATURE_BYTES))}"


def _new_refresh_token() -> str:
    return _REFRESH_TOKEN_PREFIX + secrets.token_hex(_REFRESH_TOKEN_BYTES)


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
