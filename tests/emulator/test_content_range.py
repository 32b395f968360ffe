"""Reading a Content-Range."""

import pytest

from apivideo_auth.emulator._content_range import Part, Span, parse_content_range
from apivideo_auth.emulator._problems import Problem


@pytest.mark.parametrize(
    ("header", "place"),
    [
        (None, None),
        ("part 1/1", Part(1, 1)),
        ("part 2/3", Part(2, 3)),
        ("part 7/*", Part(7, None)),
        ("Part  3 / 4 ", Part(3, 4)),
        ("part 0/0", Part(0, 0)),
        ("bytes 0-99/250", Span(0, 99, 250)),
        ("bytes 5-5/*", Span(5, 5, None)),
        ("BYTES 0 - 1 / 2", Span(0, 1, 2)),
        ("bytes 9-1/0", Span(9, 1, 0)),
    ],
)
def test_both_forms_are_read(header: str | None, place: object) -> None:
    """`part N/M` and `bytes A-B/TOTAL`, either with `*` for the total, or nothing at all."""
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
    """What is neither form is the 400 for a malformed Content-Range."""
    with pytest.raises(Problem) as caught:
        parse_content_range(header)
    assert (caught.value.status, caught.value.slug) == (400, "video-content-range-malformed")


def test_a_span_knows_its_size() -> None:
    """Both ends are inclusive."""
    assert Span(10, 19, None).size == 10
