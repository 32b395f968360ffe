"""The account: its tokens, the two authentication endpoints, and the check of the Authorization header."""

import json
import secrets
from base64 import b64decode, urlsafe_b64encode
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from aiohttp import web
from attrs import define, field, frozen

from apivideo_auth._clock import Clock
from apivideo_auth.emulator._calls import CallOutcome
from apivideo_auth.emulator._messages import Problem, Response, read_payload, required_text

_REFRESH_TOKEN_PREFIX: Final = "def502"  # noqa: S105  a prefix, not a token
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
    """The state of an issued pair of tokens."""

    generation: int
    expires_at: float
    access_revoked: bool = False
    refresh_revoked: bool = False

    def is_valid(self, now: float) -> bool:
        """Return whether the access token is accepted."""
        return not self.access_revoked and now < self.expires_at


@define
class Tokens:
    """All tokens of the account, kept as digests only. Times are seconds of one monotonic clock."""

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
        """Issue tokens for a refresh token that was issued in `used`."""
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


@define(eq=False)
class Account:
    """The account of the emulator. `refused_status` is the status for rejected credentials."""

    api_key: str = field(repr=False)
    refused_status: int
    tokens: Tokens
    clock: Clock

    async def authenticate(self, request: web.Request) -> Response:
        """`POST /auth/api-key`."""
        api_key = required_text(await read_payload(request), "apiKey")
        if not compare_digest(api_key.encode(), self.api_key.encode()):
            raise self._rejected(None)
        return self._token(self.tokens.authenticate(self.clock.monotonic()), "authenticated")

    async def refresh(self, request: web.Request) -> Response:
        """`POST /auth/refresh`."""
        issued = self.tokens.find_refresh_token(required_text(await read_payload(request), "refreshToken"))
        if issued is None or issued.refresh_revoked:
            raise self._rejected(issued.generation if issued else None)
        return self._token(self.tokens.refresh(issued, self.clock.monotonic()), "refreshed")

    def check(self, request: web.Request) -> int | None:
        """Check the Authorization header of a request for a resource.

        Returns the generation of the access token, None for the API key. Raises a 401.
        """
        header = request.headers.get("Authorization")
        if header is None:
            raise _unauthorized("missing-authorization-header", 'The "Authorization" header is missing.')
        scheme, _, value = header.strip().partition(" ")
        value = value.strip()
        if scheme.lower() == "bearer" and value:
            issued = self.tokens.find_access_token(value)
            if issued is None or not issued.is_valid(self.clock.monotonic()):
                title = "The access token is invalid or expired."
                raise _unauthorized("invalid-access-token", title, issued.generation if issued else None)
            return issued.generation
        try:
            credentials = b64decode(value, validate=True) if scheme.lower() == "basic" else b""
        except ValueError:
            credentials = b""
        if not credentials:
            raise _unauthorized("invalid-authorization-header-value", 'The "Authorization" header value is invalid.')
        if not compare_digest(credentials, f"{self.api_key}:".encode()):
            raise _unauthorized("invalid-api-key", "The API key is invalid.")
        return None

    def _token(self, grant: Grant, outcome: CallOutcome) -> Response:
        document = {
            "token_type": "Bearer",
            "expires_in": max(1, int(self.tokens.ttl)),
            "access_token": grant.access_token,
            "refresh_token": grant.refresh_token,
        }
        return Response(document, outcome, generation=grant.generation)

    def _rejected(self, generation: int | None) -> Problem:
        slug, title = "authentication-invalid-user-credentials", "The user credentials were incorrect."
        return Problem(self.refused_status, slug, title, outcome="rejected", generation=generation)


def _unauthorized(slug: str, title: str, generation: int | None = None) -> Problem:
    return Problem(401, f"authentication-{slug}", title, outcome="unauthorized", generation=generation)


def _digest(kind: str, token: str) -> bytes:
    # JSON can contain lone surrogates.
    return blake2b(token.encode("utf-8", "surrogatepass"), digest_size=16, person=kind.encode()).digest()


def _new_access_token() -> str:
    """Return a made-up token of three parts, like a JWT, but visibly not signed."""
    header = _base64url(json.dumps({"typ": "JWT", "alg": "none"}).encode())
    claims = _base64url(json.dumps({"iss": "apivideo-auth emulator", "jti": secrets.token_hex(40)}).encode())
    return f"{header}.{claims}.{_base64url(secrets.token_bytes(_SIGNATURE_BYTES))}"


def _new_refresh_token() -> str:
    return _REFRESH_TOKEN_PREFIX + secrets.token_hex(_REFRESH_TOKEN_BYTES)


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
