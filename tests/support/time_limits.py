"""The time limits of store operations: a busy machine must not look like a store that is down."""

import operator
from collections.abc import Callable
from typing import Any

from apivideo_auth.stores import FileStore
from apivideo_auth.stores._account import FailoverAccount
from apivideo_auth.stores.redis import _client, _connection, _subscription


def set_operation_timeout(
    seconds: float,
    *,
    set_attribute: Callable[[Any, str, float], None] = setattr,
    set_item: Callable[[Any, str, float], None] = operator.setitem,
) -> None:
    """Set the time limit of store operations in this process."""
    for module in (_client, _connection, _subscription):
        set_attribute(module, "BUDGET", seconds)
    set_attribute(FileStore, "operation_timeout", seconds)
    for method in vars(FailoverAccount).values():
        defaults = getattr(method, "__kwdefaults__", None) or {}
        if "limit" in defaults:
            set_item(defaults, "limit", seconds)
