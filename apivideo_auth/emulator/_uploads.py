"""The account of an upload: what has come of a source, and whether one more chunk fits. Pure, no bytes kept.

Nothing ──► Complete            a whole file
Nothing ──► Parts ──► Complete  chunks by number
Nothing ──► Spans ──► Complete  chunks by place
"""

from itertools import pairwise

from attrs import frozen

from apivideo_auth.emulator._content_range import Part, Span
from apivideo_auth.emulator._problems import (
    part_already_sent,
    part_too_high,
    part_totals_differ,
    part_zero,
    range_mismatch,
    range_overlap,
    range_start_too_high,
    range_too_high,
    source_complete,
    started_with_bytes,
    started_with_parts,
)


@frozen
class Nothing:
    """No chunk has come."""


@frozen
class Parts:
    """Some parts have come. `total` is known once a chunk has named it."""

    received: frozenset[int] = frozenset()
    total: int | None = None


@frozen
class Spans:
    """Some spans have come, sorted, without overlap."""

    received: tuple[tuple[int, int], ...] = ()
    total: int | None = None


@frozen
class Complete:
    """The source is there."""


Upload = Nothing | Parts | Spans | Complete


def received(upload: Upload, place: Part | Span | None, size: int) -> Upload:
    """Return the account after a chunk of `size` bytes, or raise the 400 for which it is refused.

    `place` is None for a whole file. A refused chunk changes nothing.
    """
    match upload, place:
        case Complete(), _:
            raise source_complete()
        case Nothing(), None:
            return Complete()
        case (Nothing() | Parts(), Part()):
            return _with_part(upload if isinstance(upload, Parts) else Parts(), place)
        case (Nothing() | Spans(), Span()):
            return _with_span(upload if isinstance(upload, Spans) else Spans(), place, size)
        case Parts(), _:
            raise started_with_parts()
        case _:
            raise started_with_bytes()


def _with_part(upload: Parts, part: Part) -> Parts | Complete:
    if part.number == 0:
        raise part_zero()
    if part.total is not None and upload.total is not None and part.total != upload.total:
        raise part_totals_differ()
    total = upload.total if part.total is None else part.total
    if part.number in upload.received:
        raise part_already_sent()
    parts = upload.received | {part.number}
    if total is not None and max(parts) > total:
        raise part_too_high()
    return Complete() if len(parts) == total else Parts(parts, total)


def _with_span(upload: Spans, span: Span, size: int) -> Spans | Complete:
    if span.first > span.last:
        raise range_start_too_high()
    if span.total is not None and upload.total is not None and span.total != upload.total:
        raise range_mismatch()
    total = upload.total if span.total is None else span.total
    spans = tuple(sorted([*upload.received, (span.first, span.last)]))
    if total is not None and spans[-1][1] >= total:
        raise range_too_high()
    if span.size != size:
        raise range_mismatch()
    if any(after[0] <= before[1] for before, after in pairwise(spans)):
        raise range_overlap()
    covered = sum(last - first + 1 for first, last in spans)
    return Complete() if covered == total else Spans(spans, total)
