"""Draw the life of a token, as docs/assets/token-life-light.svg and token-life-dark.svg.

python scripts/draw_token_life.py
"""

from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).parents[1] / "docs" / "assets"
WIDTH, HEIGHT = 560, 262
LEFT, MINUTE = 20, 7.6
"""Where minute 0 is, and how wide a minute is."""

RENEWAL, EXPIRED, END, EDGE = 46.5, 57.5, 60, 69
"""Minutes. The leeway of half a minute is drawn wider than it is."""
FIRST, SECOND, CALLERS = 44, 104, 178
"""The upper edges of the three bars."""
BAR: Final = 30

COLOURS: Final = {
    "light": {
        "text": "#1f2328",
        "quiet": "#59636e",
        "fresh": "#a6e3b8",
        "stale": "#f6d98f",
        "leeway": "#f2b8b0",
        "line": "#59636e",
    },
    "dark": {
        "text": "#e6edf3",
        "quiet": "#9aa4af",
        "fresh": "#1f6b3a",
        "stale": "#7d5c10",
        "leeway": "#8a3a32",
        "line": "#9aa4af",
    },
}


def draw(scheme: str) -> str:
    """Return the SVG in a scheme of colours."""
    colours = COLOURS[scheme]
    parts: list[str] = []

    def bar(top: float, begin: float, end: float, fill: str, label: str) -> None:
        x, width = at(begin), (end - begin) * MINUTE
        parts.append(
            f'<rect x="{x:g}" y="{top}" width="{width:.4g}" height="{BAR}" fill="{colours[fill]}"/>'
            + (text(x + width / 2, top + 20, label, "text", "middle") if label else "")
        )

    def text(x: float, y: float, label: str, fill: str, anchor: str = "start") -> str:
        return f'<text x="{x:g}" y="{y:g}" fill="{colours[fill]}" text-anchor="{anchor}">{label}</text>'

    def mark(minute: float, top: float, bottom: float) -> None:
        x = at(minute)
        parts.append(
            f'<path d="M{x:g} {top:g}V{bottom:g}" stroke="{colours["line"]}" stroke-dasharray="3 3" fill="none"/>'
        )

    parts.append(text(LEFT, FIRST - 8, "token 1 lives for an hour", "quiet"))
    bar(FIRST, 0, RENEWAL, "fresh", "fresh")
    bar(FIRST, RENEWAL, EXPIRED, "stale", "stale")
    bar(FIRST, EXPIRED, END, "leeway", "")
    parts.append(text(at(RENEWAL) - 8, SECOND + 20, "renewed in the background: token 2", "quiet", "end"))
    bar(SECOND, RENEWAL, EDGE, "fresh", "fresh …")
    parts.append(text(LEFT, CALLERS - 8, "callers get, without waiting", "quiet"))
    bar(CALLERS, 0, RENEWAL, "fresh", "token 1")
    bar(CALLERS, RENEWAL, EDGE, "fresh", "token 2")
    mark(RENEWAL, FIRST - 12, CALLERS + BAR + 6)
    mark(END, FIRST - 12, FIRST + BAR + 6)
    axis = CALLERS + BAR + 22
    parts.append(text(LEFT, axis, "0", "quiet"))
    parts.append(text(at(RENEWAL), axis, "75 to 80 % of its life", "quiet", "middle"))
    parts.append(text(at(END), FIRST - 18, "end", "quiet", "middle"))
    swatch = axis + 12
    parts.append(f'<rect x="{LEFT}" y="{swatch}" width="12" height="12" fill="{colours["leeway"]}"/>')
    label = "the leeway, 30 seconds: the token counts as expired"
    parts.append(text(LEFT + 18, swatch + 11, label, "quiet"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="14" role="img">\n'
        "<title>The life of a token</title>\n"
        f"{body}\n</svg>\n"
    )


def at(minute: float) -> float:
    """Return where a minute is drawn."""
    return LEFT + minute * MINUTE


def main() -> None:
    """Write both files."""
    for scheme in COLOURS:
        (ASSETS / f"token-life-{scheme}.svg").write_text(draw(scheme), "utf-8")


if __name__ == "__main__":
    main()
