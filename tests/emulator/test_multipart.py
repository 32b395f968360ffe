"""Finding the file in a multipart body."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apivideo_auth.emulator._multipart import FileCounter, boundary_of
from apivideo_auth.emulator._problems import Problem
from tests.emulator.properties import repeatable

FILE = b'Content-Disposition: form-data; name="file"; filename="f.mp4"\r\nContent-Type: video/mp4\r\n\r\n'
PLAIN = b'Content-Disposition: form-data; name="videoId"\r\n\r\nvi0'


def count(body: bytes, pieces: int | None = None, limit: int = 10**9) -> int:
    counter = FileCounter(b"b", limit)
    step = max(1, len(body) if pieces is None else pieces)
    for start in range(0, len(body), step):
        counter.feed(body[start : start + step])
    counter.finish()
    return counter.size


@repeatable
@given(
    content=st.lists(st.sampled_from([b"\r\n", b"--", b"-", b"\r", b"\n--", b"b", b"\r\n-", b"\r\n--", b"xyz"])).map(
        b"".join
    ),
    preamble=st.sampled_from([b"", b"preamble\r\n", b"\r\n"]),
    fields=st.integers(0, 3),
    pieces=st.integers(1, 40),
)
def test_the_bytes_are_counted_wherever_the_body_is_cut(
    content: bytes, preamble: bytes, fields: int, pieces: int
) -> None:
    """Whatever pieces the body comes in, the count is that of the file's bytes."""
    assume(b"\r\n--b" not in b"\r\n" + content)
    body = preamble + (b"--b\r\n" + PLAIN + b"\r\n") * fields + b"--b\r\n" + FILE + content + b"\r\n--b--\r\n"
    assert count(body, pieces) == len(content)


@repeatable
@given(st.binary(max_size=200), st.integers(1, 50))
def test_no_body_crashes_it(body: bytes, pieces: int) -> None:
    """Whatever comes, there is a count or a 400."""
    for whole in (body, b"--b\r\n" + body, b"--b\r\n" + FILE + body):
        try:
            count(whole, pieces)
        except Problem as problem:
            assert problem.status == 400  # noqa: PT017  either is right


@pytest.mark.parametrize(
    ("disposition", "has_file"),
    [
        (b'form-data; name="f"; filename="x"', True),
        (b"form-data; name=f; filename=x", True),
        (b'form-data; FILENAME = "x"', True),
        (b"form-data; filename*=UTF-8''%e2%82%ac", True),
        (b'attachment; filename="a\\"b.mp4"', True),
        ('form-data; filename="ä"'.encode(), True),
        (b'form-data; filename="\xff"', True),
        (b'form-data; filename=""', False),
        (b"form-data; filename=", False),
        (b'form-data; name="; filename=x"', False),
        (b'form-data; name="a\\"; filename=x"', False),
        (b'form-data; xfilename="x"', False),
        (b"form-data", False),
        (b"", False),
    ],
)
def test_a_file_is_a_part_with_a_filename(disposition: bytes, has_file: bool) -> None:
    """A filename makes a file, however it is written; one that is empty, or within another value, does not."""
    body = b"--b\r\ncontent-disposition:" + disposition + b"\r\n\r\n12345\r\n--b--\r\n"
    if has_file:
        assert count(body) == 5
    else:
        with pytest.raises(Problem, match="uploaded-file-no-file"):
            count(body)


def test_an_empty_file_is_a_file() -> None:
    """A file may have no bytes, also where the next delimiter shares the line end of the headers."""
    assert count(b"--b\r\n" + FILE + b"\r\n--b--\r\n") == 0
    assert count(b"--b\r\n" + FILE + b"--b--\r\n") == 0


def test_white_space_may_follow_a_delimiter() -> None:
    """Blanks behind a delimiter are transport padding."""
    assert count(b"--b \t\r\n" + FILE + b"12\r\n--b--") == 2


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" + FILE + b"123",
        b"--b\r\n" + FILE + b"123\r\n--",
        b"--b\r\n" + FILE[:-2],
        b"--b",
        b"--b\r",
        b"--bx\r\n" + FILE + b"123\r\n--b--",
        b"--b" + b" " * 100,
        b"--b\r\n" + b"X: y\r\n" * 10_000 + FILE + b"1\r\n--b--",
        b"--b\r\n" + b"x" * 100_000,
    ],
)
def test_a_broken_body_is_malformed(body: bytes) -> None:
    """A body that is cut off, or has headers or delimiters that never end, is a 400."""
    with pytest.raises(Problem, match="400 bad-request"):
        count(body, 1000)


def test_the_limit_is_kept_while_the_body_comes() -> None:
    """Too large a file is refused as soon as it is, and what follows it does not matter."""
    counter = FileCounter(b"b", 10)
    counter.feed(b"--b\r\n" + FILE + b"x" * 10 + b"\r\n--b")
    counter.feed(b"x" * 10_000)
    assert counter.counted
    with pytest.raises(Problem, match="413"):
        FileCounter(b"b", 10).feed(b"--b\r\n" + FILE + b"x" * 16 + b"...")


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ('multipart/form-data; boundary="b c"', b"b c"),
        (" Multipart/Mixed;charset=x;BOUNDARY=b", b"b"),
        ("multipart/form-data; boundary=ä", "ä".encode()),
    ],
)
def test_the_boundary_is_read(content_type: str, boundary: bytes) -> None:
    """The boundary is a parameter of any multipart type, quoted or not."""
    assert boundary_of(content_type) == boundary
