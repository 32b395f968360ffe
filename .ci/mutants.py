"""Run mutmut over groups of modules: `mutants.py [GROUP …]`.

pyproject.toml names the groups. Each has tests of its own, and a copy of the project in `.mutants/GROUP`. The exit
status is 1 if less than 95 % of the mutants are killed.
"""

import json
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
    fates: list[tuple[str, str]] = []
    for name in sys.argv[1:] or groups:
        folder = copy_project(name, groups[name])
        mutmut("run", folder=folder)
        results = mutmut("results", "--all", "true", folder=folder, quiet=True)
        fates += re.findall(r"^ *(\S+): (.+)$", results, re.MULTILINE)
    modules = {mutant: mutant.rpartition(".")[0] for mutant, _ in fates}
    total, killed = Counter(modules.values()), Counter(modules[mutant] for mutant, fate in fates if fate in KILLED)
    print("\n".join(f"{fate}: {mutant}" for mutant, fate in fates if fate not in KILLED))
    for module, number in sorted(total.items()):
        print(f"{module:36} {killed[module]:5} of {number:5} killed ({killed[module] / number:.1%})")
    share = killed.total() / total.total()
    print(f"{'all':36} {killed.total():5} of {total.total():5} killed ({share:.1%})")
    sys.exit(share < LEAST_KILLED)


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
