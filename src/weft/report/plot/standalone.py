"""A picture that stands by itself, such as in a README: with colours of its own, light and dark."""

from __future__ import annotations

from weft.report.markup import Markup, tag

__all__ = ["standalone"]

_LIGHT = """
text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1d2126}
.head{font-weight:600;font-size:13px}.axis-title,.note{fill:#59626d}.page{fill:#fff}
.grid{stroke:#d9dee4;stroke-width:.7}.axis{stroke:#59626d;stroke-width:1}
"""
_DARK = """
text{fill:#e4e8ed}.axis-title,.note{fill:#9aa5b1}.page{fill:#14171b}
.grid{stroke:#323a43}.axis{stroke:#9aa5b1}
"""
"""Colours of the pages that weft writes."""


def standalone(
    width: float,
    height: float,
    *parts: Markup,
    title: str,
    text: str,
    light: str,
    dark: str,
) -> str:
    """An SVG document.

    Args:
        width, height: of the picture [pixels].
        *parts: what is drawn, on a ground.
        title: what is shown.
        text: the same at length, for those who cannot see the picture.
        light, dark: style sheets of the parts, beside that of text, axes and ground.
    """
    style = f"{_LIGHT}{light}@media (prefers-color-scheme:dark){{{_DARK}{dark}}}\n"
    picture = tag(
        "svg",
        tag("title", title),
        tag("desc", text),
        tag("style", Markup(style)),
        tag("rect", class_="page", width=width, height=height, rx=8),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="plot",
    )
    return f"{picture}\n"
