"""The settings of a command: an account, and the store that keeps its token between calls."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import click
from attrs import field, frozen

from apivideo_auth import PRODUCTION, SANDBOX, AuthenticatePayload, RefreshPolicy, TokenManager
from apivideo_auth._clock import SYSTEM_CLOCK
from apivideo_auth._manager import API_KEY_VARIABLE, BASE_URL_VARIABLE, STORE_VARIABLE
from apivideo_auth._secrets import Secret
from apivideo_auth._urls import normal_base_url
from apivideo_auth.events import EventHandler
from apivideo_auth.stores import FileStore, store_from_url
from apivideo_auth.stores._base import Slot
from apivideo_auth.stores._encrypted import open_slot

# At a prompt an outage should be reported soon, and Ctrl-C should work.
_POLICY: Final = RefreshPolicy(deadline=5, close_timeout=1)
# A service does without a slow store; a command would lose the token, and can wait for a busy disk.
_OPERATION_TIMEOUT: Final = 4.0
_MAX_KEY_LENGTH: Final = 4096


@frozen
class Settings:
    """The API key and the base URL of an account, and the URL of the store. The key and the store's URL are secrets."""

    api_key: str = field(converter=Secret)
    base_url: str
    store_url: str = field(converter=Secret)

    @classmethod
    def find(cls, key_file: Path | None, *, sandbox: bool) -> Self:
        """Read the settings from the options and the environment. Raises `ValueError` if one is missing or invalid."""
        base_url = SANDBOX if sandbox else os.environ.get(BASE_URL_VARIABLE) or PRODUCTION
        store_url = os.environ.get(STORE_VARIABLE) or "file:"
        return cls(_api_key(key_file), normal_base_url(base_url), store_url)

    @property
    def trust_env(self) -> bool:
        """Whether proxies of the environment are used. Plain http goes to a local server, which no proxy reaches."""
        return self.base_url.startswith("https:")

    def manager(self, on_event: EventHandler | None = None) -> TokenManager:
        """Return a manager that keeps its token in the store."""
        store = store_from_url(self.store_url)
        if isinstance(store, FileStore):
            store.operation_timeout = _OPERATION_TIMEOUT
        return TokenManager(
            self.api_key,
            base_url=self.base_url,
            store=store,
            policy=_POLICY,
            trust_env=self.trust_env,
            on_event=on_event,
        )

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[Slot]:
        """Open the record of the account in the store. A damaged record counts as empty, with a warning."""
        slot = open_slot(
            store_from_url(self.store_url),
            base_url=self.base_url,
            api_key=self.api_key,
            clock=SYSTEM_CLOCK,
            on_commit=lambda: None,
            on_damage=_warn,
        )
        try:
            yield slot
        finally:
            await slot.close()


def _api_key(key_file: Path | None) -> str:
    if key_file is None:
        key = Secret(os.environ.get(API_KEY_VARIABLE, ""))
        if not key:
            raise ValueError(f"{API_KEY_VARIABLE} is not set; put the API key there, or name a file with --key-file")
    else:
        text = Secret(_read(key_file))
        if len(text) > _MAX_KEY_LENGTH:
            raise ValueError(f"the key file has more than {_MAX_KEY_LENGTH} characters")
        # The last line of a file ends with a newline, which is not part of the key.
        key = Secret(text.strip())
    return AuthenticatePayload(key).api_key


def _read(key_file: Path) -> str:
    try:
        if str(key_file) == "-":
            if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  its descriptor was closed
                raise ValueError("cannot read the API key: standard input is closed")
            if sys.stdin.isatty():
                # Not shown while it is typed.
                key: str = click.prompt("API key", hide_input=True, err=True)
                return key
            return sys.stdin.read(_MAX_KEY_LENGTH + 1)
        with key_file.open(encoding="utf-8") as file:
            return file.read(_MAX_KEY_LENGTH + 1)
    except OSError as error:
        raise ValueError(f"cannot read the key file {str(key_file)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the key file {str(key_file)!r} is not a text file") from None


def _warn(message: str) -> None:
    click.echo(f"Warning: the stored token cannot be used: {message}", err=True)
