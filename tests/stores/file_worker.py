"""A process that carries out orders with a FileStore, line by line: for tests that need more than one process.

Reads one JSON object per line: `op` (a method of the slot, or one of the words below), `now` (seconds, by a clock that
stands still in between), and the event's own fields. Answers each with one line: the class of the answer, or of the
error, and the fields of the answer.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from apivideo_auth._errors import TokenStoreError
from apivideo_auth._record import Claim, Commit, Release
from apivideo_auth.stores._file import FileStore
from tests.support.doubles import ManualClock


def write(**answer: Any) -> None:
    """Write one answer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def die(*_: object) -> NoReturn:
    """Die as if killed, without cleanup."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def stall(*_: object) -> None:
    """Write "stalled", and block until the next line comes."""
    write(answer="stalled")
    sys.stdin.readline()


async def main() -> None:
    """Carry out orders until standard input ends."""
    clock = ManualClock()
    slot = FileStore(Path(sys.argv[1])).open(sys.argv[2], clock=clock, on_commit=int, on_damage=print)
    write(answer="ready")
    for line in sys.stdin:
        order = json.loads(line)
        operation, clock.now = order.pop("op"), order.pop("now", clock.now)
        if operation == "die in replace":
            os.replace = die
            operation = "claim"
        elif operation == "stall in replace":
            os.replace = stall
            operation = "claim"
        try:
            match operation:
                case "claim":
                    answer: Any = await slot.claim(Claim(lease=15.0, seen=order.pop("seen", None), **order))
                case "commit":
                    name = order["id"]
                    answer = await slot.commit(
                        Commit(
                            id=name,
                            access=f"access of {name}".encode(),
                            refresh=f"refresh of {name}".encode(),
                            lifetime=3600.0,
                            remaining=3600.0,
                        )
                    )
                case "fail":
                    answer = await slot.release(Release(**order))
                case _:
                    answer = await slot.read()
        except TokenStoreError as error:
            write(answer="TokenStoreError", text=str(error))
            continue
        token = getattr(answer, "token", answer if operation == "read" else None)
        refresh = getattr(answer, "refresh", None)
        write(
            answer=type(answer).__name__,
            version=token and token.version,
            refresh=refresh and refresh.decode(),
        )
    await slot.close()


if __name__ == "__main__":
    asyncio.run(main())
