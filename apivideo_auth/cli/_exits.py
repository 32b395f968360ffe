"""Exit codes, and how errors become them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click

from apivideo_auth import _errors

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
UNREACHABLE: Final = 4
RATE_LIMITED: Final = 5
STORE: Final = 6
INVALID: Final = 7
SERVER_ERRORS: Final = 500


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance


def code_of(error: Exception) -> int:
    """Return the exit code of an error."""
    if isinstance(error, _errors.AuthResponseError) and (error.status or 0) >= SERVER_ERRORS:
        return UNREACHABLE
    for kind, code in (
        (_errors.CredentialsRejectedError, REFUSED),
        (_errors.TokenRejectedError, REFUSED),
        (_errors.RateLimitedError, RATE_LIMITED),
        (_errors.AuthConnectionError, UNREACHABLE),
        (_errors.TokenStoreError, STORE),
        (_errors.InsecureUrlError, USAGE),
        (_errors.AuthError, INVALID),
        (ValueError, USAGE),
        (TypeError, USAGE),
    ):
        if isinstance(error, kind):
            return code
    return FAILED


@contextmanager
def mapped() -> Generator[None]:
    """Turn the package's errors into one line on standard error and an exit code."""
    try:
        yield
    except (_errors.AuthError, ValueError) as error:
        raise _Failure(str(error), code_of(error)) from None
