"""The file store in several processes that compete, die, stop and go on."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Busy, Changed, Done, Granted
from tests.stores.file_workers import LEASE, Workers, claim, commit


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    """Workers that share one folder, which does not exist yet."""
    workers = Workers(tmp_path / "tokens")
    yield workers
    await workers.close()


async def test_of_many_processes_that_claim_at_once_one_is_granted(workers):
    """Four processes claim at the same moment, six times: one claim is granted each time, no refresh token
    is handed out twice, and every process gets an answer.
    """
    processes = [await workers.process() for _ in range(4)]
    given: list[str] = []
    seen = None
    for number in range(6):
        for index, process in enumerate(processes):
            process.order("claim", id=f"{number}-{index}", seen=seen)
        answers = [await process.answer() for process in processes]
        words = [answer["answer"] for answer in answers]
        assert Counter(words) == {"Granted": 1, "Busy": 3}
        holder = words.index("Granted")
        if answers[holder]["refresh"] is not None:
            given.append(answers[holder]["refresh"])
        seen = f"{number}-{holder}"
        assert (await processes[holder].does("commit", id=seen))["answer"] == "Done"
        for process in processes:
            assert (await process.does("read"))["version"] == seen
    assert len(given) == len(set(given)) == 5


async def test_a_killed_holder_is_replaced_when_its_lease_is_over(workers):
    """Until a dead holder's lease is over, claims are answered busy; then one is granted. The dead holder's refresh
    token may have been used, so it is not handed out again.
    """
    slot, holder = workers.slot(), await workers.process()
    await slot.claim(claim("first"))
    await slot.commit(commit("first"))
    assert (await holder.does("claim", id="holder", seen="first"))["refresh"] == "refresh of first"
    await holder.killed()
    workers.clock.now += LEASE - 0.25
    assert await slot.claim(claim("second", seen="first")) == Busy(retry_after=0.25)
    workers.clock.now += 0.25
    granted = await slot.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh is None


async def test_a_holder_that_was_stopped_past_its_lease_overwrites_nothing(workers):
    """A holder is stopped while its lease runs out and another worker renews. When it goes on, its commit does not
    count, and it is answered with the newer token.
    """
    slot, holder = workers.slot(), await workers.process()
    assert (await holder.does("claim", id="holder"))["answer"] == "Granted"
    holder.signal(signal.SIGSTOP)
    workers.clock.now += LEASE
    assert isinstance(await slot.claim(claim("second")), Granted)
    assert isinstance(await slot.commit(commit("second")), Done)
    before = workers.file.read_bytes()
    holder.order("commit", id="holder", now=workers.clock.now)
    holder.signal(signal.SIGCONT)
    assert await holder.answer() == {"answer": "ClaimLost", "version": "second", "refresh": None}
    assert (await holder.does("fail", id="holder"))["answer"] == "ClaimLost"
    assert workers.file.read_bytes() == before


async def test_a_writer_that_is_killed_in_the_middle_damages_nothing(workers):
    """A process dies before the new record replaces the old one: the old record is there, the lock is released, and
    the next writer deletes the temporary file.
    """
    slot, writer = workers.slot(), await workers.process()
    await slot.claim(claim("first"))
    await slot.commit(commit("first"))
    before = workers.file.read_bytes()
    writer.order("die in replace", id="writer", seen="first")
    await writer.died()
    assert workers.file.read_bytes() == before
    assert workers.file.with_suffix(".new").exists()
    granted = await slot.claim(claim("second", seen="first"))
    assert isinstance(granted, Granted)
    assert granted.refresh == b"refresh of first"
    assert {path.suffix for path in workers.folder.iterdir()} == {".json", ".lock"}


@pytest.mark.real_limits
async def test_a_process_that_stops_with_the_lock_costs_a_bounded_wait(workers):
    """Operations of other processes raise `TokenStoreError` ("busy") instead of waiting for the lock for ever, and
    their event loops are not blocked. When the process is killed, the store works again.
    """
    slot, writer = workers.slot(), await workers.process()
    await slot.claim(claim("first"))
    await slot.commit(commit("first"))
    writer.order("stall in replace", id="writer", seen="first")
    assert await writer.answer() == {"answer": "stalled"}
    rounds = 0
    reading, claiming = asyncio.create_task(slot.read()), asyncio.create_task(slot.claim(claim("second")))
    while not (reading.done() and claiming.done()):
        rounds += 1
        await asyncio.sleep(0.001)
    assert rounds > 1
    for task in (reading, claiming):
        with pytest.raises(TokenStoreError, match="busy"):
            await task
    await writer.killed()
    read = await slot.read()
    assert read is not None
    assert read.version == "first"


async def test_a_commit_of_another_process_ends_the_waiting(workers):
    """`changed` ends after another process's commit, long before the lease is over."""
    slot, holder = workers.slot(), await workers.process()
    await holder.does("claim", id="holder")
    assert await slot.claim(claim("second")) == Busy(retry_after=LEASE)
    waiting = asyncio.create_task(slot.changed(LEASE))
    assert (await holder.does("commit", id="holder"))["answer"] == "Done"
    await asyncio.wait_for(waiting, 60.0)
    assert isinstance(await slot.claim(claim("second")), Changed)


async def test_a_process_whose_clock_is_ahead_is_not_believed(workers):
    """A token that is dated in the future by more than a second counts as none, and so does such a claim: nobody knows
    when they end.
    """
    slot, ahead = workers.slot(), await workers.process()
    now = workers.clock.now
    for seconds, trusted in ((1.0, True), (1.001, False), (3600.0, False)):
        name, seen = f"{seconds}", None
        await slot.forget()
        assert (await ahead.does("claim", id=name, now=now + seconds))["answer"] == "Granted"
        assert (await ahead.does("commit", id=name, now=now + seconds))["answer"] == "Done"
        assert (await slot.read() is not None) == trusted
        answer = await slot.claim(claim("mine", seen))
        assert isinstance(answer, Changed if trusted else Granted)
    assert isinstance(await slot.commit(commit("mine")), Done)
    assert (await ahead.does("claim", id="ahead", now=now + 3600.0))["answer"] == "Granted"
    assert isinstance(await slot.claim(claim("next", "mine")), Granted)
