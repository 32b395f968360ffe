"""The account: the two authentication endpoints, and the check of the Authorization header."""

from base64 import b64decode
from hmac import compare_digest

from aiohttp import web
from attrs import define, field

from apivideo_auth._clock import Clock
from apivideo_auth.emulator._calls import Outcome
from apivideo_auth.emulator._payload import read_payload, required_text
from apivideo_auth.emulator._responses import Problem, Response
from apivideo_auth.emulator._tokens import Grant, Tokens


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

    def _token(self, grant: Grant, outcome: Outcome) -> Response:
        document = {
            "token_type": "Bearer",
            "expires_in": max(1, int(self.tokens.ttl)),
            "access_token": grant.access_token,
            "refresh_token": grant.refresh_token,
        }
        return Response(document, outcome, generation=grant.generation)

    def _rejected(self, generation: int | None) -> Problem:
        slug, title = "authentication-invalid-user-credentials", "The user credentials were incorrect."
        return Problem(self.refused_status, slug, title, outcome="refused", generation=generation)


def _unauthorized(slug: str, title: str, generation: int | None = None) -> Problem:
    return Problem(401, f"authentication-{slug}", title, outcome="unauthorized", generation=generation)
