"""The table of cases for the record's transitions, applied to files."""

from pathlib import Path

import pytest
from attrs import frozen

from apivideo_auth._record import EMPTY, Claim, Commit, Release
from apivideo_auth.stores._file import FileStore
from apivideo_auth.stores._json import record_from_json, record_to_json
from tests.stores.file_workers import ignore
from tests.support.record_cases import CASES, Case, differences


@frozen
class StandingClock:
    """A clock that stands still: records in files are dated by its wall clock."""

    now: float

    def monotonic(self) -> float:
        """Return another time than `utc`, so that mixing them up is seen."""
        return -self.now

    def utc(self) -> float:
        """Return the moment of the case."""
        return self.now


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_file_answers_as_the_table_says(tmp_path: Path, case: Case):
    """A record in a file, an event and a time result in the answer and the record of the table."""
    folder = tmp_path / "tokens"
    folder.mkdir(mode=0o700)
    file = folder / "account.json"
    if case.before != EMPTY:
        file.touch(0o600)
        file.write_bytes(record_to_json(case.before))
    slot = FileStore(folder).open("account", clock=StandingClock(case.now), on_commit=ignore, on_damage=pytest.fail)
    match case.event:
        case Claim():
            answer: object = await slot.claim(case.event)
        case Commit():
            answer = await slot.commit(case.event)
        case Release():
            answer = await slot.release(case.event)
        case None:
            answer = await slot.read()
    await slot.close()
    after = record_from_json(file.read_bytes()) if file.exists() else EMPTY
    assert [*differences(answer, case.answer, "the answer"), *differences(after, case.after, "the record")] == []
