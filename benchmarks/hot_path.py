"""What `get_token` costs on its fast path, as a ratio to a coroutine that returns an attribute.

    python benchmarks/hot_path.py

Both are measured in the same run, in turn, and the median of the ratios is printed.
"""

import asyncio
import statistics
import time

from apivideo_auth import AccessToken, TokenManager

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


async def seconds(get_token) -> float:
    """Return the seconds of `CALLS` awaited calls."""
    before = time.perf_counter()
    for _ in range(CALLS):
        await get_token()
    return time.perf_counter() - before


async def main() -> None:
    """Measure in turn, and print the medians."""
    floor = Floor()
    async with TokenManager("made-up-key", api=Endpoints()) as tokens:
        await tokens.get_token()
        pairs = [(await seconds(floor.get_token), await seconds(tokens.get_token)) for _ in range(ROUNDS)]
    ratio = statistics.median(ours / least for least, ours in pairs)
    least, ours = (statistics.median(column) / CALLS * 1e9 for column in zip(*pairs, strict=True))
    print(f"get_token {ours:.0f} ns, floor {least:.0f} ns: {ratio:.2f} times (median of {ROUNDS})")


if __name__ == "__main__":
    asyncio.run(main())
