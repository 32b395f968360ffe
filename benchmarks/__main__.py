"""Runs the benchmarks, prints one table, and writes the results, the plots and the tables of docs/performance.md.

    python -m benchmarks [NAME…] [--quick] [--peers PEER,…] [--draw]

Without names, everything is measured, which takes about ten minutes, and the files are written. A selection, or a quick
run, which takes a minute and whose figures mean nothing, is only printed.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import endpoint, growth, scenarios, startup
from benchmarks.peers import PEERS
from benchmarks.report import PAGE, RESULTS, Results, page_with, printed
from benchmarks.scenarios import SCENARIOS, Size

STARTUP = ("import", "commands")
NAMES = (*SCENARIOS, *STARTUP, *growth.GROWTH)
TIMEOUT = 180
"""Seconds after which a scenario counts as failed."""


def main() -> int:
    """Run what the arguments name; return 1 if something failed."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 130)
    if options.draw:
        _write(json.loads(RESULTS.read_text("utf-8")))
        return 0
    begun = time.perf_counter()
    progress = Console(stderr=True)
    results = _measure(options, progress)
    results["seconds"] = round(time.perf_counter() - begun)
    console.print(printed(results))
    failed = [
        f"{peer}: {name}" for peer, names in results["missing"].items() for name in names if _has_failed(names[name])
    ]
    failed += [name for name, found in results["growth"].items() if _has_failed(found.get("missing", ""))]
    if failed:
        progress.print(f"failed: {', '.join(failed)}")
    elif options.everything:
        _write(results)
        progress.print(f"written: {RESULTS.name}, the plots, and the tables of {PAGE.name}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="measure very little, to see that everything works")
    parser.add_argument("--peers", default=",".join(PEERS), help="the peers to measure, with commas")
    parser.add_argument("--draw", action="store_true", help="measure nothing; write the page and the plots again")
    options = parser.parse_args()
    options.peers = [peer.strip() for peer in options.peers.split(",")]
    for given, known in ((options.names, NAMES), (options.peers, PEERS)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    options.everything = not options.names and not options.quick and options.peers == [*PEERS]
    options.names = options.names or [*NAMES]
    return options


def _measure(options: argparse.Namespace, progress: Console) -> Results:
    results: Results = {
        "machine": _machine(),
        "versions": _versions(),
        "peers": {peer: {} for peer in options.peers},
        "missing": {},
        "growth": {},
    }
    size = Size(quick=options.quick)
    quick = ["--quick"] if options.quick else []
    with endpoint.running() as url:
        for name in SCENARIOS:
            for peer in options.peers if name in options.names else ():
                reason = PEERS[peer].missing.get(name)
                if reason is None:
                    progress.print(f"{name}: {peer}", highlight=False)
                    found = _child(scenarios.__spec__.name, name, peer, url, *quick)
                    reason = found.get("missing")
                if reason is None:
                    results["peers"][peer] |= found
                else:
                    results["missing"].setdefault(peer, {})[name] = reason
    if "import" in options.names:
        progress.print("import")
        for peer, found in startup.imports(size, options.peers).items():
            results["peers"][peer] |= found
    if "commands" in options.names:
        progress.print("commands")
        results["growth"]["commands"] = startup.commands(size)
    for name in growth.GROWTH:
        if name in options.names:
            progress.print(name)
            results["growth"][name] = _child(growth.__spec__.name, name, *quick)
    return results


def _child(module: str, *arguments: str) -> dict[str, Any]:
    """Measure in a process of its own, so that no measurement has the modules, the memory or the threads of another."""
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=True)  # noqa: S603
    except subprocess.CalledProcessError:
        return {"missing": "failed: it ended with an error"}
    except subprocess.TimeoutExpired:
        return {"missing": f"failed: it took more than {TIMEOUT} s"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _has_failed(reason: str) -> bool:
    return reason.startswith("failed")


def _machine() -> dict[str, Any]:
    cpu, information = platform.processor(), Path("/proc/cpuinfo")
    if information.exists():
        lines = (line.partition(":") for line in information.read_text("utf-8").splitlines())
        cpu = next((value.strip() for name, _, value in lines if name.strip() == "model name"), cpu)
    return {
        "cpu": cpu or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _versions() -> dict[str, str]:
    names = [name for peer in PEERS.values() for name in peer.distributions]
    return {name: version(name) for name in dict.fromkeys([*names, "aiohttp"])}


def _write(results: Results) -> None:
    from benchmarks import plots  # noqa: PLC0415  needed at the end only

    text = json.dumps(results, indent=1, ensure_ascii=False)
    # A figure on one line, so that a change can be read.
    text = re.sub(r"\{\s+(\"median\"[^}]*?)\s+\}", lambda match: "{" + re.sub(r"\s*\n\s*", " ", match[1]) + "}", text)
    RESULTS.write_text(text + "\n", "utf-8")
    PAGE.write_text(page_with(PAGE.read_text("utf-8"), results), "utf-8")
    plots.draw(results)


if __name__ == "__main__":
    sys.exit(main())
