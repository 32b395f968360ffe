"""A local api.video for tests: both authentication endpoints, videos, uploads, and faults on demand.

    async with Emulator(ttl=2) as server:
        server.inject(Fault(status=503, on="/auth/refresh"))
        async with TokenManager(server.api_key, base_url=server.url) as tokens: ...

It knows one account and keeps everything in memory. Nothing in it ever reaches api.video.
"""

from apivideo_auth.emulator._emulator import Emulator
from apivideo_auth.emulator._faults import Fault

__all__ = ["Emulator", "Fault"]
