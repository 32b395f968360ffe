"""The failure of a call to an endpoint, as a value that workers can share."""

from typing import Final, Literal, TypeAlias

from attrs import frozen

from apivideo_auth._secrets import redact

FailureKind: TypeAlias = Literal["connection", "misuse", "response", "credentials", "rate_limited", "invalid"]
"""
- `connection`: no response.
- `misuse`: the program made the call impossible, for example by closing the connector that it passed.
- `response`: an error status that no other kind covers.
- `credentials`: the API key or the refresh token was rejected.
- `rate_limited`: status 429.
- `invalid`: a response that api.video does not send.
"""

WRONG_ADDRESS_STATUSES: Final = (404, 405, 410)
"""These statuses mean that no token endpoint is there. Only a different `base_url` helps."""

MAX_TEXT_LENGTH: Final = 200


@frozen(kw_only=True)
class Failure:
    """A failed call to an endpoint.

    Workers share it through records. Exceptions cannot be shared, so `error_from` makes a new one for each caller.

    - `status`: the HTTP status; `type`, `title`, `name`: from the body of the response, cleaned by `clean_text`.
    - `retry_after`: seconds that the server asked to wait.
    - `sent`: False if the request provably never reached the server.
    """

    kind: FailureKind
    message: str
    status: int | None = None
    type: str | None = None
    title: str | None = None
    name: str | None = None
    retry_after: float | None = None
    sent: bool = True

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without a change by the user."""
        return self.kind not in ("credentials", "misuse") and self.status not in WRONG_ADDRESS_STATUSES


def clean_text(text: str, *secrets: str, limit: int = MAX_TEXT_LENGTH) -> str:
    """Return text from outside in a form that can be shown: printable, without these secrets, and not too long."""
    printable = "".join(character for character in text if character.isprintable())
    # Cut last: the beginning of a secret at the cut would no longer be recognised.
    return redact(printable, *secrets)[:limit]
