"""The commands `status` and `logout`: the token that is kept between calls."""

import json
from datetime import UTC, datetime

from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth.cli._settings import Settings


async def remaining(settings: Settings) -> float | None:
    """Return how many seconds the stored token lives, or `None` if there is none. Raises `TokenStoreError`."""
    async with settings.slot() as slot:
        token = await slot.read()
    return None if token is None else token.remaining


async def forget(settings: Settings) -> None:
    """Delete the record of the account. Raises `TokenStoreError`."""
    async with settings.slot() as slot:
        await slot.forget()


def described(base_url: str, seconds: float | None, *, as_json: bool) -> str:
    """Say whether a token is stored and how long it lives, to people or to programs."""
    expires_at = None if seconds is None else datetime.fromtimestamp(SYSTEM_CLOCK.utc() + seconds, UTC)
    if as_json:
        return json.dumps(
            {
                "base_url": base_url,
                "stored": seconds is not None,
                "expires_at": None if expires_at is None else expires_at.isoformat(timespec="seconds"),
                "expires_in": None if seconds is None else int(seconds),
            }
        )
    if seconds is None:
        return f"{base_url}: no token is stored"
    minutes, rest = divmod(int(seconds), 60)
    return f"{base_url}: the stored token expires in {minutes} min {rest} s, at {expires_at:%H:%M:%S} UTC"
