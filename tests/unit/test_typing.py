"""Type checkers on programs that use the package. They take seconds and belong to `make check`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAM = """\
from apivideo_auth import Clock, RefreshPolicy, TokenEndpoints, TokenManager
from apivideo_auth.emulator import Call, Emulator, RateLimits

def make(clock: Clock, api: TokenEndpoints) -> TokenManager:
    return TokenManager.from_env(clock=clock, api=api, policy=RefreshPolicy())

def last_call(server: Emulator) -> Call:
    return server.calls[-1]

TokenManager.from_env().session(raise_for_status=True)
Emulator(limits=RateLimits.SANDBOX)
"""
MISTAKES = {
    "TokenManger": "from apivideo_auth import TokenManger",
    "polciy": "TokenManager.from_env(polciy=RefreshPolicy())",
    "timout": "TokenManager('key').session(timout=None)",
    "policy": "TokenManager.from_env(policy=5)",
}
COMMANDS = {
    "mypy": ["-m", "mypy", "--config-file=", "--no-incremental"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
}


def errors_of(checker: str, program: str, place: Path) -> list[str]:
    """Return the lines about errors that a type checker prints for a program."""
    pytest.importorskip(checker)
    path = place / "program.py"
    path.write_text(program)
    (place / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    run = subprocess.run(
        [sys.executable, *COMMANDS[checker], str(path)],
        cwd=place,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in run.stdout.splitlines() if " error: " in line]
    assert (run.returncode == 0) == (not errors), run.stdout + run.stderr
    return errors


@pytest.mark.parametrize("checker", COMMANDS)
def test_misspelt_names_are_errors(checker: str, tmp_path: Path) -> None:
    """Both type checkers accept the public names, and report each misspelt import and keyword argument."""
    assert errors_of(checker, PROGRAM, tmp_path) == []
    errors = errors_of(checker, PROGRAM + "\n".join(MISTAKES.values()), tmp_path)
    for number, name in enumerate(MISTAKES, PROGRAM.count("\n") + 1):
        assert any(f"program.py:{number}" in error and name in error for error in errors), errors
    assert len(errors) == len(MISTAKES), errors
