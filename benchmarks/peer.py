"""What a token source must do to be compared, whichever library it is from."""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from benchmarks.endpoint import STATIC_TOKEN
from benchmarks.measure import Loop

STATIC_HEADER = {"Authorization": f"Bearer {STATIC_TOKEN}"}


class Peer:
    """A source of tokens.

    - `call`: the peer's own coroutine function that makes sure of a valid token. It is what the hot path measures.
    - `get_token`: the same, and returns the token's text.
    - `get`: requests the resource with the token, by the peer's own way, and returns the status.
    - `get_static`: the same by the same HTTP client, with a header that never changes.

    `account` tells apart several of them in a process. `missing` gives the reason why a scenario is not measured.
    """

    name: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    imports: ClassVar[str]
    missing: ClassVar[dict[str, str]] = {}
    call: Callable[[], Awaitable[Any]]

    def __init__(self, url: str, account: int = 0) -> None:
        self.url = url
        self.resource = f"{url}/resource"
        self.client_id = f"made-up-client-{account}"
        self.client_secret = "made-up-secret"  # noqa: S105  made up

    async def open(self) -> None:
        """Construct the source. It has no token yet."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close what `open` and `open_clients` have opened."""
        raise NotImplementedError

    async def get_token(self) -> str:
        """Return a valid token."""
        raise NotImplementedError

    async def open_clients(self) -> None:
        """Open the HTTP clients of `get` and `get_static`."""

    async def get(self) -> int:
        """Request the resource, and return the status."""
        raise NotImplementedError

    async def get_static(self) -> int:
        """Do the same with a static header."""
        raise NotImplementedError

    def variants(self, _token: str) -> dict[str, Loop]:
        """Return loops of further calls that the hot path measures, by a name."""
        return {}


async def status_of(request: Any) -> int:  # noqa: ANN401  aiohttp's
    """Send a request of aiohttp, read the response, and return its status."""
    async with request as response:
        await response.read()
        return int(response.status)
