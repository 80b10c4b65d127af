"""Reads a drawn plot back: its elements, and the room that its labels take."""

from itertools import combinations
from xml.etree import ElementTree

from weft.report.plot.frame import text_width


def elements(markup, tag):
    root = ElementTree.fromstring(f"<all>{markup}</all>")
    return list(root.iter(tag))


def boxes(markup):
    """Left, right, top, bottom and text of every label."""
    found = []
    for text in elements(markup, "text"):
        x, y, width = float(text.get("x")), float(text.get("y")), text_width(text.text)
        shift = {"middle": 0.5, "end": 1.0}.get(text.get("text-anchor"), 0.0)
        left = x - shift * width
        found.append((left, left + width, y - 10, y + 2, text.text))
    return found


def overlaps(markup):
    return [
        (a[4], b[4])
        for a, b in combinations(boxes(markup), 2)
        if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
    ]


def outside(markup):
    svg = elements(markup, "svg")[0]
    _, _, width, height = map(float, svg.get("viewBox").split())
    return [b[4] for b in boxes(markup) if b[0] < 0 or b[1] > width or b[2] < 0 or b[3] > height]
