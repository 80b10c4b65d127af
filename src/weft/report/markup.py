"""HTML and SVG as escaped text.

`tag` builds one element; what is not already `Markup` is escaped, so that a name from a
user's model can never become part of the page's structure.
"""

from __future__ import annotations

import html
from typing import TypeAlias

__all__ = ["Child", "Markup", "join", "tag"]


class Markup(str):
    """Text that is already HTML or SVG."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | float | None"
"""What may stand inside an element: markup as it is, text escaped, nothing for None."""

_VOID = frozenset({"br", "hr", "img", "meta", "link", "input"})


def tag(name: str, /, *children: Child, **attributes: Child) -> Markup:
    """One element.

    Attribute names lose a trailing underscore and turn inner ones to dashes, so that
    `class_` and `text_anchor` can be written. An attribute of None is left out. Floats are
    written with at most two decimals, which is finer than a pixel.

    Example:
        >>> tag("a", "x < y", href="#top", class_="note")
        '<a href="#top" class="note">x &lt; y</a>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            text = html.escape(_text(value), quote=True)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{text}"')
    head = " ".join(parts)
    if name in _VOID:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Elements and text one after another."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(_text(child), quote=False)
            for child in children
            if child is not None
        )
    )


def _text(value: Child) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
