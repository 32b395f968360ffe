"""The pages of the site name what exists, and all of it."""

import ast
import importlib.util
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

import apivideo_auth
from apivideo_auth import emulator, events, httpx, otel, pytest_plugin, stores

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text("utf-8")
THREATS = (DOCS / "threat-model.md").read_text("utf-8")
GUARANTEES = re.findall(
    r"^## (G\d+): .*?\n(.*?)(?=^## |\Z)", (DOCS / "guarantees.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def script(name: str) -> ModuleType:
    """Return a script of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_of_tests(path: Path) -> set[str]:
    """Return the names of the tests in a file."""
    nodes = ast.parse(path.read_text("utf-8")).body
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in names if name.startswith("test_")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_is_what_the_script_draws(scheme: str) -> None:
    """The committed pictures of a token's life are those of scripts/draw_token_life.py."""
    drawn = script("draw_token_life").draw(scheme)
    assert (DOCS / "assets" / f"token-life-{scheme}.svg").read_text("utf-8") == drawn
    assert f"docs/assets/token-life-{scheme}.svg" in README


def test_the_reference_has_every_public_name() -> None:
    """Each public name is on exactly one page of the reference, and nothing else is."""
    text = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    documented = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    names = {f"apivideo_auth.{name}" for name in apivideo_auth.__all__}
    for module in (stores, events, emulator, httpx, otel):
        names |= {f"{module.__name__}.{name}" for name in module.__all__}
    names |= {f"{pytest_plugin.__name__}.{name}" for name in ("apivideo", "apivideo_env")}
    assert sorted(documented) == sorted(names)


def test_the_page_on_errors_has_every_error() -> None:
    """docs/errors.md has a section for each error, which says when, whether to retry, and what to do."""
    page = (DOCS / "errors.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (\w+Error)\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL))
    errors = {name for name in apivideo_auth.__all__ if name.endswith("Error")} - {"AuthError"}
    assert set(sections) == errors
    for name, text in sections.items():
        words = re.findall(r"^- \*\*(.+?):\*\*", text, re.MULTILINE)
        assert words == ["When", "`retryable`", "What to do"]
        error = getattr(apivideo_auth, name)
        (retryable,) = re.findall(r"\*\*`retryable`:\*\* (\w+)", text)
        assert (retryable == "yes") == error.retryable


def test_the_page_on_events_has_every_event() -> None:
    """docs/watch.md has a row for each event, and the instruments of the module's docstring."""
    page = (DOCS / "watch.md").read_text("utf-8")
    named = set(re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE))
    assert named == set(events.__all__) - {"Event", "EventHandler"}
    instruments = r"^\| `(apivideo_auth\.\S+)` \| ([^|]+) \|"
    assert re.findall(instruments, page, re.MULTILINE) == re.findall(instruments, otel.__doc__ or "", re.MULTILINE)


def test_the_page_on_events_shows_records_of_the_log() -> None:
    """The log lines of docs/watch.md are written as the package writes them."""
    page = (DOCS / "watch.md").read_text("utf-8")
    renewed = events.TokenRenewed(
        endpoint="/auth/api-key",
        reason="first",
        seconds=0.08,
        generation=1,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        lifetime=3600,
        lifetime_assumed=False,
    )
    failed = events.RenewalFailed(
        endpoint="/auth/refresh",
        error_class="AuthResponseError",
        cause="https://ws.api.video/auth/refresh responded with status 503 (Service Unavailable)",
        failures=1,
        still_serving=True,
        next_try_in=0.4,
    )
    assert f"INFO:apivideo_auth:{renewed.message}\n" in page
    assert f"WARNING:apivideo_auth:{failed.message}\n" in page


@pytest.mark.parametrize(("guarantee", "text"), GUARANTEES)
def test_each_guarantee_names_its_tests(guarantee: str, text: str) -> None:
    """A guarantee links to all files with tests that are named after it, and to no file without tests."""
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\((\.\./tests/[^)]+\.py)\)", text)}
    assert all(names_of_tests(path) for path in linked)
    begin = f"test_g{int(guarantee[1:]):02}_"
    named = {path for path in (ROOT / "tests").rglob(f"{begin}*.py") if "simulation" not in path.parts}
    assert named <= linked


def test_there_are_thirteen_guarantees() -> None:
    """The page and the README have the same guarantees."""
    expected = [f"G{number}" for number in range(1, 14)]
    assert [guarantee for guarantee, _ in GUARANTEES] == expected
    assert re.findall(r"^\| (G\d+) \|", README, re.MULTILINE) == expected


def test_the_threat_model_names_tests_that_exist() -> None:
    """Each test that the threat model names exists, and each threat that is stopped names one."""
    every = set().union(*(names_of_tests(path) for path in (ROOT / "tests").rglob("test_*.py")))
    named = set(re.findall(r"`(test_\w+)`", THREATS))
    assert len(named) > 15
    assert named <= every
    threats = THREATS.partition("## Threats")[2].partition("## Out")[0].split("\n### ")[1:]
    assert len(threats) == 15
    assert all("\n\nShown by " in threat for threat in threats)


def test_the_readme_of_the_package_has_no_link_into_the_repository() -> None:
    """What a package index shows has absolute links and links within the page only, and no picture."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hook = configuration["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = README
    for substitution in hook["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    assert {link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith(("https://", "#"))} == set()
    assert "<picture>" not in text
    assert "](#get-a-token)" in text
    assert text.count("```python") == README.count("```python")


def test_the_site_loads_nothing_from_other_hosts() -> None:
    """The configuration of the site names no script, style, font or picture of another host."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "://" not in text
    assert "font: false" in text
