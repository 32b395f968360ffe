"""The file store in one process: the record, waiting for it, cancelling, and the life of a store."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs
import psutil
import pytest

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._failure import Failure
from apivideo_auth._record import Backoff, Busy, Changed, ClaimLost, Done, Granted, Release
from apivideo_auth._secrets import fingerprint
from apivideo_auth.stores._base import TokenStore
from apivideo_auth.stores._file import FileSlot, FileStore
from tests.stores.file_workers import ACCOUNT, LEASE, Workers, claim, commit, nobody, threads
from tests.support.doubles import START_OF_2026, ManualClock


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    """Workers that share one folder, which does not exist yet."""
    workers = Workers(tmp_path / "tokens")
    yield workers
    await workers.close()


# The record is in a file of its own.


async def test_a_renewal_is_shared_by_all_who_open_the_folder(workers):
    """What one worker commits, another store in another worker reads, adopts and renews."""
    one, other = workers.slot(), workers.slot(FileStore(workers.folder))
    assert await one.read() is None
    assert isinstance(await one.claim(claim("first")), Granted)
    assert await other.claim(claim("second")) == Busy(retry_after=LEASE)
    assert await one.commit(commit("first")) == Done()
    read = await other.read()
    assert read is not None
    assert (read.version, read.access, read.remaining) == ("first", b"access of first", 3600.0)
    assert await other.claim(claim("second")) == Changed(token=read)
    granted = await other.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"
    failure = Failure(kind="connection", message="down", sent=False)
    assert await other.release(Release(id="second", backoff=2.0, failure=failure, refresh=granted.refresh)) == Done()
    cooling = await one.claim(claim("third", seen="first"))
    assert cooling == Backoff(retry_after=2.0, failure=failure, failures=1, failing_for=0.0)


async def test_accounts_are_kept_apart(workers):
    """Each account has a file of its own, named by the account."""
    await workers.slot(account="one").claim(claim("first"))
    assert isinstance(await workers.slot(account="two").claim(claim("first")), Granted)
    assert {path.name for path in workers.folder.glob("*.json")} == {"one.json", "two.json"}


@pytest.mark.parametrize("account", ["../elsewhere", "", ".", "UPPER", "a" * 101, "nul\0", "a/b", "ü"])
async def test_an_account_whose_name_makes_no_file_name_is_named_by_its_fingerprint(workers, account):
    """No name leads out of the folder, nor to the file of another account."""
    await workers.slot(account=account).claim(claim("first"))
    assert [path.name for path in workers.folder.glob("*.json")] == [f"{fingerprint(account)}.json"]
    assert [path.name for path in workers.folder.parent.iterdir()] == ["tokens"]


async def test_the_record_is_dated_by_the_wall_clock(workers):
    """Processes share no other clock that a machine's restart leaves alone."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    assert workers.record.claim_until == START_OF_2026 + workers.clock.now + LEASE


async def test_an_answer_that_changes_nothing_writes_nothing(workers):
    """Those who are told to wait, adopt or cool down leave the file as it is."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    before = workers.file.stat()
    await slot.claim(claim("second"))
    await slot.read()
    await slot.release(Release(id="second"))
    assert workers.file.stat() == before


async def test_forgetting_deletes_the_record_and_leaves_no_token_behind(workers):
    """The record goes, and what a dead writer left; the account starts anew, and a claim of before is void."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    workers.file.with_suffix(".new").write_bytes(b"left by a dead writer")
    await slot.forget()
    assert [path.name for path in workers.folder.iterdir()] == [f"{ACCOUNT}.lock"]
    assert (workers.folder / f"{ACCOUNT}.lock").read_bytes() == b""
    assert await slot.commit(commit("first")) == ClaimLost(token=None)
    await slot.forget()


async def test_looking_makes_no_folder(workers):
    """Who only asks what is there, or deletes it, leaves no trace."""
    slot = workers.slot()
    assert await slot.read() is None
    await slot.forget()
    await slot.changed(0.01)
    assert not workers.folder.exists()


def test_the_default_folder_is_the_users_own(monkeypatch, tmp_path):
    """Without a directory the records are where a user's programs keep their state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert FileStore().directory == platformdirs.user_state_path("apivideo-auth", appauthor=False)
    assert FileStore().directory.name == "apivideo-auth"


def test_a_relative_folder_stays_where_it_was(monkeypatch, tmp_path):
    """A program that moves to another folder later goes on with the same record."""
    monkeypatch.chdir(tmp_path)
    store = FileStore("tokens")
    monkeypatch.chdir("/")
    assert store.directory == tmp_path / "tokens"


def test_a_folder_may_start_at_home(monkeypatch, tmp_path):
    """A tilde that no shell has replaced, as in a configuration, means the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FileStore("~/tokens").directory == tmp_path / "tokens"
    assert FileStore(Path("~/tokens")).directory == tmp_path / "tokens"


@pytest.mark.parametrize(
    ("directory", "error"),
    [(1, TypeError), (b"tokens", TypeError), (True, TypeError), ("", ValueError), ("a\0b", ValueError)],
)
def test_a_directory_that_is_none_is_refused_at_once(directory, error):
    """What cannot be a folder's path is refused at construction."""
    with pytest.raises(error, match="directory"):
        FileStore(directory)


@pytest.mark.parametrize("package", ["filelock", "platformdirs", "cryptography"])
def test_a_missing_package_says_what_to_install(monkeypatch, package):
    """Who has not installed the optional part is told at construction which one it is."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*apivideo-auth\[file\]"):
        FileStore("tokens")


def test_it_is_a_token_store_that_others_can_read(tmp_path):
    """It has the shape of a store, asks for sealed parts, and shows where it is."""
    store = FileStore(tmp_path)
    assert isinstance(store, TokenStore)
    assert store.needs_encryption
    assert repr(store) == f"<FileStore {str(tmp_path)!r}>"


# Waiting in one process.


async def test_a_commit_wakes_and_tells_the_others_of_this_process_at_once(workers):
    """A commit ends every `changed`, and is told to every other worker, but not to the one who made it."""
    told: list[str] = []
    slots = [workers.slot(on_commit=lambda name=name: told.append(name)) for name in ("holder", "one", "two")]
    elsewhere = workers.slot(account="elsewhere", on_commit=lambda: told.append("elsewhere"))
    holder = slots[0]
    await holder.claim(claim("first"))
    waiting = [asyncio.create_task(slot.changed(LEASE)) for slot in [*slots, elsewhere]]
    await asyncio.sleep(0)
    await holder.commit(commit("first"))
    holder.wake()
    await asyncio.wait_for(asyncio.gather(*waiting[:3]), 5.0)
    assert sorted(told) == ["one", "two"]
    assert not waiting[3].done()
    elsewhere.wake()
    await waiting[3]


async def test_a_failure_wakes_the_others_and_a_dropped_commit_tells_nobody(workers):
    """Who waits hears of a failed renewal at once; what did not count is no news."""
    told: list[str] = []
    holder, other = workers.slot(), workers.slot(on_commit=lambda: told.append("other"))
    await holder.claim(claim("first"))
    assert await other.claim(claim("second")) == Busy(retry_after=LEASE)
    waiting = asyncio.create_task(other.changed(LEASE))
    await holder.release(Release(id="first"))
    await asyncio.wait_for(waiting, 5.0)
    assert await holder.commit(commit("first")) == ClaimLost(token=None)
    assert not told


async def test_a_change_between_the_answer_and_the_waiting_is_not_missed(workers):
    """A commit that comes after "busy" and before `changed` ends it at once."""
    slot, holder = workers.slot(), workers.slot(FileStore(workers.folder))
    await holder.claim(claim("first"))
    assert await slot.claim(claim("second")) == Busy(retry_after=LEASE)
    await holder.commit(commit("first"))
    await asyncio.wait_for(slot.changed(LEASE), 5.0)


async def test_waiting_ends_when_it_has_lasted_long_enough(workers):
    """Without any change `changed` lasts as long as it was told to, and each look comes later than the one before."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    loop = asyncio.get_running_loop()
    looks: list[float] = []
    look = slot._file.stamp
    slot._file.stamp = lambda: looks.append(loop.time()) or look()
    began = loop.time()
    await slot.changed(0.4)
    assert loop.time() - began >= 0.4
    assert 3 <= len(looks) <= 8
    await slot.changed(0.0)


async def test_waiting_for_a_first_record_begins_with_what_is_there(workers):
    """Who has not looked yet waits for a change from now on; a second wait starts where the first one ended."""
    other = workers.slot(FileStore(workers.folder))
    await other.claim(claim("first"))
    slot = workers.slot()
    while slot._stamp is None:
        await slot.changed(0.05)
    await other.commit(commit("first"))
    await asyncio.wait_for(slot.changed(LEASE), 5.0)
    began = asyncio.get_running_loop().time()
    await slot.changed(0.03)
    assert asyncio.get_running_loop().time() - began >= 0.03


# Cancelling.


async def test_a_cancelled_claim_that_was_granted_is_given_back(workers):
    """Who is cancelled while its claim is written takes nothing along: the claim ends, its refresh token is back."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    await slot.commit(commit("first"))
    loop = asyncio.get_running_loop()
    change, reached, gate = slot._file.change, asyncio.Event(), threading.Event()

    def change_after_the_gate(*arguments):
        loop.call_soon_threadsafe(reached.set)
        gate.wait()
        return change(*arguments)

    slot._file.change = change_after_the_gate
    claiming = asyncio.create_task(slot.claim(claim("second", seen="first")))
    await reached.wait()
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    gate.set()
    granted = await slot.claim(claim("third", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"


@pytest.mark.parametrize("content", [None, b"damaged"], ids=["busy", "failed"])
async def test_a_cancelled_claim_that_was_not_granted_gives_nothing_back(workers, content):
    """Who is cancelled while it is told to wait, or that the store is broken, changes nothing for the others."""
    slot, holder = workers.slot(), workers.slot(FileStore(workers.folder))
    await holder.claim(claim("holder"))
    if content is not None:
        workers.put(content)
    before = workers.file.read_bytes()
    gate = threading.Event()
    slot._thread.submit(gate.wait)
    claiming = asyncio.create_task(slot.claim(claim("second")))
    await asyncio.sleep(0)
    job = slot._thread.submit(lambda: None)
    gate.set()
    # The claim is done, and its caller does not know yet.
    job.result()
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    await slot.close()
    assert workers.file.read_bytes() == before


async def test_a_claim_that_is_cancelled_in_the_queue_is_never_made(workers):
    """What has not begun when its caller is cancelled does not begin."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    await slot.commit(commit("first"))
    gate = threading.Event()
    slot._thread.submit(gate.wait)
    claiming = asyncio.create_task(slot.claim(claim("second", seen="first")))
    await asyncio.sleep(0)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    before = workers.file.read_bytes()
    gate.set()
    await slot.read()
    assert workers.file.read_bytes() == before


async def test_a_cancelled_commit_lands_whole(workers):
    """A commit that has begun goes on without its caller: the token that was paid for is kept, and the lock is free."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    loop = asyncio.get_running_loop()
    replace, reached, gate = slot._file._replace, asyncio.Event(), threading.Event()

    def replace_after_the_gate(data):
        loop.call_soon_threadsafe(reached.set)
        gate.wait()
        replace(data)

    slot._file._replace = replace_after_the_gate
    committing = asyncio.create_task(slot.commit(commit("first")))
    await reached.wait()
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    gate.set()
    read = await slot.read()
    assert read is not None
    assert read.version == "first"


async def test_closing_waits_for_what_was_begun(workers):
    """A commit that is being written when its worker closes is in the file when closing is over."""
    slot, other = workers.slot(), workers.slot()
    await slot.claim(claim("first"))
    committing = asyncio.create_task(slot.commit(commit("first")))
    await asyncio.sleep(0)
    await slot.close()
    assert workers.record.version == "first"
    assert await committing == Done()
    assert threads()
    await other.close()
    assert not threads()


async def test_a_cancelled_closing_still_ends_the_thread(workers):
    """Cancelling skips the waiting, not the cleaning."""
    slot = workers.slot()
    await slot.read()
    gate = threading.Event()
    slot._thread.submit(gate.wait)
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("apivideo-auth-files")]
    closing = asyncio.create_task(slot.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.set()
    thread.join(5.0)
    assert not thread.is_alive()


# The life of a store.


async def test_nothing_is_left_when_the_last_manager_has_closed(workers):
    """No thread, no open file; and the store opens again when it is used again."""
    process = psutil.Process()
    files = process.num_fds()
    for number in range(3):
        one, other = workers.slot(), workers.slot(account="other")
        assert not threads()
        await one.claim(claim(f"{number}", seen=f"{number - 1}"))
        await one.commit(commit(f"{number}"))
        await other.read()
        assert len(threads()) == 1
        await one.close()
        await one.close()
        assert len(threads()) == 1
        await other.close()
        assert not threads()
        assert process.num_fds() == files
    assert workers.record.version == "2"


async def test_a_slot_that_was_never_used_starts_and_ends_nothing(workers):
    """Opening and closing alone is no use of the store."""
    one, other = workers.slot(), workers.slot()
    await one.close()
    await other.close()
    assert not threads()
    assert not workers.folder.exists()


def test_a_slot_may_be_opened_before_a_loop_runs(tmp_path):
    """Opening does no I/O and needs no event loop; the slot works in the one that uses it first."""
    slot = FileStore(tmp_path).open(ACCOUNT, clock=ManualClock(), on_commit=nobody)

    async def use() -> None:
        assert isinstance(await slot.claim(claim("first")), Granted)
        await slot.close()

    tmp_path.chmod(0o700)
    asyncio.run(use())


async def test_a_process_that_was_forked_shares_neither_slots_nor_thread(workers, monkeypatch):
    """After a fork nothing of the other process counts: its slots are not told, its thread is not waited for."""
    told: list[str] = []
    before = workers.slot(on_commit=lambda: told.append("before"))
    await before.read()
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        after = workers.slot()
    assert after._thread is not before._thread
    await after.claim(claim("first"))
    await after.commit(commit("first"))
    assert told == []
    await before.close()


async def test_a_closed_slot_serves_no_more(workers):
    """After closing, every operation says so and starts nothing; what waits is woken."""
    slot = workers.slot()
    waiting = asyncio.create_task(slot.changed(LEASE))
    await asyncio.sleep(0.01)
    await slot.close()
    await asyncio.wait_for(waiting, 5.0)
    with pytest.raises(TokenStoreError, match="has closed"):
        await slot.read()
    assert not threads()


def test_one_event_loop_after_another_uses_the_same_store(tmp_path):
    """A store serves a second event loop, also while a slot of the first one was never closed."""
    store, clock, told = FileStore(tmp_path / "tokens"), ManualClock(), []

    async def renew(name: str, seen: str | None, *, close: bool) -> FileSlot:
        slot = store.open(ACCOUNT, clock=clock, on_commit=lambda: told.append(name))
        assert isinstance(await slot.claim(claim(name, seen)), Granted)
        assert await slot.commit(commit(name)) == Done()
        await slot.changed(0.01)
        if close:
            await slot.close()
        return slot

    left_open = asyncio.run(renew("first", None, close=False))
    asyncio.run(renew("second", "first", close=True))
    assert told == []
    assert threads()
    asyncio.run(left_open.close())
    assert not threads()


def test_event_loops_at_the_same_time_share_it_as_processes_do(tmp_path):
    """A commit in one thread's event loop ends the waiting in another's, and touches nothing there itself."""
    store, clock, told = FileStore(tmp_path / "tokens"), ManualClock(), []
    held, waiting_thread_done = threading.Event(), threading.Event()

    async def hold() -> None:
        slot = store.open(ACCOUNT, clock=clock, on_commit=lambda: told.append("holder"))
        await slot.claim(claim("holder"))
        held.set()
        await slot.commit(commit("holder"))
        await slot.close()

    async def wait() -> None:
        slot = store.open(ACCOUNT, clock=clock, on_commit=lambda: told.append("waiter"))
        await slot.read()
        thread = threading.Thread(target=asyncio.run, args=(hold(),))
        thread.start()
        await asyncio.wait_for(slot.changed(10.0), 5.0)
        thread.join()
        assert await slot.read() is not None
        await slot.close()
        waiting_thread_done.set()

    asyncio.run(wait())
    assert waiting_thread_done.is_set()
    assert told == []
    assert not threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_goes_on_with_a_thread_of_its_own(tmp_path):
    """A store that was in use before a fork works in the child, as in servers that load before they fork."""
    store, clock = FileStore(tmp_path / "tokens"), ManualClock()

    async def use(name: str) -> FileSlot:
        slot = store.open(ACCOUNT, clock=clock, on_commit=nobody)
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
    await asyncio.wait_for((await asyncio.wait_for(use, 5.0)).close(), 5.0)


# Many at once.


async def test_two_hundred_waiters_each_get_their_turn(workers):
    """Ten stores in one process, each with twenty workers, claim at once: one is granted, and nobody starves."""
    stores = [FileStore(workers.folder) for _ in range(10)]
    slots = [workers.slot(store) for store in stores for _ in range(20)]
    answers = await asyncio.gather(*(slot.claim(claim(f"{number}")) for number, slot in enumerate(slots)))
    assert sum(isinstance(answer, Granted) for answer in answers) == 1
    assert sum(isinstance(answer, Busy) for answer in answers) == 199


async def test_the_programs_own_pool_of_threads_is_not_used(workers):
    """A program that keeps the event loop's threads busy does not keep the store from working."""
    gate, loop = threading.Event(), asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, gate.wait) for _ in range(64)]
    try:
        assert isinstance(await asyncio.wait_for(workers.slot().claim(claim("first")), 5.0), Granted)
    finally:
        gate.set()
        await asyncio.gather(*busy)


def test_the_waiting_for_a_lock_leaves_time_within_the_budget_of_an_operation():
    """An operation has half a second; the disk gets a part of it."""
    assert _file_slot.PATIENCE <= 0.4
