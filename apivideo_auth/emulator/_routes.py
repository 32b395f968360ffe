"""Which path and method leads where."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from aiohttp import web
from attrs import evolve, frozen

from apivideo_auth.emulator._answers import Answer, answer_of
from apivideo_auth.emulator._bodies import BROKEN_BODY
from apivideo_auth.emulator._description import description
from apivideo_auth.emulator._endpoints import AuthEndpoints
from apivideo_auth.emulator._limits import Kind
from apivideo_auth.emulator._problems import Problem, method_refused, path_unknown, request_malformed
from apivideo_auth.emulator._resources import Resources

Work = Callable[[web.BaseRequest], Awaitable[Answer]]


@frozen
class Routes:
    """The whole API: one request in, one answer out."""

    endpoints: AuthEndpoints
    resources: Resources

    async def answer(self, request: web.BaseRequest) -> Answer:
        """Do what a request asks for. The one thing that it raises is `ConnectionError`, if the request breaks off."""
        try:
            return await self._work(request)(request)
        except Problem as problem:
            return answer_of(problem)
        except BROKEN_BODY:
            return answer_of(request_malformed())

    def _work(self, request: web.BaseRequest) -> Work:
        """Return what answers this path and method, or raise a 404 or a 405."""
        match request.path.split("/")[1:]:
            case ["auth", "api-key"]:
                methods: Mapping[str, Work] = {"POST": self.endpoints.authenticate}
            case ["auth", "refresh"]:
                methods = {"POST": self.endpoints.refresh}
            case ["videos"]:
                methods = {
                    "GET": self._resource("reads", self.resources.list_videos),
                    "POST": self._resource("writes", self.resources.create_video),
                }
            case ["videos", video_id] if video_id:
                methods = {"GET": self._resource("reads", partial(self.resources.show_video, video_id=video_id))}
            case ["videos", video_id, "source"] if video_id:
                methods = {"POST": self._resource("uploads", partial(self.resources.upload_source, video_id=video_id))}
            case ["openapi.json"]:
                methods = {"GET": _describe}
            case _:
                raise path_unknown()
        if request.method not in methods:
            raise method_refused(", ".join(methods))
        return methods[request.method]

    def _resource(self, kind: Kind, work: Work) -> Work:
        """Put the check of the authorization and the rate limits around what a resource does."""

        async def answer(request: web.BaseRequest) -> Answer:
            generation = None
            try:
                generation = self.resources.admit(request, kind)
                answer = await work(request)
            except Problem as problem:
                answer = answer_of(problem)
            return evolve(
                answer,
                generation=generation if answer.generation is None else answer.generation,
                headers={**self.resources.rate_headers(kind), **answer.headers},
            )

        return answer


async def _describe(_request: web.BaseRequest) -> Answer:
    return Answer(description(), "served")
