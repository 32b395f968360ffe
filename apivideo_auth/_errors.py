"""The errors that callers see, and their relation to `Failure`, the value they are made from.

    AuthError (an aiohttp.ClientError)
    ├── AuthConnectionError          no answer: refused, broken off, timed out
    ├── AuthResponseError            an answer that is no token: status, type, title
    │   ├── CredentialsRejectedError     the endpoint refused the API key (or a refresh token)
    │   ├── RateLimitedError             429
    │   └── InvalidResponseError         an answer that the API does not give
    ├── TokenRejectedError           the API refused a token and no other can be had yet
    ├── TokenStoreError              a store is down; callers of get_token never see it
    ├── ManagerClosedError           the TokenManager is closed
    └── InsecureUrlError (a ValueError)  plain http to another host than this one

None of them is a `ClientOSError` or `ServerDisconnectedError`: aiohttp would send the request again.
"""

from typing import Any

import aiohttp

from apivideo_auth._failure import Failure, FailureKind


class AuthError(aiohttp.ClientError):
    """The base of every error of this package.

    `retry_after`: seconds until another try makes sense, where that is known.
    """

    retry_after: float | None = None

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


class AuthConnectionError(AuthError):
    """The endpoint gave no answer.

    `sent` is False when the request provably never reached the server; otherwise it may have been processed.
    """

    def __init__(self, message: str, *, sent: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.sent = sent


class AuthResponseError(AuthError):
    """The endpoint answered something that is no token.

    `status` is the HTTP status; `type` (a link whose last part names the error), `title`, `name` (the offending
    parameter) and `problems` are those of the body, where it had them.
    """

    def __init__(  # noqa: PLR0913  the fields of the documented error body
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002  the body's own name for it
        title: str | None = None,
        name: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status
        self.type = type
        self.title = title
        self.name = name


class CredentialsRejectedError(AuthResponseError):
    """The endpoint refused the API key; from `AuthenticationApi.refresh`, the refresh token."""


class RateLimitedError(AuthResponseError):
    """The endpoint answered 429; `retry_after` is what it asked for, in seconds."""


class InvalidResponseError(AuthResponseError):
    """The endpoint answered something that api.video does not answer."""


class TokenRejectedError(AuthError):
    """The API refused a token and no other can be had yet; `retry_after` says in how many seconds one can."""


class TokenStoreError(AuthError):
    """A token store is down or holds what cannot be read. Raised by stores, never by `get_token`."""


class ManagerClosedError(AuthError):
    """The `TokenManager` is closed."""

    def __init__(self, message: str = "this TokenManager is closed") -> None:
        super().__init__(message)


class InsecureUrlError(AuthError, ValueError):
    """Secrets would go over plain http to another machine."""


def _restore(cls: type[AuthError], args: tuple[Any, ...], state: dict[str, Any]) -> AuthError:
    """Rebuild an unpickled error without going through its constructor."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


_RESPONSE_ERRORS: dict[FailureKind, type[AuthResponseError]] = {
    "credentials": CredentialsRejectedError,
    "rate_limited": RateLimitedError,
    "invalid": InvalidResponseError,
}


def error_from(failure: Failure, *, retry_after: float | None = None) -> AuthError:
    """Return a new exception for this failure; `retry_after`, if given, replaces the server's own."""
    wait = failure.retry_after if retry_after is None else retry_after
    if failure.kind == "connection":
        return AuthConnectionError(failure.message, sent=failure.sent, retry_after=wait)
    return _RESPONSE_ERRORS.get(failure.kind, AuthResponseError)(
        failure.message,
        status=failure.status,
        type=failure.type,
        title=failure.title,
        name=failure.name,
        retry_after=wait,
    )


def failure_from(error: BaseException) -> Failure:
    """Return the failure that an exception of a token call stands for."""
    if isinstance(error, AuthResponseError):
        kind: FailureKind = "response"
        for candidate, error_class in _RESPONSE_ERRORS.items():
            if isinstance(error, error_class):
                kind = candidate
        return Failure(
            kind=kind,
            message=str(error),
            status=error.status,
            type=error.type,
            title=error.title,
            name=error.name,
            retry_after=error.retry_after,
        )
    if isinstance(error, AuthConnectionError):
        return Failure(kind="connection", message=str(error), retry_after=error.retry_after, sent=error.sent)
    # The text of a foreign exception may hold what was sent, so only its class is named.
    return Failure(kind="connection", message=f"the token call failed with {type(error).__name__}")
