"""Creating, showing and listing videos."""

import re
from datetime import datetime
from typing import Any

import pytest

from tests.emulator.client import Client

FULL = {
    "title": "Title ä \U0001f3ac",
    "description": "A description",
    "playerId": "pl1",
    "public": False,
    "panoramic": True,
    "mp4Support": False,
    "tags": ["one", "two"],
    "metadata": [{"key": "k", "value": "v"}],
}


async def test_a_created_video_is_answered(client: Client) -> None:
    """`POST /videos` answers 201 and the video, with the attributes that were sent."""
    reply = await client.post("/videos", client.basic, json=FULL)
    assert reply.status == 201
    assert {name: reply.document[name] for name in FULL} == FULL
    video_id = reply.document["videoId"]
    assert re.fullmatch(r"vi\w+", video_id)
    assert reply.document["source"] == {"uri": f"/videos/{video_id}/source"}
    assert reply.document["assets"].keys() == {"hls", "iframe", "player", "thumbnail", "mp4"}
    assert all(isinstance(asset, str) and client.server.url in asset for asset in reply.document["assets"].values())
    assert reply.document["discarded"] is False


async def test_a_created_video_has_moments(client: Client) -> None:
    """The moments of a video are ISO 8601 with a zone, by the emulator's wall clock."""
    reply = await client.post("/videos", client.basic, json=FULL)
    for name in ("createdAt", "publishedAt", "updatedAt"):
        moment = datetime.fromisoformat(reply.document[name])
        assert moment.tzinfo is not None
        assert 0 <= client.server.clock.utc() - moment.timestamp() < 60


@pytest.mark.parametrize("absent", [{}, {name: None for name in FULL if name != "title"}])
async def test_a_title_is_enough(client: Client, absent: dict[str, None]) -> None:
    """All but the title have defaults, also where null is sent, and what has no value is left out, not null."""
    reply = await client.post("/videos", client.basic, json={"title": "t", **absent})
    assert reply.status == 201
    assert (reply.document["public"], reply.document["panoramic"], reply.document["mp4Support"]) == (True, False, True)
    assert (reply.document["tags"], reply.document["metadata"]) == ([], [])
    assert not {"description", "playerId"} & reply.document.keys()
    assert None not in reply.document.values()


@pytest.mark.parametrize("payload", [{}, {"title": None}, {"title": ""}, {"description": "x"}])
async def test_a_title_is_required(client: Client, payload: dict[str, Any]) -> None:
    """Without a title there is a 400 that names it."""
    reply = await client.post("/videos", client.basic, json=payload)
    assert (reply.status, reply.slug, reply.document["name"]) == (400, "attribute-required", "title")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", 1),
        ("title", ["x"]),
        ("description", {}),
        ("playerId", 5),
        ("public", "yes"),
        ("public", 1),
        ("panoramic", []),
        ("mp4Support", "false"),
        ("tags", "one"),
        ("tags", [1]),
        ("tags", [None]),
        ("metadata", {}),
        ("metadata", ["k"]),
        ("metadata", [{"key": "k"}]),
        ("metadata", [{"key": "k", "value": 1}]),
        ("metadata", [{"key": None, "value": "v"}]),
    ],
)
async def test_attributes_have_types(client: Client, name: str, value: object) -> None:
    """A value of another type is a 400 that names the attribute, and creates nothing."""
    reply = await client.post("/videos", client.basic, json={"title": "t", name: value})
    assert (reply.status, reply.slug, reply.document["name"]) == (400, "invalid-attribute", name)
    assert (await client.get("/videos", client.basic)).document["data"] == []


async def test_a_video_is_shown_again(client: Client) -> None:
    """`GET /videos/{videoId}` answers what `POST /videos` answered."""
    created = await client.post("/videos", client.basic, json=FULL)
    shown = await client.get(f"/videos/{created.document['videoId']}", client.basic)
    assert (shown.status, shown.document) == (200, created.document)


@pytest.mark.parametrize("video_id", ["vi0", "x", "%00", "%FF", "\U0001f3ac", "a" * 5000])
@pytest.mark.parametrize("source", [False, True])
async def test_an_unknown_video_is_missing(client: Client, video_id: str, source: bool) -> None:
    """An id that nobody has is a 404 that names `videoId`."""
    path = f"/videos/{video_id}"
    reply = await (client.post(f"{path}/source", client.basic) if source else client.get(path, client.basic))
    assert (reply.status, reply.slug, reply.document["name"]) == (404, "resource-not-found", "videoId")
    assert reply.document["title"] == "The requested resource was not found."


async def test_an_empty_list_has_one_page(client: Client) -> None:
    """The list of no videos is a page without data, and `links` is there."""
    reply = await client.get("/videos", client.basic)
    assert reply.status == 200
    first = "/videos?currentPage=1&pageSize=25"
    assert reply.document == {
        "data": [],
        "pagination": {
            "currentPage": 1,
            "pageSize": 25,
            "pagesTotal": 1,
            "itemsTotal": 0,
            "currentPageItems": 0,
            "links": [{"rel": rel, "uri": first} for rel in ("self", "first", "last")],
        },
    }


async def test_the_list_comes_in_pages(client: Client) -> None:
    """Pages hold `pageSize` videos, the newest first, and link to their neighbours."""
    made = [await client.video() for _ in range(5)]
    pages = [await client.get(f"/videos?currentPage={number}&pageSize=2", client.basic) for number in (1, 2, 3, 4)]
    assert [[video["videoId"] for video in page.document["data"]] for page in pages] == [
        [made[4], made[3]],
        [made[2], made[1]],
        [made[0]],
        [],
    ]
    pagination = pages[1].document["pagination"]
    assert (pagination["pagesTotal"], pagination["itemsTotal"], pagination["currentPageItems"]) == (3, 5, 2)
    assert {link["rel"]: link["uri"] for link in pagination["links"]} == {
        rel: f"/videos?currentPage={number}&pageSize=2"
        for rel, number in {"self": 2, "first": 1, "previous": 1, "next": 3, "last": 3}.items()
    }


@pytest.mark.parametrize("name", ["currentPage", "pageSize"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "", "%00", "%F0", "٣", "1e2", "9" * 5000, "+1", "%201"])
async def test_an_invalid_page_is_rejected(client: Client, name: str, value: str) -> None:
    """An invalid value is a 400 that names the parameter."""
    reply = await client.get(f"/videos?{name}={value}", client.basic)
    assert (reply.status, reply.slug, reply.document["name"]) == (400, "invalid-attribute", name)


@pytest.mark.parametrize(("size", "status"), [(1, 200), (100, 200), (101, 400)])
async def test_a_page_holds_at_most_a_hundred(client: Client, size: int, status: int) -> None:
    """`pageSize` goes from 1 to 100."""
    assert (await client.get(f"/videos?pageSize={size}", client.basic)).status == status


async def test_other_parameters_are_ignored(client: Client) -> None:
    """Filters that the emulator does not have change nothing."""
    await client.video()
    reply = await client.get("/videos?title=x&tags[]=y&metadata[k]=v&sortBy=title", client.basic)
    assert len(reply.document["data"]) == 1
