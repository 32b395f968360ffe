"""examples/upload.py: uploads that outlive tokens, revocations and failures."""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest

from apivideo_auth import TokenManager
from apivideo_auth.emulator import Emulator, Fault, RateLimits

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "upload.py"
CHUNK = 100_000
SIZE = 950_000
PARTS = 10


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program as a module, which does not pause between two attempts."""
    spec = importlib.util.spec_from_file_location("upload_example", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, "upload_example", module)
    spec.loader.exec_module(module)
    module.FIRST_PAUSE = module.LONGEST_PAUSE = 0
    return module


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    """A local api.video."""
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of ten chunks, the last of which is smaller."""
    path = tmp_path / "holidays.mp4"
    path.write_bytes(os.urandom(SIZE))
    return path


@asynccontextmanager
async def session(server: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    """An authenticated session, whose manager lives by the server's clock."""
    async with TokenManager(server.api_key, base_url=server.url, clock=server.clock) as tokens:
        async with tokens.session() as opened:
            yield opened


def arrived(server: Emulator) -> int:
    """Return how many chunks have arrived."""
    return sum(call.path.endswith("/source") and call.outcome == "served" for call in server.calls)


async def test_all_chunks_arrive(example: ModuleType, server: Emulator, file: Path) -> None:
    """Each chunk is sent once, progress ends at the size of the file, and no state is left."""
    progress: list[int] = []
    async with session(server) as opened:
        video_id = await example.upload(
            opened, file, base_url=server.url, chunk=CHUNK, parallel=3, on_progress=progress.append
        )
        async with opened.get(f"/videos/{video_id}") as response:
            assert (await response.json())["title"] == "holidays"
    assert (arrived(server), progress[-1]) == (PARTS, SIZE)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


async def test_an_empty_file_is_one_chunk(example: ModuleType, server: Emulator, tmp_path: Path) -> None:
    """A file without bytes is sent as one chunk without bytes."""
    path = tmp_path / "empty.mp4"
    path.touch()
    async with session(server) as opened:
        await example.upload(opened, path, base_url=server.url)
    assert arrived(server) == 1


async def test_the_number_of_chunks_in_flight_is_bounded(
    example: ModuleType, server: Emulator, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more than `parallel` chunks are sent at a time."""
    running, most, post = 0, 0, example.post

    async def counted(*arguments: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await post(*arguments)
        running -= 1

    monkeypatch.setattr(example, "post", counted)
    async with session(server) as opened:
        await example.upload(opened, file, base_url=server.url, chunk=CHUNK, parallel=3)
    assert (most, arrived(server)) == (3, PARTS)


@pytest.mark.parametrize("parallel", [1, 4])
async def test_it_outlives_several_tokens_and_a_revocation(
    example: ModuleType, server: Emulator, file: Path, parallel: int
) -> None:
    """Half an hour passes with each chunk, and the tokens are revoked in the middle: every chunk arrives once."""
    seen: set[int] = set()

    def on_progress(_sent: int) -> None:
        for number in range(arrived(server)):
            if number not in seen:
                seen.add(number)
                server.advance(1800)
                if number == PARTS // 2:
                    server.revoke_all()

    async with session(server) as opened:
        await example.upload(opened, file, base_url=server.url, chunk=CHUNK, parallel=parallel, on_progress=on_progress)
    assert arrived(server) == PARTS
    renewals = [call.path for call in server.calls if call.path.startswith("/auth")]
    assert renewals[0] == "/auth/api-key"
    assert len(renewals) >= 3
    assert set(renewals[1:]) == {"/auth/refresh"}


async def test_a_revoked_token_costs_no_attempt(
    example: ModuleType, server: Emulator, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session sends a chunk again in full after a 401; the program does not notice."""
    monkeypatch.setattr(example, "ATTEMPTS", 1)

    def on_progress(_sent: int) -> None:
        if arrived(server) == 3 and not any(call.status == 401 for call in server.calls):
            server.advance(2)
            server.revoke_all()

    async with session(server) as opened:
        await example.upload(opened, file, base_url=server.url, chunk=CHUNK, parallel=1, on_progress=on_progress)
    assert arrived(server) == PARTS
    assert sum(call.status == 401 for call in server.calls) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 503}, id="unavailable"),
        pytest.param({"status": 429, "headers": {"X-RateLimit-Retry-After": "7"}}, id="limited"),
        pytest.param({"reset": "before"}, id="broken connection"),
        pytest.param({"reset": "after"}, id="lost response"),
    ],
)
async def test_a_chunk_that_fails_is_sent_again(
    example: ModuleType, server: Emulator, file: Path, fault: dict[str, object]
) -> None:
    """A chunk whose request failed is sent again; one that has arrived although its response was lost counts."""

    def on_progress(sent: int) -> None:
        if sent and not injected:
            injected.append(sent)
            server.inject(Fault(on="/videos", times=3, **fault))

    injected: list[int] = []
    async with session(server) as opened:
        await example.upload(opened, file, base_url=server.url, chunk=CHUNK, parallel=2, on_progress=on_progress)
    assert arrived(server) == PARTS


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [
        (429, {"X-RateLimit-Retry-After": "7"}, 7),
        (429, {"Retry-After": "8"}, 8),
        (503, {"Retry-After": "9", "X-RateLimit-Retry-After": "50"}, 9),
        (503, {"Retry-After": "a while"}, 0),
        (503, {"Retry-After": "3600"}, 60),
    ],
)
async def test_it_waits_as_long_as_the_server_asks(  # noqa: PLR0917
    example: ModuleType,
    server: Emulator,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    pause: float,
) -> None:
    """The next attempt comes after the server's pause, which is bounded. The end of the minute counts after a 429."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    example.LONGEST_PAUSE = 60
    monkeypatch.setattr(example.asyncio, "sleep", sleep)
    async with session(server) as opened:
        begun = await example.begin(opened, file, server.url, "Made up", CHUNK)
        server.inject(Fault(on="/videos", status=status, headers=headers))
        await example.send(opened, begun, 0, file.name, example.Chunk(b"made up", lambda _size: None))
    assert pauses == [pause]


async def failing(
    example: ModuleType, server: Emulator, file: Path, after: int, begin: Callable[[], object], **options: object
) -> None:
    """Upload a file; when `after` chunks have arrived, `begin` makes the upload fail."""

    def on_progress(_sent: int) -> None:
        if arrived(server) >= after and not begun:
            begun.append(begin())

    begun: list[object] = []
    async with session(server) as opened:
        await example.upload(opened, file, base_url=server.url, chunk=CHUNK, on_progress=on_progress, **options)


@pytest.mark.parametrize("parallel", [1, 3])
async def test_it_resumes_after_a_failure(example: ModuleType, server: Emulator, file: Path, parallel: int) -> None:
    """After a failure the same call sends the missing chunks only, of the same size, to the same video."""
    outage = Fault(on="/videos", status=503, times=None)
    with pytest.raises(example.UploadError, match="503"):
        await failing(example, server, file, 4, lambda: server.inject(outage), parallel=parallel)
    before = arrived(server)
    assert 4 <= before < PARTS
    server.clear_faults()
    progress: list[int] = []
    async with session(server) as opened:
        # Another chunk size would not fit to the chunks that have arrived, and is not used.
        await example.upload(opened, file, base_url=server.url, chunk=CHUNK * 2, on_progress=progress.append)
    assert arrived(server) == PARTS
    assert progress[0] >= before * CHUNK - CHUNK
    assert progress[-1] == SIZE
    assert [call.path for call in server.calls].count("/videos") == 1


async def test_it_resumes_after_a_cancellation(example: ModuleType, server: Emulator, file: Path) -> None:
    """A cancelled upload leaves no task behind, and resumes."""
    tasks: list[asyncio.Task[None]] = []
    before = asyncio.all_tasks()
    tasks.append(asyncio.create_task(failing(example, server, file, 2, lambda: tasks[0].cancel())))  # noqa: PLW0108  it does not exist yet
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert not [task for task in asyncio.all_tasks() - before if "send_missing_parts" in repr(task)]
    async with session(server) as opened:
        await example.upload(opened, file, base_url=server.url)
    assert arrived(server) == PARTS


async def test_a_rejected_key_fails_at_once(example: ModuleType, server: Emulator, file: Path) -> None:
    """An error that a retry cannot cure is raised as it is, without another attempt."""

    def begin() -> None:
        server.advance(3600)
        server.inject(Fault(on="/auth", status=400, times=None))

    with pytest.raises(aiohttp.ClientError, match="API key"):
        await failing(example, server, file, 2, begin, parallel=1)
    assert arrived(server) == 2


async def test_a_rejected_chunk_says_why(example: ModuleType, server: Emulator, file: Path) -> None:
    """A 400 is not retried, and its title is in the error."""
    async with session(server) as opened:
        begun = await example.begin(opened, file, server.url, "Made up", CHUNK)
        chunk = example.Chunk(b"made up", lambda _size: None)
        with pytest.raises(example.UploadError, match="higher than the total"):
            await example.send(opened, begun, PARTS, file.name, chunk)
        with pytest.raises(example.UploadError, match="cannot be created: 400"):
            await example.begin(opened, file, server.url, None, CHUNK)


async def test_it_keeps_the_limits_of_the_account(example: ModuleType, file: Path) -> None:
    """A 429 of the rate limit is waited for, here by a clock that moves at once."""
    async with Emulator(limits=RateLimits(uploads=4, writes=4, reads=4)) as server:

        def on_progress(_sent: int) -> None:
            if server.calls[-1].status == 429:
                server.advance(60)

        async with session(server) as opened:
            await example.upload(opened, file, base_url=server.url, chunk=CHUNK, parallel=1, on_progress=on_progress)
        assert arrived(server) == PARTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, _state: file.write_bytes(b"another"), "has changed since"),
        (lambda _file, state: state.write_text("{"), "damaged"),
        (lambda _file, state: state.write_text('{"video_id": "made up"}'), "damaged"),
        (
            lambda _file, state: state.write_text(
                json.dumps(json.loads(state.read_text()) | {"base_url": "https://ws.api.video"})
            ),
            "begun at https://ws.api.video",
        ),
    ],
)
async def test_what_cannot_be_resumed_is_an_error(
    example: ModuleType, server: Emulator, file: Path, change: Callable[[Path, Path], object], message: str
) -> None:
    """A changed file, a damaged state and another account are refused, with the way out; nothing is sent."""
    state = file.with_name("holidays.mp4.upload.json")
    async with session(server) as opened:
        (await example.begin(opened, file, server.url, "Made up", CHUNK)).save(state)
        change(file, state)
        calls = len(server.calls)
        with pytest.raises(example.UploadError, match=message) as caught:
            await example.upload(opened, file, base_url=server.url)
    assert f"delete {state}" in str(caught.value)
    assert len(server.calls) == calls


async def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run the program; return its exit code and outputs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APIVIDEO_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(PROGRAM), *arguments),
        cwd=ROOT,
        env=environment | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_program_resumes(server: Emulator, tmp_path: Path) -> None:
    """A run that fails says why in one line, and the next one completes the upload and prints the video's id."""
    path = tmp_path / "large.mp4"
    path.touch()
    os.truncate(path, 12 * 2**20)
    variables = {"APIVIDEO_API_KEY": server.api_key, "APIVIDEO_BASE_URL": server.url}
    # Creating the video and the first chunk succeed.
    server.inject(Fault(on="/videos", delay=0.001, times=2), Fault(on="/videos", status=404, times=None))
    arguments = (str(path), "--title", "Made up", "--chunk", "5", "--parallel", "1")
    code, out, err = await run(*arguments, **variables)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("upload.py: api.video rejected chunk 2 of 3: 404 ")
    server.clear_faults()
    code, out, err = await run(*arguments, **variables)
    assert (code, out[:2], out.count("\n")) == (0, "vi", 1), err
    assert "12,582,912 bytes with 1 token, 0 requests sent again" in err
    assert arrived(server) == 3


async def test_the_program_shows_a_revocation(tmp_path: Path) -> None:
    """Without an API key the upload goes to a local server, which revokes its tokens in the middle."""
    path = tmp_path / "large.mp4"
    path.touch()
    os.truncate(path, 20 * 2**20)
    code, out, err = await run(str(path), "--chunk", "5", "--parallel", "1")
    assert (code, out[:2]) == (0, "vi"), err
    assert "20,971,520 bytes" in err
    assert [*tmp_path.iterdir()] == [path]  # noqa: ASYNC240  a directory of the test


async def test_the_program_explains_itself(tmp_path: Path) -> None:
    """`--help` names the options; wrong ones, and a missing file, are an error of one line."""
    code, out, _ = await run("--help")
    assert (code, "--parallel" in out, "--chunk" in out) == (0, True, True)
    code, _, err = await run(str(tmp_path / "missing.mp4"))
    assert (code, err.splitlines()[-1].endswith("missing.mp4 is not a file")) == (2, True)
    code, _, err = await run(str(PROGRAM), "--chunk", "4")
    assert (code, "invalid choice" in err) == (2, True)
    code, _, err = await run(str(PROGRAM), APIVIDEO_API_KEY="your-api-key")
    assert (code, len(err.splitlines())) == (1, 1), err
