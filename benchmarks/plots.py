"""The plots of docs/performance.md, drawn from the results.

The same results give the same bytes. Text stays text, and the colours can be read on a light and on a dark page.
"""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure as Picture

from benchmarks.report import ROOT, Results, number

ASSETS: Final = ROOT / "docs" / "assets"
OWN: Final = "apivideo-auth"
OWN_COLOUR, OTHER_COLOUR, TEXT_COLOUR, LINE_COLOUR = "#4f7fe0", "#a0a8b2", "#7a828c", "#7a828c55"

STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "apivideo-auth",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "axes.edgecolor": TEXT_COLOUR,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "grid.color": LINE_COLOUR,
}


def draw(results: Results, directory: Path = ASSETS) -> list[Path]:
    """Write the plots, and return their paths."""
    with mpl.rc_context(STYLE):
        pictures = {
            "bench-hot-path": _bars(results, "hot", "a call with a valid token, as a ratio to returning an attribute"),
            "bench-failing": _bars(results, "failing calls", "calls to a failing endpoint in 5 s, from 200 callers"),
            "bench-growth": _growth(results),
        }
        paths = []
        for name, picture in pictures.items():
            path = directory / f"{name}.svg"
            picture.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
            paths.append(path)
    return paths


def _bars(results: Results, metric: str, title: str) -> Picture:
    """Draw a bar for each peer, with its spread, on a logarithmic scale."""
    rows = [(peer, figures[metric]) for peer, figures in results["peers"].items() if metric in figures][::-1]
    picture = Picture(figsize=(7.2, 0.6 + 0.3 * len(rows)), layout="constrained")
    axes = picture.subplots()
    medians = [found["median"] for _, found in rows]
    spread = [
        [found["median"] - found["least"] for _, found in rows],
        [found["most"] - found["median"] for _, found in rows],
    ]
    colours = [OWN_COLOUR if peer == OWN else OTHER_COLOUR for peer, _ in rows]
    axes.barh([peer for peer, _ in rows], medians, 0.62, xerr=spread, ecolor=TEXT_COLOUR, color=colours)
    axes.set_xscale("log")
    least = min((found["least"] for _, found in rows), default=1.0)
    most = max((found["most"] for _, found in rows), default=1.0)
    axes.set_xlim(min(1.0, least), most * 3)
    for position, (_, found) in enumerate(rows):
        axes.text(found["most"] * 1.15, position, number(found["median"]), va="center")
    axes.set_title(title, loc="left")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    return picture


def _growth(results: Results) -> Picture:
    """Draw how the cost of waiters, managers and workers grows with their number."""
    panels = (
        ("waiters", "ratio", "time, as a ratio to\nwaiting for a shared future"),
        ("managers", "memory", "KiB per manager\n"),
        ("workers", "commands", "store operations\nper worker and token"),
    )
    picture = Picture(figsize=(7.2, 2.6), layout="constrained")
    for axes, (name, metric, title) in zip(picture.subplots(1, len(panels)), panels, strict=True):
        _line(axes, results["growth"].get(name, {}), metric)
        axes.set_title(title, loc="left")
        axes.set_xlabel(name)
    return picture


def _line(axes: Any, sizes: dict[str, Any], metric: str) -> None:  # noqa: ANN401  matplotlib's
    rows = [(int(size), figures[metric]) for size, figures in sizes.items() if size.isdigit()]
    if rows:
        numbers = [size for size, _ in rows]
        axes.fill_between(
            numbers,
            [found["least"] for _, found in rows],
            [found["most"] for _, found in rows],
            color=OWN_COLOUR,
            alpha=0.25,
            linewidth=0,
        )
        axes.plot(numbers, [found["median"] for _, found in rows], color=OWN_COLOUR, marker="o", markersize=4)
        axes.set_ylim(0, 1.2 * max(found["median"] for _, found in rows))
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.grid()
