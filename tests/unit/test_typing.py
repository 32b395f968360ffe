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
from apivideo_auth import TokenManager
from apivideo_auth import TokenManger

print(TokenManager, TokenManger)
"""
COMMANDS = {
    "mypy": ["-m", "mypy", "--config-file=", "--no-incremental"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", COMMANDS)
def test_a_misspelt_import_is_an_error(checker: str, tmp_path: Path) -> None:
    """Both type checkers accept a public name, and report a misspelt one."""
    pytest.importorskip(checker)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    run = subprocess.run(
        [sys.executable, *COMMANDS[checker], str(program)],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    errors = [line for line in run.stdout.splitlines() if " error: " in line]
    assert len(errors) == 1, run.stdout
    assert "program.py:2" in errors[0]
    assert "TokenManger" in errors[0]
