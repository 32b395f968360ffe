"""Errors: whether a call may be repeated, and how they become failures, whatever a stand-in makes of them."""

import math
import pickle

import pytest

from apivideo_auth import (
    AuthConnectionError,
    AuthError,
    AuthResponseError,
    BadRequest,
    CredentialsRejectedError,
    InsecureUrlError,
    InvalidResponseError,
    ManagerClosedError,
    RateLimitedError,
    TokenRejectedError,
    TokenStoreError,
)
from apivideo_auth._errors import error_from, failure_from
from apivideo_auth._failure import Failure

SECRET = "made-up-secret-0123456789"


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (AuthError("m"), True),
        (AuthConnectionError("m"), True),
        (AuthConnectionError("m", retryable=False), False),
        (AuthResponseError("m", status=500), True),
        (AuthResponseError("m", status=404), False),
        (AuthResponseError("m", status=405), False),
        (AuthResponseError("m", status=410), False),
        (AuthResponseError("m", status=408), True),
        (CredentialsRejectedError("m", status=400), False),
        (RateLimitedError("m", status=429), True),
        (InvalidResponseError("m", status=200), True),
        (TokenRejectedError("m"), True),
        (TokenStoreError("m"), True),
        (ManagerClosedError(), False),
        (InsecureUrlError("m"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, AuthError) else str(value),
)
def test_errors_say_whether_a_call_may_be_repeated(error: AuthError, *, retryable: bool) -> None:
    """Each error says whether the same call may succeed later without a change by the user, also after pickling, and
    after it was shared as a failure.
    """
    assert error.retryable is retryable
    assert pickle.loads(pickle.dumps(error)).retryable is retryable
    if isinstance(error, AuthConnectionError | AuthResponseError):
        failure = failure_from(error)
        assert failure.retryable is retryable
        assert error_from(failure).retryable is retryable


@pytest.mark.parametrize(
    "error",
    [
        AuthConnectionError("made-up", sent=False, retry_after=1.5),
        AuthConnectionError("made-up"),
        AuthConnectionError("made-up", sent=False, retryable=False),
        AuthResponseError("made-up", status=503, retry_after=2.0),
        CredentialsRejectedError("made-up", status=400, type="t", title="T", name="n"),
        RateLimitedError("made-up", status=429, retry_after=7.0),
        InvalidResponseError("made-up", status=200),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_being_shared(error: AuthError) -> None:
    """An exception and the one made of its failure are equal in class, text and data, and different objects."""
    again = error_from(failure_from(error))
    assert again is not error
    assert (type(again), again.args) == (type(error), error.args)
    assert again.__dict__ == error.__dict__


def test_the_body_of_an_error_response_is_reachable() -> None:
    """The body of an error response is there as one value, and None if the response described no error."""
    error = CredentialsRejectedError("m", status=400, type="t", title="T", name="apiKey")
    assert error.body == BadRequest("t", "T", "apiKey", 400)
    assert CredentialsRejectedError("m", status=401, title="T").body == BadRequest(title="T", status=401)
    assert AuthResponseError("m", status=500).body is None


class WithoutConstructorError(CredentialsRejectedError):
    """Does not call its base class."""

    def __init__(self) -> None:
        pass


class WithoutTextError(AuthConnectionError):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise LookupError(SECRET)


class NoTextError(AuthConnectionError):
    """Is shown as something that is not text."""

    def __str__(self) -> str:
        return 5  # noqa: PLE0307  that is what is odd about it


class WithoutFieldsError(AuthResponseError):
    """Cannot be asked."""

    @property
    def status(self) -> int:
        raise LookupError(SECRET)

    @status.setter
    def status(self, value: object) -> None:
        pass


ODD = [
    CredentialsRejectedError("made-up", status="400", type=5, title=404, name=["n"], retry_after="5"),
    RateLimitedError("made-up", status=True, retry_after=math.nan),
    RateLimitedError("made-up", status=-1, retry_after=-5),
    RateLimitedError("made-up", status=10**30, retry_after=math.inf),
    AuthConnectionError("made-up", sent="no", retry_after=True),
    AuthConnectionError(None),
    AuthConnectionError("x" * 100_000 + "\x1b[2J\n"),
    AuthResponseError(5, status=500),
    WithoutConstructorError(),
    WithoutTextError("made-up"),
    NoTextError("made-up"),
    WithoutFieldsError("made-up"),
    AuthError("made-up"),
    KeyError(SECRET),
    type("x" * 10_000, (Exception,), {})(),
]


@pytest.mark.parametrize("error", ODD, ids=range(len(ODD)))
def test_odd_errors_of_a_stand_in_are_well_formed_failures(error: Exception) -> None:
    """Whatever attributes an exception of a stand-in has, its failure has fields of the right types, short and
    printable texts, and can be raised.
    """
    failure = failure_from(error)
    for text, optional in ((failure.message, False), (failure.type, True), (failure.title, True), (failure.name, True)):
        assert (optional and text is None) or (type(text) is str and 0 < len(text) <= 1000 and text.isprintable())
    assert failure.status is None or (type(failure.status) is int and 100 <= failure.status <= 599)
    assert failure.retry_after is None or (0 <= failure.retry_after < math.inf and failure.retry_after is not True)
    assert type(failure.sent) is bool
    assert SECRET not in failure.message
    assert isinstance(error_from(failure), AuthError)


def test_unusual_fields_do_not_hide_the_usual_ones() -> None:
    """A field of a wrong type counts as missing; the kind and the other fields stay."""
    error = CredentialsRejectedError("made-up", status=400, title=404, retry_after="5")
    assert failure_from(error) == Failure(kind="credentials", message="made-up", status=400)
    assert failure_from(WithoutConstructorError()).kind == "credentials"
    assert failure_from(AuthConnectionError("made-up", sent=0)).sent is True


def test_secrets_are_masked_before_texts_of_a_stand_in_are_cut() -> None:
    """A failure shows none of the secrets that were sent, at the end of a long text either."""
    error = CredentialsRejectedError("x" * 990 + SECRET, status=400, title="x" * 190 + SECRET, name=SECRET)
    failure = failure_from(error, SECRET)
    assert SECRET[:8] not in failure.message + failure.title + failure.name


def test_the_usual_values_of_errors() -> None:
    """A request counts as sent unless the error says otherwise, and a closed manager says that it is closed."""
    assert AuthConnectionError("made-up").sent is True
    assert str(ManagerClosedError()) == "this TokenManager is closed"


def test_a_copied_error_has_the_same_text() -> None:
    """A pickle keeps the arguments, from which the text is made."""
    copied = pickle.loads(pickle.dumps(AuthResponseError("made-up text", status=500)))
    assert (copied.args, str(copied), copied.status) == (("made-up text",), "made-up text", 500)


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (100, 0, (100, 0)),
        (599, 0.5, (599, 0.5)),
        (99, -0.5, (None, None)),
        (600, math.inf, (None, None)),
        (None, math.nan, (None, None)),
    ],
)
def test_numbers_of_a_stand_ins_error_are_believed_within_limits(
    status: int | None, retry_after: float, expected: tuple[int | None, float | None]
) -> None:
    """A status is that of HTTP, and a wait is 0 or more and finite; anything else counts as missing."""
    failure = failure_from(AuthResponseError("made-up", status=status, retry_after=retry_after))
    assert (failure.status, failure.retry_after) == expected


def test_texts_of_a_stand_ins_error_have_a_length_of_their_own() -> None:
    """A message may have 1,000 characters."""
    assert failure_from(AuthResponseError("x" * 1000)).message == "x" * 1000
    assert failure_from(AuthResponseError("x" * 1001)).message == "x" * 1000


SECRET_NAME = "MadeUpSecretInTheNameOfAClass"


@pytest.mark.parametrize("base", [Exception, AuthResponseError], ids=["unknown", "own"])
def test_an_error_without_a_text_is_named_without_secrets(base: type[Exception]) -> None:
    """Its class stands for it; a secret in that name is masked."""

    def broken(_self: object) -> str:
        raise RuntimeError

    named = type(f"A{SECRET_NAME}", (base,), {"__str__": broken})
    assert failure_from(named("made-up"), SECRET_NAME).message == "the token call failed with A***"
    assert failure_from(type("Made", (base,), {"__str__": broken})("made-up")).message == (
        "the token call failed with Made"
    )
