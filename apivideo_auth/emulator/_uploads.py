"""The upload of a video's source, whole or in chunks. The bytes are counted and not kept."""

import re
from itertools import pairwise
from typing import Final, Literal

from aiohttp import BodyPartReader, web
from attrs import define, field, frozen

from apivideo_auth.emulator._messages import Problem, malformed_request, too_large

FILE_LIMIT: Final = 200 * 2**20
"""The most bytes of a file that is uploaded whole."""
CHUNK_LIMIT: Final = 128 * 2**20
"""The most bytes of a chunk."""

_PIECE: Final = 2**16
# Eighteen digits are more than any video has bytes.
_PART: Final = re.compile(r"\s*part\s+([0-9]{1,18})\s*/\s*([0-9]{1,18}|\*)\s*", re.ASCII | re.IGNORECASE)
_BYTES: Final = re.compile(
    r"\s*bytes\s+([0-9]{1,18})\s*-\s*([0-9]{1,18})\s*/\s*([0-9]{1,18}|\*)\s*", re.ASCII | re.IGNORECASE
)


@frozen
class ChunkRange:
    """Which part of the file a chunk is: parts or bytes `first` to `last`, both inclusive, counted from 0.

    `total` is None as long as the client does not know the total.
    """

    unit: Literal["part", "bytes"]
    first: int
    last: int
    total: int | None


def parse_content_range(header: str | None) -> ChunkRange | None:
    """Return the range that `part 2/3` or `bytes 0-99/250` means; None without a header. Raises a 400.

    The total may be `*`.
    """
    if header is None:
        return None
    if part := _PART.fullmatch(header):
        number = int(part[1]) - 1
        return ChunkRange("part", number, number, _total(part[2]))
    if span := _BYTES.fullmatch(header):
        return ChunkRange("bytes", int(span[1]), int(span[2]), _total(span[3]))
    raise _range_problem("malformed", "The Content-Range header is malformed.")


@define
class Upload:
    """The chunks that have arrived. The first one decides whether the client counts parts or bytes."""

    complete: bool = field(default=False, init=False)
    _unit: Literal["part", "bytes"] | None = field(default=None, init=False)
    _total: int | None = field(default=None, init=False)
    _received: list[tuple[int, int]] = field(factory=list[tuple[int, int]], init=False)

    def add(self, chunk: ChunkRange | None, size: int) -> None:
        """Add a chunk of `size` bytes, or the whole file if `chunk` is None.

        Raises a 400 if the chunk is rejected. A rejected chunk changes nothing.
        """
        if self.complete:
            raise Problem(400, "video-source-already-uploaded", "The source of the video is already uploaded.")
        if self._unit is not None and (chunk is None or chunk.unit != self._unit):
            raise _range_problem(f"started-with-{self._unit}", f"The upload was started with {self._unit} ranges.")
        if chunk is None:
            self.complete = True
            return
        total = self._total if chunk.total is None else chunk.total
        received = sorted([*self._received, (chunk.first, chunk.last)])
        self._check(chunk, size, total, received)
        self._unit, self._total, self._received = chunk.unit, total, received
        self.complete = sum(last - first + 1 for first, last in received) == total

    def _check(self, chunk: ChunkRange, size: int, total: int | None, received: list[tuple[int, int]]) -> None:
        differs = self._total is not None and self._total != total
        too_high = total is not None and received[-1][1] >= total
        overlaps = any(after[0] <= before[1] for before, after in pairwise(received))
        if chunk.unit == "part":
            checks = [
                (chunk.first < 0, "part-zero", "The first part is part 1."),
                (differs, "different-total-parts", "The total number of parts differs from that of earlier parts."),
                (overlaps, "part-already-sent", "The part was already sent."),
                (too_high, "part-too-high-total", "The part is higher than the total number of parts."),
            ]
        else:
            mismatch = "The range does not match the uploaded bytes."
            checks = [
                (chunk.first > chunk.last, "from-byte-too-high", "The first byte is higher than the last byte."),
                (differs, "range-mismatch", mismatch),
                (too_high, "to-byte-too-high-total", "The last byte is higher than the total number of bytes."),
                (chunk.last - chunk.first + 1 != size, "range-mismatch", mismatch),
                (overlaps, "range-overlap", "The range overlaps an earlier one."),
            ]
        for is_wrong, slug, title in checks:
            if is_wrong:
                raise _range_problem(f"by-{chunk.unit}-{slug}", title)


async def count_file(request: web.Request, limit: int) -> int:
    """Return the number of bytes of the uploaded file: the first part of the multipart body that has a filename.

    Raises a 400, or a 413 if there are more than `limit`. The rest of the body is not read.
    """
    try:
        part = await _find_file(request)
        size = 0
        while part is not None and size <= limit and not part.at_eof():
            size += len(await part.read_chunk(_PIECE))
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001  aiohttp's reader raises ValueError, RuntimeError, AssertionError, warnings, ...
        raise malformed_request() from None
    if part is None:
        raise Problem(400, "uploaded-file-no-file", "There is no uploaded file in the request.", name="file")
    if size > limit:
        raise too_large(limit)
    return size


async def _find_file(request: web.Request) -> BodyPartReader | None:
    if request.content_type.startswith("multipart/"):
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if isinstance(part, BodyPartReader) and part.filename:
                return part
    return None


def _total(text: str) -> int | None:
    return None if text == "*" else int(text)


def _range_problem(slug: str, title: str) -> Problem:
    return Problem(400, f"video-content-range-{slug}", title, name="Content-Range")
