from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report import toy_plan
from tests.unit.report.plot.drawing import elements, outside, overlaps
from weft.cost.timeline import MemoryPoint
from weft.report.plot.memory import memory_plot, thin

CURVES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e9)), min_size=1, max_size=80).map(
    lambda points: [MemoryPoint(t, m) for t, m in sorted(points)]
)


@given(CURVES, st.floats(1e-3, 2.0))
def test_thinning_keeps_the_peak_and_few_points(points, finest_s):
    kept = thin(points, finest_s)
    assert max(p.num_bytes for p in kept) == max(p.num_bytes for p in points)
    assert len(kept) <= 1 / finest_s + 2
    assert [p.time_s for p in kept] == sorted(p.time_s for p in kept)


def test_points_that_are_far_enough_apart_stay():
    points = [MemoryPoint(0.0, 1.0), MemoryPoint(1.0, 3.0), MemoryPoint(2.0, 2.0)]
    assert thin(points, 0.5) == points


def test_the_limit_lies_above_a_peak_that_is_smaller():
    plot = memory_plot(toy_plan.timeline(), limit_bytes=2.0**30, state_bytes=100e6)
    y = {e.get("class"): float(e.get("y1")) for e in elements(plot, "line")}
    assert y["line-limit"] < y["line-state"]
    tops = [float(w.split("H")[0]) for w in elements(plot, "path")[0].get("d").split("V")[1:-1]]
    assert y["line-limit"] < min(tops)


def test_labels_keep_apart_and_inside():
    plot = memory_plot(toy_plan.timeline(), limit_bytes=2.0**30, state_bytes=100e6)
    assert overlaps(plot) == []
    assert outside(plot) == []


def test_no_limit_draws_no_limit():
    assert "limit" not in memory_plot(toy_plan.timeline())


def test_a_limit_that_is_far_away_does_not_flatten_the_picture():
    plot = memory_plot(toy_plan.timeline(), limit_bytes=1e12)
    assert "line-limit" not in {e.get("class") for e in elements(plot, "line")}
    assert "above the picture" in plot
    tops = [float(w.split("H")[0]) for w in elements(plot, "path")[0].get("d").split("V")[1:-1]]
    assert min(tops) < 60
