"""The file store with files that others can access, damaged records and failing disks."""

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import ClaimLost, Done, Granted
from apivideo_auth.stores import _file_record
from apivideo_auth.stores._file import FileStore
from apivideo_auth.stores._json import MAX_SIZE, record_to_json
from tests.stores.file_workers import ACCOUNT, LEASE, RECORD, Workers, claim, commit


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    """Workers that share one folder, which does not exist yet."""
    workers = Workers(tmp_path / "tokens")
    yield workers
    await workers.close()


# Who may see it.


async def test_files_are_the_users_alone(workers):
    """Whatever the umask is, the folder has mode 0700 and every file in it has mode 0600."""
    slot = workers.slot()
    before = os.umask(0)
    try:
        await slot.claim(claim("first"))
        modes: list[int] = []
        replace = os.replace
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", lambda a, b: (modes.append(Path(a).stat().st_mode), replace(a, b)))
            await slot.commit(commit("first"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(workers.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in workers.folder.iterdir()} == {0o600}
    assert [stat.S_IMODE(mode) for mode in modes] == [0o600]


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o750, 0o755, 0o777, 0o1777])
async def test_a_folder_that_others_can_enter_is_refused_and_left_as_it_is(workers, mode):
    """A folder that others can enter is refused, and its mode is not changed."""
    workers.folder.mkdir()
    workers.folder.chmod(mode)
    slot = workers.slot()
    for operation in (slot.claim(claim("first")), slot.read(), slot.forget()):
        with pytest.raises(TokenStoreError, match=r"others have access.*0700"):
            await operation
    assert stat.S_IMODE(workers.folder.stat().st_mode) == mode
    assert not list(workers.folder.iterdir())


async def test_modes_are_not_checked_on_a_system_without_them(workers, monkeypatch):
    """On a system without POSIX modes the bits mean nothing, and the access list of the profile protects the folder."""
    monkeypatch.setattr(_file_record, "_POSIX", False)
    workers.folder.mkdir(mode=0o755)
    slot = workers.slot()
    await slot.claim(claim("first"))
    await slot.commit(commit("first"))
    assert workers.record.version == "first"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660])
async def test_a_file_that_others_can_read_or_write_counts_as_empty(workers, mode):
    """A record that others could have read or written is not used: the next claim replaces it by one of mode 0600."""
    workers.put(record_to_json(RECORD))
    workers.file.chmod(mode)
    slot = workers.slot()
    assert await slot.read() is None
    assert stat.S_IMODE(workers.file.stat().st_mode) == mode
    granted = await slot.claim(claim("first"))
    assert isinstance(granted, Granted)
    assert granted.refresh is None
    assert len(workers.damages) == 1
    assert f"{ACCOUNT}.json has mode {mode:04o}, so others have access to it" in workers.damages[0]
    assert stat.S_IMODE(workers.file.stat().st_mode) == 0o600
    assert workers.record.claim_id == "first"


async def test_a_temporary_file_that_a_killed_process_left_is_replaced(workers):
    """What is left of an interrupted write neither stops the next one nor changes the mode of the record."""
    workers.put(b"")
    workers.file.rename(workers.file.with_suffix(".new"))
    workers.file.with_suffix(".new").chmod(0o644)
    assert isinstance(await workers.slot().claim(claim("first")), Granted)
    assert stat.S_IMODE(workers.file.stat().st_mode) == 0o600
    assert not workers.file.with_suffix(".new").exists()


async def test_another_users_folder_is_refused_and_another_users_file_counts_as_empty(workers, monkeypatch):
    """A folder that belongs to another user is not used; another user's record in it is replaced."""
    workers.put(record_to_json(RECORD))
    slot = workers.slot()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(TokenStoreError, match="another user"):
        await slot.claim(claim("first"))
    assert workers.record == RECORD
    answers = iter([owner, owner + 1])
    monkeypatch.setattr(os, "geteuid", lambda: next(answers))
    granted = await slot.claim(claim("first"))
    assert isinstance(granted, Granted)
    assert granted.refresh is None
    assert "json belongs to another user" in workers.damages[0]


async def test_a_symbolic_link_in_the_files_place_is_not_followed(workers, tmp_path):
    """A link in the record's place is neither read nor written through."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o600)
    elsewhere.write_bytes(record_to_json(RECORD))
    workers.folder.mkdir(mode=0o700)
    workers.file.symlink_to(elsewhere)
    slot = workers.slot()
    for _ in range(2):
        with pytest.raises(TokenStoreError, match="symbolic link"):
            await slot.claim(claim("first"))
    assert elsewhere.read_bytes() == record_to_json(RECORD)


async def test_a_symbolic_link_in_the_new_files_place_is_not_followed(workers, tmp_path):
    """A link in the temporary file's place is deleted and not written through."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"untouched")
    workers.folder.mkdir(mode=0o700)
    workers.file.with_suffix(".new").symlink_to(elsewhere)
    assert isinstance(await workers.slot().claim(claim("first")), Granted)
    assert elsewhere.read_bytes() == b"untouched"
    assert not workers.file.is_symlink()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
async def test_a_folder_or_a_pipe_in_the_files_place_is_refused(workers, make):
    """A folder or a pipe in the file's place is an error; opening the pipe does not block."""
    workers.folder.mkdir(mode=0o700)
    make(workers.file)
    with pytest.raises(TokenStoreError):
        await workers.slot().claim(claim("first"))


async def test_a_file_in_the_folders_place_is_refused(workers):
    """A file in the folder's place is an error, and the file stays."""
    workers.folder.write_bytes(b"a file")
    slot = workers.slot()
    with pytest.raises(TokenStoreError):
        await slot.claim(claim("first"))
    with pytest.raises(TokenStoreError, match="not a directory"):
        await slot.read()
    assert workers.folder.read_bytes() == b"a file"


# Damage.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(record_to_json(RECORD))[:-20],
        b"\x00" * 300,
        b"a foreign file",
        b"{}",
        b"[" * 100_000,
        b" " * 2_000_000,
    ],
    ids=["empty", "cut short", "zeros", "foreign", "an object", "deep", "large"],
)
async def test_a_record_that_cannot_be_read_counts_as_empty_at_once(workers, content):
    """The first claim replaces it, so that a program that runs for a second repairs it; it is reported once."""
    workers.put(content)
    slot = workers.slot()
    for _ in range(2):
        assert await slot.read() is None
    assert workers.file.read_bytes() == content
    assert isinstance(await slot.claim(claim("first")), Granted)
    assert isinstance(await slot.commit(commit("first")), Done)
    assert workers.record.version == "first"
    assert len(workers.damages) == 1
    assert "cannot be read" in workers.damages[0]
    assert "foreign file" not in workers.damages[0]


async def test_damage_is_reported_once_to_each_slot_and_again_when_it_is_another(workers):
    """Each slot reports a content once, and the same content again after the record was repaired."""
    one, other = workers.slot(), workers.slot()
    for number, content in enumerate((b"damaged", b"damaged otherwise"), start=1):
        workers.put(content)
        for slot in (one, other, one, other):
            await slot.read()
        assert len(workers.damages) == 2 * number
    await one.claim(claim("first"))
    await one.read()
    workers.put(b"damaged otherwise")
    await one.read()
    await other.read()
    assert len(workers.damages) == 5


async def test_a_record_that_becomes_accessible_is_reported_again(workers):
    """The same content has another problem if others could have changed it."""
    workers.put(b"damaged")
    slot = workers.slot()
    await slot.read()
    workers.file.chmod(0o644)
    await slot.read()
    await slot.read()
    problems = [
        "cannot be read (it is damaged, or another program or version wrote it)",
        "has mode 0644, so others have access to it",
    ]
    assert workers.damages == [f"the record {workers.file} {problem}, so it counts as empty" for problem in problems]


@pytest.mark.parametrize(("size", "is_read"), [(MAX_SIZE, True), (MAX_SIZE + 1, False), (MAX_SIZE + 1000, False)])
async def test_a_record_is_read_up_to_its_largest_size(workers, monkeypatch, size, is_read):
    """Of a file that is too large, one byte more is read, which shows that it is."""
    sizes, from_json = [], _file_record.record_from_json
    monkeypatch.setattr(_file_record, "record_from_json", lambda data: (sizes.append(len(data)), from_json(data))[1])
    workers.put(record_to_json(RECORD).ljust(size))
    token = await workers.slot().read()
    assert (token is not None) is is_read
    assert sizes == [min(size, MAX_SIZE + 1)]


async def test_a_claim_is_lost_with_a_damaged_record(workers):
    """A commit after the damage does not count, and the damaged file is left for the next claim to replace."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    workers.put(b"damaged")
    assert await slot.commit(commit("first")) == ClaimLost(token=None)
    assert workers.file.read_bytes() == b"damaged"
    assert len(workers.damages) == 1


# The disk.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
async def test_a_disk_that_fails_is_one_error_and_leaves_the_record_as_it_was(workers, monkeypatch, call, number):
    """A full, broken or read-only disk is a `TokenStoreError`; the old record stays, and no temporary file is left."""
    workers.put(record_to_json(RECORD))
    slot = workers.slot()
    await slot.read()
    real, files = getattr(os, call), psutil.Process().num_fds()

    def failing(first, *rest, **named):
        if call == "open" and not str(first).endswith(".new"):
            return real(first, *rest, **named)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(TokenStoreError, match=os.strerror(number)) as caught:
        await slot.claim(claim("first", seen="stored"))
    assert str(workers.folder) in str(caught.value)
    monkeypatch.undo()
    assert workers.record == RECORD
    assert {path.suffix for path in workers.folder.iterdir()} == {".json", ".lock"}
    assert psutil.Process().num_fds() == files
    assert isinstance(await slot.claim(claim("first", seen="stored")), Granted)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
async def test_a_file_that_cannot_be_read_is_one_error(workers, monkeypatch, number):
    """A file that cannot be read is a `TokenStoreError` each time, and is not replaced."""
    workers.put(record_to_json(RECORD))
    slot, real = workers.slot(), os.open

    def failing(path, *rest, **named):
        if str(path).endswith(".json"):
            raise OSError(number, os.strerror(number))
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", failing)
    for _ in range(2):
        with pytest.raises(TokenStoreError, match=os.strerror(number)):
            await slot.claim(claim("first"))
    monkeypatch.undo()
    assert workers.record == RECORD


async def test_a_file_system_without_locks_is_one_error(workers, monkeypatch):
    """On a file system without locks nothing is read or written: a lock that is not the kernel's is not used."""

    def flock(*_arguments):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(TokenStoreError, match=r"NotImplementedError|not implemented"):
        await workers.slot().claim(claim("first"))
    assert not workers.file.exists()


async def test_a_deleted_file_ends_changed_and_a_failed_poll_is_an_error(workers, monkeypatch):
    """Deleting the record ends `changed`; if the file cannot be polled, `changed` raises `TokenStoreError`."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    waiting = asyncio.create_task(slot.changed(LEASE))
    await workers.slot(FileStore(workers.folder)).forget()
    await asyncio.wait_for(waiting, 60.0)

    def failing(self, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "lstat", failing)
    with pytest.raises(TokenStoreError):
        await slot.changed(LEASE)
