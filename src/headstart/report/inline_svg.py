"""Figures as SVG within a page: text stays text, and ink and colours are the page's, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

BLUE, ORANGE = "#1f5fa8", "#b3531d"
# What figures are drawn in, and the colour of the page's style sheet that it becomes.
_IN_PAGE = {
    "#000000": "currentColor",
    "#4c4c4c": "currentColor",
    "#999999": "var(--faint)",
    "#e5e5e5": "var(--line)",
    "#e6e6e6": "var(--line)",
    "#ffffff": "var(--paper)",
    BLUE: "var(--mark)",
    ORANGE: "var(--warm)",
}
_PIXELS_PER_POINT = 96 / 72


def inline_svg(draw: Callable[[], Figure], name: str, description: str) -> Markup:
    """Draw a figure as an `svg` element with alternative text.

    Args:
        draw: makes the figure; black and grey become the page's ink, `BLUE` and `ORANGE` its own.
        name: of letters, and no other figure's in the page: ids begin with it.
        description: what the picture shows, for those who cannot see it.
    """
    text = io.StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}
    with rc_context(settings), warnings.catch_warnings():
        # The browser has glyphs that the font text is measured by lacks.
        warnings.filterwarnings("ignore", "Glyph")
        draw().savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = text.getvalue()
    body = drawn[drawn.index("</defs>", drawn.index("<style")) + len("</defs>") : drawn.rindex("</svg>")]
    width, height = (float(value) for value in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0])
    size = f'width="{width * _PIXELS_PER_POINT:.0f}" height="{height * _PIXELS_PER_POINT:.0f}"'
    label = f'role="img" aria-label="{escape(description)}"'
    head = f'<svg viewBox="0 0 {width:g} {height:g}" {size} fill="currentColor" {label}>'
    return Markup(head + _coloured(_named(body, name)) + "</svg>")  # noqa: S704


def _named(body: str, name: str) -> str:
    """Make ids the page's only ones, and drop those that nothing refers to."""
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))

    def renamed(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    body = re.sub(r' id="([^"]*)"', renamed, body)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")


def _coloured(body: str) -> str:
    """Put the page's colours and font in place of the figure's."""
    body = re.sub(r" font-family: [^;\"]*;?", "", body)

    def styled(found: re.Match[str]) -> str:
        return re.sub(r"#[0-9a-f]{6}", lambda colour: _IN_PAGE.get(colour[0], colour[0]), found[0])

    return re.sub(r' style="[^"]*"', styled, body)
