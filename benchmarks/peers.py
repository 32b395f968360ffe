"""The token sources that are compared, each used as its documentation shows, against the same endpoint.

A peer's package is imported when the peer is opened, so that a process has only the packages that it measures.
"""

import io
import json
import os
from typing import Any, ClassVar

import aiohttp

from benchmarks.measure import Loop
from benchmarks.peer import STATIC_HEADER, Peer, status_of

NO_CLIENT = "has no HTTP client or middleware that sends the token"


class ApiVideoAuth(Peer):
    """This package: a `TokenManager` and its `session()`."""

    name = "apivideo-auth"
    distributions = ("apivideo-auth",)
    imports = "from apivideo_auth import TokenManager"
    clock: ClassVar[Any] = None
    """A clock that is moved: this package reads one that counts sleep, which nothing in the process can move."""
    session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        from apivideo_auth import TokenManager  # noqa: PLC0415

        self.tokens = TokenManager(self.client_id, base_url=self.url, clock=self.clock)
        self.call = self.tokens.get_token

    async def close(self) -> None:
        await self.tokens.close()
        if self.session is not None:
            await self.session.close()
            await self.static.close()

    async def get_token(self) -> str:
        return str((await self.tokens.get_token()).access_token)

    async def open_clients(self) -> None:
        self.session = self.tokens.session()
        self.static = aiohttp.ClientSession(self.url, headers=STATIC_HEADER)

    async def get(self) -> int:
        assert self.session is not None
        return await status_of(self.session.get("/resource"))

    async def get_static(self) -> int:
        return await status_of(self.static.get("/resource"))

    def variants(self, token: str) -> dict[str, Loop]:
        from datetime import UTC, datetime  # noqa: PLC0415

        from apivideo_auth import Token  # noqa: PLC0415

        old = Token(f"{token}-old", datetime(2026, 1, 1, tzinfo=UTC))
        get_token = self.tokens.get_token

        async def with_min_ttl(times: int) -> None:
            for _ in range(times):
                await get_token(min_ttl=60)

        async def with_rejected(times: int) -> None:
            for _ in range(times):
                await get_token(rejected=old)

        return {"min_ttl=60": with_min_ttl, "rejected=old": with_rejected}


class GcloudAioAuth(Peer):
    """gcloud-aio-auth: a `Token` of the type `authorized_user`, which has a refresh token."""

    name = "gcloud-aio-auth"
    distributions = ("gcloud-aio-auth",)
    imports = "from gcloud.aio.auth import Token"
    missing: ClassVar = {"overhead": NO_CLIENT, "rejected": NO_CLIENT}

    async def open(self) -> None:
        from gcloud.aio.auth import Token  # noqa: PLC0415

        service = {
            "type": "authorized_user",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": "made-up-refresh-token",
            "token_uri": f"{self.url}/token",
        }
        self.tokens = Token(service_file=io.StringIO(json.dumps(service)))
        self.call = self.tokens.get

    async def close(self) -> None:
        await self.tokens.close()

    async def get_token(self) -> str:
        return str(await self.tokens.get())


class GoogleAuth(Peer):
    """google-auth: `AsyncAuthorizedSession` of `google.auth.aio`, which runs ordinary credentials in threads.

    The public method is `request`. `before_request` of its credentials is what it calls for the token.
    """

    name = "google-auth"
    distributions = ("google-auth",)
    imports = "from google.auth.aio.transport.sessions import AsyncAuthorizedSession; import google.oauth2.credentials"

    async def open(self) -> None:
        from google.auth.aio.transport.sessions import AsyncAuthorizedSession  # noqa: PLC0415
        from google.oauth2.credentials import Credentials  # noqa: PLC0415

        self.session = AsyncAuthorizedSession(Credentials(None, **_google_fields(self)))
        self.credentials = self.session._credentials  # noqa: SLF001  as the docstring says
        self.static: Any = None

        async def before_request() -> None:
            await self.credentials.before_request(None, "GET", self.resource, {})

        self.call = before_request

    async def close(self) -> None:
        self.credentials.close()
        await self.session.close()
        if self.static is not None:
            await self.static.close()

    async def get_token(self) -> str:
        headers: dict[str, str] = {}
        await self.credentials.before_request(None, "GET", self.resource, headers)
        return headers["authorization"].removeprefix("Bearer ")

    async def open_clients(self) -> None:
        from google.auth.aio.transport.aiohttp import Request  # noqa: PLC0415

        self.static = Request()

    async def get(self) -> int:
        response = await self.session.request("GET", self.resource)
        await response.read()
        return int(response.status_code)

    async def get_static(self) -> int:
        response = await self.static(self.resource, "GET", headers=STATIC_HEADER)
        await response.read()
        return int(response.status_code)


class GoogleAuthOlder(Peer):
    """google-auth: the older asynchronous credentials, in modules that its documentation does not list."""

    name = "google-auth (older)"
    distributions = ("google-auth",)
    imports = (
        "from google.oauth2._credentials_async import Credentials; "
        "from google.auth.transport._aiohttp_requests import AuthorizedSession"
    )

    async def open(self) -> None:
        from google.auth.transport._aiohttp_requests import Request  # noqa: PLC0415
        from google.oauth2._credentials_async import Credentials  # noqa: PLC0415

        self.credentials = Credentials(None, **_google_fields(self))
        # Its responses decode the body themselves.
        self.transport = aiohttp.ClientSession(auto_decompress=False)
        request = Request(self.transport)
        self.session: Any = None

        async def before_request() -> None:
            await self.credentials.before_request(request, "GET", self.resource, {})

        self.call = before_request

    async def close(self) -> None:
        await self.transport.close()
        if self.session is not None:
            await self.session.close()
            await self.static.close()

    async def get_token(self) -> str:
        await self.call()
        return str(self.credentials.token)

    async def open_clients(self) -> None:
        from google.auth.transport._aiohttp_requests import AuthorizedSession  # noqa: PLC0415

        self.session = AuthorizedSession(self.credentials)
        self.static = aiohttp.ClientSession(headers=STATIC_HEADER)

    async def get(self) -> int:
        response = await self.session.request("GET", self.resource)
        await response.read()
        return int(response.status)

    async def get_static(self) -> int:
        return await status_of(self.static.get(self.resource))


def _google_fields(peer: Peer) -> dict[str, str]:
    return {
        "refresh_token": "made-up-refresh-token",
        "token_uri": f"{peer.url}/token",
        "client_id": peer.client_id,
        "client_secret": peer.client_secret,
    }


class Azure(Peer):
    """azure-identity's managed identity of an App Service, and azure-core's `AsyncBearerTokenCredentialPolicy`.

    Other credentials of azure-identity need an authority with https.
    """

    name = "azure-identity"
    distributions = ("azure-core", "azure-identity")
    imports = (
        "from azure.identity.aio import ManagedIdentityCredential, get_bearer_token_provider; "
        "from azure.core import AsyncPipelineClient"
    )
    scope = "https://made-up.example/.default"
    client: Any = None

    async def open(self) -> None:
        from azure.identity.aio import ManagedIdentityCredential, get_bearer_token_provider  # noqa: PLC0415

        os.environ |= {"IDENTITY_ENDPOINT": f"{self.url}/token", "IDENTITY_HEADER": self.client_secret}
        self.credential = ManagedIdentityCredential()
        self.call = self.get_token = get_bearer_token_provider(self.credential, self.scope)  # type: ignore[method-assign]

    async def close(self) -> None:
        await self.credential.close()
        if self.client is not None:
            await self.client.close()
            await self.static.close()

    async def open_clients(self) -> None:
        from azure.core import AsyncPipelineClient  # noqa: PLC0415
        from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, HeadersPolicy  # noqa: PLC0415

        policy = AsyncBearerTokenCredentialPolicy(self.credential, self.scope)
        self.client = AsyncPipelineClient(self.url, policies=[policy])
        self.static = AsyncPipelineClient(self.url, policies=[HeadersPolicy(STATIC_HEADER)])

    async def get(self) -> int:
        return await self._send(self.client, enforce_https=False)

    async def get_static(self) -> int:
        return await self._send(self.static)

    async def _send(self, client: Any, **options: Any) -> int:  # noqa: ANN401  azure's
        from azure.core.rest import HttpRequest  # noqa: PLC0415

        response = await client.send_request(HttpRequest("GET", self.resource), **options)
        return int(response.status_code)


class Aiobotocore(Peer):
    """aiobotocore's `AioDeferredRefreshableCredentials`. The function that makes the call is written here."""

    name = "aiobotocore"
    distributions = ("aiobotocore",)
    imports = "from aiobotocore.credentials import AioDeferredRefreshableCredentials"
    missing: ClassVar = {
        "overhead": "signs requests of AWS instead of sending a token",
        "rejected": "signs requests of AWS instead of sending a token",
    }

    async def open(self) -> None:
        from aiobotocore.credentials import AioDeferredRefreshableCredentials  # noqa: PLC0415

        self.session = aiohttp.ClientSession()
        self.credentials = AioDeferredRefreshableCredentials(self._refresh, "benchmark")
        self.call = self.credentials.get_frozen_credentials

    async def _refresh(self) -> dict[str, str]:
        from datetime import UTC, datetime, timedelta  # noqa: PLC0415

        now = datetime.now(UTC)
        async with self.session.post(f"{self.url}/token", raise_for_status=True) as response:
            document = await response.json()
        return {
            "access_key": "made-up-access-key",
            "secret_key": self.client_secret,
            "token": document["access_token"],
            "expiry_time": (now + timedelta(seconds=document["expires_in"])).isoformat(),
        }

    async def close(self) -> None:
        await self.session.close()

    async def get_token(self) -> str:
        return str((await self.credentials.get_frozen_credentials()).token)


class Authlib(Peer):
    """authlib's `AsyncOAuth2Client`. It begins with a token that is expired, because it does not fetch the first one.

    A first token that each caller fetches itself would be fetched once per caller.
    """

    name = "authlib"
    distributions = ("authlib", "httpx2")
    imports = "from authlib.integrations.httpx_client import AsyncOAuth2Client"
    static: Any = None

    async def open(self) -> None:
        from authlib.integrations.httpx_client import AsyncOAuth2Client  # noqa: PLC0415

        self.client = AsyncOAuth2Client(
            self.client_id,
            self.client_secret,
            token_endpoint=f"{self.url}/token",
            token={
                "access_token": "made-up-token-0",
                "refresh_token": "made-up-refresh-token-0",
                "token_type": "Bearer",
                "expires_at": 0,
            },
        )

        async def ensure_active_token() -> None:
            await self.client.ensure_active_token(self.client.token)

        self.call = ensure_active_token

    async def close(self) -> None:
        await self.client.aclose()
        if self.static is not None:
            await self.static.aclose()

    async def get_token(self) -> str:
        await self.client.ensure_active_token(self.client.token)
        return str(self.client.token["access_token"])

    async def open_clients(self) -> None:
        import httpx2  # noqa: PLC0415

        self.static = httpx2.AsyncClient(headers=STATIC_HEADER)

    async def get(self) -> int:
        return int((await self.client.get(self.resource)).status_code)

    async def get_static(self) -> int:
        return int((await self.static.get(self.resource)).status_code)


class HttpxAuth(Peer):
    """httpx_auth's `OAuth2ClientCredentials`. Its calls are synchronous, also for an `AsyncClient`."""

    name = "httpx-auth"
    distributions = ("httpx-auth", "httpx")
    imports = "import httpx; from httpx_auth import OAuth2ClientCredentials"
    client: Any = None

    async def open(self) -> None:
        import httpx  # noqa: PLC0415
        from httpx_auth import OAuth2ClientCredentials  # noqa: PLC0415

        self.auth = OAuth2ClientCredentials(f"{self.url}/token", self.client_id, self.client_secret)
        request = httpx.Request("GET", self.resource)

        async def authorize() -> str:
            return str(next(self.auth.auth_flow(request)).headers["Authorization"].removeprefix("Bearer "))

        self.call = self.get_token = authorize  # type: ignore[method-assign]

    async def close(self) -> None:
        from httpx_auth import OAuth2  # noqa: PLC0415

        # All sources of a process share this cache.
        OAuth2.token_cache.clear()
        if self.client is not None:
            await self.client.aclose()
            await self.static.aclose()

    async def open_clients(self) -> None:
        import httpx  # noqa: PLC0415

        self.client = httpx.AsyncClient(auth=self.auth)
        self.static = httpx.AsyncClient(headers=STATIC_HEADER)

    async def get(self) -> int:
        return int((await self.client.get(self.resource)).status_code)

    async def get_static(self) -> int:
        return int((await self.static.get(self.resource)).status_code)


class AiohttpOAuth2Client(Peer):
    """aiohttp-oauth2-client's `ClientCredentialsGrant` and `OAuth2Middleware`."""

    name = "aiohttp-oauth2-client"
    distributions = ("aiohttp-oauth2-client",)
    imports = (
        "from aiohttp_oauth2_client.middleware import OAuth2Middleware; "
        "from aiohttp_oauth2_client.grant.client_credentials import ClientCredentialsGrant"
    )
    client: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        from aiohttp_oauth2_client.grant.client_credentials import ClientCredentialsGrant  # noqa: PLC0415

        self.grant = ClientCredentialsGrant(f"{self.url}/token", self.client_id, self.client_secret)
        self.call = self.grant.prepare_headers

    async def close(self) -> None:
        await self.grant.close()
        if self.client is not None:
            await self.client.close()
            await self.static.close()

    async def get_token(self) -> str:
        return str((await self.grant.prepare_headers())["Authorization"].removeprefix("Bearer "))

    async def open_clients(self) -> None:
        from aiohttp_oauth2_client.middleware import OAuth2Middleware  # noqa: PLC0415

        self.client = aiohttp.ClientSession(middlewares=(OAuth2Middleware(self.grant),))
        self.static = aiohttp.ClientSession(headers=STATIC_HEADER)

    async def get(self) -> int:
        assert self.client is not None
        return await status_of(self.client.get(self.resource))

    async def get_static(self) -> int:
        return await status_of(self.static.get(self.resource))


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        ApiVideoAuth,
        GcloudAioAuth,
        GoogleAuth,
        GoogleAuthOlder,
        Azure,
        Aiobotocore,
        Authlib,
        HttpxAuth,
        AiohttpOAuth2Client,
    )
}
