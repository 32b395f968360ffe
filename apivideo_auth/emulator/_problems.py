"""The error answers of the API. A problem is raised where it is found and answered in one place."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from apivideo_auth.emulator._calls import Outcome

_REFERENCE: Final = "https://docs.api.video/reference/"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Problem(Exception):  # noqa: N818  the API's own word for it
    """An error answer: `document` is its body, the rest says what the record of the call shows."""

    def __init__(  # noqa: PLR0913  the fields of the body and of the record
        self,
        status: int,
        slug: str,
        title: str,
        *,
        name: str = "",
        outcome: Outcome = "invalid",
        generation: int | None = None,
        headers: Mapping[str, str] = _NOTHING,
    ) -> None:
        super().__init__(f"{status} {slug}")
        self.status = status
        self.slug = slug
        self.title = title
        self.name = name
        self.outcome: Outcome = outcome
        self.generation = generation
        self.headers = headers

    @property
    def document(self) -> dict[str, object]:
        """The body of the answer."""
        return {"type": f"{_REFERENCE}{self.slug}", "title": self.title, "name": self.name, "status": self.status}


def credentials_refused(status: int, *, generation: int | None = None) -> Problem:
    """Say that the API key, or the refresh token of `generation`, is refused by an authentication endpoint."""
    return Problem(
        status,
        "authentication-invalid-user-credentials",
        "The user credentials were incorrect.",
        outcome="refused",
        generation=generation,
    )


def access_token_refused(generation: int | None) -> Problem:
    """Say that the bearer token is unknown, expired or revoked."""
    return Problem(
        401,
        "authentication-invalid-access-token",
        "The access token is invalid or expired.",
        outcome="unauthorized",
        generation=generation,
    )


def authorization_missing() -> Problem:
    """Say that a resource was asked for without an Authorization header."""
    return Problem(
        401,
        "authentication-missing-authorization-header",
        'The "Authorization" header is missing.',
        outcome="unauthorized",
    )


def authorization_unreadable() -> Problem:
    """Say that the Authorization header is neither Bearer nor Basic, or is broken."""
    return Problem(
        401,
        "authentication-invalid-authorization-header-value",
        'The "Authorization" header value is invalid.',
        outcome="unauthorized",
    )


def api_key_refused() -> Problem:
    """Say that the API key of a Basic authorization is not the account's."""
    return Problem(401, "authentication-invalid-api-key", "The API key is invalid.", outcome="unauthorized")


def payload_invalid() -> Problem:
    """Say that the body is no JSON object."""
    return Problem(400, "invalid-payload", "The payload is invalid.")


def attribute_required(name: str) -> Problem:
    """Say that a required attribute is missing, null or empty."""
    return Problem(400, "attribute-required", "This attribute is required.", name=name)


def attribute_invalid(name: str, expected: str) -> Problem:
    """Say that an attribute or a query parameter is not what is `expected`."""
    return Problem(400, "invalid-attribute", f"This attribute must be {expected}.", name=name)


def body_too_large(limit: int) -> Problem:
    """Say that the body is longer than `limit` bytes."""
    return Problem(413, "request-entity-too-large", f"The request entity is larger than {limit} bytes.")


def request_malformed() -> Problem:
    """Say that the request is not HTTP, or its body is not framed or encoded as its headers say."""
    return Problem(400, "bad-request", "The request is malformed.")


def video_missing() -> Problem:
    """Say that there is no video of this id."""
    return Problem(
        404, "resource-not-found", "The requested resource was not found.", name="videoId", outcome="missing"
    )


def path_unknown() -> Problem:
    """Say that the path is none that the API has."""
    return Problem(404, "unrecognized-request-url", "Unrecognized request URL.", outcome="missing")


def method_refused(allowed: str) -> Problem:
    """Say that the path takes the `allowed` methods only."""
    return Problem(405, "method-not-allowed", "Method is not allowed for this route.", headers={"Allow": allowed})


def too_many_requests(generation: int | None = None) -> Problem:
    """Say that the rate limit of this kind of request is used up."""
    return Problem(429, "too-many-requests", "Too many requests.", outcome="limited", generation=generation)


def server_failed() -> Problem:
    """Say that the emulator has a defect. No request is known that gets this answer."""
    return Problem(500, "internal-server-error", "The emulator failed.", outcome="failed")


def file_missing() -> Problem:
    """Say that an upload has no part with a filename."""
    return Problem(400, "uploaded-file-no-file", "There is no uploaded file in the request.", name="file")


def source_complete() -> Problem:
    """Say that the video has its source."""
    return Problem(400, "video-source-already-uploaded", "The source of the video is already uploaded.")


def range_malformed() -> Problem:
    """Say that a Content-Range is neither `part N/M` nor `bytes A-B/TOTAL`."""
    return _range_problem("malformed", "The Content-Range header is malformed.")


def started_with_bytes() -> Problem:
    """Say that the upload began with byte ranges and cannot go on otherwise."""
    return _range_problem("started-with-bytes", "The upload was started with byte ranges.")


def started_with_parts() -> Problem:
    """Say that the upload began with parts and cannot go on otherwise."""
    return _range_problem("started-with-part", "The upload was started with parts.")


def part_zero() -> Problem:
    """Say that parts are counted from 1."""
    return _range_problem("by-part-part-zero", "The first part is part 1.")


def part_already_sent() -> Problem:
    """Say that this part is there."""
    return _range_problem("by-part-part-already-sent", "The part was already sent.")


def part_too_high() -> Problem:
    """Say that a part, this one or one before, is beyond the last."""
    return _range_problem("by-part-part-too-high-total", "The part is higher than the total of parts.")


def part_totals_differ() -> Problem:
    """Say that an earlier chunk named another total."""
    return _range_problem("by-part-different-total-parts", "The total of parts is not that of the earlier parts.")


def range_start_too_high() -> Problem:
    """Say that a range ends before it begins."""
    return _range_problem("by-bytes-from-byte-too-high", "The first byte is higher than the last byte.")


def range_too_high() -> Problem:
    """Say that a range, this one or one before, goes beyond the end."""
    return _range_problem("by-bytes-to-byte-too-high-total", "The last byte is higher than the total of bytes.")


def range_mismatch() -> Problem:
    """Say that a range is not as long as its bytes, or names another total than those before."""
    return _range_problem("by-bytes-range-mismatch", "The range does not match the uploaded bytes.")


def range_overlap() -> Problem:
    """Say that some of the bytes are there."""
    return _range_problem("by-bytes-range-overlap", "The range overlaps an earlier one.")


def _range_problem(slug: str, title: str) -> Problem:
    return Problem(400, f"video-content-range-{slug}", title, name="Content-Range")
