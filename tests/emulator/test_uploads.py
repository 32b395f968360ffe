"""Uploads: a table of chunks, applied directly and then through the server."""

import copy
import tracemalloc
from typing import Any

import aiohttp
import pytest

from apivideo_auth.emulator import _videos
from apivideo_auth.emulator._messages import Problem
from apivideo_auth.emulator._uploads import Upload, parse_content_range
from tests.emulator.client import Client

WHOLE = None
PART = "video-content-range-by-part-"
BYTES = "video-content-range-by-bytes-"
DONE = "complete"

# Each line: the chunks in their order (a whole file is None), of which the last is accepted or not, and its outcome.
TABLE = [
    ([WHOLE], DONE),
    ([WHOLE, WHOLE], "video-source-already-uploaded"),
    ([WHOLE, "part 1/2"], "video-source-already-uploaded"),
    (["part 1/1"], DONE),
    (["part 1/1", "part 1/1"], "video-source-already-uploaded"),
    (["part 1/2"], "open"),
    (["part 1/2", "part 2/2"], DONE),
    (["part 2/2", "part 1/2"], DONE),
    (["part 3/3", "part 1/3", "part 2/3"], DONE),
    (["part 1/*", "part 2/*", "part 3/3"], DONE),
    (["part 3/3", "part 1/*", "part 2/*"], DONE),
    (["part 2/*", "part 3/3", "part 1/*"], DONE),
    (["part 1/*", "part 2/*"], "open"),
    (["part 0/1"], f"{PART}part-zero"),
    (["part 0/*"], f"{PART}part-zero"),
    (["part 0/0"], f"{PART}part-zero"),
    (["part 1/0"], f"{PART}part-too-high-total"),
    (["part 3/2"], f"{PART}part-too-high-total"),
    (["part 1/2", "part 3/*"], f"{PART}part-too-high-total"),
    (["part 5/*", "part 1/3"], f"{PART}part-too-high-total"),
    (["part 1/2", "part 2/3"], f"{PART}different-total-parts"),
    (["part 1/3", "part 2/*", "part 3/4"], f"{PART}different-total-parts"),
    (["part 1/2", "part 1/2"], f"{PART}part-already-sent"),
    (["part 1/*", "part 1/3"], f"{PART}part-already-sent"),
    (["part 1/2", "bytes 0-9/10"], "video-content-range-started-with-part"),
    (["part 1/2", WHOLE], "video-content-range-started-with-part"),
    (["bytes 0-9/20", "part 1/2"], "video-content-range-started-with-bytes"),
    (["bytes 0-9/20", WHOLE], "video-content-range-started-with-bytes"),
    (["bytes 0-9/10"], DONE),
    (["bytes 0-9/20", "bytes 10-19/20"], DONE),
    (["bytes 10-19/20", "bytes 0-9/20"], DONE),
    (["bytes 0-9/*", "bytes 10-19/20"], DONE),
    (["bytes 10-19/20", "bytes 0-9/*"], DONE),
    (["bytes 0-9/*"], "open"),
    (["bytes 0-9/30", "bytes 20-29/30"], "open"),
    (["bytes 9-0/20"], f"{BYTES}from-byte-too-high"),
    (["bytes 10-19/19"], f"{BYTES}to-byte-too-high-total"),
    (["bytes 10-19/0"], f"{BYTES}to-byte-too-high-total"),
    (["bytes 0-9/15", "bytes 10-19/*"], f"{BYTES}to-byte-too-high-total"),
    (["bytes 10-19/*", "bytes 0-9/15"], f"{BYTES}to-byte-too-high-total"),
    (["bytes 0-8/20"], f"{BYTES}range-mismatch"),
    (["bytes 0-10/20"], f"{BYTES}range-mismatch"),
    (["bytes 0-9/20", "bytes 10-19/30"], f"{BYTES}range-mismatch"),
    (["bytes 0-9/20", "bytes 0-9/20"], f"{BYTES}range-overlap"),
    (["bytes 0-9/20", "bytes 9-18/20"], f"{BYTES}range-overlap"),
    (["bytes 9-18/20", "bytes 0-9/20"], f"{BYTES}range-overlap"),
]
SIZE = 10


@pytest.mark.parametrize(("headers", "outcome"), TABLE)
def test_what_becomes_of_a_chunk(headers: list[str | None], outcome: str) -> None:
    """Each row of the table: the last chunk completes the upload, leaves it open, or is rejected with a `type`."""
    upload = Upload()
    *before, last = [parse_content_range(header) for header in headers]
    for place in before:
        upload.add(place, SIZE)
    if outcome in (DONE, "open"):
        upload.add(last, SIZE)
        assert upload.complete == (outcome == DONE)
    else:
        unchanged = copy.deepcopy(upload)
        with pytest.raises(Problem) as caught:
            upload.add(last, SIZE)
        assert (caught.value.status, caught.value.slug) == (400, outcome)
        assert upload == unchanged


@pytest.mark.parametrize(("headers", "outcome"), TABLE)
async def test_every_answer_is_the_video_or_the_problem(
    client: Client, headers: list[str | None], outcome: str
) -> None:
    """Through the server each accepted chunk is answered 201 and the whole video, the last one too."""
    video_id = await client.video()
    *before, last = [await client.upload(video_id, b"x" * SIZE, header) for header in headers]
    shown = await client.get(f"/videos/{video_id}", client.basic)
    for reply in [*before, last] if outcome in (DONE, "open") else before:
        assert reply.status == 201
        assert {**reply.document, "updatedAt": ""} == {**shown.document, "updatedAt": ""}
    if outcome not in (DONE, "open"):
        assert (last.status, last.slug) == (400, outcome)


@pytest.mark.parametrize(
    "rejected", ["part 1/2", "part 0/2", "part 3/2", "part 2/3", "bytes 0-9/20", "nonsense", WHOLE]
)
async def test_a_rejected_chunk_leaves_the_video_usable(client: Client, rejected: str | None) -> None:
    """After a rejected chunk the missing ones are accepted as if nothing had happened."""
    video_id = await client.video()
    await client.upload(video_id, b"x", "part 1/2")
    assert (await client.upload(video_id, b"x", rejected)).status == 400
    assert (await client.upload(video_id, b"x", "part 2/2")).status == 201
    assert (await client.upload(video_id, b"x", "part 2/2")).slug == "video-source-already-uploaded"


@pytest.mark.parametrize("name", ["file", "made-up.mp4", "x y"])
async def test_the_field_may_have_any_name(client: Client, name: str) -> None:
    """The file is the first part with a filename; a plain field may come first, and another file after."""
    video_id = await client.video()
    form = aiohttp.FormData()
    form.add_field("videoId", video_id)
    form.add_field(name, b"0123456789", filename="made-up.mp4", content_type="video/mp4")
    form.add_field("more", b"x" * 100, filename="more.mp4")
    headers = {"Content-Range": "bytes 0-9/10"}
    reply = await client.post(f"/videos/{video_id}/source", client.basic, data=form, headers=headers)
    assert reply.status == 201


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"", None),
        (b"x", "video/mp4"),
        (b"--b--", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="videoId"\r\n\r\nvi0\r\n--b--',
            "multipart/form-data; boundary=b",
        ),
        (b'--b\r\nContent-Disposition: form-data; filename=""\r\n\r\nvi0\r\n--b--', "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\nvi0\r\n--b--", "multipart/form-data; boundary=b"),
    ],
)
async def test_an_upload_without_a_file_is_rejected(client: Client, data: bytes, content_type: str | None) -> None:
    """A body without a file is a 400 that says so."""
    video_id = await client.video()
    headers = {} if content_type is None else {"Content-Type": content_type}
    reply = await client.post(f"/videos/{video_id}/source", client.basic, data=data, headers=headers)
    assert (reply.status, reply.slug) == (400, "uploaded-file-no-file")


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 71}"],
)
@pytest.mark.parametrize("data", [b"", b"x", b"--b\r\n\r\nx\r\n--b--"])
async def test_an_upload_without_a_boundary_is_rejected(client: Client, data: bytes, content_type: str) -> None:
    """A multipart body whose boundary is missing, empty or too long is a 400."""
    video_id = await client.video()
    reply = await client.post(
        f"/videos/{video_id}/source", client.basic, data=data, headers={"Content-Type": content_type}
    )
    assert (reply.status, reply.slug) == (400, "bad-request")


@pytest.mark.parametrize(("place", "limit"), [(None, "FILE_LIMIT"), ("part 1/2", "CHUNK_LIMIT")])
async def test_a_file_that_is_too_large_is_rejected(
    client: Client, monkeypatch: pytest.MonkeyPatch, place: str | None, limit: str
) -> None:
    """A whole file, and a chunk, may have as many bytes as their limits say and not one more."""
    monkeypatch.setattr(_videos, limit, 1000)
    video_id = await client.video()
    reply = await client.upload(video_id, b"x" * 1001, place)
    assert (reply.status, reply.slug) == (413, "request-entity-too-large")
    assert (await client.upload(video_id, b"x" * 1000, place)).status == 201


def test_the_limits_are_api_videos() -> None:
    """A whole file has up to 200 MiB, a chunk up to 128 MiB."""
    assert (_videos.FILE_LIMIT, _videos.CHUNK_LIMIT) == (200 * 2**20, 128 * 2**20)


async def test_a_large_chunk_does_not_fill_memory(client: Client) -> None:
    """A chunk of 64 MiB is accepted with few of its bytes in memory at once."""

    async def pieces() -> Any:
        for _ in range(64):
            yield piece

    piece = bytes(2**20)
    video_id = await client.video()
    form = aiohttp.FormData()
    form.add_field("file", pieces(), filename="made-up.mp4")
    tracemalloc.start()
    try:
        headers = {"Content-Range": f"bytes 0-{64 * 2**20 - 1}/*"}
        reply = await client.post(f"/videos/{video_id}/source", client.basic, data=form, headers=headers)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reply.status == 201
    assert peak < 16 * 2**20


async def test_a_client_may_ask_before_it_sends(client: Client) -> None:
    """`Expect: 100-continue`, which curl sends with large files, is answered."""
    video_id = await client.video()
    form = aiohttp.FormData()
    form.add_field("file", b"x", filename="made-up.mp4")
    reply = await client.post(f"/videos/{video_id}/source", client.basic, data=form, expect100=True)
    assert reply.status == 201


async def test_an_upload_changes_the_moment_of_the_update(client: Client) -> None:
    """`updatedAt` is when the last chunk came."""
    video_id = await client.video()
    shown = await client.get(f"/videos/{video_id}", client.basic)
    reply = await client.upload(video_id, b"x")
    assert reply.document["updatedAt"] >= shown.document["updatedAt"]
    assert reply.document["createdAt"] == shown.document["createdAt"]
