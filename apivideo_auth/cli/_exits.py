"""The exit codes of the command, and the exit code of each error."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REJECTED = 3
    UNREACHABLE = 4
    RATE_LIMITED = 5
    STORE = 6
    UNEXPECTED_RESPONSE = 7
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130


_SERVER_ERROR = 500


def exit_code(error: Exception) -> ExitCode | None:  # noqa: PLR0911  one for each kind of error
    """Return the exit code of an error that the user can act on; `None` for a defect."""
    from apivideo_auth import _errors  # noqa: PLC0415  imports aiohttp, which --help does without

    match error:
        case _errors.CredentialsRejectedError() | _errors.TokenRejectedError():
            return ExitCode.REJECTED
        case _errors.RateLimitedError():
            return ExitCode.RATE_LIMITED
        case _errors.AuthConnectionError():
            return ExitCode.UNREACHABLE
        case _errors.AuthResponseError(status=int(status)) if status >= _SERVER_ERROR:
            return ExitCode.UNREACHABLE
        case _errors.TokenStoreError():
            return ExitCode.STORE
        case ValueError():  # an InsecureUrlError too
            return ExitCode.USAGE
        case ImportError() if not isinstance(error, ModuleNotFoundError):  # the store's URL needs an extra
            return ExitCode.USAGE
        case _errors.AuthError():
            return ExitCode.UNEXPECTED_RESPONSE
        case _:
            return None
