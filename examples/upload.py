"""Upload a large file to api.video: in chunks, several at a time, with a progress bar, and resumable.

    APIVIDEO_API_KEY=… python examples/upload.py holidays.mp4    # production, or APIVIDEO_BASE_URL
    python examples/upload.py holidays.mp4                       # no key: a local api.video, with a revocation

The upload may take longer than a token lives. Each chunk is sent with the token that is current at that moment, and is
sent again in full if the API rejects that token. After a failure or Ctrl-C the same command resumes the upload: the
file holidays.mp4.upload.json lists the chunks that have arrived, and is deleted when the upload is complete.

Needs `pip install 'apivideo-auth[cli]'`, for rich. The id of the video goes to standard output.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator, Fault
from apivideo_auth.events import Event, TokenAdopted, TokenRejected, TokenRenewed

MEBIBYTE = 2**20
MIN_CHUNK, MAX_CHUNK = 5, 128
"""MiB. api.video's limits; the last chunk may be smaller."""
ATTEMPTS = 8
"""How often a chunk is sent before the upload fails."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts. The pause doubles from attempt to attempt, and is random up to that bound."""
TIMEOUT = aiohttp.ClientTimeout(total=3600, sock_connect=30, sock_read=300)
"""Of one chunk. aiohttp's default of five minutes is too short for a large chunk on a slow line."""

CREATED = 201
ALREADY_THERE = ("part-already-sent", "video-source-already-uploaded")
"""The ends of an error's `type` that mean: this chunk has arrived, and its response was lost."""
UNAUTHORIZED, TIMED_OUT, TOO_MANY_REQUESTS, SERVER_ERROR = 401, 408, 429, 500


class UploadError(Exception):
    """api.video does not accept the upload, or it cannot be resumed."""


class TryAgainError(UploadError):
    """A chunk was not accepted, and may be later: after `retry_after` seconds, if that is known."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


# The upload. This part can be copied into a service.


@dataclass
class Upload:
    """An upload that has begun. It is kept in a file between two runs."""

    base_url: str
    video_id: str
    size: int
    modified: int
    chunk: int
    arrived: list[int] = field(default_factory=list)

    @property
    def parts(self) -> int:
        """The number of chunks."""
        return max(1, -(-self.size // self.chunk))

    def span(self, part: int) -> tuple[int, int]:
        """Return the first byte of a chunk, and its size."""
        first = part * self.chunk
        return first, min(self.chunk, self.size - first)

    def save(self, state: Path) -> None:
        """Write the file that a later run resumes from. A crash leaves the old file or the new one."""
        temporary = state.with_name(f"{state.name}.tmp")
        temporary.write_text(json.dumps(asdict(self)), "utf-8")
        temporary.replace(state)


class Chunk(aiohttp.BytesPayload):
    """A chunk as the body of a request: it reports its progress, and can be sent again in full.

    A subclass of `BytesPayload` is sent again after a 401. A file or a generator would not be.
    """

    def __init__(self, data: bytes, on_progress: Callable[[int], object]) -> None:
        with warnings.catch_warnings():
            # aiohttp warns that large bytes block the event loop. They are written piece by piece below.
            warnings.simplefilter("ignore", ResourceWarning)
            super().__init__(data)
        self._data = memoryview(data)
        self._on_progress = on_progress

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the chunk, from its beginning each time."""
        self._on_progress(0)
        for first in range(0, len(self._data), 2**16):
            await writer.write(self._data[first : first + 2**16])
            self._on_progress(min(first + 2**16, len(self._data)))


async def upload(  # noqa: PLR0913  each has a default
    session: aiohttp.ClientSession,
    path: Path,
    *,
    base_url: str,
    title: str | None = None,
    chunk: int = 32 * MEBIBYTE,
    parallel: int = 4,
    state: Path | None = None,
    on_progress: Callable[[int], object] = lambda _sent: None,
) -> str:
    """Upload a file with a session of `TokenManager.session()`, and return the id of its video.

    - `chunk`: bytes. Up to `parallel` chunks are in memory at a time.
    - `state`: the file that a later call resumes from; by default beside `path`.
    - `on_progress`: gets the number of bytes that have been sent and not rejected.

    Raises `UploadError`, `aiohttp.ClientError` (an `AuthError` is one too), `TimeoutError` or `OSError`. Then the same
    call resumes the upload.
    """
    state = path.with_name(f"{path.name}.upload.json") if state is None else state
    begun = resume(state, path, base_url) or await begin(session, path, base_url, title or path.stem, chunk)
    begun.save(state)
    sent = {part: begun.span(part)[1] for part in begun.arrived}
    missing = iter(sorted(set(range(begun.parts)) - set(begun.arrived)))

    def progress(part: int, size: int) -> None:
        sent[part] = size
        on_progress(sum(sent.values()))

    async def send_missing_parts() -> None:
        for part in missing:
            data = await asyncio.to_thread(read, path, *begun.span(part))
            await send(session, begun, part, path.name, Chunk(data, partial(progress, part)))
            begun.arrived.append(part)
            begun.save(state)

    workers = [asyncio.create_task(send_missing_parts()) for _ in range(min(parallel, begun.parts))]
    try:
        await asyncio.gather(*workers)
    finally:
        # After the first failure, or if this call was cancelled.
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    state.unlink(missing_ok=True)
    return begun.video_id


def resume(state: Path, path: Path, base_url: str) -> Upload | None:
    """Return the upload that an earlier run has begun, if there is one."""
    try:
        begun = Upload(**json.loads(state.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UploadError(f"{state} is damaged; delete {state} to upload from the beginning") from None
    if begun.base_url != base_url:
        raise UploadError(f"the upload was begun at {begun.base_url}; delete {state} to upload from the beginning")
    if (begun.size, begun.modified) != (path.stat().st_size, path.stat().st_mtime_ns):
        raise UploadError(
            f"{path} has changed since it was uploaded in part; delete {state} to upload from the beginning"
        )
    return begun


async def begin(session: aiohttp.ClientSession, path: Path, base_url: str, title: str, chunk: int) -> Upload:
    """Create the video."""
    async with session.post("/videos", json={"title": title}) as response:
        if response.status != CREATED:
            raise UploadError(f"the video cannot be created: {response.status} {response.reason}")
        document = await response.json()
    stat = await asyncio.to_thread(path.stat)
    return Upload(base_url, document["videoId"], stat.st_size, stat.st_mtime_ns, chunk)


def read(path: Path, first: int, size: int) -> bytes:
    """Return `size` bytes of a file."""
    with path.open("rb") as file:
        file.seek(first)
        data = file.read(size)
    if len(data) != size:
        raise UploadError(f"{path} has changed during the upload")
    return data


async def send(session: aiohttp.ClientSession, begun: Upload, part: int, name: str, chunk: Chunk) -> None:
    """Send a chunk, several times if necessary."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await post(session, begun, part, name, chunk)
        except (aiohttp.ClientError, TimeoutError, TryAgainError) as error:
            # An AuthError has both attributes: why there is no token, and how long to wait for one.
            if attempt == ATTEMPTS or not getattr(error, "retryable", True):
                raise
            wait: float = getattr(error, "retry_after", None) or 0.0
        else:
            return
        pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * random.random()  # noqa: S311  not a secret
        await asyncio.sleep(max(pause, min(wait, LONGEST_PAUSE)))


async def post(session: aiohttp.ClientSession, begun: Upload, part: int, name: str, chunk: Chunk) -> None:
    """Send a chunk once."""
    form = aiohttp.MultipartWriter("form-data")
    form.append_payload(chunk).set_content_disposition("form-data", name="file", filename=name)
    headers = {"Content-Range": f"part {part + 1}/{begun.parts}"}
    url = f"/videos/{begun.video_id}/source"
    async with session.post(url, data=form, headers=headers, timeout=TIMEOUT) as response:
        status = response.status
        if status == CREATED:
            return
        if status in (UNAUTHORIZED, TIMED_OUT, TOO_MANY_REQUESTS) or status >= SERVER_ERROR:
            wait = response.headers.get("Retry-After")
            if status == TOO_MANY_REQUESTS:
                # Other responses have this header too: it says when the current minute ends.
                wait = response.headers.get("X-RateLimit-Retry-After", wait)
            seconds = float(wait) if wait is not None and wait.isdecimal() else None
            raise TryAgainError(f"api.video did not accept chunk {part + 1} of {begun.parts}: {status}", seconds)
        try:
            document = await response.json(content_type=None)
            problem, title = str(document["type"]), str(document["title"])
        except (ValueError, TypeError, KeyError):
            problem, title = "", ""
        if not problem.endswith(ALREADY_THERE):
            raise UploadError(f"api.video rejected chunk {part + 1} of {begun.parts}: {status} {title}")


# The program.


@dataclass
class Counts:
    """What happened to the tokens during the upload."""

    tokens: int = 0
    replayed: int = 0

    def on_event(self, event: Event) -> None:
        """Count new tokens, and requests that were sent again."""
        self.tokens += isinstance(event, TokenRenewed | TokenAdopted)
        self.replayed += isinstance(event, TokenRejected) and event.replayed


@asynccontextmanager
async def account(counts: Counts) -> AsyncIterator[tuple[TokenManager, Emulator | None]]:
    """Open a manager for the account in the environment, or for a local server if there is no API key."""
    if os.environ.get("APIVIDEO_API_KEY"):
        async with TokenManager.from_env(on_event=counts.on_event) as tokens:
            yield tokens, None
    else:
        async with Emulator(ttl=2) as server:
            # As slow as a long way, so that the upload outlives several tokens.
            server.inject(Fault(on="/videos", delay=0.5, times=None))
            async with TokenManager(server.api_key, base_url=server.url, on_event=counts.on_event) as tokens:
                yield tokens, server


async def main() -> None:
    """Upload the file of the command line."""
    options = parse()
    counts, size = Counts(), options.file.stat().st_size
    async with account(counts) as (tokens, server), tokens.session() as session:
        with tempfile.TemporaryDirectory() as temporary, bar() as progress:
            task = progress.add_task(options.file.name, total=size)

            def on_progress(sent: int) -> None:
                progress.update(task, completed=sent)
                if server is not None and sent > size // 2 and not revoked:
                    revoked.append(sent)
                    server.revoke_all()

            revoked: list[int] = []
            video_id = await upload(
                session,
                options.file,
                base_url=tokens.base_url,
                title=options.title,
                chunk=options.chunk * MEBIBYTE,
                parallel=options.parallel,
                # The local server forgets the video, so that there is nothing to resume.
                state=None if server is None else Path(temporary) / "state.json",
                on_progress=on_progress,
            )
    used = f"{counts.tokens} token{'s' if counts.tokens != 1 else ''}"
    print(f"{tokens.base_url}: {size:,} bytes with {used}, {counts.replayed} requests sent again", file=sys.stderr)
    print(video_id)


def bar() -> Progress:
    """Return the progress bar. It shows on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="the file to upload")
    parser.add_argument("--title", help="the title of the video (default: the name of the file)")
    parser.add_argument(
        "--chunk",
        type=int,
        default=32,
        metavar="MIB",
        choices=range(MIN_CHUNK, MAX_CHUNK + 1),
        help=f"size of a chunk in MiB, {MIN_CHUNK} to {MAX_CHUNK} (default: %(default)s)",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        default=4,
        metavar="NUMBER",
        choices=range(1, 17),
        help="chunks that are sent, and kept in memory, at a time, 1 to 16 (default: %(default)s)",
    )
    options = parser.parse_args()
    if not options.file.is_file():
        parser.error(f"{options.file} is not a file")
    return options


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("upload.py: interrupted; the same command resumes the upload", file=sys.stderr)
        sys.exit(130)
    except (aiohttp.ClientError, UploadError, OSError, ValueError) as error:
        # An AuthError is a ClientError, and says what to do. A missing or invalid setting is a ValueError.
        sys.exit(f"upload.py: {str(error) or type(error).__name__}")
