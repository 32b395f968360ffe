"""BearerAuth: its arguments, and what it leaves to the middlewares inside."""

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, web

from apivideo_auth import SANDBOX, BearerAuth
from tests.support.loopback import serving
from tests.support.sources import Source


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"source": object()}, TypeError, "^source must have get_token"),
        ({"source": Source}, TypeError, "^source must be an object"),
        ({"source": Source()}, ValueError, "^source has no base_url"),
        ({"source": Source(), "origins": SANDBOX}, TypeError, "^origins must be a collection"),
        ({"source": Source(), "origins": []}, ValueError, "^origins is empty"),
        ({"source": Source(), "origins": [5]}, TypeError, "^an origin must be a string"),
        ({"source": Source(), "origins": [f"{SANDBOX}/v1"]}, ValueError, "^an origin must be an origin alone"),
        ({"source": Source(), "origins": ["http://example.com"]}, ValueError, "^an origin is plain http"),
        ({"source": Source(SANDBOX), "on_event": 5}, TypeError, "^on_event must be callable"),
    ],
    ids=range(9),
)
def test_an_invalid_argument_is_named(kwargs: dict, error: type[Exception], message: str) -> None:
    """The message begins with the name of the argument, or says that an origin is meant."""
    with pytest.raises(error, match=message):
        BearerAuth(**kwargs)


async def test_a_middleware_inside_may_remove_the_header() -> None:
    """A request whose header a middleware inside BearerAuth removes is sent without it, and its response comes back."""
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(text="fine")

    async def remove(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        del request.headers["Authorization"]
        return await handler(request)

    async with serving(handle) as url:
        middlewares = (BearerAuth(Source(url)), remove)
        async with aiohttp.ClientSession(url, middlewares=middlewares) as session, session.get("/") as response:
            assert await response.text() == "fine"
    assert seen == [None]
