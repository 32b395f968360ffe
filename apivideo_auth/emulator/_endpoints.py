"""The two authentication endpoints."""

from hmac import compare_digest

from aiohttp import web
from attrs import field, frozen

from apivideo_auth._clock import Clock
from apivideo_auth.emulator._answers import Answer
from apivideo_auth.emulator._bodies import read_payload
from apivideo_auth.emulator._calls import Outcome
from apivideo_auth.emulator._payload import required_text
from apivideo_auth.emulator._problems import credentials_refused
from apivideo_auth.emulator._tokens import Grant, Ledger, RefreshTokenRefusedError


@frozen
class AuthEndpoints:
    """`/auth/api-key` and `/auth/refresh` of one account. An Authorization header means nothing to them."""

    api_key: str = field(repr=False)
    refused_status: int
    ledger: Ledger
    clock: Clock

    async def authenticate(self, request: web.BaseRequest) -> Answer:
        """Give a token for the API key."""
        api_key = required_text(await read_payload(request), "apiKey")
        if not compare_digest(api_key.encode(), self.api_key.encode()):
            raise credentials_refused(self.refused_status)
        return _answer(self.ledger.authenticate(self.clock.monotonic()), "authenticated")

    async def refresh(self, request: web.BaseRequest) -> Answer:
        """Give a token for a refresh token."""
        refresh_token = required_text(await read_payload(request), "refreshToken")
        try:
            grant = self.ledger.refresh(refresh_token, self.clock.monotonic())
        except RefreshTokenRefusedError as error:
            raise credentials_refused(self.refused_status, generation=error.generation) from None
        return _answer(grant, "refreshed")


def _answer(grant: Grant, outcome: Outcome) -> Answer:
    document = {
        "token_type": "Bearer",
        "expires_in": grant.expires_in,
        "access_token": grant.access_token,
        "refresh_token": grant.refresh_token,
    }
    return Answer(document, outcome, generation=grant.generation)
