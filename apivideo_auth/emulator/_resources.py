"""The resources: who may, how often, and what is done."""

from collections.abc import Mapping
from hmac import compare_digest

from aiohttp import web
from attrs import define, field

from apivideo_auth._clock import Clock
from apivideo_auth.emulator._answers import Answer
from apivideo_auth.emulator._authorization import Basic, parse_authorization
from apivideo_auth.emulator._bodies import CHUNK_LIMIT, FILE_LIMIT, count_file, read_payload
from apivideo_auth.emulator._content_range import parse_content_range
from apivideo_auth.emulator._limits import Kind, RateLimiter
from apivideo_auth.emulator._pages import Page
from apivideo_auth.emulator._problems import access_token_refused, api_key_refused, too_many_requests
from apivideo_auth.emulator._tokens import Ledger
from apivideo_auth.emulator._videos import Details, Library, Video


@define
class Resources:
    """The videos of one account. Every method raises the problem that is its answer."""

    api_key: str = field(repr=False)
    ledger: Ledger
    limiter: RateLimiter
    clock: Clock
    url: str
    catalogue: Library = field(factory=Library, init=False)

    def admit(self, request: web.BaseRequest, kind: Kind) -> int | None:
        """Return the generation of the token that came, None for an API key, or raise a 401 or a 429."""
        authorization = parse_authorization(request.headers.get("Authorization"))
        now = self.clock.monotonic()
        generation = None
        if isinstance(authorization, Basic):
            if not compare_digest(authorization.credentials, f"{self.api_key}:".encode()):
                raise api_key_refused()
        else:
            standing = self.ledger.standing(authorization.token, now)
            if standing is None or not standing.good:
                raise access_token_refused(None if standing is None else standing.generation)
            generation = standing.generation
        if not self.limiter.admit(kind, now):
            raise too_many_requests(generation)
        return generation

    def rate_headers(self, kind: Kind) -> Mapping[str, str]:
        """Return the rate-limit headers for an answer that goes out now."""
        return self.limiter.headers(kind, self.clock.monotonic())

    async def list_videos(self, request: web.BaseRequest) -> Answer:
        """Answer a page of videos."""
        page = Page.of(request.query)
        return Answer(page.document("/videos", self.catalogue.newest_first(), self._show), "served")

    async def create_video(self, request: web.BaseRequest) -> Answer:
        """Add a video, which has no source yet."""
        details = Details.of(await read_payload(request))
        return Answer(self._show(self.catalogue.create(details, self.clock.utc())), "served", status=201)

    async def show_video(self, _request: web.BaseRequest, video_id: str) -> Answer:
        """Answer one video."""
        return Answer(self._show(self.catalogue.get(video_id)), "served")

    async def upload_source(self, request: web.BaseRequest, video_id: str) -> Answer:
        """Take the source of a video, whole or in chunks, and answer the video each time.

        Chunks may be smaller than api.video's 5 MiB, so that a test needs no large files.
        """
        video = self.catalogue.get(video_id)
        place = parse_content_range(request.headers.get("Content-Range"))
        size = await count_file(request, FILE_LIMIT if place is None else CHUNK_LIMIT)
        video.receive(place, size, self.clock.utc())
        return Answer(self._show(video), "served", status=201)

    def _show(self, video: Video) -> dict[str, object]:
        return video.document(self.url)
