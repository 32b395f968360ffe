"""Run mutmut over groups of modules: `mutants.py [--max-children NUMBER] [GROUP …]`.

pyproject.toml names the groups. Each has tests of its own, and a copy of the project in `.mutants/GROUP`. The exit
status is 1 if less than 95 % of the mutants are killed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LEAST_KILLED = 0.95
KILLED = ("killed", "timeout", "caught by type check")


def main() -> None:
    """Try the mutants of the groups, and print what became of them."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"one of {', '.join(groups)}; by default all")
    parser.add_argument("--max-children", default=os.cpu_count(), metavar="NUMBER", help="mutants tried at a time")
    options = parser.parse_args()
    fates: list[tuple[str, str]] = []
    for name in options.groups or groups:
        folder = copy_project(name, groups[name])
        mutmut("run", "--max-children", str(options.max_children), folder=folder)
        results = mutmut("results", "--all", "true", folder=folder, quiet=True)
        fates += re.findall(r"^ *(\S+): (.+)$", results, re.MULTILINE)
    if not fates:
        sys.exit("mutmut listed no mutants")
    print("\n".join(f"{fate}: {mutant}" for mutant, fate in fates if fate not in KILLED))
    modules = {mutant: mutant.rpartition(".")[0] for mutant, _ in fates}
    for module in (*sorted(set(modules.values())), "all"):
        counts = Counter(fate for mutant, fate in fates if module in (modules[mutant], "all"))
        killed, total = sum(counts[fate] for fate in KILLED), counts.total()
        timeouts = f", {counts['timeout']} of them by a timeout" if counts["timeout"] else ""
        print(f"{module:36} {killed:5} of {total:5} killed ({killed / total:.1%}){timeouts}")
    sys.exit(killed / total < LEAST_KILLED)


def copy_project(name: str, group: dict[str, Any]) -> Path:
    """Copy the project, and set the modules and tests of a group in its configuration."""
    folder = ROOT / ".mutants" / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("apivideo_auth", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    modules = [f"apivideo_auth/{module}" for module in group["modules"]]
    # A list of strings is the same in TOML and JSON.
    lists = f"only_mutate = {json.dumps(modules)}\npytest_add_cli_args_test_selection = {json.dumps(group['tests'])}\n"
    text = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace("[tool.mutmut]\n", f"[tool.mutmut]\n{lists}", 1))
    shutil.copy(ROOT / "README.md", folder)
    return folder


def mutmut(*arguments: str, folder: Path, quiet: bool = False) -> str:
    """Run mutmut in a copy of the project; return its output if `quiet`."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE if quiet else None)
    return done.stdout or ""


if __name__ == "__main__":
    main()
