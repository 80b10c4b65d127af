from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report import toy_plan
from tests.unit.report.plot.drawing import elements, outside, overlaps
from weft.cost.timeline import Event, Stream
from weft.report.plot.steps import blocks_of, timeline_plot


@st.composite
def lanes(draw):
    """Events of one stream, one after another, from far too short to see to long."""
    events, now_s = [], 0.0
    for node in range(draw(st.integers(1, 60))):
        now_s += draw(st.sampled_from([0.0, 0.0, 0.001, 1.0]))
        duration_s = draw(st.sampled_from([0.0, 1e-4, 0.01, 0.3, 2.0]))
        phase = draw(st.sampled_from(["forward", "backward"]))
        events.append(
            Event(
                stream=Stream.COMPUTE,
                kind="einsum",
                label=str(node),
                phase=phase,
                node=node,
                start_s=now_s,
                duration_s=duration_s,
            )
        )
        now_s += duration_s
    return events


@given(lanes(), st.sampled_from([1e-6, 0.05, 0.5]))
def test_drawing_events_together_loses_none_of_them_and_no_time(events, finest_s):
    blocks = blocks_of(events, finest_s)
    seen = [e for e in events if e.duration_s > 0]
    assert sum(b.count for b in blocks) == len(seen)
    assert sum(b.busy_s for b in blocks) == pytest.approx(sum(e.duration_s for e in seen))


@given(lanes(), st.sampled_from([0.05, 0.5]))
def test_blocks_follow_each_other(events, finest_s):
    blocks = blocks_of(events, finest_s)
    for before, after in pairwise(blocks):
        assert before.end_s <= after.start_s + 1e-9


@given(lanes(), st.sampled_from([0.05, 0.5]))
def test_what_is_long_enough_to_see_keeps_its_own_block(events, finest_s):
    alone = [b for b in blocks_of(events, finest_s) if b.count == 1]
    for event in events:
        if event.duration_s >= finest_s:
            assert any(b.start_s == event.start_s and b.label == event.label for b in alone)


def test_ten_thousand_short_events_become_few_blocks():
    events = [
        Event(
            stream=Stream.COMMUNICATION,
            kind=("all-gather", "reduce-scatter")[n % 2],
            label=str(n),
            phase="forward",
            node=n,
            start_s=n * 1e-4,
            duration_s=1e-4,
        )
        for n in range(10_000)
    ]
    assert len(blocks_of(events, 1e-3)) <= 1001


def test_computation_is_coloured_by_phase_and_communication_by_collective():
    styles = {e.get("class") for e in elements(timeline_plot(toy_plan.timeline()), "rect")}
    assert styles == {
        "fill-forward",
        "fill-backward",
        "fill-update",
        "fill-all-gather",
        "fill-reduce-scatter",
    }


def test_widths_are_proportional_to_durations():
    rectangles = elements(timeline_plot(toy_plan.timeline()), "rect")
    width = {e.get("class"): float(e.get("width")) for e in rectangles}
    assert width["fill-backward"] == pytest.approx(2 * width["fill-forward"], rel=0.01)
    assert width["fill-update"] == pytest.approx(width["fill-forward"] / 2, rel=0.01)


def test_labels_keep_apart_and_inside():
    plot = timeline_plot(toy_plan.timeline())
    assert overlaps(plot) == []
    assert outside(plot) == []
