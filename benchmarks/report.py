"""The tables: printed by a run, and written into docs/performance.md.

Everything is taken from the results, so that the page and benchmarks/results.json always agree.
"""

import re
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Figure

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results.json"
PAGE: Final = ROOT / "docs" / "performance.md"

Results = dict[str, Any]

METRICS: Final = {
    "hot": "hot path, × an attribute",
    "overhead": "request, × a static header",
    "import": "import, × aiohttp's",
    "memory new": "memory of a new source, KiB",
    "memory with token": "memory with a token, KiB",
    "cold calls": "10,000 cold callers: calls",
    "cold time": "10,000 cold callers: time, × a shared future",
    "failing calls": "200 callers, failing endpoint: calls in 5 s",
    "rejected renewals": "100 concurrent 401s: renewals",
    "rejected succeeded": "100 concurrent 401s: requests that succeed, %",
    "renewal wait": "renewal, endpoint takes 500 ms: longest wait, ms",
    "renewal lag": "renewal: event loop blocked, ms",
    "idle wait": "first call after idling past expiry: wait, ms",
    "idle calls": "idling and that call: calls",
    "idle expired": "that call gets the expired token",
}
"""The figures of each peer. A name's first word is its scenario."""

_OF_PEERS: Final = {
    "hot path": ("hot", "overhead", "import", "memory new", "memory with token"),
    "many callers": ("cold calls", "cold time", "failing calls", "rejected renewals", "rejected succeeded"),
    "renewal": ("renewal wait", "renewal lag", "idle wait", "idle calls", "idle expired"),
}
_OF_SIZES: Final = {
    "waiters": ("waiters", {"time": "µs per waiter", "ratio": "× waiting for one shielded future"}),
    "managers": (
        "managers",
        {"open": "construct and first token, µs each", "close": "close, µs each", "memory": "KiB each"},
    ),
    "workers": ("workers", {"calls": "calls, all workers", "commands": "store operations per worker"}),
    "record": ("renewals", {"file": "file, bytes", "redis": "key in Redis, bytes"}),
    "store hot": ("store", {"hot": "hot path, × an attribute"}),
    "store lag": (
        "store",
        {
            "claim lag": "claim: block, ms",
            "commit lag": "commit: block, ms",
            "claim time": "claim: whole, ms",
            "commit time": "commit: whole, ms",
            "first lag": "first operations: block, ms",
        },
    ),
    "emulator": ("request", {"emulator": "emulator, per second", "bare": "bare handler, per second", "ratio": "%"}),
    "commands": ("process", {"time": "ms", "ratio": "× `import aiohttp`"}),
}


def number(value: float) -> str:
    """Return a number with three digits, or all digits before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value == 0 or abs(value) >= 0.01 else "< 0.01"


def cell(found: Figure | None) -> str:
    """Return a median with its spread, or a dash."""
    if found is None:
        return "–"
    if found["unit"] == "yes":
        return "yes" if found["most"] else "no"
    median, least, most = (number(found[name]) for name in ("median", "least", "most"))
    return median if least == most else f"{median} ({least}–{most})"


def printed(results: Results) -> Any:  # noqa: ANN401  a table of rich, which a test of the page does not need
    """Return the one table that a run prints."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(
        "measured", "of", "median (spread)", title=_machine(results), title_justify="left", caption_justify="left"
    )
    for metric, title in METRICS.items():
        rows = [(peer, figures[metric]) for peer, figures in results["peers"].items() if metric in figures]
        for index, (peer, found) in enumerate(rows):
            table.add_row(title if index == 0 else "", peer, cell(found), end_section=index == len(rows) - 1)
    for name, found in _variants(results).items():
        table.add_row(name, "apivideo-auth", cell(found))
    for name, (_, titles) in _OF_SIZES.items():
        sizes = results["growth"].get(name, {})
        if "missing" in sizes:
            continue
        table.add_section()
        for size, figures in sizes.items():
            for key, title in titles.items():
                if key in figures:
                    table.add_row(f"{name}: {title}", _size(size), cell(figures[key]))
    reasons = _reasons(results)
    table.caption = f"Not measured: {'; '.join(reasons)}. " if reasons else ""
    table.caption += f"The run took {results['seconds'] / 60:.0f} minutes."
    return table


def tables(results: Results) -> dict[str, str]:
    """Return the tables of the page in Markdown, by the names of their markers."""
    found = {"machine": _machine(results), "not measured": _list(_reasons(results)), "versions": _versions(results)}
    for name, metrics in _OF_PEERS.items():
        rows = [
            [peer, *(cell(figures.get(metric)) for metric in metrics)] for peer, figures in results["peers"].items()
        ]
        found[name] = _table(["", *(METRICS[metric] for metric in metrics)], rows)
    found["variants"] = _table(
        ["call", "× an attribute"], [[name, cell(it)] for name, it in _variants(results).items()]
    )
    for name, (kind, titles) in _OF_SIZES.items():
        sizes = results["growth"].get(name, {})
        if "missing" in sizes:
            found[name] = f"Not measured: {sizes['missing']}.\n"
            continue
        rows = [[_size(size), *(cell(figures.get(key)) for key in titles)] for size, figures in sizes.items()]
        found[name] = _table([kind, *titles.values()], rows)
    return found


def page_with(page: str, results: Results) -> str:
    """Return the page with the tables between its markers. Raises `ValueError` if a marker is missing."""
    for name, table in tables(results).items():
        marker = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = marker.subn(lambda match, table=table: f"{match[1]}\n{table}\n{match[2]}", page)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"the page has {count} markers for the table {name!r}")
    return page


def _variants(results: Results) -> dict[str, Figure]:
    own = results["peers"].get("apivideo-auth", {})
    calls = {"`get_token()`": "hot"}
    calls |= {f"`get_token({name.removeprefix('hot ')})`": name for name in own if name.startswith("hot ")}
    return {call: own[name] for call, name in calls.items() if name in own}


def _machine(results: Results) -> str:
    machine = results["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"


def _versions(results: Results) -> str:
    return ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + "."


def _reasons(results: Results) -> list[str]:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for peer, reasons in results["missing"].items():
        for scenario, reason in reasons.items():
            by_reason.setdefault((peer, reason), []).append(scenario)
    return [f"{peer} {reason} ({', '.join(scenarios)})" for (peer, reason), scenarios in by_reason.items()]


def _list(lines: list[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _size(text: str) -> str:
    return f"{int(text):,}" if text.isdigit() else text if text == "nothing" or " " not in text else f"`{text}`"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
