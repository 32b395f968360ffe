"""Imports run one way."""

import logging.config
import sys
from pathlib import Path

from click.testing import CliRunner
from importlinter.cli import lint_imports_command

ROOT = Path(__file__).parents[2]


def test_imports_run_one_way(monkeypatch) -> None:
    """The layers of the package, and the purity of what decides, hold as pyproject.toml states them."""
    # import-linter configures logging, which would disable the loggers that exist for all later tests.
    monkeypatch.setattr(logging.config, "dictConfig", lambda _config: None)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    result = CliRunner().invoke(lint_imports_command, ["--no-cache"])
    assert result.exit_code == 0, result.output
