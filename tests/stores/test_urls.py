"""Stores by URL."""

from pathlib import Path

import pytest

from apivideo_auth import MemoryStore, stores
from apivideo_auth.stores import FileStore, RedisStore, store_from_url


def test_each_scheme_names_its_store(tmp_path: Path) -> None:
    """memory:, file:, redis:, rediss: and unix: name their stores; a file URL may name a folder."""
    assert isinstance(store_from_url("memory:"), MemoryStore)
    default = store_from_url("file:")
    assert isinstance(default, FileStore)
    assert default.directory == FileStore().directory
    named = store_from_url(f"file://{tmp_path}/a%20folder")
    assert isinstance(named, FileStore)
    assert named.directory == tmp_path / "a folder"
    assert isinstance(store_from_url("redis://127.0.0.1:6379/0"), RedisStore)
    assert isinstance(store_from_url("rediss://127.0.0.1:6379/0"), RedisStore)
    assert isinstance(store_from_url("unix:///made-up/redis.sock?db=0"), RedisStore)
    local = store_from_url(f"file://localhost{tmp_path}")
    assert isinstance(local, FileStore)
    assert local.directory == tmp_path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "made-up",
        "memory:x",
        "mongodb://made-up-secret",
        "file://host/made-up-secret",
        "file:made-up",
        "file:///a?b",
        "redis",
    ],
)
def test_an_invalid_url_is_a_value_error(url: str) -> None:
    """Any other URL is a ValueError that says what to write, and does not show the URL."""
    with pytest.raises(ValueError, match="store's URL is") as caught:
        store_from_url(url)
    assert "made-up-secret" not in str(caught.value)


def test_a_url_of_a_wrong_type_is_a_type_error() -> None:
    """A URL that is not a string is a TypeError."""
    with pytest.raises(TypeError):
        store_from_url(None)


def test_the_stores_are_there_on_use() -> None:
    """The package offers its stores by name, and nothing else."""
    assert stores.__all__ == ["FileStore", "RedisStore", "store_from_url"]
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = stores.Nonsense
