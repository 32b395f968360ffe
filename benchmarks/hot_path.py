"""What `get_token` costs with a fresh token that suits, as a ratio to a coroutine that returns an attribute.

    python benchmarks/hot_path.py

All are measured in the same run, in turn, and the medians of the ratios are printed.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from apivideo_auth import AccessToken, Token, TokenManager

ROUNDS = 31
CALLS = 50_000


class Floor:
    """The least that an awaited call can cost."""

    def __init__(self) -> None:
        self.token = object()

    async def get_token(self) -> object:
        """Return an attribute."""
        return self.token


class Endpoints:
    """Answers one token."""

    async def authenticate(self, _payload: object) -> AccessToken:
        """Answer a token."""
        return AccessToken("made-up", "bearer", 3600)

    async def refresh(self, _payload: object) -> AccessToken:
        """Answer a token."""
        return AccessToken("made-up", "bearer", 3600)


async def seconds(get_token: Callable[..., Awaitable[object]], **arguments: object) -> float:
    """Return the seconds of `CALLS` awaited calls."""
    before = time.perf_counter()
    for _ in range(CALLS):
        await get_token(**arguments)
    return time.perf_counter() - before


async def main() -> None:
    """Measure in turn, and print the medians."""
    floor = Floor()
    async with TokenManager("made-up-key", api=Endpoints()) as tokens:
        token = await tokens.get_token()
        old = Token("made-up-old", token.expires_at)
        calls: dict[str, dict[str, object]] = {
            "get_token()": {},
            "get_token(min_ttl=60)": {"min_ttl": 60},
            "get_token(rejected=old)": {"rejected": old},
        }
        ratios: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            least = await seconds(floor.get_token)
            for name, arguments in calls.items():
                ratios[name].append(await seconds(tokens.get_token, **arguments) / least)
    for name, of_rounds in ratios.items():
        print(f"{name:24} {statistics.median(of_rounds):5.2f} times an attribute (median of {ROUNDS})")


if __name__ == "__main__":
    asyncio.run(main())
