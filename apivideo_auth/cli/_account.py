"""Which account a command is about: its key, its place and its store."""

import os
import sys
from pathlib import Path
from typing import Final

from attrs import field, frozen

from apivideo_auth import PRODUCTION, SANDBOX, TokenStore
from apivideo_auth._manager import API_KEY_VARIABLE, BASE_URL_VARIABLE, STORE_VARIABLE
from apivideo_auth._models import check_api_key
from apivideo_auth._secrets import Secret
from apivideo_auth._urls import normal_base_url
from apivideo_auth.stores import store_from_url

_MAX_KEY_LENGTH: Final = 4096


@frozen
class Account:
    """What a command works on. `store` is the store's URL."""

    api_key: str = field(converter=Secret)
    base_url: str
    store: str

    def open_store(self) -> TokenStore:
        """Return the store; raise `ValueError` where its parts are not installed."""
        try:
            return store_from_url(self.store)
        except ImportError as error:
            raise ValueError(str(error)) from None


def find(key_file: Path | None, *, sandbox: bool) -> Account:
    """Return the account that the options and the environment name; raise `ValueError` for what names none."""
    base_url = SANDBOX if sandbox else os.environ.get(BASE_URL_VARIABLE) or PRODUCTION
    store = os.environ.get(STORE_VARIABLE) or "file:"
    return Account(_api_key(key_file), normal_base_url(base_url), store)


def _api_key(key_file: Path | None) -> str:
    if key_file is None:
        key = os.environ.get(API_KEY_VARIABLE, "")
        if not key:
            raise ValueError(f"{API_KEY_VARIABLE} is not set; put the API key there, or name a file with --key-file")
    else:
        # A key has no white space around it; a file's last line has.
        text = Secret(_read(key_file))
        if len(text) > _MAX_KEY_LENGTH:
            raise ValueError(f"the key file has more than {_MAX_KEY_LENGTH} characters")
        key = Secret(text.strip())
    check_api_key(key)
    return key


def _read(key_file: Path) -> str:
    try:
        if str(key_file) == "-":
            return sys.stdin.read(_MAX_KEY_LENGTH + 1)
        with key_file.open(encoding="utf-8") as file:
            return file.read(_MAX_KEY_LENGTH + 1)
    except OSError as error:
        raise ValueError(f"the key file {str(key_file)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the key file {str(key_file)!r} is no text") from None
