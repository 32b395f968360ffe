"""A local api.video for tests: both authentication endpoints, videos, uploads, and faults on demand.

    async with Emulator(ttl=2) as server:
        server.inject(Fault(status=503, on="/auth/refresh"))
        async with TokenManager(server.api_key, base_url=server.url) as tokens: ...

It has one account and keeps everything in memory. It never connects to api.video.
"""

from apivideo_auth.emulator._calls import Call
from apivideo_auth.emulator._emulator import Emulator
from apivideo_auth.emulator._faults import Fault
from apivideo_auth.emulator._limits import RateLimits

__all__ = ["Call", "Emulator", "Fault", "RateLimits"]
