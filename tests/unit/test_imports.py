"""Imports run one way."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_imports_run_one_way() -> None:
    """The layers of the package, and the purity of what decides, hold as pyproject.toml states them."""
    # In a process of its own: import-linter sets up logging for itself.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from importlinter.cli import lint_imports_command as c; c()"
    run = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
