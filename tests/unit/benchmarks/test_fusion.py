"""Who takes part in the benchmark of fusion, and the arithmetic behind what it claims."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fusion import case, xla
from benchmarks.fusion.accuracy import distance, in_double
from benchmarks.fusion.cases import GRAPHS, inputs_of, tensors
from benchmarks.fusion.contestants import CONTROL, EAGER, INDUCTOR, PROBE, WEFT, own_copy
from benchmarks.fusion.point import Point, geometric_mean
from benchmarks.fusion.probe import streaming
from benchmarks.fusion.quiet import Quiet, Watch, spin
from benchmarks.fusion.run import claims_of, table_of
from benchmarks.fusion.timing import Times, take_turns
from weft.report.bench import BenchReport, report_json


def point(graph="softmax_mask", size="L", weft_us=50.0, control_us=101.0, error=1e-7, **named):
    least_us = {EAGER: 200.0, INDUCTOR: 100.0, CONTROL: control_us, PROBE: 40.0, WEFT: weft_us}
    return Point(
        graph=graph,
        size=size,
        num_bytes=4_000_000,
        times=Times(least_us=least_us, median_us=least_us, rounds=20),
        controls=(100.0 / control_us,),
        errors={EAGER: 1e-7, INDUCTOR: 1e-7, CONTROL: 1e-7, WEFT: error},
        quiet=Quiet(load=0.5, share=0.99, waited_s=0.0),
        **named,
    )


def holds(points):
    return {claim.claim.partition(",")[0]: claim.ok for claim in claims_of(points)}


def test_there_are_sixteen_graphs_of_which_eleven_stitch_and_eleven_reduce():
    assert len(GRAPHS) == 16
    assert sum(graph.stitchable for graph in GRAPHS.values()) == 11
    assert sum(graph.reduces for graph in GRAPHS.values()) == 11


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_pure_and_close_to_double_precision(name):
    graph = GRAPHS[name]
    inputs, again = inputs_of(graph, "S"), inputs_of(graph, "S")
    made = tensors(graph.compute(*inputs))
    assert all(torch.equal(a, b) for a, b in zip(inputs, again, strict=True))
    assert distance(made, in_double(graph, inputs)) < 1e-5


def test_jax_has_the_same_graphs():
    assert list(xla.COMPUTE) == list(GRAPHS)


def test_copies_compute_the_same_with_code_objects_of_their_own():
    def double(x):
        return x + x

    first, second = own_copy(double, "first"), own_copy(double, "second")
    assert first(21) == second(21) == 42
    assert len({first.__code__, second.__code__, double.__code__}) == 3


def test_turns_are_equally_many_and_in_another_order_each_round():
    turns = []
    calls = {name: lambda name=name: turns.append(name) for name in "abc"}
    times = take_turns(calls, seconds=0.0, rounds=9)
    rounds = ["".join(turns[at : at + 3]) for at in range(6, len(turns), 3)]
    assert times.rounds == len(rounds) == 9
    assert all(Counter(done) == Counter("abc") for done in rounds)
    assert len(set(rounds)) > 1
    assert times.least_us.keys() == times.median_us.keys() == calls.keys()
    assert all(times.least_us[name] <= times.median_us[name] for name in calls)


@settings(max_examples=30, deadline=None)  # the first one compiles
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_probe_writes_all_of_its_outputs(read, written):
    inputs = [torch.ones(read, 2), torch.ones(3, dtype=torch.bool)]
    outputs = [torch.empty(written, 2), torch.empty(2, written).t()]
    made = streaming(inputs, outputs)()
    assert [m.stride() for m in made] == [o.stride() for o in outputs]
    assert all(torch.equal(m, torch.full_like(m, 0.5)) for m in made)


def test_a_result_of_another_shape_or_with_a_nan_is_far_away():
    wanted = (torch.tensor([2.0, 4.0]),)
    assert distance(torch.tensor([1.0, 4.0]), wanted) == 0.25
    assert distance(torch.tensor([[2.0, 4.0]]), wanted) == math.inf
    assert math.isnan(distance(torch.tensor([math.nan, 4.0]), wanted))


def test_a_spin_gets_no_more_than_it_takes():
    share, seconds = spin(1)
    assert 0 < share <= 1.01  # two clocks
    assert seconds > 0


def test_without_patience_there_is_no_wait():
    assert Watch(2, 0.0).wait().waited_s < 60


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
def test_the_geometric_mean_of_reciprocals_is_the_reciprocal(values):
    assert geometric_mean(1 / v for v in values) == pytest.approx(1 / geometric_mean(values))


def test_a_point_travels_between_processes():
    sent = point(notes=("left",), kernels={INDUCTOR: 3}, compile_s={INDUCTOR: 1.5})
    assert Point.from_json(sent.to_json()) == sent
    failed = Point(graph="rope", size="S", failure="gone")
    assert Point.from_json(failed.to_json()) == failed


def test_a_point_that_had_to_share_the_processors_is_known():
    assert not point().disturbed
    assert replace(point(), quiet=Quiet(load=4.0, share=0.5, waited_s=60.0)).disturbed


def test_claims_compare_least_times():
    (speedup, stitchable, smallest, probe, control, error) = claims_of([point()])
    assert speedup.value == stitchable.value == smallest.value == pytest.approx(2.0)
    assert probe.value == pytest.approx(1.25)
    assert control.value == pytest.approx(1 - 100 / 101)
    assert error.value == pytest.approx(0.01)
    assert all(c.ok for c in (speedup, stitchable, smallest, probe, control, error))


def test_a_failed_point_counts_as_no_speed_and_is_told():
    points = [point(), Point(graph="adam", size="S", failure="exit code -11: ")]
    found = holds(points)
    assert not found["Inductor over weft"]
    assert found["Inductor against itself"]
    assert [row[7] for row in table_of(points).rows] == ["2.00", "failed"]
    assert "FAILED" in points[1].line()


def test_errors_and_controls_outside_of_their_limits_are_found():
    assert not holds([point(), point(error=1.1e-5)])["weft's error over what Inductor's allows"]
    assert not holds([point(), point(error=math.nan)])["weft's error over what Inductor's allows"]
    assert not holds([point(), point(control_us=104.0)])["Inductor against itself"]


def test_without_large_points_nothing_is_said_of_the_probe():
    assert not [c for c in claims_of([point(size="S")]) if "probe" in c.claim]


def test_facts_are_json_whatever_happened():
    points = [point(error=math.nan), Point(graph="rope", size="M", failure="gone")]
    facts = {"points": [p.fact() for p in points]}
    report = BenchReport(bench="fusion", claims=claims_of(points), facts=facts)
    assert json.loads(report_json(report))["points"][1]["failure"] == "gone"


def test_a_process_that_dies_costs_one_size_only(monkeypatch):
    outputs = iter(
        [(point(size="S").to_json() + "\n", "exit code -11: "), (point(size="L").to_json(), "")]
    )
    asked = []

    def run(command, timeout_s):
        asked.append(command[4:7])
        return next(outputs)

    monkeypatch.setattr(case, "run_process", run)
    found = list(case.measure("softmax_mask", ("S", "M", "L"), quick=False, timeout_s=1.0))
    assert [(p.size, bool(p.failure)) for p in found] == [("S", False), ("M", True), ("L", False)]
    assert asked == [["S", "M", "L"], ["L"]]


def test_what_a_process_says_before_its_time_is_up_counts():
    script = "print('{}', flush=True); import time; time.sleep(60)"
    out, failure = case.run_process([sys.executable, "-c", script], 3.0)
    assert out == "{}\n"
    assert failure == "no end within 3 s"


@pytest.mark.slow
def test_one_graph_is_measured_in_a_process_of_its_own():
    (found,) = case.measure("adam", ("S",), quick=True, timeout_s=600.0)
    assert not found.failure
    assert found.errors.keys() == {EAGER, INDUCTOR, CONTROL, WEFT} | (
        {"XLA"} if xla.is_there else set()
    )
    assert found.times.rounds >= 10
