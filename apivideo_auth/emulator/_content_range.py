"""The Content-Range of a chunk, in either of its two forms."""

import re
from typing import Final

from attrs import frozen

from apivideo_auth.emulator._problems import range_malformed

# Eighteen digits are more than any video has bytes.
_PART: Final = re.compile(r"\s*part\s+([0-9]{1,18})\s*/\s*([0-9]{1,18}|\*)\s*", re.ASCII | re.IGNORECASE)
_BYTES: Final = re.compile(
    r"\s*bytes\s+([0-9]{1,18})\s*-\s*([0-9]{1,18})\s*/\s*([0-9]{1,18}|\*)\s*", re.ASCII | re.IGNORECASE
)


@frozen
class Part:
    """`part 2/3`, or `part 2/*` while it is not known how many there will be."""

    number: int
    total: int | None


@frozen
class Span:
    """`bytes 0-99/250`, both ends inclusive, or `bytes 0-99/*`."""

    first: int
    last: int
    total: int | None

    @property
    def size(self) -> int:
        """How many bytes the span covers."""
        return self.last - self.first + 1


def parse_content_range(header: str | None) -> Part | Span | None:
    """Return what a chunk says of its place, None for a whole file, or raise a 400."""
    if header is None:
        return None
    if part := _PART.fullmatch(header):
        return Part(int(part[1]), _total(part[2]))
    if span := _BYTES.fullmatch(header):
        return Span(int(span[1]), int(span[2]), _total(span[3]))
    raise range_malformed()


def _total(text: str) -> int | None:
    return None if text == "*" else int(text)
