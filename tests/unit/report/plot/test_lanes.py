import re

import pytest

from weft.core.errors import InputError
from weft.report.plot.lanes import Lane, histogram_lanes, share_lanes


def bars(markup, style):
    found = re.findall(
        rf'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" class="{style}"',
        markup,
    )
    return [tuple(map(float, bar)) for bar in found]


def shares(*lanes):
    names = {"hue-0": "safe", "hue-1": "skip"}
    return share_lanes(
        [Lane(name=f"lane {n}", parts=parts) for n, parts in enumerate(lanes)],
        names,
        title="t",
        x_title="share",
    )


def histogram(*lanes):
    given = [Lane(name=f"lane {n}", parts=parts) for n, parts in enumerate(lanes)]
    return histogram_lanes(given, title="t", x_title="lag", style="hue-0")


def test_shares_fill_the_lane_in_order():
    markup = shares({"hue-1": 30.0, "hue-0": 10.0}, {"hue-0": 5.0})
    (first, whole), (second,) = bars(markup, "hue-0"), bars(markup, "hue-1")
    assert first[0] + first[2] == pytest.approx(second[0], abs=0.02)
    assert second[2] == pytest.approx(3 * first[2], abs=0.05)
    assert whole[2] == pytest.approx(first[2] + second[2], abs=0.05)
    assert "lane 0: safe 25.0 %" in markup


def test_bars_are_as_high_as_their_share_of_the_highest():
    markup = histogram({0: 10, 2: 40}, {1: 3})
    found = bars(markup, "hue-0")
    assert found[0][3] == pytest.approx(found[1][3] / 4, abs=0.02)
    assert found[1][3] == found[2][3]
    assert found[0][0] < found[2][0] < found[1][0]
    assert "lane 0: 2, 80.0 %" in markup


def test_many_numbers_share_bars():
    found = bars(histogram(dict.fromkeys(range(1000), 1)), "hue-0")
    assert 30 <= len(found) <= 64


def test_one_lag_can_be_drawn():
    assert len(bars(histogram({0: 5}), "hue-0")) == 1


def test_long_names_are_cut_and_told_in_full():
    name = "a method with a name that goes on and on, and on, and then some more"
    markup = share_lanes([Lane(name=name, parts={"x": 1.0})], {"x": "y"}, title="t", x_title="s")
    assert f"<title>{name}</title>" in markup and "\N{HORIZONTAL ELLIPSIS}</text>" in markup


@pytest.mark.parametrize("lanes", [[], [{}], [{1: 0.0}], [{1: 2.0, 2: -1.0}]])
def test_lanes_of_nothing_are_refused(lanes):
    with pytest.raises(InputError, match="something in each"):
        histogram(*lanes)
