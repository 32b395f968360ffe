"""What the two endpoints answer."""

from apivideo_auth import AccessToken, AuthenticatePayload
from tests.conftest import API_KEY

ANSWER = {
    "token_type": "Bearer",
    "expires_in": 3600,
    "access_token": "made-up-access",
    "refresh_token": "made-up-refresh",
}
TOKEN = AccessToken("made-up-access", "Bearer", 3600, "made-up-refresh")
KEY = AuthenticatePayload(API_KEY)
