"""A thread for the blocking work of a store."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Answer = TypeVar("_Answer")


class Worker:
    """One thread, started by the first job, that does the jobs one after another, in the order they were handed in.

    A thread of its own, and not the event loop's pool: that one belongs to the program, which may have filled it with
    work that takes long, and it has no order, in which a cancelled job can be followed by what undoes it. One thread
    is enough: a job takes about a millisecond, and jobs on one file could not run side by side anyway.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, job: Callable[[], _Answer]) -> "Future[_Answer]":
        """Hand in a job."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="apivideo-auth-files")
        return self._thread.submit(job)

    async def drain(self) -> None:
        """Return when every job that was handed in is done."""
        if self._thread is not None:
            await asyncio.wrap_future(self._thread.submit(_nothing))

    async def stop(self) -> None:
        """End the thread after what was handed in; another job starts another. Cancelling skips the waiting only."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        idle = False
        try:
            await asyncio.wrap_future(thread.submit(_nothing))
            idle = True
        finally:
            # Waiting for an idle thread takes no time, and then it is really gone.
            thread.shutdown(wait=idle)


def _nothing() -> None:
    """Do nothing, in turn."""
