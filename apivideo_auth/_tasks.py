"""Starting tasks in an empty context, waiting for their end, and telling an interruption from a failure."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar

GRACE_STEPS: Final = 20
"""Steps of the event loop in which a result still counts that came late because the loop was blocked."""

_T = TypeVar("_T")


def start(work: Coroutine[Any, Any, _T], *, name: str, on_done: Callable[[], object] | None = None) -> asyncio.Task[_T]:
    """Start a task in an empty context, because it may outlive the request that caused it.

    It begins after the caller's next `await`, with an eager task factory too. With `on_done`, asyncio does not report
    an exception that nobody has retrieved: the event loop raises an interruption of the program anyway.
    """
    # The class, because `loop.create_task` would ask the factory.
    task = asyncio.Task(work, loop=asyncio.get_running_loop(), name=name, context=Context())
    if on_done is not None:
        task.add_done_callback(lambda done: done.cancelled() or done.exception(), context=Context())
        task.add_done_callback(lambda _task: on_done(), context=Context())
    return task


def is_interruption(error: BaseException, task: "asyncio.Task[Any] | None") -> bool:
    """Return whether an exception that `task` has met means that the task or the program ends.

    Otherwise foreign code has raised it by itself, and it is a failure like any other.
    """
    if isinstance(error, asyncio.CancelledError):
        return task is None or task.cancelling() > 0
    if isinstance(error, GeneratorExit):
        # A coroutine that is closed with its event loop does not run in its task any more.
        try:
            return asyncio.current_task() is not task
        except RuntimeError:
            return True
    return isinstance(error, KeyboardInterrupt | SystemExit)


async def finish(task: asyncio.Task[Any], *, within: float | None = None) -> bool:
    """Wait until a task has ended, for `within` seconds at most; return whether it has.

    If the caller is cancelled meanwhile, this goes on waiting and raises `CancelledError` at the end.
    """
    loop = asyncio.get_running_loop()
    give_up_at = None if within is None else loop.time() + within
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (give_up_at is None or loop.time() < give_up_at):
        try:
            await asyncio.wait({task}, timeout=None if give_up_at is None else give_up_at - loop.time())
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.done()


async def run_to_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Run something to its end, although the caller may be cancelled meanwhile; return its result."""
    task = start(work, name="apivideo-auth-operation")
    await finish(task)
    return task.result()


async def within(seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of something that may take `seconds`; cancel it and raise `TimeoutError` after that."""
    task = start(work, name="apivideo-auth-timed-operation")
    try:
        await asyncio.wait({task}, timeout=seconds)
        for _ in range(GRACE_STEPS):
            if task.done():
                return task.result()
            await asyncio.sleep(0)
    finally:
        if not task.done():
            task.cancel()
            await finish(task, within=seconds)
    if task.done() and not task.cancelled():
        return task.result()
    raise TimeoutError(f"no answer within {seconds:g} seconds")
