"""The public names."""

import subprocess
import sys
from types import ModuleType

import pytest

import apivideo_auth
from apivideo_auth import events, stores


def test_names_are_exactly_these() -> None:
    """The public names are listed in one sorted list, and each can be imported."""
    assert apivideo_auth.__all__ == [
        "PRODUCTION",
        "SANDBOX",
        "AccessToken",
        "AuthConnectionError",
        "AuthError",
        "AuthResponseError",
        "AuthenticatePayload",
        "AuthenticationApi",
        "BadRequest",
        "BearerAuth",
        "Clock",
        "CredentialsRejectedError",
        "InsecureUrlError",
        "InvalidResponseError",
        "ManagerClosedError",
        "ManagerStatus",
        "MemoryStore",
        "RateLimitedError",
        "RefreshPolicy",
        "RefreshTokenPayload",
        "Token",
        "TokenEndpoints",
        "TokenManager",
        "TokenRejectedError",
        "TokenSource",
        "TokenStore",
        "TokenStoreError",
    ]
    assert all(hasattr(apivideo_auth, name) for name in apivideo_auth.__all__)
    assert set(apivideo_auth.__all__) <= set(dir(apivideo_auth))


@pytest.mark.parametrize("module", [apivideo_auth, stores], ids=lambda module: module.__name__)
def test_unknown_names_are_attribute_errors(module: ModuleType) -> None:
    """An unknown name is an AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = module.Nonsense


def test_event_names_are_all_there() -> None:
    """The events module exports each of its events."""
    assert all(hasattr(events, name) for name in events.__all__)


def test_importing_the_package_imports_no_http_client() -> None:
    """Importing the package or the pytest plugin imports neither aiohttp nor cattrs."""
    code = (
        "import sys, apivideo_auth, apivideo_auth.pytest_plugin;"
        "sys.exit({'aiohttp', 'cattrs', 'redis', 'rich', 'cryptography'} & set(sys.modules) or None)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_manager_imports_no_optional_package() -> None:
    """A program without Redis and without a store imports neither the modules of `RedisStore` nor encryption."""
    code = (
        "import sys; from apivideo_auth import TokenManager; TokenManager('made-up-key');"
        "sys.exit({'apivideo_auth.stores.redis', 'redis', 'filelock', 'cryptography'} & set(sys.modules) or None)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
