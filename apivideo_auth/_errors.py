"""The errors that callers see, and their conversion from and to a `Failure`.

    AuthError (an aiohttp.ClientError)
    ├── AuthConnectionError          no response: connection refused or broken, timeout
    ├── AuthResponseError            a response without a token: status, type, title
    │   ├── CredentialsRejectedError     the endpoint rejected the API key (or a refresh token)
    │   ├── RateLimitedError             status 429
    │   └── InvalidResponseError         a response that api.video does not send
    ├── TokenRejectedError           the API rejected a token and no other is available yet
    ├── TokenStoreError              a store is down; get_token never raises it
    ├── ManagerClosedError           the TokenManager is closed
    └── InsecureUrlError (a ValueError)  plain http to another machine

No error derives from `ClientOSError` or `ServerDisconnectedError`: aiohttp would send the request again.
"""

import math
from typing import Any

import aiohttp

from apivideo_auth._failure import WRONG_ADDRESS_STATUSES, Failure, FailureKind, clean_text
from apivideo_auth._models import BadRequest

_MAX_MESSAGE_LENGTH = 1000


class AuthError(aiohttp.ClientError):
    """The base class of this package's errors.

    - `retryable`: whether the same call may succeed later without a change by the user.
    - `retry_after`: seconds until another try makes sense, or `None` if that is not known.
    """

    retryable: bool = True
    retry_after: float | None = None

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


class AuthConnectionError(AuthError):
    """The endpoint did not respond.

    `sent` is False if the request provably never reached the server; otherwise the server may have processed it.
    """

    sent: bool = True

    def __init__(
        self, message: str, *, sent: bool = True, retryable: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.sent = sent
        self.retryable = retryable


class AuthResponseError(AuthError):
    """The endpoint responded, but not with a token.

    `status` is the HTTP status. `type` (a link whose last part names the error), `title` and `name` (the offending
    parameter) come from the body of the response, and are `None` if it had none. `body` holds all of them.
    """

    status: int | None = None
    type: str | None = None
    title: str | None = None
    name: str | None = None

    def __init__(  # noqa: PLR0913  the fields of the documented error body
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002  the name in the body
        title: str | None = None,
        name: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status
        self.type = type
        self.title = title
        self.name = name
        if status in WRONG_ADDRESS_STATUSES:
            self.retryable = False

    @property
    def body(self) -> BadRequest | None:
        """The error that the body described, or `None` if it described none."""
        if self.type is None and self.title is None and self.name is None:
            return None
        return BadRequest(type=self.type or "", title=self.title or "", name=self.name or "", status=self.status)


class CredentialsRejectedError(AuthResponseError):
    """The endpoint rejected the API key; from `AuthenticationApi.refresh`, the refresh token."""

    retryable = False


class RateLimitedError(AuthResponseError):
    """The endpoint responded with status 429; `retry_after` is the pause that it asked for, in seconds."""


class InvalidResponseError(AuthResponseError):
    """The endpoint sent a response that api.video does not send."""


class TokenRejectedError(AuthError):
    """The API rejected a token and no other is available yet; `retry_after` says when one may be, in seconds."""


class TokenStoreError(AuthError):
    """A token store is down or its data is unreadable. Raised by stores, never by `get_token`."""


class ManagerClosedError(AuthError):
    """The `TokenManager` is closed."""

    retryable = False

    def __init__(self, message: str = "this TokenManager is closed") -> None:
        super().__init__(message)


class InsecureUrlError(AuthError, ValueError):
    """Secrets would go over plain http to another machine."""

    retryable = False


def _restore(cls: type[AuthError], args: tuple[Any, ...], state: dict[str, Any]) -> AuthError:
    """Rebuild an unpickled error without calling its constructor."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


_RESPONSE_ERRORS: dict[FailureKind, type[AuthResponseError]] = {
    "credentials": CredentialsRejectedError,
    "rate_limited": RateLimitedError,
    "invalid": InvalidResponseError,
    "response": AuthResponseError,
}


def error_from(failure: Failure, *, retry_after: float | None = None) -> AuthError:
    """Return a new exception for this failure; `retry_after`, if given, replaces the server's."""
    wait = failure.retry_after if retry_after is None else retry_after
    if failure.kind in ("connection", "misuse"):
        return AuthConnectionError(failure.message, sent=failure.sent, retryable=failure.retryable, retry_after=wait)
    return _RESPONSE_ERRORS[failure.kind](
        failure.message,
        status=failure.status,
        type=failure.type,
        title=failure.title,
        name=failure.name,
        retry_after=wait,
    )


def rejected_too_soon(retry_after: float) -> TokenRejectedError:
    """Return the error of a caller whose token was rejected while another renewal is not allowed yet."""
    return TokenRejectedError(
        f"the API rejected the token, and it cannot be renewed again yet; try again in {retry_after:.1f} seconds",
        retry_after=retry_after,
    )


def too_old_on_arrival(lifetime: float, retry_after: float) -> InvalidResponseError:
    """Return the error of a caller whose `min_ttl` new tokens do not meet."""
    return InvalidResponseError(
        f"a new token with a lifetime of {lifetime:g} seconds already has less than min_ttl left: "
        "the endpoint is too slow",
        retry_after=retry_after,
    )


def failure_from(error: BaseException, *secrets: str) -> Failure:
    """Return the failure for an exception of a token call, with `secrets` masked in its texts.

    The exception may be a stand-in's: attributes of a wrong type or value count as missing.
    """
    if isinstance(error, AuthResponseError):
        kind: FailureKind = next(kind for kind, cls in _RESPONSE_ERRORS.items() if isinstance(error, cls))
    elif isinstance(error, AuthConnectionError):
        kind = "connection" if _attribute(error, "retryable", bool) is not False else "misuse"
    else:
        # The text of an unknown exception may hold a secret that was sent, so only its class is named.
        return Failure(kind="connection", message=_class_text(error, *secrets))

    def text(name: str) -> str | None:
        return clean_text(_attribute(error, name, str) or "", *secrets) or None

    status, retry_after = _attribute(error, "status", int), _attribute(error, "retry_after", int | float)
    return Failure(
        kind=kind,
        message=message_of(error, *secrets),
        status=status if status is not None and 100 <= status <= 599 else None,  # noqa: PLR2004  as in HTTP
        type=text("type"),
        title=text("title"),
        name=text("name"),
        retry_after=retry_after if retry_after is not None and 0 <= retry_after < math.inf else None,
        sent=_attribute(error, "sent", bool) is not False,
    )


def _attribute(error: BaseException, name: str, cls: Any) -> Any:  # noqa: ANN401  a `cls` or None
    """Return an attribute of an exception if it is a `cls`, and else None."""
    try:
        value = getattr(error, name)
    except Exception:  # noqa: BLE001  it may be missing, and a property of a stand-in may raise anything
        return None
    return value if isinstance(value, cls) and (cls is bool or not isinstance(value, bool)) else None


def message_of(error: BaseException, *secrets: str) -> str:
    """Return the text of an error of this package, or of a stand-in, in a form that can be shown."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  `__str__` of a stand-in may raise anything
        text = ""
    return clean_text(text, *secrets, limit=_MAX_MESSAGE_LENGTH) or _class_text(error, *secrets)


def _class_text(error: BaseException, *secrets: str) -> str:
    return f"the token call failed with {clean_text(type(error).__name__, *secrets)}"
