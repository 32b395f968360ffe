"""Why a call to an endpoint gave no token, as a value that workers share through records."""

from typing import Literal, Self, TypeAlias

from attrs import evolve, frozen

from apivideo_auth._secrets import redact

FailureKind: TypeAlias = Literal["connection", "response", "credentials", "rate_limited", "invalid"]


@frozen(kw_only=True)
class Failure:
    """A failed call to an endpoint.

    It is kept in records and shared between workers. An exception belongs to one raise, so each caller gets a new one,
    made by `error_from`.

    - `status`, `type`, `title`, `name`: what the response said, if there was one.
    - `retry_after`: the seconds that the server asked to wait.
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

    def redacted(self, *secrets: str | None) -> Self:
        """Return this failure with these secrets masked in its texts."""
        return evolve(
            self,
            message=redact(self.message, *secrets),
            type=self.type and redact(self.type, *secrets),
            title=self.title and redact(self.title, *secrets),
            name=self.name and redact(self.name, *secrets),
        )
