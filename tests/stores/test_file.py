"""The file store in one process: the record, waiting for it, and the life of a store."""

import asyncio
import os
import pwd
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import psutil
import pytest

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._failure import Failure
from apivideo_auth._record import Backoff, Busy, Changed, ClaimLost, Done, Granted, Release
from apivideo_auth._secrets import fingerprint
from apivideo_auth.stores import _file_record
from apivideo_auth.stores._base import TokenStore
from apivideo_auth.stores._file import FileSlot, FileStore
from tests.stores.file_workers import ACCOUNT, LEASE, Workers, claim, commit, ended, ignore
from tests.support.doubles import START_OF_2026, ManualClock


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    """Workers that share one folder, which does not exist yet."""
    workers = Workers(tmp_path / "tokens")
    yield workers
    await workers.close()


# The record is in a file of its own.


async def test_a_renewal_is_shared_by_all_who_open_the_folder(workers):
    """A token that one worker commits can be read, adopted and renewed by another worker with its own store."""
    one, other = workers.slot(), workers.slot(FileStore(workers.folder))
    assert await one.read() is None
    assert isinstance(await one.claim(claim("first")), Granted)
    assert await other.claim(claim("second")) == Busy(retry_after=LEASE)
    assert isinstance(await one.commit(commit("first")), Done)
    read = await other.read()
    assert read is not None
    assert (read.version, read.access, read.remaining) == ("first", b"access of first", 3600.0)
    assert await other.claim(claim("second")) == Changed(token=read)
    granted = await other.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"
    failure = Failure(kind="connection", message="down", sent=False)
    assert (
        await other.release(Release(id="second", retry_after=2.0, failure=failure, refresh=granted.refresh)) == Done()
    )
    cooling = await one.claim(claim("third", seen="first"))
    assert isinstance(cooling, Backoff)
    assert (cooling.retry_after, cooling.failure, cooling.failures) == (2.0, failure, 1)


async def test_accounts_are_kept_apart(workers):
    """Each account has its own file, named after the account."""
    await workers.slot(account="one").claim(claim("first"))
    assert isinstance(await workers.slot(account="two").claim(claim("first")), Granted)
    assert {path.name for path in workers.folder.glob("*.json")} == {"one.json", "two.json"}


@pytest.mark.parametrize("account", ["../elsewhere", "", ".", "UPPER", "a" * 101, "nul\0", "a/b", "ü"], ids=range(8))
async def test_an_account_name_that_is_not_a_file_name_is_replaced_by_its_fingerprint(workers, account):
    """No account name leads out of the folder or to another account's file."""
    await workers.slot(account=account).claim(claim("first"))
    assert [path.name for path in workers.folder.glob("*.json")] == [f"{fingerprint(account)}.json"]
    assert [path.name for path in workers.folder.parent.iterdir()] == ["tokens"]


async def test_the_record_is_dated_by_the_wall_clock(workers):
    """The wall clock is the only clock that processes share and that survives a restart of the machine."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    assert workers.record.claim_until == START_OF_2026 + workers.clock.now + LEASE


async def test_an_answer_that_changes_nothing_writes_nothing(workers):
    """The answers busy, changed and claim lost leave the file as it is."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    before = _file_record._stamp(workers.file)
    await slot.claim(claim("second"))
    await slot.read()
    await slot.release(Release(id="second"))
    assert _file_record._stamp(workers.file) == before


async def test_forgetting_deletes_the_record_and_leaves_no_token_behind(workers):
    """The record is deleted, and so is what a dead writer left; an earlier claim is void."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    workers.file.with_suffix(".new").write_bytes(b"left by a dead writer")
    await slot.forget()
    assert [path.name for path in workers.folder.iterdir()] == [f"{ACCOUNT}.lock"]
    assert (workers.folder / f"{ACCOUNT}.lock").read_bytes() == b""
    assert await slot.commit(commit("first")) == ClaimLost(token=None)
    await slot.forget()


async def test_a_directory_is_created_with_those_above_it(tmp_path):
    """The first write creates the directory, and the directories that lead to it."""
    workers = Workers(tmp_path / "above" / "tokens")
    assert isinstance(await workers.slot().claim(claim("first")), Granted)
    await workers.close()


async def test_reading_creates_no_folder(workers):
    """Reading, deleting and polling create nothing."""
    slot = workers.slot()
    assert await slot.read() is None
    await slot.forget()
    await slot.changed(0.01)
    assert not workers.folder.exists()


def test_the_default_folder_is_the_users_own(monkeypatch, tmp_path):
    """By default the records are in the user's directory for the state of programs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert FileStore().directory == platformdirs.user_state_path("apivideo-auth", appauthor=False)
    assert FileStore().directory.name == "apivideo-auth"


def test_a_relative_folder_stays_where_it_was(monkeypatch, tmp_path):
    """A program that changes its working directory later goes on with the same record."""
    monkeypatch.chdir(tmp_path)
    store = FileStore("tokens")
    monkeypatch.chdir("/")
    assert store.directory == tmp_path / "tokens"


def test_a_folder_may_start_at_home(monkeypatch, tmp_path):
    """A tilde, as in a configuration file, means the user's home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FileStore("~/tokens").directory == tmp_path / "tokens"
    assert FileStore(Path("~/tokens")).directory == tmp_path / "tokens"


@pytest.mark.parametrize(
    ("directory", "error"),
    [(1, TypeError), (b"tokens", TypeError), (True, TypeError), ("", ValueError), ("a\0b", ValueError)],
    ids=["number", "bytes", "boolean", "empty", "nul"],
)
def test_an_invalid_directory_is_refused_at_once(directory, error):
    """A directory that is not a path is a `TypeError`, an empty one or one with NUL a `ValueError`."""
    with pytest.raises(error, match="directory"):
        FileStore(directory)


def test_an_unknown_home_directory_is_an_error_that_says_what_to_do(monkeypatch):
    """A user without a home directory, or one that does not exist, is a `ValueError` at construction."""

    def unknown(_uid):
        raise KeyError

    with pytest.raises(ValueError, match="home directory in '~nosuchuser/x' is unknown: pass an absolute directory"):
        FileStore("~nosuchuser/x")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ValueError, match=r"home directory of this user is unknown: pass a directory .*or set HOME"):
        FileStore()
    for directory in (Path("~/.local/state/apivideo-auth"), Path(".local")):
        monkeypatch.setattr(platformdirs, "user_state_path", lambda *_, found=directory, **__: found)
        with pytest.raises(ValueError, match="home directory"):
            FileStore()


@pytest.mark.parametrize("package", ["filelock", "platformdirs", "cryptography"])
def test_a_missing_package_says_what_to_install(monkeypatch, package):
    """Without one of its packages the constructor raises `ImportError` with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"^a FileStore needs the package {package}: .*apivideo-auth\[file\]"):
        FileStore("tokens")


def test_it_is_a_token_store_that_needs_encryption(tmp_path):
    """A FileStore is a `TokenStore` that needs encryption, and its `repr` shows the directory."""
    store = FileStore(tmp_path)
    assert isinstance(store, TokenStore)
    assert store.needs_encryption
    assert repr(store) == f"<FileStore {str(tmp_path)!r}>"


# Waiting.


@pytest.mark.parametrize("operation", ["read", "claim", "forget"])
async def test_a_change_between_the_answer_and_the_waiting_is_not_missed(workers, operation):
    """A change between the last answer and the call of `changed` ends it."""
    slot, holder = workers.slot(), workers.slot(FileStore(workers.folder))
    await holder.claim(claim("first"))
    match operation:
        case "read":
            assert await slot.read() is None
        case "claim":
            assert await slot.claim(claim("second")) == Busy(retry_after=LEASE)
        case _:
            await slot.forget()
            await holder.claim(claim("first"))
    await holder.commit(commit("first"))
    assert await slot._has_changed()


async def test_waiting_ends_with_its_timeout(workers):
    """While the record does not change, `changed` polls the file and returns after its timeout."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    polls, has_changed = [], slot._has_changed

    async def poll() -> bool:
        polls.append(await has_changed())
        return polls[-1]

    slot._has_changed = poll
    while not polls:
        await slot.changed(0.1)
    assert not any(polls)
    await slot.changed(0.0)


async def test_waiting_for_a_first_record_begins_with_what_is_there(workers):
    """A slot without an operation waits for changes from now on; a second wait starts where the first one ended."""
    other = workers.slot(FileStore(workers.folder))
    await other.claim(claim("first"))
    slot = workers.slot()
    assert not await slot._has_changed()
    await other.commit(commit("first"))
    await asyncio.wait_for(slot.changed(LEASE), 60.0)
    assert not await slot._has_changed()


# The life of a store.


async def test_nothing_stays_open_between_operations(workers):
    """No thread and no open file is left after an operation, also if slots are still open."""
    process = psutil.Process()
    files = process.num_fds()
    one, other = workers.slot(), workers.slot(account="other")
    for number in range(3):
        await one.claim(claim(f"{number}", seen=f"{number - 1}"))
        await one.commit(commit(f"{number}"))
        await asyncio.gather(one.read(), other.read(), one.read())
        await ended()
        assert process.num_fds() == files
    await one.close()
    await one.close()
    assert (await other.read()) is None
    assert workers.record.version == "2"


async def test_a_slot_that_was_never_used_starts_nothing(workers):
    """Opening and closing a slot starts no thread and creates no folder."""
    one, other = workers.slot(), workers.slot()
    await one.close()
    await other.close()
    assert workers.store._thread._thread is None
    assert not workers.folder.exists()


def test_a_slot_may_be_opened_before_a_loop_runs(tmp_path):
    """Opening a slot does no I/O and needs no event loop; the slot belongs to the loop that uses it first."""
    slot = FileStore(tmp_path).open(ACCOUNT, clock=ManualClock(), on_commit=ignore, on_damage=pytest.fail)

    async def use() -> None:
        assert isinstance(await slot.claim(claim("first")), Granted)
        await slot.close()

    tmp_path.chmod(0o700)
    asyncio.run(use())


async def test_a_process_that_was_forked_has_a_queue_of_its_own(workers, monkeypatch):
    """A fork copies the queue of the parent, but not its thread, so the child begins with an empty queue."""
    gate = threading.Event()
    before = workers.slot()
    before._thread.submit(gate.wait)
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        after = workers.slot()
    assert isinstance(await asyncio.wait_for(after.claim(claim("first")), 60.0), Granted)
    gate.set()
    assert await before.claim(claim("second")) == Busy(retry_after=LEASE)


async def test_a_closed_slot_can_no_longer_be_used(workers):
    """After `close`, operations raise `TokenStoreError` and start nothing, and `changed` ends."""
    slot = workers.slot()
    waiting = asyncio.create_task(slot.changed(LEASE))
    await asyncio.sleep(0)
    await slot.close()
    await asyncio.wait_for(waiting, 60.0)
    with pytest.raises(TokenStoreError, match="has closed"):
        await slot.read()
    await ended()


def test_nothing_is_left_of_an_event_loop_that_was_closed(tmp_path):
    """A store can be used in a second event loop, and no thread is left of the first one, although its slot was never
    closed and an operation was going on.
    """
    store, clock = FileStore(tmp_path / "tokens"), ManualClock()

    async def renew(name: str, seen: str | None) -> None:
        slot = store.open(ACCOUNT, clock=clock, on_commit=ignore, on_damage=pytest.fail)
        assert isinstance(await slot.claim(claim(name, seen)), Granted)
        assert isinstance(await slot.commit(commit(name)), Done)
        asyncio.create_task(slot.read())  # noqa: RUF006  left behind on purpose
        await asyncio.sleep(0)

    asyncio.run(renew("first", None))
    asyncio.run(renew("second", "first"))
    asyncio.run(ended())


def test_event_loops_at_the_same_time_share_it_as_processes_do(tmp_path):
    """A commit in one thread's event loop ends `changed` in another's by polling."""
    store, clock = FileStore(tmp_path / "tokens"), ManualClock()

    async def hold() -> None:
        slot = store.open(ACCOUNT, clock=clock, on_commit=ignore, on_damage=pytest.fail)
        await slot.claim(claim("holder"))
        await slot.commit(commit("holder"))
        await slot.close()

    async def wait() -> None:
        slot = store.open(ACCOUNT, clock=clock, on_commit=ignore, on_damage=pytest.fail)
        await slot.read()
        thread = threading.Thread(target=asyncio.run, args=(hold(),))
        thread.start()
        await asyncio.wait_for(slot.changed(10.0), 60.0)
        thread.join()
        assert await slot.read() is not None
        await slot.close()

    asyncio.run(wait())
    asyncio.run(ended())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_goes_on_with_a_thread_of_its_own(tmp_path):
    """A store that was in use before a fork works in the child, as in servers that load before they fork."""
    store, clock = FileStore(tmp_path / "tokens"), ManualClock()

    async def use(name: str) -> FileSlot:
        slot = store.open(ACCOUNT, clock=clock, on_commit=ignore, on_damage=pytest.fail)
        assert isinstance(await slot.claim(claim(name)), Granted | Busy)
        return slot

    left_open = asyncio.run(use("parent"))
    child = os.fork()
    if child == 0:  # pragma: no cover  another process
        code = 1
        with suppress(BaseException):
            asyncio.run(closing(use("child")))
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(left_open.close())


async def closing(use: Any) -> None:
    """Use a slot, and close it."""
    await asyncio.wait_for((await asyncio.wait_for(use, 60.0)).close(), 60.0)


# Many at once.


async def test_two_hundred_claims_at_once_are_all_answered(workers):
    """Two hundred workers of ten stores in one process claim at once: one claim is granted, and all are answered."""
    stores = [FileStore(workers.folder) for _ in range(10)]
    slots = [workers.slot(store) for store in stores for _ in range(20)]
    answers = await asyncio.gather(*(slot.claim(claim(f"{number}")) for number, slot in enumerate(slots)))
    assert sum(isinstance(answer, Granted) for answer in answers) == 1
    assert sum(isinstance(answer, Busy) for answer in answers) == 199


async def test_the_programs_own_pool_of_threads_is_not_used(workers):
    """The store works while the program keeps all threads of the event loop's pool busy."""
    gate, loop = threading.Event(), asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, gate.wait) for _ in range(64)]
    try:
        assert isinstance(await asyncio.wait_for(workers.slot().claim(claim("first")), 60.0), Granted)
    finally:
        gate.set()
        await asyncio.gather(*busy)


@pytest.mark.real_limits
async def test_waiting_for_its_turn_does_not_count_against_the_lock(workers, monkeypatch):
    """However long an operation waited for the store's thread, it waits 70 % of its time for the lock."""
    timeouts = []
    acquire = filelock.FileLock.acquire

    def recorded_acquire(lock, timeout, **options):
        timeouts.append(timeout)
        return acquire(lock, timeout=timeout, **options)

    monkeypatch.setattr(filelock.FileLock, "acquire", recorded_acquire)
    assert isinstance(await workers.slot().claim(claim("first")), Granted)
    assert timeouts == [0.35]
    workers.store.operation_timeout = 4.0
    await workers.slot(account="another-account").read()
    assert timeouts == [0.35, 2.8]
