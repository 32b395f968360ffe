"""List the videos of an account.

    APIVIDEO_API_KEY=… python examples/script.py            # production
    APIVIDEO_BASE_URL=https://sandbox.api.video …           # the sandbox
    python examples/script.py                               # no key: a local api.video

The session renews its token by itself, however long the script runs.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator


@asynccontextmanager
async def token_manager() -> AsyncIterator[TokenManager]:
    """Open a manager for the account in the environment, or for a local server with one video if there is no key."""
    if os.environ.get("APIVIDEO_API_KEY"):
        async with TokenManager.from_env() as tokens:
            yield tokens
    else:
        async with Emulator() as server, TokenManager(server.api_key, base_url=server.url) as tokens:
            async with tokens.session() as session, session.post("/videos", json={"title": "A first video"}):
                yield tokens


async def videos(session: aiohttp.ClientSession) -> AsyncIterator[dict[str, str]]:
    """Yield every video of the account, page by page."""
    page, pages = 1, 1
    while page <= pages:
        async with session.get("/videos", params={"currentPage": page, "pageSize": 100}) as response:
            listing = await response.json()
        for video in listing["data"]:
            yield video
        pages = listing["pagination"]["pagesTotal"]
        page += 1


async def main() -> None:
    """Print the id and the title of every video."""
    count = 0
    async with token_manager() as tokens, tokens.session(raise_for_status=True) as session:
        async for video in videos(session):
            print(f"{video['videoId']}  {video['title']}")
            count += 1
        print(f"{tokens.base_url}: {count} video{'' if count == 1 else 's'}", file=sys.stderr)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (aiohttp.ClientError, ValueError) as error:
        # An AuthError is a ClientError, and says what to do. A missing or invalid setting is a ValueError.
        sys.exit(f"script.py: {error}")
