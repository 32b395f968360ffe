"""The documents name what exists."""

import re
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import apivideo_auth

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
STATES = (ROOT / "docs" / "states.md").read_text("utf-8")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")]


def test_the_picture_of_the_layers_is_the_one_that_is_checked() -> None:
    """docs/architecture.md draws the layers of pyproject.toml, and describes each module."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (checked,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    layers = [set(re.findall(r"\w+", layer)) for layer in checked]
    (picture,) = re.findall(r"```\n(__main__\n.*?)```", ARCHITECTURE, re.DOTALL)
    assert [set(line.split()) for line in picture.splitlines()] == layers
    described = re.findall(r"^\| `(\w+)` \|", ARCHITECTURE.partition("## One")[0], re.MULTILINE)
    assert sorted(described) == sorted(set().union(*layers))


def test_the_functions_that_the_documents_name_exist() -> None:
    """Each `Class.method` and `_module.function` of docs/architecture.md and docs/states.md exists."""
    modules = [import_module(found.name) for found in walk_packages(apivideo_auth.__path__, "apivideo_auth.")]
    owners = {module.__name__.removeprefix("apivideo_auth."): module for module in modules}
    owners |= {name: value for module in modules for name, value in vars(module).items() if isinstance(value, type)}
    owners |= {name: getattr(apivideo_auth, name) for name in apivideo_auth.__all__}
    named = re.findall(r"`((?:\w+\._)?\w+)\.(\w+)(?:\([^`]*\))?`", ARCHITECTURE + STATES)
    files = {"md", "py", "toml"}
    assert len(named) > 50
    assert {
        f"{owner}.{name}"
        for owner, name in named
        if name not in files and not (owner in owners and hasattr(owners[owner], name))
    } == set()


def anchors(page: str) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """Each relative link of a page leads to a file, and to a heading if it names one."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text("utf-8")), (target, anchor)
