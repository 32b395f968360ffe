"""Finding the file in a multipart body and counting its bytes, with aiohttp's reader."""

import asyncio
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import assume, given
from hypothesis import strategies as st

from apivideo_auth.emulator._messages import Problem
from apivideo_auth.emulator._uploads import count_file
from tests.emulator.properties import repeatable

FILE = b'Content-Disposition: form-data; name="file"; filename="f.mp4"\r\nContent-Type: video/mp4\r\n\r\n'
PLAIN = b'Content-Disposition: form-data; name="videoId"\r\n\r\nvi0'
NESTED = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n" + FILE + b"1234\r\n--c--\r\n"


async def count(body: bytes, pieces: int | None = None, limit: int = 10**9) -> int:
    """Count the file in a body that arrives in pieces of a size."""
    payload = aiohttp.StreamReader(Mock(_reading_paused=False), limit=2**16, loop=asyncio.get_running_loop())
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    counting = asyncio.create_task(count_file(make_mocked_request("POST", "/", headers, payload=payload), limit))
    step = max(1, len(body) if pieces is None else pieces)
    for start in range(0, len(body), step):
        payload.feed_data(body[start : start + step])
        await asyncio.sleep(0)
    payload.feed_eof()
    return await counting


@repeatable
@given(
    content=st.lists(st.sampled_from([b"\r\n", b"--", b"-", b"\r", b"\n--", b"b", b"\r\n-", b"\r\n--", b"xyz"])).map(
        b"".join
    ),
    preamble=st.sampled_from([b"", b"preamble\r\n", b"\r\n"]),
    fields=st.integers(0, 3),
    pieces=st.integers(1, 40),
)
async def test_the_bytes_are_counted_wherever_the_body_is_cut(
    content: bytes, preamble: bytes, fields: int, pieces: int
) -> None:
    """The count is that of the file's bytes, whatever the pieces in which the body arrives."""
    assume(b"\r\n--b" not in b"\r\n" + content)
    body = preamble + (b"--b\r\n" + PLAIN + b"\r\n") * fields + b"--b\r\n" + FILE + content + b"\r\n--b--\r\n"
    assert await count(body, pieces) == len(content)


@repeatable
@given(st.binary(max_size=200), st.integers(1, 50))
async def test_any_body_gives_a_count_or_a_400(body: bytes, pieces: int) -> None:
    """Whatever arrives, the result is a count or a 400."""
    for whole in (body, b"--b\r\n" + body, b"--b\r\n" + FILE + body):
        try:
            await count(whole, pieces)
        except Problem as problem:
            assert problem.status == 400  # noqa: PT017  either is right


@pytest.mark.parametrize(
    ("disposition", "has_file"),
    [
        (b'form-data; name="f"; filename="x"', True),
        (b"form-data; name=f; filename=x", True),
        (b"form-data; filename*=UTF-8''%e2%82%ac", True),
        ('form-data; filename="\xe4"'.encode(), True),
        (b'form-data; filename=""', False),
        (b"form-data", False),
    ],
)
async def test_the_file_is_the_part_with_a_filename(disposition: bytes, has_file: bool) -> None:
    """A part with a filename is the file; an empty one does not count."""
    body = b"--b\r\ncontent-disposition:" + disposition + b"\r\n\r\n12345\r\n--b--\r\n"
    if has_file:
        assert await count(body) == 5
    else:
        with pytest.raises(Problem, match="uploaded-file-no-file"):
            await count(body)


async def test_an_empty_file_is_a_file() -> None:
    """A file may have no bytes."""
    assert await count(b"--b\r\n" + FILE + b"\r\n--b--\r\n") == 0


async def test_a_nested_multipart_body_is_skipped() -> None:
    """A part that is a multipart body itself is not the file."""
    assert await count(b"--b\r\n" + NESTED + b"\r\n--b\r\n" + FILE + b"12\r\n--b--\r\n") == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b"--b\r\n" + FILE + b"123",
        b"--b\r\n" + FILE + b"123\r\n--",
        b"--b\r\n" + FILE[:-2],
        b"--b\r\n" + b"x" * 200_000,
        b"--b\r\nContent-Disposition: ;;=\r\n\r\n1\r\n--b--",
        b"--b\r\nContent-Disposition: form-data; name=_charset_\r\n\r\n" + b"x" * 100 + b"\r\n--b--",
        b"--b\r\nContent-Disposition: form-data; filename*=made-up''%e4\r\n\r\n1\r\n--b--",
        (b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n") * 5000,
    ],
)
async def test_a_malformed_body_is_a_400(body: bytes) -> None:
    """A body that is incomplete or malformed in any way is a 400, also where aiohttp only warns."""
    with pytest.raises(Problem, match=r"^400 "):
        await count(body, 1000)


async def test_reading_ends_at_the_limit() -> None:
    """Too large a file is rejected before the rest of it has arrived."""
    assert await count(b"--b\r\n" + FILE + b"x" * 10 + b"\r\n--b--", limit=10) == 10
    with pytest.raises(Problem, match=r"^413 "):
        await count(b"--b\r\n" + FILE + b"x" * 200_000, limit=10)
