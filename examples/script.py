"""List the videos of an account.

    APIVIDEO_API_KEY=… python examples/script.py            # production
    APIVIDEO_BASE_URL=https://sandbox.api.video …           # the sandbox
    python examples/script.py                               # no key: a local api.video

The session is authenticated by itself, however long the script runs.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator


@asynccontextmanager
async def token_manager() -> AsyncIterator[TokenManager]:
    """Give a manager for the account of the environment, or for a local server when there is none."""
    if os.environ.get("APIVIDEO_API_KEY"):
        async with TokenManager.from_env() as tokens:
            yield tokens
    else:
        async with Emulator() as server, TokenManager(server.api_key, base_url=server.url) as tokens:
            async with tokens.session() as session, session.post("/videos", json={"title": "A first video"}):
                yield tokens


async def main() -> None:
    """Print title and id of every video, page by page."""
    async with token_manager() as tokens, tokens.session(raise_for_status=True) as session:
        page, pages = 1, 1
        while page <= pages:
            async with session.get("/videos", params={"currentPage": page, "pageSize": 100}) as response:
                listing = await response.json()
            for video in listing["data"]:
                print(f"{video['videoId']}  {video['title']}")
            pages = listing["pagination"]["pagesTotal"]
            page += 1


if __name__ == "__main__":
    asyncio.run(main())
