import re
from xml.etree import ElementTree

from weft.report.plot.scale import linear_ticks
from weft.report.tokens_plot import Piece, Stack, stack_plot


def a_stack(name="one", *sizes):
    styles = ("fill-1", "fill-2", "fill-5")
    pieces = (Piece(name=s, value=v, style=s) for s, v in zip(styles, sizes, strict=False))
    return Stack(name=name, pieces=tuple(pieces), text="text")


def widths(markup):
    return [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', markup)]


def test_pieces_are_as_wide_as_their_share_and_touch():
    drawn = stack_plot(
        [a_stack("one", 1.0, 3.0), a_stack("two", 2.0)],
        linear_ticks(0.0, 4.0),
        title="t",
        x_title="x",
    )
    first, second, third = widths(drawn)
    assert second == 3 * first or abs(second - 3 * first) < 0.05
    assert abs(third - 2 * first) < 0.05


def test_a_piece_without_size_is_neither_drawn_nor_in_the_legend():
    drawn = stack_plot([a_stack("one", 1.0, 0.0)], linear_ticks(0.0, 1.0), title="t", x_title="x")
    assert len(widths(drawn)) == 1
    assert "fill-2" not in drawn


def test_long_names_are_cut_and_markup_in_them_is_text():
    name = "<b>" + "very long name " * 10
    drawn = stack_plot([a_stack(name, 1.0)], linear_ticks(0.0, 1.0), title="t", x_title="x")
    assert "<b>" not in drawn
    svg = drawn[drawn.index("<svg") : drawn.index("</svg>") + 6]
    texts = [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]
    assert any(text.endswith("...") and len(text) < 60 for text in texts)


def test_bars_of_nothing_are_drawn_too():
    assert stack_plot([a_stack("one", 0.0)], linear_ticks(0.0, 1e-12), title="t", x_title="x")
