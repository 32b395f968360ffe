"""A record as JSON: reading returns what was written, or nothing."""

import json
import math
from typing import Any

import pytest
from attrs import asdict, evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from apivideo_auth._failure import Failure
from apivideo_auth._record import EMPTY, Record
from apivideo_auth._secrets import MASK, SecretBytes
from apivideo_auth.stores._json import (
    MAX_MESSAGE_LENGTH,
    MAX_SIZE,
    failure_from_json,
    failure_to_json,
    record_from_json,
    record_to_json,
)

FAILURE = Failure(
    kind="rate_limited",
    message="too many",
    status=429,
    type="https://docs.api.video/reference/too-many-requests",
    title="Too many requests.",
    name="",
    retry_after=2.5,
    sent=True,
)
FULL = Record(
    version="committed",
    access=b"access-\x00\xff",
    lifetime=3600.0,
    committed_at=1_767_225_600.25,
    ends_at=1_767_229_200.25,
    refresh=b"refresh",
    claim_id="claimed",
    claimed_at=1_767_225_600.0,
    claim_until=1_767_225_615.0,
    not_before=1_767_225_601.0,
    failure=FAILURE,
    failures=3,
    failing_since=1_767_225_599.0,
    rejected_at=1_767_225_598.0,
    unrejected_since=1_767_225_500.0,
    throttle=2.0,
    throttled_until=1_767_225_600.0,
)


def changed(**fields_of_record: Any) -> bytes:
    """Return the JSON of a full record in which some fields have other values."""
    written = json.loads(record_to_json(FULL))
    written["record"] |= fields_of_record
    return json.dumps(written).encode()


def without(field: str) -> bytes:
    """Return the JSON of a full record that lacks a field."""
    written = json.loads(record_to_json(FULL))
    del written["record"][field]
    return json.dumps(written).encode()


@pytest.mark.parametrize("record", [EMPTY, FULL, evolve(FULL, failure=None, access=None, rejected_at=None)])
def test_a_record_comes_back_as_it_was_written(record):
    """Every field survives, bytes and fractions of seconds to the last bit."""
    assert record_from_json(record_to_json(record)) == record


def test_every_field_of_a_record_is_written():
    """No field of a record or of a failure is left out."""
    written = json.loads(record_to_json(FULL))
    assert written["format"] == 2
    assert written["record"].keys() == {field.name for field in fields(Record)}
    assert written["record"]["failure"] == asdict(FAILURE)


def test_a_failure_has_this_form():
    """It is written without spaces. Another form needs another `FORMAT`."""
    assert failure_to_json(Failure(kind="connection", message="no connection", retry_after=0.5, sent=False)) == (
        '{"kind":"connection","message":"no connection","status":null,"type":null,"title":null,"name":null,'
        '"retry_after":0.5,"sent":false}'
    )


def test_a_whole_number_of_seconds_may_lack_its_fraction():
    """A program in another language may write 3600.0 as 3600."""
    assert record_from_json(changed(lifetime=3600)) == FULL


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.none() | st.text(st.characters())
shown = st.text(st.characters().filter(str.isprintable), max_size=200)
failures = st.builds(
    Failure,
    kind=st.sampled_from(["connection", "misuse", "response", "credentials", "rate_limited", "invalid"]),
    message=shown,
    status=st.none() | st.integers(100, 599),
    type=st.none() | shown,
    title=st.none() | shown,
    name=st.none() | shown,
    retry_after=st.none() | st.floats(0, allow_infinity=False),
    sent=st.booleans(),
)
records = st.builds(
    Record,
    version=texts,
    access=st.none() | st.binary(),
    lifetime=numbers,
    committed_at=st.none() | numbers,
    ends_at=numbers,
    refresh=st.none() | st.binary(),
    claim_id=texts,
    claimed_at=numbers,
    claim_until=numbers,
    not_before=numbers,
    failure=st.none() | failures,
    failures=st.integers(0, 1 << 53),
    failing_since=numbers,
    rejected_at=st.none() | numbers,
    unrejected_since=st.none() | numbers,
    throttle=numbers,
    throttled_until=numbers,
)


@given(records)
def test_any_record_comes_back_as_it_was_written(record):
    """Any record, also with lone surrogates, is written as ASCII and is the same when it is read."""
    written = record_to_json(record)
    assert written.isascii()
    assert record_from_json(written) == record


@given(failures)
def test_any_failure_comes_back_as_it_was_written(failure):
    """A failure can be written by itself, too."""
    written = failure_to_json(failure)
    assert written.isascii()
    assert failure_from_json(written) == failure


UNREADABLE = {
    "empty": b"",
    "cut short": bytes(record_to_json(FULL))[:-1],
    "its first half": bytes(record_to_json(FULL))[: len(record_to_json(FULL)) // 2],
    "twice": bytes(record_to_json(FULL)) * 2,
    "zeros, as after a power cut": b"\x00" * 400,
    "no text": b"\xff\xfe\xfd",
    "another encoding": bytes(record_to_json(FULL)).decode().encode("utf-16"),
    "a byte-order mark": b"\xef\xbb\xbf" + bytes(record_to_json(FULL)),
    "foreign": b"# a configuration file",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "an object": b"{}",
    "no record": b'{"format":2}',
    "a record that is a list": b'{"format":2,"record":[]}',
    "an empty record": b'{"format":2,"record":{}}',
    "more beside the record": b'{"more":1,' + bytes(record_to_json(FULL))[1:],
    "the next format": bytes(record_to_json(FULL)).replace(b'"format":2', b'"format":3'),
    "a format that is true": bytes(record_to_json(FULL)).replace(b'"format":2', b'"format":true'),
    "a format that is a fraction": bytes(record_to_json(FULL)).replace(b'"format":2', b'"format":2.0'),
    "a field twice": bytes(record_to_json(FULL)).replace(b'"failures":3', b'"failures":3,"failures":3'),
    "a field more": changed(more=1),
    "a field less": without("throttle"),
    "deep nesting": b"[" * 100_000,
    "deep nesting in a field": b'{"format":2,"record":' + b'{"a":' * 100_000,
    "too large": bytes(record_to_json(FULL)) + b" " * MAX_SIZE,
    "NaN": changed(lifetime=math.nan),
    "Infinity": changed(ends_at=math.inf),
    "-Infinity": changed(claim_until=-math.inf),
    "an exponent out of range": bytes(record_to_json(FULL)).replace(b'"lifetime":3600.0', b'"lifetime":1e999'),
    "a huge number": bytes(record_to_json(FULL)).replace(b'"lifetime":3600.0', b'"lifetime":' + b"9" * 4000),
    "a number of 5,000 digits": bytes(record_to_json(FULL)).replace(b'"failures":3', b'"failures":' + b"9" * 5000),
    "a number as text": changed(lifetime="3600"),
    "a number as truth": changed(lifetime=True),
    "no number": changed(lifetime=None),
    "a text as a number": changed(version=7),
    "a text as an object": changed(claim_id={}),
    "a count below 0": changed(failures=-1),
    "a count as a fraction": changed(failures=3.0),
    "a count as truth": changed(failures=True),
    "a count out of range": changed(failures=(1 << 53) + 1),
    "a part as a number": changed(access=1),
    "a part that is no base64": changed(access="*secret*"),
    "a part with another character": changed(access="c*mVm"),
    "a part with a line break": changed(access="cmVm\n"),
    "a part in half a base64": changed(refresh="cmVm0"),
    "a part in other letters": changed(refresh="é"),
    "a failure as text": changed(failure="down"),
    "a failure of another kind": changed(failure=asdict(FAILURE) | {"kind": "secret"}),
    "a failure with a field more": changed(failure=asdict(FAILURE) | {"more": 1}),
    "a failure with a field less": changed(failure={"kind": "connection", "message": "down"}),
    "a failure sent as a number": changed(failure=asdict(FAILURE) | {"sent": 1}),
    "a failure with a status that is none": changed(failure=asdict(FAILURE) | {"status": 99}),
    "a failure with a status out of range": changed(failure=asdict(FAILURE) | {"status": 600}),
    "a failure to retry in the past": changed(failure=asdict(FAILURE) | {"retry_after": -1.0}),
    "a failure with a status in text": changed(failure=asdict(FAILURE) | {"status": "429"}),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_anything_but_a_record_cannot_be_read(data):
    """Anything but a complete record of this format counts as missing."""
    assert record_from_json(data) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_cannot_be_read(data):
    """Arbitrary bytes count as missing."""
    assert record_from_json(data) is None


@given(st.data())
def test_a_damaged_byte_raises_nothing(data):
    """A record with one changed byte is read, or counts as missing; nothing is raised."""
    written = bytearray(record_to_json(FULL))
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(record_from_json(bytes(written)), Record | None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        '"down"',
        "[" * 100_000,
        failure_to_json(FAILURE)[:-1],
        failure_to_json(FAILURE).replace("2.5", "NaN"),
    ],
)
def test_anything_but_a_failure_cannot_be_read(text):
    """A failure is read as strictly as a record."""
    assert failure_from_json(text) is None


@given(st.builds(evolve, st.just(FAILURE), message=st.text(), type=texts, title=texts, name=texts))
def test_the_texts_of_a_failure_are_cleaned(failure):
    """They are printable and bounded, whatever was written, since they are shown in messages."""
    read = failure_from_json(failure_to_json(failure))
    assert read is not None
    assert read.message == "".join(filter(str.isprintable, failure.message))[:1000]
    for name in ("type", "title", "name"):
        written, text = getattr(failure, name), getattr(read, name)
        assert text == (None if written is None else "".join(filter(str.isprintable, written))[:200])


@pytest.mark.parametrize("length", [MAX_MESSAGE_LENGTH - 1, MAX_MESSAGE_LENGTH, MAX_MESSAGE_LENGTH + 1])
def test_a_message_is_cut_at_its_largest_length(length):
    """A message that somebody has written into the store does not flood a log."""
    read = failure_from_json(failure_to_json(evolve(FAILURE, message="m" * length)))
    assert read.message == "m" * min(length, MAX_MESSAGE_LENGTH)


@pytest.mark.parametrize("status", [None, 100, 429, 599])
@pytest.mark.parametrize("retry_after", [None, 0.0, 7.5])
def test_numbers_up_to_their_limits_are_read(status, retry_after):
    """Every status of HTTP and every duration can be in a record; see `UNREADABLE` for those beyond."""
    failure = evolve(FAILURE, status=status, retry_after=retry_after)
    assert failure_from_json(failure_to_json(failure)) == failure


def test_a_record_with_an_infinite_number_is_not_written():
    """JSON has no infinity, so such a record could not be read."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        record_to_json(evolve(EMPTY, lifetime=math.inf))


def test_parts_are_masked_wherever_they_are_shown():
    """The `repr` of a record that was read shows no token, and that of the JSON shows nothing."""
    read = record_from_json(record_to_json(FULL))
    assert isinstance(read.access, SecretBytes)
    assert isinstance(read.refresh, SecretBytes)
    assert "refresh" not in repr(read).replace("refresh=", "")
    assert repr(record_to_json(FULL)) == f"b'{MASK}'"
