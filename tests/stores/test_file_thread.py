"""The thread of a file store: operations run in order, are completed or never begun, and leave no thread behind."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apivideo_auth._record import Busy, Done, Granted
from apivideo_auth.stores import _file
from apivideo_auth.stores._file import FileThread
from tests.stores.file_workers import Workers, claim, commit


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    """Workers that share one folder, which does not exist yet."""
    workers = Workers(tmp_path / "tokens")
    yield workers
    await workers.close()


# Cancelling.


async def test_a_cancelled_claim_can_be_sent_again(workers):
    """A claim that is cancelled while it is written is completed; the same claim again gets the refresh token."""
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
    assert isinstance(await slot.claim(claim("third", seen="first")), Busy)
    granted = await slot.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"


async def test_a_claim_that_is_cancelled_in_the_queue_is_never_made(workers):
    """An operation that has not begun when its caller is cancelled does not begin."""
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


async def test_a_cancelled_commit_is_completed(workers):
    """A commit that has begun is completed without its caller, so that the token is kept, and the lock is released."""
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


async def test_closing_waits_for_operations_that_have_begun(workers):
    """`close` waits until a commit that is being written is in the file, and the thread has ended."""
    slot = workers.slot()
    await slot.claim(claim("first"))
    committing = asyncio.create_task(slot.commit(commit("first")))
    await asyncio.sleep(0)
    await slot.close()
    assert not slot._thread._thread.is_alive()
    assert workers.record.version == "first"
    assert isinstance(await committing, Done)


async def test_a_cancelled_closing_still_ends_the_thread(workers):
    """Cancelling `close` skips the waiting; the thread ends by itself."""
    slot = workers.slot()
    await slot.read()
    gate = threading.Event()
    slot._thread.submit(lambda: gate.wait(60))
    thread = slot._thread._thread
    closing = asyncio.create_task(slot.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.set()
    thread.join(60.0)
    assert not thread.is_alive()


async def test_an_error_that_is_not_the_stores_is_raised_and_the_thread_goes_on(workers):
    """Whatever a job raises reaches its caller, and the next job runs."""
    slot = workers.slot()
    gate = threading.Event()
    slot._thread.submit(gate.wait)
    failing = slot._thread.submit(lambda: 1 // 0)
    reading = asyncio.create_task(slot.read())
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(failing)
    assert await reading is None


# The queue.


def test_jobs_run_one_after_another_in_one_thread() -> None:
    """A job that is queued while another one runs waits for it, however long the thread has been working."""
    thread, began, gate, ran = FileThread(), threading.Event(), threading.Event(), []

    def work(number: int, *, waits: bool = False) -> None:
        ran.append((number, threading.get_ident()))
        if waits:
            began.set()
            assert gate.wait(60)

    hold = threading.Event()
    first = thread.submit(lambda: hold.wait(60))
    jobs = [thread.submit(lambda: work(1)), thread.submit(lambda: work(2, waits=True))]
    hold.set()
    assert first.result(60)
    assert began.wait(60)
    # The thread has ended two jobs, and works on the third one.
    jobs.append(thread.submit(lambda: work(3)))
    gate.set()
    for job in jobs:
        job.result(60)
    assert [number for number, _ in ran] == [1, 2, 3]
    assert len({ident for _, ident in ran}) == 1
    assert thread._thread.name == "apivideo-auth-files"


async def test_draining_waits_for_the_end_of_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the queue is drained, the thread has ended, also if that took a moment after its last job."""

    class SlowThread(threading.Thread):
        def run(self) -> None:
            super().run()
            time.sleep(0.05)

    monkeypatch.setattr(_file, "Thread", SlowThread)
    thread = FileThread()
    await thread.drain()
    thread.submit(int)
    await thread.drain()
    assert not thread._thread.is_alive()


async def test_draining_does_not_wait_for_later_jobs() -> None:
    """A job that was queued meanwhile, by another worker, holds neither the drain nor the event loop up."""
    thread, gate, later = FileThread(), threading.Event(), threading.Event()
    thread.submit(lambda: gate.wait(60))
    draining = asyncio.create_task(thread.drain())
    await asyncio.sleep(0)
    job = thread.submit(lambda: later.wait(60))
    gate.set()
    await draining
    later.set()
    assert await asyncio.wrap_future(job)
