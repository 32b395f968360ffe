"""Reading a Content-Range."""

import pytest

from apivideo_auth.emulator._messages import Problem
from apivideo_auth.emulator._uploads import ChunkRange, parse_content_range


@pytest.mark.parametrize(
    ("header", "place"),
    [
        (None, None),
        ("part 1/1", ChunkRange("part", 0, 0, 1)),
        ("part 2/3", ChunkRange("part", 1, 1, 3)),
        ("part 7/*", ChunkRange("part", 6, 6, None)),
        ("Part  3 / 4 ", ChunkRange("part", 2, 2, 4)),
        ("part 0/0", ChunkRange("part", -1, -1, 0)),
        ("bytes 0-99/250", ChunkRange("bytes", 0, 99, 250)),
        ("bytes 5-5/*", ChunkRange("bytes", 5, 5, None)),
        ("BYTES 0 - 1 / 2", ChunkRange("bytes", 0, 1, 2)),
        ("bytes 9-1/0", ChunkRange("bytes", 9, 1, 0)),
    ],
)
def test_both_forms_are_read(header: str | None, place: object) -> None:
    """`part N/M` counts from 1 and `bytes A-B/TOTAL` from 0; either may have `*` for the total."""
    assert parse_content_range(header) == place


@pytest.mark.parametrize(
    "header",
    [
        "",
        "part",
        "part 1",
        "part 1/",
        "part /1",
        "part */1",
        "part -1/1",
        "part 1.0/2",
        "part 1/2/3",
        "part1/2",
        "part \u0661/\u0662",
        "part " + "9" * 5000 + "/*",
        "bytes */10",
        "bytes 1-/2",
        "bytes -1/2",
        "bytes=0-1/2",
        "bytes 0-1",
        "chunks 1/2",
        "part 1/2\x00",
    ],
)
def test_anything_else_is_malformed(header: str) -> None:
    """Any other text is the 400 for a malformed Content-Range."""
    with pytest.raises(Problem) as caught:
        parse_content_range(header)
    assert (caught.value.status, caught.value.slug) == (400, "video-content-range-malformed")
